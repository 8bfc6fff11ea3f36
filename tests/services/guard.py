"""Runs one server for the tests, and ends it when asked or when the test run that wanted it is gone.

A program of its own, so that a test run that is killed leaves no server behind: ``python guard.py ORDER.json
FD``.  The order holds ``directory``, ``command``, ``environment``, ``user`` (a uid, or null for one's own), ``watch``
(the pid that the server does not outlive) and ``farewell`` (what to run when that pid is gone).  FD is a locked file:
it stays locked, and so shows that the guard is at work, until the server has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

GUARD, SERVER = "guard.pid", "server.pid"
"""Files in the order's directory with the pids of the guard and the server, there as long as these are.

The pid of the server is its process group, too.
"""
_PATIENCE = 60.0  # seconds between a polite request to end and an end


def main(order: Path) -> None:
    """Carry out the order in that file, in the background."""
    if os.fork():
        return
    os.setsid()
    asked = json.loads(order.read_text())
    directory = Path(asked["directory"])
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    (directory / GUARD).write_text(str(os.getpid()))
    born = _birth(asked["watch"])
    with (directory / "server.log").open("ab") as log:
        identity = {} if asked["user"] is None else {"user": asked["user"], "group": asked["user"], "extra_groups": []}
        server = subprocess.Popen(
            asked["command"], env=asked["environment"], cwd=directory, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True, **identity,
        )  # fmt: skip
    (directory / SERVER).write_text(str(server.pid))
    while server.poll() is None and _birth(asked["watch"]) == born and not ended.wait(0.1):
        pass
    _end(server)
    for name in (SERVER, GUARD):
        (directory / name).unlink()
    if _birth(asked["watch"]) != born:
        subprocess.run(asked["farewell"], check=False, cwd="/")


def _birth(pid: int) -> str:
    """Return when a process began, or "" when it is no more: a pid alone may have become another's."""
    try:
        state, *values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else values[18]


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server politely, then what is left of its process group."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
