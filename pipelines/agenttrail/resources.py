"""Where the rules, schemas and questions that ship with the program lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def shipped(folder: str) -> Path:
    """Return the path of ``folder`` ("rules", "schemas" or "kibana"), in an installed wheel or in a checkout.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for candidate in (_PACKAGE / folder, _CHECKOUT / folder):
        if candidate.is_dir() and any(candidate.iterdir()):
            return candidate
    msg = f"the folder {folder!r} that ships with agenttrail is missing: reinstall it"
    raise FileNotFoundError(msg)
