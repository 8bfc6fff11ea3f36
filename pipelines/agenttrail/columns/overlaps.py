"""How far intervals of one key coincide with other intervals of the same key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agenttrail.columns.offsets import ranges
from agenttrail.columns.ordering import order_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

Intervals = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]
"""Key, first instant and last instant of each interval; none ends before it starts."""


class Overlaps(NamedTuple):
    """How far intervals coincide with others.

    Attributes:
        of_both: length of what an interval shares with others as a share of the length of it and of all that it meets
            taken together (the Jaccard index), 0 to 1.
        shared: that length.
        row: an interval, and ``other`` one that it meets, in pairs; ascending by interval, then by the other's start.
    """

    of_both: NDArray[np.float64]
    shared: NDArray[np.int64]
    row: NDArray[np.int64]
    other: NDArray[np.int64]


def overlaps(ones: Intervals, others: Intervals) -> Overlaps:
    """Lay intervals beside other intervals of the same key.

    Args:
        ones: intervals.
        others: intervals to lay beside them, few per key; those of one key are disjoint.

    Returns:
        What they share.  Intervals that only touch, or have no length, do not meet.
    """
    keys, start, end = ones
    order = order_by(others[0], others[1])
    other_keys, other_start, other_end = (column[order] for column in others)
    first = np.searchsorted(other_keys, keys, side="left")
    lengths = np.searchsorted(other_keys, keys, side="right") - first
    row, other = np.repeat(np.arange(len(keys)), lengths), ranges(first, lengths)
    common = np.minimum(end[row], other_end[other]) - np.maximum(start[row], other_start[other])
    meets = common > 0
    row, other, common = row[meets], other[meets], common[meets]
    shared, met = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
    np.add.at(shared, row, common)
    np.add.at(met, row, (other_end - other_start)[other])
    union = end - start + met - shared
    return Overlaps(shared / np.maximum(union, 1), shared, row, order[other])
