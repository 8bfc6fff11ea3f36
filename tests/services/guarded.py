"""What the servers of the tests share: a guard that ends each with its test run, free ports, programs to be run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.services.guard import GUARD, SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_GUARD = Path(__file__).resolve().with_name("guard.py")


class UnavailableError(Exception):
    """No such server is to be had here; says why."""


@dataclass(frozen=True)
class Guarded:
    """One process under a guard.

    Attributes:
        directory: everything that is its own.
        command: what runs it.
        environment: in which.
        watch: pid of the test run, which it does not outlive.
        farewell: what is run when the test run is gone.
        user: uid as which it runs; None for one's own.
    """

    directory: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    watch: int
    farewell: list[str] = field(default_factory=list)
    user: int | None = None

    def launch(self) -> None:
        """Start it; whether it answers is for the caller to find out."""
        order = Path(self.directory, "order.json")
        order.write_text(json.dumps({
            "directory": self.directory, "command": self.command, "environment": self.environment, "watch": self.watch,
            "user": self.user, "farewell": self.farewell,
        }))  # fmt: skip
        with self._lock().open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            guard = [sys.executable, str(_GUARD), str(order)]
            subprocess.run(guard, check=True, pass_fds=[lock.fileno()], stdin=subprocess.DEVNULL, capture_output=False)

    def runs(self) -> bool:
        """Tell whether its guard is at work: as long as it is, the file is locked."""
        try:
            with self._lock().open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def stop(self) -> None:
        """End it politely and wait until it is gone."""
        while self.runs():
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(Path(self.directory, GUARD).read_text()), signal.SIGTERM)
            time.sleep(0.1)

    def kill(self) -> None:
        """End it with SIGKILL, as when a machine fails, and wait until it is gone."""
        os.killpg(int(Path(self.directory, SERVER).read_text()), signal.SIGKILL)
        while self.runs():
            time.sleep(0.05)

    def last_words(self) -> str:
        """Return the end of its log."""
        log = Path(self.directory, "server.log").read_text(errors="replace").splitlines()
        return " | ".join(log[-8:])

    def _lock(self) -> Path:
        return Path(self.directory, "guard.lock")


def free_port() -> int:
    """Return a free port below those that the system gives to clients: nobody takes it while the server is down."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port


def run(
    *command: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    text: str = "",
) -> None:
    """Run a program to its end.

    Raises:
        UnavailableError: it is not installed, or fails.
    """
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, input=text, capture_output=True, text=True, check=False, **identity
        )
    except OSError as error:
        msg = f"{command[0]} cannot be run: {error.strerror}"
        raise UnavailableError(msg) from error
    if done.returncode:
        msg = f"{Path(command[0]).name} {command[1]} fails: " + " | ".join(
            (done.stderr or done.stdout).strip().splitlines()[-3:]
        )
        raise UnavailableError(msg)


@contextmanager
def fetching(name: str, told: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folder of a program, outside the tree, and whether it must still be filled: one process does.

    Args:
        name: of the folder, with the version.
        told: what to say before it is filled.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agenttrail" / "services"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            print(f"\n{told} ...", file=sys.__stderr__, flush=True)
        yield home, not home.exists()
