"""Commands to copy from a page or a terminal: each works where the run was started, whatever a path is called."""

from __future__ import annotations

import shlex

_SECRETS = ("@", "?")
"""What stands in an address that may hold a password."""


def command(action: str, source: str, *words: str) -> str:
    """Return a command on incidents, each word quoted for a shell.

    Args:
        action: what ``agenttrail incidents`` is to do.
        source: where incidents were read from, "" where that is not known.
        words: all else.
    """
    return shlex.join(["agenttrail", "incidents", action, *_from(source), *words])


def _from(source: str) -> list[str]:
    """Return the option that names a source; none where it is not known or must not be written down."""
    if not source or not source.isprintable():
        return []
    if "://" in source and any(mark in source for mark in _SECRETS):
        return []
    return ["--from", f"./{source}" if source.startswith("-") else source]
