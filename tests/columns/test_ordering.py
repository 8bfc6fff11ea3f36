"""Orders by several keys, and distinct values, agree with Python's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.chains import running_max
from agenttrail.columns.ordering import distinct, firsts, order_by

_EXTREMES = st.sampled_from([-(1 << 63), (1 << 63) - 1, -(1 << 61), 0, 1 << 40])
_SECONDS = st.integers(1_700_000_000, 1_700_000_300).map(lambda second: second * 1_000_000)
_MICROS = st.integers(1_700_000_000_000_000, 1_700_086_400_000_000) | st.sampled_from(
    [1_700_000_000_000_000, 1_700_000_000_000_001, 1_700_000_000_000_002, 1_700_086_400_000_000]
)
_FEW = st.integers(-3, 3)
_NUMBERS = st.one_of(_FEW, _SECONDS, _MICROS, _EXTREMES)


@st.composite
def _tables(draw: st.DrawFn) -> list[np.ndarray]:
    kinds = draw(
        st.lists(st.sampled_from(["few", "seconds", "micros", "any", "flag", "text", "words"]), min_size=1, max_size=5)
    )
    count = draw(st.integers(0, 40))
    return [_column(draw, kind, count) for kind in kinds]


def _column(draw: st.DrawFn, kind: str, count: int) -> np.ndarray:
    values: dict[str, st.SearchStrategy[object]] = {
        "few": _FEW, "seconds": _SECONDS, "micros": _MICROS, "any": _NUMBERS, "flag": st.booleans(),
        "text": st.binary(max_size=2), "words": st.integers((1 << 64) - 3, (1 << 64) - 1),
    }  # fmt: skip
    types = {"flag": "?", "text": "S16", "words": "u8"}
    return np.array(draw(st.lists(values[kind], min_size=count, max_size=count)), dtype=types.get(kind, "i8"))


@given(_tables())
def test_rows_come_in_the_order_of_their_keys_and_equal_ones_as_they_stood(keys: list[np.ndarray]) -> None:
    rows = list(zip(*(key.tolist() for key in keys), strict=True))
    assert order_by(*keys).tolist() == sorted(range(len(rows)), key=rows.__getitem__)


@given(st.lists(_NUMBERS, max_size=40))
def test_distinct_values_and_the_first_row_of_each(values: list[int]) -> None:
    column = np.array(values, dtype=np.int64)
    assert distinct(column).tolist() == sorted(set(values))
    found, rows = firsts(column)
    assert found.tolist() == sorted(set(values))
    assert rows.tolist() == [values.index(value) for value in found.tolist()]


@given(st.lists(st.tuples(st.integers(-2, 3), _NUMBERS), max_size=30))
def test_the_largest_so_far_within_each_group(rows: list[tuple[int, int]]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    groups, values = (np.array([row[place] for row in rows], dtype=np.int64) for place in (0, 1))
    known = [
        max(value for other, value in rows[: place + 1] if other == group) for place, (group, _) in enumerate(rows)
    ]
    assert running_max(groups, values).tolist() == known


def test_moments_within_a_second_are_kept_apart_where_keys_do_not_fit_into_one_number() -> None:
    days, moments = np.array([0, 0, 1 << 40]), np.array([5, 1, 1 << 40])
    assert order_by(days, moments).tolist() == [1, 0, 2]
    assert order_by(days, moments * 1_000_000).tolist() == [1, 0, 2]
