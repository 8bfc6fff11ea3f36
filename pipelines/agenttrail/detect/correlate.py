"""correlate(): where in time the hits of some rules add up to what a correlation asks for.

Windows slide over event time and are exact.  Each ends at the time t of a hit and reaches over (t - timespan, t]; what
happened at one instant is in a window together or not at all.  A correlation is therefore judged at instants of hits
only: a condition such as ``lt`` never holds where there is nothing.

Hits are sorted once by group and time.  Of each then only its *reach* is needed: the place of the first hit that no
window shares with it.  Counts are running sums of what enters a window at a hit and leaves it at its reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns.offsets import offsets_of, ranges, run_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation

_MOST = 1 << 62
_COMPARE = {
    "gte": np.greater_equal, "gt": np.greater, "lte": np.less_equal, "lt": np.less, "eq": np.equal,
    "neq": np.not_equal,
}  # fmt: skip


@dataclass(frozen=True)
class Hits:
    """The hits of a correlation's rules, in any order.

    Attributes:
        group: code of the values that the correlation groups by, -1 for a hit that belongs to no group.
        time: start of the event, in microseconds.
        rule: place of the rule among those of the correlation.
        value: code of the value that ``value_count`` counts, -1 for none.
        rank: order of hits at one instant, from their content; it decides nothing but the order of members.
    """

    group: NDArray[np.int64]
    time: NDArray[np.int64]
    rule: NDArray[np.int64]
    value: NDArray[np.int64]
    rank: NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """The maximal runs of overlapping windows that qualify, by group, then time.

    Attributes:
        group: whose they are.
        first: time of the first member.
        last: time of the last one.
        fired: when the first window qualified.
        peak: largest count of a window that qualifies: of hits, values or rules.
        peak_time: end of the first window with that count.
        offsets: the members of run i stand at [offsets[i], offsets[i + 1]) of ``members``.
        members: hits in the windows of the run, by (time, rank, rule).
        moment_offsets: the moments of run i stand at [moment_offsets[i], moment_offsets[i + 1]) of ``moments``.
        moments: ends of the windows that qualify, ascending.
    """

    group: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    fired: NDArray[np.int64]
    peak: NDArray[np.int64]
    peak_time: NDArray[np.int64]
    offsets: NDArray[np.int64]
    members: NDArray[np.int64]
    moment_offsets: NDArray[np.int64]
    moments: NDArray[np.int64]


def correlate(correlation: Correlation, hits: Hits) -> Runs:
    """Return the runs of overlapping windows in which the hits of a group fulfil the correlation's condition.

    ``event_count`` counts the hits of a window; ``value_count`` the distinct values, nulls not counted; ``temporal``
    the distinct rules; ``temporal_ordered`` the rules if they occur in the order of the correlation at times that do
    not descend (hits at one instant count as in order).  Two windows overlap if they share any point of time.  The
    result does not depend on the order of the hits.
    """
    line = _Line.sort(hits, correlation.timespan)
    counts = _counts(correlation, hits, line)
    op, bound = correlation.condition
    ends = np.flatnonzero(_COMPARE[op](counts, bound) & line.ends_instant)
    return _runs(hits, line, counts, ends)


@dataclass(frozen=True)
class _Line:
    """Hits by group, then time.

    Attributes:
        order: the hit at each place.
        reach: of each place the first after it that is in no window with it; ascends.
        ends_instant: whether a place is the last of its group and time.
    """

    order: NDArray[np.int64]
    reach: NDArray[np.int64]
    ends_instant: NDArray[np.bool_]

    @classmethod
    def sort(cls, hits: Hits, timespan: int) -> _Line:
        kept = np.flatnonzero(hits.group >= 0)
        group, time = hits.group[kept], hits.time[kept]
        if not len(kept):
            return cls(kept, kept, np.zeros(0, dtype=bool))
        # Group and time in one ascending number; where that leaves 64 bits, the rank of the time stands for it.
        lowest = int(time.min())
        width = int(time.max()) - lowest + timespan + 1
        if (int(group.max()) + 1) * width < _MOST:
            base = group * width - lowest
            key, stop = base + time, base + time + timespan
        else:
            times = np.unique(time)
            base = group * len(times)
            key, stop = base + times.searchsorted(time), base + times.searchsorted(time + timespan)
        order = np.argsort(key)
        key, stop = key[order], stop[order]
        return cls(kept[order], key.searchsorted(stop), np.append(key[1:] != key[:-1], True))


def _counts(correlation: Correlation, hits: Hits, line: _Line) -> NDArray[np.int64]:
    """Return the count of the window that ends at each place; it holds where an instant ends."""
    if correlation.type == "event_count":
        return np.arange(1, len(line.order) + 1) - _window_starts(line)
    if correlation.type == "value_count":
        return _distinct(hits.value[line.order], line)
    rule = hits.rule[line.order]
    if correlation.type == "temporal":
        return _distinct(rule, line)
    return _in_order(rule, len(correlation.rules), line)


def _window_starts(line: _Line) -> NDArray[np.int64]:
    """Return the first place of the window that ends at each place: as many as were left behind by then."""
    return np.cumsum(np.bincount(line.reach, minlength=len(line.order) + 1))[: len(line.order)]


def _distinct(value: NDArray[np.int64], line: _Line) -> NDArray[np.int64]:
    """Return the number of distinct values from 0 on in the window that ends at each place.

    A value counts through its last hit in the window: from that hit on, until the value comes again or the hit is out
    of reach.
    """
    count = len(value)
    until = np.minimum(_next_alike(value), line.reach)
    known = value >= 0
    left = np.bincount(until[known], minlength=count + 1)[:count]
    return np.cumsum(known.astype(np.int64) - left)


def _next_alike(value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the next place with the same value, in whichever group; their number where there is none."""
    # small codes are sorted by counting, many times as fast
    small = int(value.max(initial=0)) < np.iinfo(np.int16).max
    order = np.argsort(value.astype(np.int16) if small else value, kind="stable")
    alike = value[order[1:]] == value[order[:-1]]
    following = np.full(len(value), len(value))
    following[order[:-1][alike]] = order[1:][alike]
    return following


def _in_order(rule: NDArray[np.int64], rules: int, line: _Line) -> NDArray[np.int64]:
    """Return ``rules`` where all of them occur in order in the window that ends at each place, else 0.

    Of the chains of hits of the rules 0, 1, … j the one that begins last is kept: if its begin is out of reach, every
    other one's is.  A chain may run over into the next group; its begin is then out of reach, too.
    """
    places = np.arange(len(rule))
    ends = np.flatnonzero(line.ends_instant)
    end = np.repeat(ends, np.diff(ends, prepend=-1))
    begin = np.maximum.accumulate(np.where(rule == 0, places, -1))
    for ordinal in range(1, rules):
        begin = np.maximum.accumulate(np.where(rule == ordinal, begin[end], -1))
    held = (begin >= 0) & (line.reach[begin] > places)
    return np.where(held, rules, 0)


def _runs(hits: Hits, line: _Line, counts: NDArray[np.int64], ends: NDArray[np.int64]) -> Runs:
    """Put the windows that end at the places ``ends`` into runs."""
    new = np.append(True, ends[1:] >= line.reach[ends[:-1]])[: len(ends)]
    run = np.cumsum(new) - 1
    moments = run_offsets(run)
    begin, final = ends[moments[:-1]], ends[moments[1:] - 1]
    # windows overlap, so that a run's members stand side by side
    first = _window_starts(line)[begin] if len(ends) else begin
    lengths = final + 1 - first
    members = _in_content_order(hits, line, ranges(first, lengths))
    held = counts[ends]
    peak = np.maximum.reduceat(held, moments[:-1]) if len(ends) else held
    highest = np.flatnonzero(held == peak[run])
    at = highest[np.unique(run[highest], return_index=True)[1]]
    time = hits.time[line.order]
    return Runs(
        group=hits.group[line.order[begin]],
        first=time[first],
        last=time[final],
        fired=time[begin],
        peak=peak,
        peak_time=time[ends[at]],
        offsets=offsets_of(lengths),
        members=members,
        moment_offsets=moments,
        moments=time[ends],
    )


def _in_content_order(hits: Hits, line: _Line, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the hits at ``places``, which ascend and hold whole instants; those at one instant by rank and rule."""
    instant: NDArray[np.int64] = (np.cumsum(line.ends_instant) - line.ends_instant)[places]
    members = line.order[places]
    same: NDArray[np.bool_] = instant[1:] == instant[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))[: len(places)]
    some = members[tied]
    members[tied] = some[np.lexsort((hits.rule[some], hits.rank[some], instant[tied]))]
    return members
