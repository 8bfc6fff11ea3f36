"""Consecutive slices of a column, told by where each starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_offsets(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal values starts, and the length of all."""
    starts = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    return np.concatenate([np.zeros(1, np.int64), starts, [len(groups)]]) if len(groups) else np.zeros(1, np.int64)


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the offsets of consecutive slices of these lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the integers of [start, start + length) of every pair, one after the other."""
    return np.arange(int(lengths.sum())) + np.repeat(starts - offsets_of(lengths)[:-1], lengths)
