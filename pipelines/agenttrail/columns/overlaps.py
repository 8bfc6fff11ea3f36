"""How far intervals of one key coincide with other intervals of the same key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns.offsets import ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

Intervals = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]
"""Key, first instant and last instant of each interval; none ends before it starts."""


def most_overlapped(ones: Intervals, others: Intervals) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how far each interval coincides with the one of ``others`` that it coincides with most, and which that is.

    Two intervals coincide by the length of their intersection as a share of the length of their union (the Jaccard
    index), 0 to 1.  Of several that coincide alike it is the first to start, then the first in order; -1 where the
    share is 0: they only touch, nothing has length, or no other has the key.

    Args:
        ones: intervals.
        others: intervals to lay beside them, few per key.
    """
    keys, start, end = ones
    order = np.lexsort((others[1], others[0]))
    other_keys, other_start, other_end = (column[order] for column in others)
    first = np.searchsorted(other_keys, keys, side="left")
    lengths = np.searchsorted(other_keys, keys, side="right") - first
    row, other = np.repeat(np.arange(len(keys)), lengths), ranges(first, lengths)
    shared = np.minimum(end[row], other_end[other]) - np.maximum(start[row], other_start[other])
    union = (end - start)[row] + (other_end - other_start)[other] - np.maximum(shared, 0)
    share = np.maximum(shared, 0) / np.maximum(union, 1)
    best = np.lexsort((other, -share, row))
    rows, at = np.unique(row[best], return_index=True)
    most, which = np.zeros(len(keys)), np.full(len(keys), -1, dtype=np.int64)
    most[rows] = share[best][at]
    which[rows] = np.where(most[rows] > 0, order[other[best][at]], -1)
    return most, which
