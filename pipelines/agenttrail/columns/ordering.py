"""Rows in order of several keys, and the distinct values of one: what most of the analysis of a shard is made of.

NumPy sorts one column of 64-bit numbers a dozen times as quickly as it sorts rows by several keys (180,000 rows by
group, start and end: 36 ms by ``lexsort``, 2 to 3 here), so keys are packed into one number where they fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns.offsets import run_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 1 << 62
"""Values that several columns packed into one number may have together."""
_BEYOND = 1 << 63
_SECOND = 1_000_000  # microseconds: most logs count whole seconds


def order_by(*keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the order of rows by some keys, the most significant first; what is equal in all stays as it stood.

    Args:
        keys: columns of one length; numbers, flags or texts.
    """
    count = len(keys[0])
    if not count:
        return np.empty(0, dtype=np.int64)
    packed, room, used = _packed(keys)
    if not used:
        return np.lexsort(keys[::-1])
    if used == len(keys) and room * count <= MOST:
        ordered: NDArray[np.int64] = np.sort(packed * count + np.arange(count)) % count
        return ordered
    order = np.argsort(packed)
    at, ties = _ties(packed[order])
    if len(at):
        rows = order[at]
        further = [key[rows] for key in reversed(keys[used:])]
        order[at] = rows[np.lexsort((rows, *further, ties))]
    return order


def _packed(keys: tuple[NDArray[np.generic], ...]) -> tuple[NDArray[np.int64], int, int]:
    """Pack as many of the keys as fit into one number; return it, the number of its values, and of the keys in it."""
    packed, room = np.zeros(len(keys[0]), dtype=np.int64), 1
    for used, key in enumerate(keys):
        if key.dtype.kind not in "iub":
            return packed, room, used
        low, high = int(key.min()), int(key.max())
        span = high - low + 1
        if span > MOST or high >= _BEYOND:
            return packed, room, used
        above = key.astype(np.int64) - low
        if room * span > MOST and not (above % _SECOND).any():
            above //= _SECOND
            span = (high - low) // _SECOND + 1
        if room * span > MOST:
            return packed, room, used
        packed = packed * span + above if used else above
        room *= span
    return packed, room, len(keys)


def _ties(ordered: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of values that stand there more than once, and these values."""
    same = ordered[1:] == ordered[:-1]
    tied = np.zeros(len(ordered), dtype=bool)
    tied[1:] = same
    tied[:-1] |= same
    at = np.flatnonzero(tied)
    return at, ordered[at]


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct ones of some numbers, ascending; ``np.unique`` hashes them first, which takes many times."""
    ordered = np.sort(values)
    return ordered[run_offsets(ordered)[:-1]]


def firsts(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct ones of some numbers, ascending, and the first row of each."""
    order = order_by(values)
    ordered = values[order]
    begins = run_offsets(ordered)[:-1]
    return ordered[begins], order[begins]


def repeated(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows whose number stands there more than once, ascending."""
    order = np.argsort(values)
    at, _ = _ties(values[order])
    return np.sort(order[at])
