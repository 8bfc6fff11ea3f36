"""Which half-open intervals of a key hold an instant, for a whole column at once.

The time line of each key is cut at all starts and ends into segments inside which the set of open intervals is
constant, so that one binary search per row gives the whole answer, however the intervals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1
OPEN = np.iinfo(np.int64).max
"""End of an interval that has not ended."""


@dataclass(frozen=True)
class Segments:
    """The cut time lines of all keys.

    Attributes:
        first: index of each key's first bound, (keys + 1).
        bounds: ascending instants within each key; a segment reaches to the next bound of its key.
        codes: what is open from each bound on: an interval, ``count`` + index into ``sets``, or NONE.
        sets: the distinct sets of two or more intervals, each ascending.
        count: number of intervals.
    """

    first: NDArray[np.int64]
    bounds: NDArray[np.int64]
    codes: NDArray[np.int32]
    sets: tuple[tuple[int, ...], ...]
    count: int

    @classmethod
    def build(
        cls, keys: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], key_count: int
    ) -> Segments:
        """Cut the time lines of ``key_count`` keys at the intervals [starts, ends); empty intervals hold nothing."""
        some = np.flatnonzero(starts < ends)
        closed = some[ends[some] != OPEN]
        at = np.concatenate([starts[some], ends[closed]])
        key = np.concatenate([keys[some], keys[closed]])
        sign = np.concatenate([np.ones(len(some), np.int64), -np.ones(len(closed), np.int64)])
        which = np.concatenate([some, closed])
        order = np.lexsort((at, key))
        at, key, sign, which = at[order], key[order], sign[order], which[order]
        # Every key's changes sum to what is still open; subtracting the total at the key's start restarts the count.
        opened, summed = _running(sign, key), _running(sign * which, key)
        last = np.flatnonzero(np.append((key[1:] != key[:-1]) | (at[1:] != at[:-1]), True)[: len(key)])
        codes = np.where(opened[last] == 1, summed[last], NONE).astype(np.int32)
        sets = _fill_sets(codes, np.flatnonzero(opened[last] > 1), last, key, sign, which, len(starts))
        first = np.searchsorted(key[last], np.arange(key_count + 1))
        return cls(first, at[last], codes, sets, len(starts))

    def find(self, keys: NDArray[np.integer], times: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the code that holds at each (key, time); NONE where nothing is open or the key is negative."""
        out = np.full(len(keys), NONE, dtype=np.int32)
        rows = np.flatnonzero(keys >= 0)
        if not len(rows) or not len(self.bounds):
            return out
        at, key = times[rows], keys[rows]
        low, high = self.first.take(key), self.first.take(key + 1)
        found = _last_not_after(self.bounds, low, high, at)
        out[rows] = np.where(found >= low, self.codes.take(found, mode="clip"), np.int32(NONE))
        return out

    def members(self, code: int) -> tuple[int, ...]:
        """Return the intervals that ``code`` stands for."""
        if code == NONE:
            return ()
        return (code,) if code < self.count else self.sets[code - self.count]


def _running(values: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the running sum of ``values``, restarted where the ascending ``key`` changes."""
    total = np.cumsum(values)
    if not len(total):
        return total
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    before = (total - values)[starts]
    return total - np.repeat(before, np.diff(np.append(starts, len(key))))


def _fill_sets(
    codes: NDArray[np.int32], crowded: NDArray[np.intp], last: NDArray[np.intp],
    key: NDArray[np.int64], sign: NDArray[np.int64], which: NDArray[np.int64], count: int,
) -> tuple[tuple[int, ...], ...]:  # fmt: skip
    """Name the sets of the ``crowded`` segments in ``codes``; only the keys that have such are swept one by one."""
    sets: dict[tuple[int, ...], int] = {}
    wanted = set(crowded.tolist())
    segment_of_change = {int(change): segment for segment, change in enumerate(last.tolist()) if segment in wanted}
    for crowded_key in np.unique(key[last[crowded]]).tolist():
        opened: set[int] = set()
        for change in range(*np.searchsorted(key, [crowded_key, crowded_key + 1]).tolist()):
            (opened.add if sign[change] > 0 else opened.discard)(int(which[change]))
            segment = segment_of_change.get(change)
            if segment is not None:
                codes[segment] = count + sets.setdefault(tuple(sorted(opened)), len(sets))
    return tuple(sets)


def _last_not_after(
    bounds: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64], at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return per row the last index in [low, high) whose bound is not after ``at``; low - 1 where there is none."""
    found = low - 1
    # the bounds of a key ascend, so that steps of halving length lead to the last that fits
    for step in reversed(range(int((high - low).max(initial=0)).bit_length())):
        further = found + (1 << step)
        fits = bounds.take(further, mode="clip") <= at
        fits &= further < high
        found += fits.astype(np.int64) << step
    return found
