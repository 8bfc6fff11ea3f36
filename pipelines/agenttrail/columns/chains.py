"""Intervals of a group that overlap or follow one another closely, numbered as chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def chain(groups: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
    """Number the chains of each group's intervals.

    Args:
        groups: group of each interval, 0-based.
        start: first instant of each interval.
        end: last instant of each interval, not before its start.
        gap: largest distance from the furthest end so far to the next start within one chain.

    Returns:
        The chain of each interval, 0-based, ascending by group and start.
    """
    order = np.lexsort((end, start, groups))
    group, begin, finish = groups[order], start[order], end[order]
    furthest = running_max(group, finish)
    fresh = np.ones(len(group), dtype=bool)
    fresh[1:] = (group[1:] != group[:-1]) | (begin[1:] > furthest[:-1] + gap)
    out = np.empty(len(group), dtype=np.int64)
    out[order] = np.cumsum(fresh) - 1
    return out


def running_max(groups: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest of ``values`` so far within each group; ``groups`` must ascend."""
    # Values become ranks, and the ranks of each group are lifted above those of the one before, so that one running
    # maximum serves for all and no value is too large for it.
    distinct, rank = np.unique(values, return_inverse=True)
    lift = groups * max(len(distinct), 1)
    largest: NDArray[np.int64] = (
        distinct[np.maximum.accumulate(rank.ravel() + lift) - lift] if len(distinct) else distinct
    )
    return largest
