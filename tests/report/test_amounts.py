"""Counts and bytes have their thousands apart on pages and terminals; ports, ids and years have not."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.cases import finding, incident, timeline, write_output

from agenttrail.cli import main
from agenttrail.detect.expressions import Match, Op
from agenttrail.report.amounts import grouped, grouped_numbers, grouped_pair
from agenttrail.report.conditions import Condition, Part, Question, values

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("connection.count", 1_234_567, "1,234,567"), ("egress.bytes", "1234567.5", "1,234,567.5"),
        ("event_count", "12000", "12,000"), ("source.packets", "999", "999"), ("egress.bytes", "0", "0"),
        ("peer.port", 40_000, "40000"), ("finding.id", "20260302", "20260302"), ("source.bytes", "-5000", "-5000"),
        ("source.bytes", "1e6", "1e6"), ("source.bytes", "١٢٣٤", "١٢٣٤"), ("source.bytes", "5000.x", "5000.x"),
        ("source.bytes", "1" * 5_000, "1" * 5_000), ("source.bytes", "", ""), ("source.bytes", "5000.", "5000."),
    ],
)  # fmt: skip
def test_only_whole_numbers_of_what_is_counted_are_grouped(field: str, value: object, shown: str) -> None:
    assert grouped(field, value) == shown
    assert grouped_pair(f"{field}={value}") == f"{field}={shown}"


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(0, 3))
@pytest.mark.parametrize("field", ["source.bytes", "peer.port"])
def test_columns_are_grouped_as_single_values_are(field: str, values: list[int | None], start: int) -> None:
    column = pa.array(values, pa.int64())[start:]
    expected = [None if one is None else grouped(field, one) for one in values[start:]]
    assert grouped_numbers(field, column).to_pylist() == expected


def test_what_a_rule_asks_is_grouped_and_still_answered() -> None:
    match = Match("egress.bytes", Op.AT_LEAST, 5_000_000)
    part = Part("r", (), ("egress.bytes",), questions=(Question(match, negated=False),))
    (told,) = values(Condition("", "", (part,)), finding(0, **{"finding.values": ["egress.bytes=7500000"]}))
    assert (told.values, told.asked, told.met) == (("7,500,000",), "is at least 5,000,000", "yes")


def test_pages_and_terminals_group_thousands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"finding.values": ["connection.count=12345", "peer.port=40000"], "peer.port": [40_000]}
    counted = {"event.count": 23_456, "network.conversations": 12_345, "source.bytes": 7_654_321}
    one = incident(0, **{"destination.port": [40_000]})
    entries = [{**entry, **({"source.bytes": 7_654_321} if "source.bytes" in entry else {})} for entry in timeline(0)]
    out = write_output(tmp_path / "out", [one], [finding(0, **kept, **counted)], entries)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    raw = next((out / "report").glob("incident-*.html")).read_text(encoding="utf-8")
    page = html.unescape(re.sub(r"<[^>]+>", "", raw))
    capsys.readouterr()
    assert main(["incidents", "show", "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "23,456 events from 2026-03-02T00:10:00" in shown
    assert "in 12,345 conversations: 7,654,321 bytes out, 900 bytes in" in shown
    assert "saw connection.count=12,345, peer.port=40000" in shown
    assert "… 23,455 more" in shown
    assert "23,456 events from 2026-03-02 00:10:00" in page
    assert "source.bytes 7,654,321, destination.bytes 40" in page
    for text in (page, shown):
        assert "port 40000" in text
        assert not re.search(r"(?<![\d,.])(23456|12345|7654321)", text)
