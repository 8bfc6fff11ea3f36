"""Grouping agrees with dictionaries."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.groups import (
    agreed,
    distinct_lists,
    group_codes,
    group_rows,
    latest_by,
    ordinals,
    rank_in_group,
    smallest_by,
)

_ROWS = st.lists(
    st.tuples(st.none() | st.sampled_from("abc"), st.integers(0, 3), st.none() | st.text("xy", max_size=2)), max_size=40
)
Row = tuple[str | None, int, str | None]


def _grouped(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    return group_rows([pa.array([row[0] for row in rows], pa.string()), pa.array([row[1] for row in rows], pa.int64())])


@given(_ROWS)
def test_rows_share_a_group_if_they_agree_in_every_column(rows: list[Row]) -> None:
    groups, first = _grouped(rows)
    for left in range(len(rows)):
        for right in range(len(rows)):
            assert (groups[left] == groups[right]) == (rows[left][:2] == rows[right][:2])
    assert [rows[row][:2] for row in first] == [
        rows[int(np.flatnonzero(groups == group)[0])][:2] for group in range(len(first))
    ]


@given(
    st.lists(st.tuples(st.just("a"), st.integers(0, 1), st.none() | st.text("xy", max_size=2)), max_size=40),
    st.permutations(["unused", "xx", "x", "y", "", "xy", "yx", "yy"]),
    st.booleans(),
)
def test_words_in_a_dictionary_are_grouped_as_plain_ones(rows: list[Row], words: list[str], holes: bool) -> None:  # noqa: FBT001 - drawn
    """A dictionary may have words that no row has, in any order, and null as a word beside null as an index."""
    known: list[str | None] = [*words, None] if holes else [*words]
    plain = pa.array([row[2] for row in rows], pa.string())
    places = [known.index(row[2]) if row[2] is not None or (holes and row[1] % 2) else None for row in rows]
    encoded = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(known, pa.string()))
    other = pa.array([row[1] for row in rows], pa.int64())
    for columns in ([plain, other], [other, plain]):
        one, first = group_rows(columns)
        same, of_same = group_rows([encoded if column is plain else column for column in columns])
        assert {*zip(one.tolist(), same.tolist(), strict=True)} == {*zip(one[first].tolist(), same[first].tolist())}  # noqa: B905
        assert sorted(first.tolist()) == sorted(of_same.tolist())
        assert len(set(same.tolist())) == len(first)
    count = len(first) if rows else 0
    assert distinct_lists(one, count, encoded).to_pylist() == distinct_lists(one, count, plain).to_pylist()
    assert smallest_by(one, count, encoded).to_pylist() == smallest_by(one, count, plain).to_pylist()
    ascending = np.argsort(ordinals(plain), kind="stable")
    assert np.argsort(ordinals(encoded), kind="stable").tolist() == ascending.tolist()


@given(_ROWS)
def test_lists_smallest_and_agreement_per_group(rows: list[Row]) -> None:
    groups, first = _grouped(rows)
    values = pa.array([row[2] for row in rows], pa.string())
    members: dict[int, list[str | None]] = defaultdict(list)
    for group, row in zip(groups.tolist(), rows, strict=True):
        members[group].append(row[2])
    known = [sorted({value for value in members[group] if value is not None}) for group in range(len(first))]
    assert distinct_lists(groups, len(first), values).to_pylist() == known
    assert distinct_lists(groups, len(first), values, 2).to_pylist() == [one[:2] for one in known]
    assert smallest_by(groups, len(first), values).to_pylist() == [one[0] if one else None for one in known]
    strict = [one[0] if len(one) == 1 and None not in members[group] else None for group, one in enumerate(known)]
    assert agreed(groups, len(first), values, null_agrees=False).to_pylist() == strict
    lenient = [one[0] if len(one) == 1 else None for one in known]
    assert agreed(groups, len(first), values, null_agrees=True).to_pylist() == lenient


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 100)), max_size=40, unique_by=lambda row: row[2]
    )
)
def test_the_rank_is_the_place_in_the_sorted_group(rows: list[tuple[int, int, int]]) -> None:
    groups, one, two = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    expected = [sorted((r[1], r[2]) for r in rows if r[0] == row[0]).index((row[1], row[2])) for row in rows]
    assert rank_in_group(groups, one, two).tolist() == expected


@given(st.lists(st.integers(0, 40), max_size=30), st.sampled_from([41, 10_000]))
def test_codes_are_numbered_in_ascending_order(codes: list[int], space: int) -> None:
    """By a table, or by sorting where that would be large."""
    which, found = group_codes(np.array(codes, dtype=np.int64), space)
    assert found.tolist() == sorted(set(codes))
    assert found[which].tolist() == codes


def test_what_has_not_ended_ends_later_than_all() -> None:
    times = pa.array([5, 9, 7, None], pa.timestamp("us", "UTC"))
    latest = latest_by(np.array([0, 0, 1, 1]), 2, times)
    assert latest.cast(pa.int64()).to_pylist() == [9, None]


def test_distinct_values_of_few_rows_in_many_groups_are_in_order() -> None:
    lists = distinct_lists(np.array([99, 0, 99, 99]), 100, pa.array(["c", "b", "a", "c"]))
    assert lists[0].as_py() == ["b"]
    assert lists[99].as_py() == ["a", "c"]
    assert sum(map(len, lists.to_pylist())) == 3
