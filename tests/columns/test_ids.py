"""Ids are made of content alone, and of all of it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.addresses import parse_addresses
from agenttrail.columns.community import community_ids
from agenttrail.columns.ids import content_id, content_ids

_VALUE = st.none() | st.text("a:1-\x1f", max_size=4)


@given(st.lists(st.tuples(_VALUE, _VALUE), max_size=20))
def test_rows_share_an_id_if_they_agree(rows: list[tuple[str | None, str | None]]) -> None:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(2)]
    ids = content_ids(columns).to_pylist()
    for left in range(len(rows)):
        for right in range(len(rows)):
            assert (ids[left] == ids[right]) == (rows[left] == rows[right])
    assert ids == [content_id(*row) for row in rows]


@given(
    st.lists(st.sampled_from([None, "", "a", "a:b", "x" * 5_000]), min_size=1, max_size=8), st.sampled_from(["c", ""])
)
def test_how_a_column_is_stored_is_in_no_id(values: list[str | None], constant: str) -> None:
    plain = pa.array(values, pa.string())
    same = pa.array([constant] * len(values))
    ids = content_ids([plain, same, plain])
    assert ids.to_pylist() == [content_id(value, constant, value) for value in values]
    assert content_ids([plain.dictionary_encode(), same.dictionary_encode(), plain.cast(pa.binary())]).equals(ids)
    assert content_ids([plain, constant, plain]).equals(ids)
    with_null = pc.dictionary_encode(plain, null_encoding="encode")
    assert content_ids([with_null, constant, plain]).equals(ids)
    assert content_ids([same, constant]).to_pylist() == [content_id(constant, constant)] * len(values)


def test_the_id_of_known_content_stays_what_it_is() -> None:
    """A changed hash would double every document in every index: this is a contract."""
    assert content_id("finding", "a", None, "") == "d123d3e7b2b8ee6854f9096f5f7ecd29"


def test_community_ids_of_the_specification() -> None:
    """The specification's own baseline: one connection, both ways, one name."""
    sources, _ = parse_addresses(pa.array(["128.232.110.120", "66.35.250.204", None]))
    destinations, _ = parse_addresses(pa.array(["66.35.250.204", "128.232.110.120", "1.1.1.1"]))
    ports = pa.array([34855, 80, 1], pa.int32()), pa.array([80, 34855, 1], pa.int32())
    ids = community_ids(sources, ports[0], destinations, ports[1], pa.array([6, 6, 6], pa.int32()))
    assert ids.to_pylist() == ["1:LQU9qZlK+B5F3KDmev6m5PMibrg="] * 2 + [None]
