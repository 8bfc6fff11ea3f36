"""The as-of join against its definition, row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrail.columns.asof import last_before

_ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 12)), max_size=12)


def _columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([key for key, _ in rows], np.int64), np.array([time for _, time in rows], np.int64)


def _oracle(row: tuple[int, int], others: list[tuple[int, int]]) -> int:
    fitting = [(time, place) for place, (key, time) in enumerate(others) if key == row[0] and time <= row[1]]
    return max(fitting)[1] if fitting else -1


@given(_ROWS, _ROWS)
@settings(max_examples=max(settings().max_examples, 3_000), deadline=None)
def test_each_row_meets_the_last_of_its_key_that_is_not_later(
    rows: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    """Of equal times the last in order; never one of another key, never a later one."""
    found = last_before(*_columns(rows), *_columns(others))
    assert found.tolist() == [_oracle(row, others) for row in rows]
