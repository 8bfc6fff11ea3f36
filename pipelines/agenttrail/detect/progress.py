"""Reports of training progress: when a step was made, and when none would have gone unseen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from agenttrail.columns.chains import running_max
from agenttrail.columns.groups import group_rows
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import run_offsets
from agenttrail.detect.derived import column_of, integers

MINUTE = 60_000_000
"""Microseconds of a slot of event time."""
RUNGS = ("sandbox", "job")
"""Rungs that progress is reported at, narrowest first."""
_SLOTS = 1 << 32
"""More minutes than time has."""
_NONE = np.iinfo(np.int64).min
_FARTHEST = 1 << 60
"""Steps beyond this count as this, so that no difference leaves int64."""

Intervals = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Sorted firsts and sorted lasts."""


@dataclass(frozen=True)
class Progress:
    """What sources of progress tell of each minute; a source is a sandbox or a job, by number.

    Attributes:
        names: the sandboxes and the jobs that report; jobs are numbered after the sandboxes.
        spans: minutes between two reports of one stream, as (source, minute) in one number.
        silences: minutes that silence of a stream touches, likewise.
        steps: minutes of steps, likewise.
    """

    names: tuple[pa.Array, ...]
    spans: Intervals
    silences: Intervals
    steps: NDArray[np.int64]

    def told(self, source: NDArray[np.int64], minute: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell of which minutes the source (-1 is none) would have told a step."""
        key = source * _SLOTS + minute
        told: NDArray[np.bool_] = (_holding(self.spans, key) > 0) & (_holding(self.silences, key) == 0)
        return told

    def stepped(self, source: NDArray[np.int64], minute: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which minutes hold a step of the source (-1 is none)."""
        stepped: NDArray[np.bool_] = _holding((self.steps, self.steps), source * _SLOTS + minute) > 0
        return stepped

    def sources(self, sandboxes: pa.Array, jobs: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the narrowest source that each pair of sandbox and job has, and its rung, -1 for none."""
        sandbox, job = (_places(names, known) for names, known in zip((sandboxes, jobs), self.names, strict=True))
        source = np.where(sandbox >= 0, sandbox, np.where(job >= 0, job + len(self.names[0]), -1))
        return source, np.where(sandbox >= 0, 0, np.where(job >= 0, 1, -1))


def _places(names: pa.Array, known: pa.Array) -> NDArray[np.int64]:
    return numbers(pc.index_in(names, value_set=known).cast(pa.int64()), -1)


def _holding(intervals: Intervals, key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the intervals that hold each key: those that began by then less those that ended before."""
    firsts, lasts = intervals
    held: NDArray[np.int64] = np.searchsorted(firsts, key, side="right") - np.searchsorted(lasts, key, side="left")
    return held


def read_progress(reports: pa.RecordBatch, silence: int) -> Progress:
    """Read steps, spans and silences out of reports.

    Args:
        reports: rows with ``event.start``, ``training.step``, ``sandbox.id``, ``job.id``, in any order.
        silence: longest time between two reports of a stream, in microseconds, that is no silence.

    Returns:
        What they tell, as ``gpu_progress.derive()`` defines it.
    """
    named = [column_of(reports, f"{rung}.id", pa.string()) for rung in RUNGS]
    names = tuple(pc.unique(column.drop_null()) for column in named)
    stream, opening = group_rows(named)
    # the sources of each stream: its sandbox and its job
    sources = [_places(column.take(pa.array(opening)), known) for column, known in zip(named, names, strict=True)]
    sources[1] = np.where(sources[1] >= 0, sources[1] + len(names[0]), -1)
    stream, time, step = _instants(stream, integers(reports, "event.start"), _steps(reports))
    offsets = run_offsets(stream)
    later = stream[1:] == stream[:-1]
    before = np.full(len(stream), _NONE)
    before[1:][later] = running_max(stream, step)[:-1][later]
    stepped = step > before
    lost = _advance_lost(stream, stepped & (before != _NONE), step, before)[1:]
    silent = np.flatnonzero(later & ((np.diff(time) > silence) | lost))
    opened, closed = time[offsets[:-1]], time[offsets[1:] - 1]
    streams = stream[offsets[:-1]]
    return Progress(
        names,
        _intervals(sources, streams, -(-opened // MINUTE), closed // MINUTE - 1),
        _intervals(sources, stream[silent], time[silent] // MINUTE, -(-time[silent + 1] // MINUTE) - 1),
        _intervals(sources, stream[stepped], time[stepped] // MINUTE, time[stepped] // MINUTE)[0],
    )


def farthest(
    reports: pa.RecordBatch, kept: NDArray[np.bool_], sandboxes: pa.Array, jobs: pa.Array
) -> NDArray[np.bool_]:
    """Tell which reports made the farthest step of their stream before one that is ``kept``.

    With these and those the same of those are steps, whatever else goes: steps that are made once more after a restart
    from a checkpoint are none.  And of streams of some ``sandboxes`` and ``jobs``, and of those that name no sandbox,
    the farthest of all, by which they are known to report: a job may go on in other pods, days later.

    Args:
        reports: see :func:`read_progress`.
        kept: which of them are.
        sandboxes: names.
        jobs: likewise.
    """
    sandbox, job = (column_of(reports, f"{rung}.id", pa.string()) for rung in RUNGS)
    stream, _ = group_rows([sandbox, job])
    step = _steps(reports)
    order = np.lexsort((step, integers(reports, "event.start"), stream))
    stream, step = stream[order], step[order]
    later = np.zeros(len(order), dtype=bool)
    later[1:] = stream[1:] == stream[:-1]
    farther = np.ones(len(order), dtype=bool)
    farther[1:] = step[1:] > running_max(stream, step)[:-1]
    best = np.maximum.accumulate(np.where(farther | ~later, np.arange(len(order)), 0))
    known = pc.or_(pc.is_in(sandbox, value_set=sandboxes.drop_null()), pc.is_in(job, value_set=jobs.drop_null()))
    known = pc.or_(known, sandbox.is_null())
    last = np.asarray(known)[order] & np.append(~later[1:], True)[: len(order)]
    held = np.zeros(len(order), dtype=bool)
    held[order[best[np.flatnonzero(kept[order] & later) - 1]]] = True
    held[order[best[last]]] = True
    return held


def _steps(reports: pa.RecordBatch) -> NDArray[np.int64]:
    step = integers(reports, "training.step", _NONE)
    return np.where(step == _NONE, _NONE, np.clip(step, -_FARTHEST, _FARTHEST))


def _instants(
    stream: NDArray[np.int64], time: NDArray[np.int64], step: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sort reports by stream and time, and keep the largest step of each instant."""
    order = np.lexsort((step, time, stream))
    stream, time, step = stream[order], time[order], step[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (stream[1:] != stream[:-1]) | (time[1:] != time[:-1])
    return stream[last], time[last], step[last]


def _advance_lost(
    stream: NDArray[np.int64], advanced: NDArray[np.bool_], step: NDArray[np.int64], before: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which reports advance by more than is usual (the lower median) in their stream."""
    rows = np.flatnonzero(advanced)
    advance = step[rows] - before[rows]
    order = np.lexsort((advance, stream[rows]))
    offsets = run_offsets(stream[rows][order])
    number = np.diff(offsets)
    usual = advance[order][offsets[:-1] + (number - 1) // 2]
    lost = np.zeros(len(step), dtype=bool)
    lost[rows] = advance > np.repeat(usual, number)
    return lost


def _intervals(
    sources: list[NDArray[np.int64]], stream: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> Intervals:
    """Lay intervals of streams on the time lines of their sources; empty ones vanish."""
    bounds = []
    for source in sources:
        kept = (source[stream] >= 0) & (first <= last)
        bounds.append(source[stream][kept] * _SLOTS + np.stack([first[kept], last[kept]]))
    firsts, lasts = np.sort(np.concatenate(bounds, axis=1), axis=1)
    return firsts, lasts
