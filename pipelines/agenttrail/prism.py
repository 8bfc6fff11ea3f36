"""Prism, Beam's streaming runner for one machine: where its program is, and how it comes there.

It is a program of the Beam release that is installed, built by Go: ``make prism``, or ``python -m agenttrail.prism``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from apache_beam.version import __version__ as beam_version

from agenttrail.errors import AgentTrailError

_MODULE = "github.com/apache/beam/sdks/v2/go/cmd/prism"


class PrismError(AgentTrailError):
    """Prism cannot be had; says what to do."""


def find() -> Path | None:
    """Return Prism's program: the one that AGENTTRAIL_PRISM names, or the one that was installed for this Beam.

    Raises:
        PrismError: AGENTTRAIL_PRISM names no program.
    """
    given = os.environ.get("AGENTTRAIL_PRISM")
    if given:
        if not os.access(given, os.X_OK) or not Path(given).is_file():
            msg = f"AGENTTRAIL_PRISM names {given}, which is no program"
            raise PrismError(msg)
        return Path(given)
    program = _folder() / "prism"
    return program if program.exists() else None


def install() -> Path:
    """Return Prism's program, built at first: that takes a few minutes and Go 1.25 or later.

    Raises:
        PrismError: it cannot be built.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find()
        if found is None:
            _build(folder)
    return found or folder / "prism"


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "agenttrail" / f"prism-{beam_version}"


def _build(folder: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        msg = "Prism is built by Go, which is not installed: get it from https://go.dev/dl, then run `make prism`"
        raise PrismError(msg)
    print(f"building Prism {beam_version} (once, a few minutes) ...", file=sys.__stderr__, flush=True)
    part = folder / "part"
    command = [go, "install", f"{_MODULE}@v{beam_version}"]
    done = subprocess.run(command, env=os.environ | {"GOBIN": str(part)}, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = "Prism cannot be built: " + " | ".join(done.stderr.strip().splitlines()[-3:])
        raise PrismError(msg)
    (part / "prism").rename(folder / "prism")
    part.rmdir()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{install()}\n")
    except PrismError as error:
        sys.exit(f"agenttrail: {error}")
