"""What a command costs: CPU seconds and peak memory of it and all that it starts."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_EVERY = 0.2  # seconds between two looks at the memory


@dataclass(frozen=True)
class Cost:
    """What one run of a command took.

    Attributes:
        cpu: user and system seconds of the whole process tree.
        memory: the largest sum, over the processes of the tree, of their resident bytes, shared ones counted once
            (PSS); looked at five times a second.
        wall: seconds.
        output: what it wrote to standard output.
        others: share of the machine's CPU that was not idle, and not the command's: what makes figures worse.
    """

    cpu: float
    memory: int
    wall: float
    output: str
    others: float = 0.0


def measure(command: Sequence[str], directory: Path) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: it fails; with the end of what it said.
    """
    started, busy = time.monotonic(), _busy()
    # files, since a full pipe would stop the command
    with (directory / "stdout").open("w+b") as out, (directory / "stderr").open("w+b") as err:
        process = subprocess.Popen(list(command), stdout=out, stderr=err)
        watch = _Watch(process.pid)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.done.set()
        watch.join()
        wall, busy = time.monotonic() - started, _busy() - busy
        out.seek(0)
        err.seek(0)
        output, complaint = out.read().decode(), err.read().decode()
    if process.returncode:
        msg = f"{' '.join(command)} ended with {process.returncode}: {complaint[-2000:]}"
        raise RuntimeError(msg)
    # children that were waited for are in it; ours wait for theirs
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(cpu, watch.peak, wall, output, max(0.0, busy - cpu) / (wall * (os.cpu_count() or 1)))


def _busy() -> float:
    """Return the seconds in which a CPU of this machine was not idle, since it started."""
    user, nice, system, _, _, irq, soft, stolen, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, soft, stolen))) / os.sysconf("SC_CLK_TCK")


class _Watch(threading.Thread):
    """Looks at the memory of a process tree."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak, self.done = root, 0, threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.done.wait(_EVERY):
            self.peak = max(self.peak, sum(map(resident, tree(self.root))))


def tree(root: int) -> list[int]:
    """Return a process and all that it and they started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def resident(process: int) -> int:
    """Return the resident bytes of a process, shared ones by its share (PSS); 0 once it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)
