"""Coinciding intervals against the definition, pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrail.columns.overlaps import most_overlapped

_ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 12), st.integers(0, 9)), max_size=10)
Row = tuple[int, int, int]


def _columns(rows: list[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    keys, start, length = (np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else ([], [], [])))
    return keys, start, start + length


def _oracle(one: Row, others: list[Row]) -> tuple[float, int]:
    """Count the unit cells that both cover, and those that one of them covers."""
    cells = set(range(one[1], one[1] + one[2]))
    found = [(0.0, 0, -1)]
    for place, (key, start, length) in enumerate(others):
        other = set(range(start, start + length))
        if key == one[0] and cells & other:
            found.append((-len(cells & other) / len(cells | other), start, place))
    share, _, which = min(found)
    return -share, which


@given(_ROWS, _ROWS)
@settings(max_examples=max(settings().max_examples, 3_000), deadline=None)
def test_each_interval_is_laid_beside_the_one_it_coincides_with_most(rows: list[Row], others: list[Row]) -> None:
    """Of its own key only, and of those that coincide alike the first."""
    share, which = most_overlapped(_columns(rows), _columns(others))
    assert list(zip(share.tolist(), which.tolist(), strict=True)) == [_oracle(row, others) for row in rows]
