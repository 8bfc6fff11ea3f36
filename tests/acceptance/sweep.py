"""Where detection ends: behaviours on a grid of parameters, each in a sandbox of its own, through the real job.

Nothing here tells in words what it does and no firewall recognises anything: what is left is what the network logs, and
for GPUs their counters and the steps, show.  Every point of a grid is drawn several times.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.job_files import load_job
from agenttrail.jobs import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DAY = 1_772_409_600  # 2026-03-02T00:00:00Z
Rates = dict[tuple[float, float], float]
LIFE = 7_200
"""Seconds that every sandbox lives."""
_WINDOW, _SYN = 60, 2
_OPENING = ("medium", "high", "critical")
_JOB = """\
name: sweep
events:
  - {format: aws_vpc_flow, path: flow.log}
  - {format: dcgm_prometheus, path: gpus.prom}
  - {format: training_progress, path: steps.jsonl}
leases:
  - {format: kubernetes_pods, path: pods.json}
lists: {egress_allow: [192.0.2.0/24]}
"""
_HEADER = (
    "version interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status tcp-flags"
)


@dataclass
class Sandbox:
    """One sandbox, and what is logged of it; times are seconds of its life.

    Attributes:
        name: of its pod.
        address: of its pod.
        dice: what its behaviour draws from.
    """

    name: str
    address: str
    dice: Random
    flows: list[str] = field(default_factory=list)
    busy: list[tuple[int, int]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    ports: int = 32_768

    def knock(self, peer: str, port: int, at: float, *, refused: bool) -> None:
        """Log a first packet that is refused, or that nobody answers."""
        self.ports += 1
        self._record((self.address, peer, self.ports, port), 60, (at, at), "REJECT" if refused else "ACCEPT", 2)

    def connect(self, peer: str, port: int, start: float, seconds: float, sent: float, received: float) -> None:
        """Log a connection in windows of a minute, both directions."""
        self.ports += 1
        at, end = start, start + seconds
        while at <= end:
            stop = min(end, (at // _WINDOW + 1) * _WINDOW - 1)
            share = (stop - at + 1) / (seconds + 1)
            flags = (2 if at == start else 0) | (1 if stop == end else 0)
            answer = flags | 16 if flags & 2 else flags
            self._record((self.address, peer, self.ports, port), int(sent * share) + 260, (at, stop), "ACCEPT", flags)
            back = (peer, self.address, port, self.ports)
            self._record(back, int(received * share) + 260, (at, stop), "ACCEPT", answer)
            at = stop + 1

    def _record(
        self, ends: tuple[str, str, int, int], size: int, times: tuple[float, float], action: str, flags: int
    ) -> None:
        packets = 1 if flags == _SYN else 5 + size // 1_400
        begin, finish = (DAY + int(time) for time in times)
        self.flows.append(f"2 eni-1 {' '.join(map(str, ends))} 6 {packets} {size} {begin} {finish} {action} OK {flags}")


def _stranger(dice: Random) -> str:
    return f"198.{dice.choice((18, 19))}.{dice.randrange(256)}.{dice.randrange(1, 255)}"


def beacon(sandbox: Sandbox, period: float, jitter: float) -> None:
    """Check in every ``period`` seconds, give or take ``jitter`` of that, for four fifths of the life."""
    dice, peer, at = sandbox.dice, _stranger(sandbox.dice), 300.0
    while at < LIFE * 0.85:
        sandbox.connect(peer, 443, at, 0.4, dice.uniform(500, 900), dice.uniform(300, 700))
        at += period * (1 + jitter * dice.uniform(-1, 1))


def tunnel(sandbox: Sandbox, minutes: float, upload: float) -> None:
    """Keep a session open on 443, of which ``upload`` is the share of the bytes that go out."""
    total = 60 * minutes * sandbox.dice.uniform(50, 400)
    sandbox.connect(_stranger(sandbox.dice), 443, 900, minutes * 60, total * upload, total * (1 - upload))


def diversion(sandbox: Sandbox, minutes: float, evaluated: float) -> None:
    """Mine on the GPUs for so many minutes, right after an evaluation of so many."""
    dice, start = sandbox.dice, 2_400.0
    seconds = minutes * 60
    sandbox.connect(_stranger(dice), 443, start, seconds, seconds * dice.uniform(5, 60), seconds * dice.uniform(8, 90))
    sandbox.busy.append((int(start - 60 * evaluated), int(start + seconds)))
    sandbox.steps = list(range(60, int(start - 60 * evaluated), 60))


def exfiltration(sandbox: Sandbox, gigabytes: float, megabytes: float) -> None:
    """Send so much within half an hour, in pieces of so many megabytes."""
    peer, pieces = _stranger(sandbox.dice), max(1, round(gigabytes * 1_000 / megabytes))
    for piece in range(pieces):
        sandbox.connect(peer, 443, 600 + piece * 1_800 / pieces, 4, megabytes * 1e6, 9_000)


def scan(sandbox: Sandbox, targets: int, seconds: float) -> None:
    """Knock at so many inside addresses, one every so many seconds; nobody answers."""
    for target in range(int(targets)):
        sandbox.knock(f"10.77.{target // 250}.{target % 250 + 1}", 22, 600 + target * seconds, refused=False)


def probing(sandbox: Sandbox, targets: int, seconds: float) -> None:
    """Try so many outside addresses, one every so many seconds, and be refused."""
    for target in range(int(targets)):
        sandbox.knock(_stranger(sandbox.dice), 443, 600 + target * seconds, refused=True)


@dataclass(frozen=True)
class Grid:
    """A behaviour on a grid of two parameters.

    Attributes:
        does: what a sandbox does for a pair of values.
        names: of the parameters, with their units.
        rows: values of the first.
        columns: values of the second.
    """

    does: Callable[[Sandbox, Any, Any], None]
    names: tuple[str, str]
    rows: Sequence[float]
    columns: Sequence[float]


GRIDS = {
    "beacon": Grid(
        beacon, ("period, seconds", "jitter, share of it"), (10, 30, 60, 120, 240, 480), (0, 0.1, 0.2, 0.3, 0.4, 0.6, 1)
    ),
    "tunnel on 443 that nobody recognises": Grid(
        tunnel, ("minutes", "share that goes out"), (5, 9, 11, 20, 60), (0.3, 0.45, 0.55, 0.7, 0.9)
    ),
    "GPU diversion, pool on 443": Grid(
        diversion, ("minutes", "minutes of evaluation right before"), (5, 8, 10, 20, 40, 60), (0, 3, 6, 12, 20)
    ),
    "exfiltration to one peer": Grid(
        exfiltration, ("gigabytes in half an hour", "megabytes a piece"), (0.1, 0.5, 0.9, 1.1, 5), (20, 150, 250)
    ),
    "internal scan": Grid(scan, ("addresses", "seconds between"), (5, 10, 14, 16, 50, 200), (0.05, 1, 10, 30, 60)),
    "refused egress": Grid(probing, ("addresses", "seconds between"), (5, 9, 11, 20, 60), (0.2, 1, 10, 19, 25)),
}


def sweep(
    folder: Path, grids: dict[str, Grid], draws: int = 3, seed: int = 7
) -> dict[str, dict[tuple[float, float], float]]:
    """Return by grid and point the share of draws that have an incident of medium severity or above.

    Args:
        folder: where logs and output go.
        grids: what to try.
        draws: how often each point is drawn.
        seed: what chance draws from.
    """
    sandboxes: list[Sandbox] = []
    points: dict[str, tuple[str, tuple[float, float]]] = {}
    for name, grid in grids.items():
        for row, column, draw in product(grid.rows, grid.columns, range(draws)):
            number = len(sandboxes)
            dice = Random(f"{seed} {name} {row} {column} {draw}")
            box = Sandbox(f"box-{number:05d}", f"10.{number // 62_500}.{number // 250 % 250}.{number % 250 + 1}", dice)
            grid.does(box, row, column)
            sandboxes.append(box)
            points[box.name] = (name, (row, column))
    _write(folder, sandboxes)
    run(load_job(folder / "job.yml"))
    found = {
        one["sandbox.id"]
        for one in map(orjson.loads, (folder / "out" / "incidents.ndjson").read_bytes().splitlines())
        if one["incident.severity"] in _OPENING
    }
    told: dict[str, dict[tuple[float, float], list[bool]]] = defaultdict(lambda: defaultdict(list))
    for sandbox, (name, point) in points.items():
        told[name][point].append(sandbox in found)
    return {name: {point: sum(ones) / len(ones) for point, ones in some.items()} for name, some in told.items()}


def _write(folder: Path, sandboxes: Sequence[Sandbox]) -> None:
    pods = [
        {
            "metadata": {"name": box.name, "namespace": "rl", "uid": f"uid-{box.name}"},
            "spec": {"nodeName": "node-1"},
            "status": {
                "phase": "Succeeded", "podIP": box.address, "startTime": "2026-03-02T00:00:00Z",
                "containerStatuses": [{"state": {"terminated": {"finishedAt": "2026-03-02T02:00:00Z"}}}],
            },
        }
        for box in sandboxes
    ]  # fmt: skip
    gpus, steps = [], []
    for box in sandboxes:
        if box.busy:
            for at in range(10, LIFE, 30):
                use = 96 if any(begin <= at < end for begin, end in box.busy) else 4
                gpus.append(
                    f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{box.name}",pod="{box.name}"}} {use} {(DAY + at) * 1_000}'
                )
            made = 0
            for at in range(0, LIFE, 60):
                made += at in box.steps
                steps.append(json.dumps({"timestamp": DAY + at, "job_id": "j", "pod": box.name, "step": made}))
    files = {
        "pods.json": json.dumps({"items": pods}), "gpus.prom": "\n".join(gpus), "steps.jsonl": "\n".join(steps),
        "flow.log": "\n".join([_HEADER, *(line for box in sandboxes for line in box.flows)]), "job.yml": _JOB,
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")


def table(name: str, grid: Grid, rates: Rates) -> str:
    """Return the rates of one grid as a Markdown table."""
    lines = [f"**{name}**", "", f"| {grid.names[0]} ↓, {grid.names[1]} → | {' | '.join(map(_number, grid.columns))} |"]
    lines.append("|---" * (len(grid.columns) + 1) + "|")
    lines += [
        f"| {_number(row)} | " + " | ".join(f"{rates[row, column]:.0%}" for column in grid.columns) + " |"
        for row in grid.rows
    ]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:g}"
