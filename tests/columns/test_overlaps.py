"""Coinciding intervals against the definition, pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrail.columns.overlaps import overlaps

_ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 12), st.integers(0, 9)), max_size=10)
Row = tuple[int, int, int]


def _columns(rows: list[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys, start, length = (np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else ([], [], [])))
    return keys, start, start + length


def _disjoint(rows: list[Row]) -> list[Row]:
    """Leave out what meets an earlier one of its key."""
    kept: list[Row] = []
    for key, start, length in rows:
        if all(key != k or start >= s + n or s >= start + length for k, s, n in kept):
            kept.append((key, start, length))
    return kept


def _oracle(one: Row, others: list[Row]) -> tuple[float, int, list[int]]:
    """Count the unit cells that it shares, and those that it and all that it meets cover."""
    cells = set(range(one[1], one[1] + one[2]))
    met, covered = [], set(cells)
    for place, (key, start, length) in enumerate(others):
        other = set(range(start, start + length))
        if key == one[0] and cells & other:
            met.append((start, place))
            covered |= other
    shared = len(cells & {cell for start, place in met for cell in range(start, start + others[place][2])})
    return (shared / len(covered) if shared else 0.0), shared, [place for _, place in sorted(met)]


@given(_ROWS, _ROWS)
@settings(max_examples=max(settings().max_examples, 3_000), deadline=None)
def test_each_interval_is_laid_beside_all_that_it_meets(rows: list[Row], others: list[Row]) -> None:
    """Of its own key only, whatever their order."""
    others = _disjoint(others)
    found = overlaps(_columns(rows), _columns(others))
    assert found.row.tolist() == sorted(found.row.tolist())
    met: list[list[int]] = [[] for _ in rows]
    for row, other in zip(found.row.tolist(), found.other.tolist(), strict=True):
        met[row].append(other)
    assert list(zip(found.of_both.tolist(), found.shared.tolist(), met, strict=True)) == [
        _oracle(row, others) for row in rows
    ]
