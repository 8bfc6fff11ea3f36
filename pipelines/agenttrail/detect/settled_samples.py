"""Which GPU samples no interval of ``gpu_progress`` rests on, now or once more have come.

And which intervals are over for good, so that what they say can be kept in place of their samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agenttrail.columns.asof import last_before
from agenttrail.columns.chains import running_max
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.detect.analytics.gpu_progress import Told, Use, busy_intervals, minutes_of_use, stated
from agenttrail.detect.progress import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    from agenttrail.detect.derived import Derived

    _Chooses = Callable[[pa.RecordBatch], NDArray[np.bool_]]

_MARGIN = 4
"""Minutes beside an interval that stay, so that what was apart does not follow one another without what parted it."""
_FIRST = 0
"""Minute before all others: 1970 began with it."""
_EVER = 1 << 40


class Times(NamedTuple):
    """Half-open intervals of entities, ascending by entity and time, apart; in microseconds."""

    entity: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


class Settled(NamedTuple):
    """What is over.

    Attributes:
        gone: when no sample of a workload is needed.
        summed: intervals that tell something and whose samples are among these; members are rows of the samples.
    """

    gone: Times
    summed: Derived


def needless(
    samples: pa.RecordBatch,
    progress: pa.RecordBatch,
    talks: Times,
    settled: int,
    tells: _Chooses,
    sums: _Chooses | None = None,
) -> Settled:
    """Return when no sample of a workload tells anything through ``gpu_progress.derive``, now or once more have come.

    Each of an interval's beginnings has a mean of at least ``BUSY``.  So none reaches over the minute up to which the
    scores of its stretch add up to the least, from whatever is before that to what is yet to come.  Without samples of
    the times returned the same intervals that tell anything are stated, now and later, but for those that are to be
    summed, and the same of what GPUs did beside talks.

    Args:
        samples: see ``gpu_progress.derive``.
        progress: likewise.
        talks: of the workloads, in any order; they may overlap.  What lies between two intervals is not
            needless while one talked all the time: what is said of both may rest on samples between them.
        settled: in microseconds: what is told of earlier minutes does not change any more.
        tells: says which of the intervals that are stated tell anything by themselves; those that any talk touches do.
        sums: says of which of these all that is told may be kept in place of their samples; None: of none.

    Returns:
        The times; each workload with samples of its use has at least one unless all is needed.  And the intervals that
        are to be summed: they are over, no talk touches them, and they lie in these times.
    """
    use = minutes_of_use(samples)
    told = Told.of(samples, use, progress)
    first, last = busy_intervals(use, told.free, told.follows_free)
    tail = _tails(use, told, settled // MINUTE)
    events = stated(samples, use, (first, last), told).events
    touched = _touched(use.entities[use.workload[first]], use.minute[first], use.minute[last] + 1, talks)
    old = (tells(events) | touched) & (use.minute[first] < tail[use.workload[first]])
    over = old & ~touched & sums(events) if sums is not None else np.zeros(len(first), dtype=bool)
    needed = old & ~over
    gone = _between(use, (first[needed], last[needed]), tail, talks)
    while not (lies := _within(use, (first, last), gone))[over].all():  # what is near what is needed is needed, too
        over &= lies
        needed = old & ~over
        gone = _between(use, (first[needed], last[needed]), tail, talks)
    return Settled(gone, stated(samples, use, (first[over], last[over]), told))


def _between(
    use: Use, needed: tuple[NDArray[np.int64], NDArray[np.int64]], tail: NDArray[np.int64], talks: Times
) -> Times:
    """Return the times between ``needed`` intervals and before the ``tail`` of each workload, without their margins."""
    first, last = needed
    everyone = np.arange(len(use.entities))
    owner = np.concatenate([use.workload[first], everyone])
    begin = np.concatenate([use.minute[first], tail])
    end = np.concatenate([use.minute[last] + 1, np.full(len(tail), _EVER)])
    order = np.lexsort((begin, owner))
    owner, begin, end = owner[order], begin[order], end[order]
    # from the end of what is needed to the beginning of what is needed next
    opening = np.ones(len(owner), dtype=bool)
    opening[1:] = owner[1:] != owner[:-1]
    after = np.where(opening, _FIRST, np.append(0, end[:-1])[: len(end)] + _MARGIN)
    before = begin - np.where(opening, 0, _MARGIN)
    gone = (before - after > _MARGIN) & (opening | ~_spanned(use.entities[owner], after, before, talks))
    return Times(use.entities[owner[gone]], after[gone] * MINUTE, before[gone] * MINUTE)


def _within(use: Use, intervals: tuple[NDArray[np.int64], NDArray[np.int64]], times: Times) -> NDArray[np.bool_]:
    """Tell which intervals lie in one of some times."""
    first, last = intervals
    place = last_before(use.entities[use.workload[first]], use.minute[first] * MINUTE, times.entity, times.begin)
    inside: NDArray[np.bool_] = (use.minute[last] + 1) * MINUTE <= np.append(times.end, -1)[place]
    return inside


def _tails(use: Use, told: Told, settled: int) -> NDArray[np.int64]:
    """Return per workload the minute from which on minutes may be part of an interval that is not over."""
    tail = np.full(len(use.entities), settled)
    opened, row = _open_stretches(use, told, settled)
    if len(row):
        total = np.cumsum(use.scores)
        length = row - opened + 1
        places, which = ranges(opened, length), np.repeat(np.arange(len(row)), length)
        begin = offsets_of(length)[:-1]
        least = np.minimum(np.minimum.reduceat(total[places], begin), (total - use.scores)[opened])
        lowest = np.where(total[places] == least[which], places, opened[which] - 1)
        after = np.maximum.reduceat(lowest, begin) + 1
        inside = after <= row
        tail[use.workload[row[inside]]] = use.minute[after[inside]]
    return tail


def _open_stretches(use: Use, told: Told, settled: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return of stretches that hold their workload's last minute before ``settled`` their first and that minute."""
    fresh = np.ones(len(told.free), dtype=bool)
    fresh[1:] = ~(told.follows_free & told.free[1:] & told.free[:-1])
    opened = np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))
    old = use.minute < settled
    last = old.copy()
    last[:-1] &= ~(old[1:] & (use.workload[1:] == use.workload[:-1]))
    row = np.flatnonzero(last & told.free)
    return opened[row], row


def _touched(
    entity: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64], talks: Times
) -> NDArray[np.bool_]:
    """Tell which times of entities, in minutes, any of their talks touches."""
    return _longest(entity, end, talks) >= begin


def _spanned(
    entity: NDArray[np.int64], after: NDArray[np.int64], before: NDArray[np.int64], talks: Times
) -> NDArray[np.bool_]:
    """Tell which times of entities, in minutes, one talk of theirs goes on throughout."""
    return _longest(entity, after, talks) >= before


def _longest(entity: NDArray[np.int64], minute: NDArray[np.int64], talks: Times) -> NDArray[np.int64]:
    """Return the last minute of any talk of entities that had begun by a minute; before all others for none."""
    order = np.lexsort((talks.begin, talks.entity))
    owner, begin, end = talks.entity[order], talks.begin[order] // MINUTE, talks.end[order] // MINUTE
    place = last_before(entity, minute, owner, begin)
    return np.where(place < 0, _FIRST - 1, np.append(running_max(owner, end), _FIRST - 1)[place])
