"""Busy GPUs without a step, minute by minute."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE = 60_000_000
_GAP, _SILENCE = 2 * _MINUTE, 120 * _MINUTE


@dataclass(frozen=True)
class Sample:
    """One sample of one GPU; whole per cents."""

    entity: int | None
    time: int
    value: float | None
    gpu: str | None = "gpu-0"
    metric: str = "DCGM_FI_DEV_GPU_UTIL"
    sandbox: str | None = None
    job: str | None = None


@dataclass(frozen=True)
class Report:
    """One report of progress."""

    time: int
    step: int | None
    sandbox: str | None = None
    job: str | None = None


@dataclass(frozen=True)
class _Stream:
    reports: list[int]
    steps: list[int]
    silences: list[tuple[int, int]]


def gpu_progress(
    samples: list[Sample], reports: list[Report]
) -> tuple[list[dict[str, object]], list[tuple[int, int, int, str]]]:
    """Return the intervals and the gaps that gpu_progress.derive() must state."""
    found, gaps = [], []
    fitting = [
        one
        for one in samples
        if one.metric == "DCGM_FI_DEV_GPU_UTIL"
        and one.entity is not None
        and one.value is not None
        and 0 <= one.value <= 100
    ]
    for entity in sorted({one.entity for one in fitting if one.entity is not None}):
        own = [one for one in fitting if one.entity == entity]
        rung, streams = _source(own, reports)
        found += _intervals(entity, own, streams, rung)
        gaps += _gaps(entity, own, streams)
    return found, sorted(gaps)


def _source(own: list[Sample], reports: list[Report]) -> tuple[str | None, list[_Stream]]:
    for rung in ("sandbox", "job"):
        names = {getattr(one, rung) for one in own} - {None}
        if len(names) == 1:
            (name,) = names
            told = [report for report in reports if getattr(report, rung) == name]
            if told:
                keys = {(report.sandbox, report.job) for report in told}
                return rung, [_stream([r for r in told if (r.sandbox, r.job) == key]) for key in keys]
    return None, []


def _stream(reports: list[Report]) -> _Stream:
    instants: dict[int, list[int]] = defaultdict(list)
    for report in reports:
        instants[report.time] += [] if report.step is None else [report.step]
    times = sorted(instants)
    best: int | None = None
    steps, advances = [], {}
    for time in times:
        step = max(instants[time], default=None)
        if step is not None and (best is None or step > best):
            if best is not None:
                advances[time] = step - best
            steps.append(time)
            best = step
    ordered = sorted(advances.values())
    silences = [
        (earlier, later)
        for earlier, later in pairwise(times)
        if later - earlier > _SILENCE or (later in advances and advances[later] > ordered[(len(ordered) - 1) // 2])
    ]
    return _Stream(times, steps, silences)


def _told(minute: int, streams: list[_Stream]) -> bool:
    begin, end = minute * _MINUTE, (minute + 1) * _MINUTE
    spanned = any(stream.reports[0] <= begin and stream.reports[-1] >= end for stream in streams)
    return spanned and not any(a < end and b > begin for stream in streams for a, b in stream.silences)


def _stepped(minute: int, streams: list[_Stream]) -> bool:
    return any(step // _MINUTE == minute for stream in streams for step in stream.steps)


def _by_minute(own: list[Sample]) -> dict[int, list[Sample]]:
    minutes: dict[int, list[Sample]] = defaultdict(list)
    for one in sorted(own, key=lambda one: one.time):
        minutes[one.time // _MINUTE].append(one)
    return minutes


def _runs(minutes: dict[int, list[Sample]], fits: Callable[[int], bool], *, across: bool) -> list[list[int]]:
    """Return the maximal runs of fitting minutes that follow one another; ``across``: empty ones must fit, too."""
    runs: list[list[int]] = []
    last: int | None = None
    for minute in minutes:
        if not fits(minute):
            last = None
            continue
        follows = (
            last is not None
            and minutes[minute][0].time - minutes[last][-1].time <= _GAP
            and (not across or all(fits(empty) for empty in range(last + 1, minute)))
        )
        if not follows:
            runs.append([])
        runs[-1].append(minute)
        last = minute
    return runs


def _intervals(entity: int, own: list[Sample], streams: list[_Stream], rung: str | None) -> list[dict[str, object]]:
    minutes = _by_minute(own)
    use = {minute: _use(held) for minute, held in minutes.items()}
    found = []
    for run in _runs(minutes, lambda m: _told(m, streams) and not _stepped(m, streams), across=True):
        for first, last in maximal([(use[minute] - 70_000) * 10**7 + 1 for minute in run]):
            if run[last] - run[first] + 1 >= 8:
                held = [one for minute in run[first : last + 1] for one in minutes[minute]]
                found.append(_one(entity, held, [use[minute] for minute in run[first : last + 1]], rung))
    return found


def _use(held: list[Sample]) -> int:
    return math.floor(sum(round(1000 * (one.value or 0)) for one in held) / len(held))


def maximal(scores: list[int]) -> list[tuple[int, int]]:
    """Return the maximal segments by their definition: every proper part scores less, and nothing longer is so."""
    sums = [0]
    for score in scores:
        sums.append(sums[-1] + score)
    fine = []
    for first in range(len(scores)):
        most = sums[first]
        for last in range(first, len(scores)):
            after = sums[last + 1]
            if after <= sums[first]:
                break
            if after > most:
                fine.append((first, last))
                most = after
    return [(a, b) for a, b in fine if not any(c <= a and b <= d and (a, b) != (c, d) for c, d in fine)]


def _one(entity: int, held: list[Sample], use: list[int], rung: str | None) -> dict[str, object]:
    gpus: dict[str | None, list[int]] = defaultdict(list)
    for one in held:
        gpus[one.gpu].append(round(1000 * (one.value or 0)))
    return {
        "entity": entity,
        "event.start": held[0].time,
        "event.end": held[-1].time,
        "gpu.utilization": sum(use) / len(use) / 1000,
        "gpu.busy_duration": 60.0 * (held[-1].time // _MINUTE - held[0].time // _MINUTE + 1),
        "gpu.count": sum(sum(values) >= 70_000 * len(values) for values in gpus.values()),
        "training.rung": rung,
        "samples": len(held),
    }


def _gaps(entity: int, own: list[Sample], streams: list[_Stream]) -> list[tuple[int, int, int, str]]:
    minutes = _by_minute(own)
    what = "training progress silent" if streams else "no training progress reported at any rung"
    untold = _runs(minutes, lambda m: not _told(m, streams) and not _stepped(m, streams), across=False)
    found = [(entity, run[0] * _MINUTE, (run[-1] + 1) * _MINUTE, what) for run in untold]
    times = sorted(one.time for one in own)
    pairs = pairwise(times)
    return found + [(entity, a, b, "no GPU samples") for a, b in pairs if b - a > _GAP]
