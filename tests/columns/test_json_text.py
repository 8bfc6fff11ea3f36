"""What columns say in JSON is what they hold."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.addresses import parse_addresses
from agenttrail.columns.json_text import json_lines, json_objects
from agenttrail.schema import ENUM, TIMESTAMP

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_ROW = st.fixed_dictionaries(
    {
        "text": st.none() | _TEXT,
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "flag": st.none() | st.booleans(),
        "texts": st.none() | st.lists(_TEXT, max_size=3),
        "inner": st.none()
        | st.lists(st.fixed_dictionaries({"name": _TEXT, "count": st.none() | st.integers(0, 9)}), max_size=3),
    }
)
_TYPES = {
    "text": pa.string(), "number": pa.int64(), "real": pa.float64(), "flag": pa.bool_(), "texts": pa.list_(pa.string()),
    "inner": pa.list_(pa.struct([("name", pa.string()), ("count", pa.int64())])),
}  # fmt: skip


@given(st.lists(_ROW, max_size=15))
def test_reading_back_gives_what_went_in(rows: list[dict[str, object]]) -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array([row[name] for row in rows], type_) for name, type_ in _TYPES.items()], names=list(_TYPES)
    )
    lines = bytes(json_lines(batch)).splitlines()
    assert [orjson.loads(line) for line in lines] == [_without_nothing(row) for row in rows]


def _without_nothing(row: dict[str, object]) -> dict[str, object]:
    kept = {name: value for name, value in row.items() if value is not None and value != []}
    if "inner" in kept:
        kept["inner"] = [{name: value for name, value in one.items() if value is not None} for one in kept["inner"]]  # type: ignore[attr-defined]
    return kept


def test_times_addresses_and_words() -> None:
    addresses, _ = parse_addresses(pa.array(["10.0.0.1", "2001:DB8::1", None]))
    moments = [datetime(2026, 3, 2, 1, 2, 3, micros, tzinfo=UTC) for micros in (0, 5_000, 7)]
    words = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), pa.array(["a", 'b"']))
    batch = pa.RecordBatch.from_arrays(
        [addresses, pa.array(moments, TIMESTAMP), words.cast(ENUM)], names=["ip", "at", "word"]
    )
    assert json_objects(batch).to_pylist() == [
        '{"ip":"10.0.0.1","at":"2026-03-02T01:02:03Z","word":"a"}',
        '{"ip":"2001:db8::1","at":"2026-03-02T01:02:03.005Z"}',
        '{"at":"2026-03-02T01:02:03.000007Z","word":"b\\""}',
    ]


@given(st.lists(_TEXT, min_size=1, max_size=10))
def test_no_text_can_end_its_line_or_string(texts: list[str]) -> None:
    data = bytes(json_lines(pa.RecordBatch.from_pydict({"a": texts})))
    assert data.count(b"\n") == len(texts)
    assert [orjson.loads(line) for line in data.split(b"\n")[:-1]] == [{"a": text} for text in texts]


def test_rows_and_structs_that_hold_nothing() -> None:
    assert bytes(json_lines(pa.RecordBatch.from_pydict({"a": pa.nulls(2, pa.string())}))) == b"{}\n{}\n"
    structs = pa.array([{"x": 1}, None], pa.struct([("x", pa.int64())]))
    assert json_objects(pa.RecordBatch.from_pydict({"s": structs})).to_pylist() == ['{"s":{"x":1}}', "{}"]
