"""Maximal scoring segments: where the values of a sequence are high on average, dips included."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


class _Segment(NamedTuple):
    first: int
    last: int
    before: int  # sum of the scores before it
    after: int  # and with it


def maximal_segments(
    sequences: NDArray[np.int64], scores: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the maximal segments of each sequence (Ruzzo and Tompa 1999).

    A segment is maximal if all of its proper parts score less than it, and it is part of no longer one like that.  So
    it begins and ends with positive scores, and none of its beginnings or ends scores nothing or less.  Segments are
    disjoint.

    Args:
        sequences: ascending number of the sequence that each score belongs to.
        scores: their sums within a sequence must fit int64.

    Returns:
        The first and the last index of each segment, ascending.  Runs of positive scores are found by columns; a Python
        loop joins them, over runs in sequences that have any.
    """
    positive = scores > 0
    edge = np.ones(len(scores), dtype=bool)
    edge[1:] = (sequences[1:] != sequences[:-1]) | (positive[1:] != positive[:-1])
    first = np.flatnonzero(edge)
    last = np.append(first[1:], len(scores))[: len(first)] - 1
    total = np.cumsum(scores)
    opening = np.searchsorted(sequences, sequences[first])
    origin = total[opening] - scores[opening]
    runs = np.flatnonzero(positive[first])
    before, after = total[first] - scores[first] - origin, total[last] - origin
    columns = (array[runs].tolist() for array in (sequences[first], first, last, before, after))
    found = list(_joined((sequence, _Segment(*rest)) for sequence, *rest in zip(*columns, strict=True)))
    return np.array([s.first for s in found], dtype=np.int64), np.array([s.last for s in found], dtype=np.int64)


def _joined(runs: Iterable[tuple[int, _Segment]]) -> Iterator[_Segment]:
    """Join the positive runs of each sequence, which come in order, to its maximal segments."""
    found: list[_Segment] = []
    current: int | None = None
    for sequence, run in runs:
        if sequence != current:
            yield from found
            found, current = [], sequence
        _take(found, run)
    yield from found


def _take(found: list[_Segment], run: _Segment) -> None:
    """Add a run after the maximal segments ``found`` so far, joining what becomes one with it."""
    at = len(found) - 1
    while at >= 0:
        if found[at].before >= run.before:
            at -= 1
        elif found[at].after >= run.after:
            break
        else:
            run = _Segment(found[at].first, run.last, found[at].before, run.after)
            del found[at:]
            at -= 1
    found.append(run)
