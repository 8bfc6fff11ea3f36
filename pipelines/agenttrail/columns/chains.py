"""Intervals of a group that overlap or follow one another closely, numbered as chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns.ordering import MOST, order_by

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
    order = order_by(groups, start)  # whichever of those that start together comes first, they are one chain
    group, begin, finish = groups[order], start[order], end[order]
    furthest = running_max(group, finish)
    fresh = np.ones(len(group), dtype=bool)
    fresh[1:] = (group[1:] != group[:-1]) | (begin[1:] > furthest[:-1] + gap)
    out = np.empty(len(group), dtype=np.int64)
    out[order] = np.cumsum(fresh) - 1
    return out


def running_max(groups: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest of ``values`` so far within each group; ``groups`` must ascend."""
    if not len(groups):
        return values
    # the values of each group are lifted above those of the one before, so that one running maximum serves for all
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span * (max(int(groups[-1]), -int(groups[0])) + 1) < MOST:
        lift = groups * span
        return np.maximum.accumulate(values - low + lift) - lift + low
    # where they are too far apart for that, their ranks are
    distinct, rank = np.unique(values, return_inverse=True)
    lift = groups * len(distinct)
    largest: NDArray[np.int64] = distinct[np.maximum.accumulate(rank.ravel() + lift) - lift]
    return largest
