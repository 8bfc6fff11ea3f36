"""A bad line costs itself: what a line gives never depends on the lines around it, and no line is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

sys.path.insert(0, str(Path(__file__).parent))
from tests.formats.golden import sample_of

LOGS = sorted(name for name, format_ in FORMATS.items() if format_.gives != "leases")
_SPECIMENS = {name: sample_of(name).read_bytes().splitlines() for name in LOGS}
_HEADER = _SPECIMENS["aws_vpc_flow"][0] + b"\n"
_NOISE = st.sampled_from(
    [
        b"\x00",
        b"\xff",
        b'"',
        b"\\",
        b"{",
        b"}",
        b",",
        b" ",
        b"-",
        b"9",
        b"\t",
        b"\xc3\xa9",
        b"NaN",
        b"null",
        b"\r",
        b"[]",
        b"1e3",
        b"0x1f",
        b".",
    ]
)


@st.composite
def _lines(draw: st.DrawFn, name: str) -> list[bytes]:
    specimens = _SPECIMENS[name][1:] if name == "aws_vpc_flow" else _SPECIMENS[name]
    specimens = [line for line in specimens if b"srcaddr dstaddr" not in line]
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        line = draw(st.sampled_from(specimens))
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(line)))
            drop = draw(st.integers(0, 4))
            line = line[:at] + draw(_NOISE) + line[at + drop :]
        lines.append(draw(st.sampled_from([line, line, line + line, line[: len(line) // 2]])))
    return lines


def _parse(name: str, data: bytes) -> Any:
    header = _HEADER if name == "aws_vpc_flow" else None
    return FORMATS[name].parser({})(Block(data, "log", 1000, header))


def _events(parsed: Any) -> list[dict[str, object]]:
    return [
        {key: value for key, value in row.items() if value is not None and key != "event.original"}
        for row in parsed.events.to_pylist()
    ]


@pytest.mark.parametrize("name", LOGS)
@given(data=st.data())
def test_a_line_gives_the_same_alone_and_among_others(name: str, data: st.DataObject) -> None:
    lines = data.draw(_lines(name))
    together = _parse(name, b"".join(line + b"\n" for line in lines))
    assert together.with_records == len(together.events.column("log.offset").unique())
    events, dead, counted, at = [], [], 0, 1000
    for line in lines:
        alone = _parse(name, line + b"\n")
        counted += alone.lines
        events += [{**event, "log.offset": at} for event in _events(alone)]
        dead += [{**row, "log.offset": at} for row in alone.dead.to_pylist()]
        at += len(line) + 1
    assert together.lines == counted >= len(lines)
    assert name == "otlp_spans" or counted == len(lines)  # there a line may break in part
    assert _events(together) == events
    assert [_place(row) for row in together.dead.to_pylist()] == [_place(row) for row in dead]


def _place(row: dict[str, object]) -> tuple[object, object]:
    """Where a dead letter is and what it holds; of two things wrong with a line either may be told."""
    return row["log.offset"], row["event.original"]


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("good", [0, 1, 3000])
def test_a_line_of_100_mb_among_good_ones(name: str, good: int) -> None:
    specimen = next(line for line in _SPECIMENS[name] if _parse(name, line).events.num_rows)
    each = _parse(name, specimen).events.num_rows
    huge = b'{"a":"' + b"x" * 100_000_000 + b'"' if name != "aws_vpc_flow" else b"1 " * 50_000_000
    parsed = _parse(name, (specimen + b"\n") * good + huge + b"\n" + (specimen + b"\n") * good)
    assert parsed.events.num_rows == 2 * good * each
    assert [len(original) for original in parsed.dead.column("event.original").to_pylist()] == [len(huge)]


@pytest.mark.parametrize("year", [157_766_400, 4_291_747_200])
def test_times_of_a_broken_clock_are_dead_letters(year: int) -> None:
    line = _SPECIMENS["aws_vpc_flow"][1].replace(b"1772409600", str(year).encode())
    parsed = _parse("aws_vpc_flow", line + b"\n")
    assert parsed.dead.column("error.message").to_pylist() == ["start lies outside of the years 2000 to 2100"]
