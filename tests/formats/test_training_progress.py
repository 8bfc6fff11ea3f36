"""Progress lines: names that the job file gives, times of any unit, and what training loops really write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block, Parsed

_START = 1_772_409_600  # 2026-03-02T00:00:00Z


def _parsed(*records: Any, columns: Any = None) -> Parsed:
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    settings = {} if columns is None else {"columns": columns}
    parsed: Parsed = FORMATS["training_progress"].parser(settings)(Block(b"\n".join(lines) + b"\n", "log", 0))
    assert parsed.lines == parsed.events.num_rows + parsed.skipped + parsed.dead.num_rows
    return parsed


def _reasons(parsed: Parsed) -> list[str]:
    found: list[str] = parsed.dead.column("error.message").to_pylist()
    return found


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2026-03-02T00:00:00Z", _START),
        ("2026-03-02T08:00:00.25+08:00", _START + 0.25),
        ("2026-03-02 00:00:01", _START + 1),
        (_START, _START),
        (_START + 0.123456, _START + 0.123456),
        (f"{_START}.5", _START + 0.5),
        (_START * 1_000 + 5, _START + 0.005),
        (f"{_START * 1_000 + 5}", _START + 0.005),
        (_START * 1_000_000 + 7, _START + 0.000007),
        (_START * 1_000_000_000 + 7_999, _START + 0.000007),
        (946_684_800, 946_684_800),
        (4_102_444_799_999, 4_102_444_799.999),
    ],
)
def test_the_unit_of_a_time_is_the_one_that_lies_in_this_century(time: Any, seconds: float) -> None:
    parsed = _parsed({"timestamp": time, "step": 1})
    assert _reasons(parsed) == []
    (event,) = parsed.events.to_pylist()
    assert event["event.start"].timestamp() == seconds
    assert event["event.end"] == event["event.start"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"step": 1}, "the record has no time: timestamp is missing"),
        ({"timestamp": "", "step": 1}, "the record has no time: timestamp is missing"),
        ({"timestamp": 157_766_400, "step": 1}, "timestamp lies outside of the years 2000 to 2100"),
        ({"timestamp": 4_291_747_200, "step": 1}, "timestamp lies outside of the years 2000 to 2100"),
        ({"timestamp": 0, "step": 1}, "timestamp lies outside of the years 2000 to 2100"),
        ({"timestamp": "1975-01-01T00:00:00Z", "step": 1}, "timestamp lies outside of the years 2000 to 2100"),
        ({"timestamp": "0001-01-01T00:00:00+23:59", "step": 1}, "timestamp lies outside of the years 2000 to 2100"),
        ({"timestamp": True, "step": 1}, "timestamp is neither ISO 8601 nor a number"),
        ({"timestamp": [1], "step": 1}, "timestamp is neither ISO 8601 nor a number"),
        ({"timestamp": "now", "step": 1}, "timestamp is not an RFC 3339 time"),
        ({"timestamp": _START}, "step is missing"),
        ({"timestamp": _START, "step": True}, "step is not a whole number from 0"),
        ({"timestamp": _START, "step": 10**30}, "step is not a whole number from 0"),
        ({"timestamp": _START, "step": "1e400"}, "step is not a whole number from 0"),
        ({"timestamp": _START, "step": 1, "tokens_per_second": [1]}, "tokens_per_second is not a number"),
        ({"timestamp": _START, "step": 1, "job_id": {}}, "job_id is not text"),
        (b'{"timestamp": 1772409600, "step": 1, "a": NaN', "not valid JSON, also where NaN is allowed"),
        (b'{"timestamp": 1772409600, "step": 1, "pod": "\\ud800", "a": NaN}', "pod is not valid Unicode"),
        (b'{"a": NaN, "b": ' + b"[" * 100_000, None),
        (b'{"a": NaN, "step": ' + b"9" * 5_000 + b"}", None),
        (b'{"timestamp": 1772409600, "a": NaN, "step": ' + b"9" * 400 + b"}", "step is not a whole number from 0"),
        (b"[]", "not a JSON object"),
        (b"\xff", "the line is not valid UTF-8"),
        (b"{}\x00", "the line holds a NUL byte"),
    ],
)
def test_a_bad_line_costs_itself(record: Any, reason: str | None) -> None:
    good = {"timestamp": _START, "step": 1}
    parsed = _parsed(good, record, good)
    assert parsed.events.column("training.step").to_pylist() == [1, 1]
    assert len(_reasons(parsed)) == 1
    assert reason is None or _reasons(parsed) == [reason]


@pytest.mark.parametrize("rate", [b"NaN", b"Infinity", b"-Infinity", b"null", b'"nan"', b'""'])
def test_a_step_whose_rate_is_no_number_is_still_a_step(rate: bytes) -> None:
    parsed = _parsed(b'{"timestamp": 1772409600, "step": 5, "loss": NaN, "tokens_per_second": %b}' % rate)
    assert parsed.events.column("training.step").to_pylist() == [5]
    assert parsed.events.column("training.rate").to_pylist() == [None]


def test_names_are_keys_or_paths_and_a_key_comes_first() -> None:
    columns = {"time": "meta.at[0]", "step": "trainer.step", "rate": "system/tps", "sandbox.id": 'k8s["pod"]'}
    nested = {"meta": {"at": [_START]}, "trainer": {"step": 3}, "system/tps": 9, "k8s": {"pod": "p"}}
    parsed = _parsed(nested, nested | {"trainer.step": 4}, nested | {"meta": {"at": []}}, columns=columns)
    assert parsed.events.column("training.step").to_pylist() == [3, 4]
    assert parsed.events.column("training.rate").to_pylist() == [9, 9]
    assert parsed.events.column("sandbox.id").to_pylist() == ["p", "p"]
    assert "job.id" not in parsed.events.schema.names
    assert _reasons(parsed) == ["the record has no time: meta.at[0] is missing"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": "t"}, "'step' must be mapped"),
        ({}, "'time' and 'step' must be mapped"),
        ({"time": None, "step": "s"}, "'time' must be mapped"),
        ({"time": "t", "step": "s", "pod": "p"}, "unknown 'pod'; known are time, job.id, sandbox.id, step, rate"),
    ],
)
def test_columns_that_cannot_do_are_an_error(columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FORMATS["training_progress"].parser({"columns": columns})


_VALUES: Any = st.sampled_from([_START, "2026-03-02T00:00:00Z", 1.5, 7, "7", "x", "", None, True, [], {"a": 1}])
_RECORDS = st.dictionaries(
    st.sampled_from(["timestamp", "step", "job_id", "pod", "tokens_per_second", "z"]), _VALUES
).map(lambda record: json.dumps({"timestamp": _START, "step": 1} | record).encode() + b"\n")
_LINES = st.lists(_RECORDS | st.sampled_from([b"\n", b"{\n", b'{"timestamp":NaN}\n']), min_size=1, max_size=10)


@given(lines=_LINES, data=st.data())
def test_blocks_may_be_cut_at_any_line_end(lines: list[bytes], data: st.DataObject) -> None:
    parse = FORMATS["training_progress"].parser({})
    together = parse(Block(b"".join(lines), "log", 0))
    at, parts = 0, []
    while lines:
        count = data.draw(st.integers(1, len(lines)))
        parts.append(parse(Block(b"".join(lines[:count]), "log", at)))
        at += sum(map(len, lines[:count]))
        lines = lines[count:]
    for name in ("events", "dead"):
        rows = [row for part in parts for row in getattr(part, name).to_pylist()]
        assert rows == getattr(together, name).to_pylist()
    assert sum(part.skipped for part in parts) == together.skipped
