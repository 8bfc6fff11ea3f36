"""Moments drawn by seed, at which something that a run needs is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.disasters.runs import HALF, Left, Place

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.services.elasticsearch import Elasticsearch as Server

VICTIMS = ("job", "worker", "elasticsearch")
TWO_WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
"""The one of Beam's local modes that has workers which can be killed: processes of their own."""
_WORKER = b"apache_beam.runners.worker.sdk_worker_main"
_TOLD = {
    "worker": "a worker of the run was ended by signal 9 before its work was done",
    "elasticsearch": "check that it runs and can be reached from here",
}
"""What a run says that ends for such a kill."""
_DRAWS = 6
"""Times that a moment is drawn until one of them comes before the run has ended."""


@dataclass(frozen=True)
class Moment:
    """What is killed, and when.

    Attributes:
        seed: from which the rest is drawn.
        victim: one of ``VICTIMS``.
        bounded: whether the run is over the second half of the day, after one over the first.
    """

    seed: int

    @property
    def victim(self) -> str:
        """Return what is killed."""
        return VICTIMS[self.seed % len(VICTIMS)]

    @property
    def bounded(self) -> bool:
        """Tell whether the run goes on with what an earlier one left."""
        return self.seed // len(VICTIMS) % 2 == 1

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options of the run."""
        return (*(("--start", HALF) if self.bounded else ()), *(TWO_WORKERS if self.victim == "worker" else ()))

    def shares(self) -> Iterator[float]:
        """Give shares of the time that a run takes."""
        dice = Random(self.seed)
        for number in range(_DRAWS):
            yield dice.random() * 0.8**number


class Undisturbed:
    """What runs leave and how long they take when nothing happens; each is run when it is first asked for."""

    def __init__(self, day: Path, folder: Path, server: Server) -> None:
        """Run jobs over ``day`` in ``folder``."""
        self._day, self._folder, self._server = day, folder, server
        self._left: dict[bool, Left] = {}
        self._seconds: dict[tuple[str, ...], float] = {}

    def place(self, name: str, *, bounded: bool) -> Place:
        """Return a place in which a run can begin."""
        place = Place(self._folder / name, self._server, f"k{os.getpid()}-{name}")
        place.prepare(self._day)
        if bounded:
            place.run("--end", HALF)
        return place

    def of(self, moment: Moment) -> tuple[Left, float]:
        """Return what the run of a moment leaves, and the seconds that it takes, or those in which it has workers."""
        if moment.options not in self._seconds:
            place = self.place(f"undisturbed-{len(self._seconds)}", bounded=moment.bounded)
            with place.start(*moment.options) as process:
                began = _begun(process, moment)
                _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
            self._seconds[moment.options] = time.monotonic() - began
            self._left.setdefault(moment.bounded, place.left())
            place.remove()
        return self._left[moment.bounded], self._seconds[moment.options]


def endure(moment: Moment, undisturbed: Undisturbed, server: Server) -> tuple[float, list[str]]:
    """Kill at a moment, run again, and return the seconds at which it was and what is not as after no kill."""
    wanted, seconds = undisturbed.of(moment)
    place = undisturbed.place(f"moment-{moment.seed}", bounded=moment.bounded)
    try:
        for share in moment.shares():
            if _killed(moment, place, server, share * seconds):
                break
        else:
            msg = "the run was always over before"
            raise AssertionError(msg)
        place.run(*moment.options)
        return share * seconds, place.left().unlike(wanted)
    finally:
        place.remove()


def _killed(moment: Moment, place: Place, server: Server, after: float) -> bool:
    """Kill so many seconds after a run has begun; tell whether it was still at work."""
    with place.start(*moment.options) as process:
        time.sleep(max(0.0, _begun(process, moment) + after - time.monotonic()))
        if process.poll() is not None:
            process.communicate()
            return False
        if moment.victim == "elasticsearch":
            server.kill()
            server.start()
        else:
            victims = [process.pid] if moment.victim == "job" else workers_of(process.pid)
            if not victims:
                process.communicate(timeout=300)
                return False
            os.kill(victims[moment.seed % len(victims)], signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    if moment.victim == "worker" and process.returncode == 0:  # it had done its work
        return False
    if moment.victim == "job":
        assert process.returncode == -signal.SIGKILL, said
    else:  # a run asks once whether Elasticsearch is there before it begins, and from then on waits for it
        wanted = _TOLD[moment.victim]
        assert process.returncode == (1 if wanted in said else 0), said
        assert moment.victim == "elasticsearch" or wanted in said, said
    return True


def _begun(process: subprocess.Popen[str], moment: Moment) -> float:
    """Return when a run began: with its first worker, where workers are killed."""
    while moment.victim == "worker" and process.poll() is None and not workers_of(process.pid):
        time.sleep(0.02)
    return time.monotonic()


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run, without the shells that started them."""
    return sorted(
        child for child in _below(pid) for command in [_command(child)] if len(command) > 2 and command[2] == _WORKER
    )


def _command(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def _below(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _below(child)
