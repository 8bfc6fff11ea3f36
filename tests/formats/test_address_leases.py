"""Plain leases: short names, slips, and lines of CSV that cost themselves only."""

from __future__ import annotations

from pathlib import Path

import pytest

from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block, Parsed

_HEAD = b"address,start,end,agent,trajectory,sandbox\n"
_ROW = b"10.0.0.%d,2026-03-02T00:00:00Z,,ann,t,%s\n"


def _parse(data: bytes) -> Parsed:
    parsed: Parsed = FORMATS["address_leases"].parser({})(Block(data, "leases", 0))
    assert parsed.lines == parsed.events.num_rows + parsed.skipped + parsed.dead.num_rows
    return parsed


def test_short_names_are_those_of_the_record() -> None:
    """In CSV and in JSON lines, beside the full ones."""
    csv = _parse(_HEAD + _ROW % (1, b"s"))
    json = _parse(
        b'{"address":"10.0.0.1","start":"2026-03-02T00:00:00Z","agent":"ann","trajectory":"t","sandbox.id":"s"}'
    )
    assert csv.events.to_pylist() == json.events.to_pylist()
    assert csv.events.column("gen_ai.agent.id").to_pylist() == ["ann"]


@pytest.mark.parametrize(
    "broken", [b'10.0.0.9,2026-03-02T00:00:00Z,,"ann,t,s', b'10.0.0.9,2026-03-02T00:00:00Z,,a,t,"s']
)
def test_a_quote_that_is_never_closed_costs_its_line(broken: bytes) -> None:
    """The lines behind it are leases, and its original is the line as it stands."""
    parsed = _parse(_HEAD + _ROW % (1, b"s") + broken + b"\n" + b"".join(_ROW % (host, b"s") for host in range(2, 6)))
    assert parsed.events.num_rows == 5
    assert parsed.dead.column("event.original").to_pylist() == [broken]
    assert parsed.dead.column("error.message").to_pylist()[0].startswith("line 3: not a line of CSV")


def test_quoted_cells_and_long_ones_are_read() -> None:
    """A comma inside quotes is text, and two million characters are a name."""
    parsed = _parse(_HEAD + _ROW % (1, b'"a, ""b"""') + _ROW % (2, b"x" * 2_000_000))
    assert parsed.events.column("sandbox.id").to_pylist() == ['a, "b"', "x" * 2_000_000]


def test_a_dead_line_keeps_its_quotes() -> None:
    """What could not be read is shown as it was."""
    parsed = _parse(_HEAD + b'nowhere,2026-03-02T00:00:00Z,,ann,"a ""q"", b",x\r\n')
    assert parsed.dead.column("event.original").to_pylist() == [b'nowhere,2026-03-02T00:00:00Z,,ann,"a ""q"", b",x']


def test_a_key_that_looks_like_a_slip_is_told() -> None:
    """Else its value would be lost without a word; a key of somebody's own is left alone."""
    line = b'{"address":"10.0.0.1","start":"2026-03-02T00:00:00Z","sandbox.id":"s","%s":"v"}\n'
    assert _parse(line % b"rack").events.num_rows == 1
    (reason,) = _parse(line % b"trajectory.ids").dead.column("error.message").to_pylist()
    assert reason == "line 1: unknown key 'trajectory.ids'; did you mean trajectory.id?"


@pytest.mark.parametrize("head", [b'address,start,"agent\n', b"adress,start\n", b"\n"])
def test_a_header_that_is_none_fails_with_its_place(head: bytes) -> None:
    """A file that cannot be understood is not passed over."""
    with pytest.raises(InputError, match="leases:1: not a header of address leases"):
        _parse(head + _ROW % (1, b"s"))


def test_a_wrong_header_is_answered_with_the_names_that_the_readme_gives() -> None:
    """They can be copied into the header as they stand."""
    with pytest.raises(InputError) as told:
        _parse(b"ip,start,pod\n" + _ROW % (1, b"s"))
    columns = str(told.value).partition("the columns are ")[2]
    assert {"address", "start", "end", "scope", "agent", "trajectory", "sandbox", "job", "host"} <= set(
        columns.split(", ")
    )
    assert _parse(columns.replace(", ", ",").encode() + b"\n").skipped == 1
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in columns.split(", ") if f"| `{name}`" not in readme] == []


def test_times_without_a_zone_are_counted() -> None:
    """Of leases, whichever of their times it is; they are read as UTC."""
    rows = b"10.0.0.1,2026-03-02T00:00:00,,a,t,s\n10.0.0.2,2026-03-02 00:00:00,2026-03-02 01:00:00,a,t,s\n"
    rows += b"10.0.0.3,2026-03-02T00:00:00+08:00,2026-03-02T01:00:00,a,t,s\n"
    fine = b"10.0.0.4,2026-03-02T00:00:00Z,2026-03-02T08:00:00+08:00,a,t,s\n"
    dead = b"10.0.0.5,2026-03-02T00:00:00,never,a,t,s\n"
    assert _parse(_HEAD + rows + fine + dead).without_zone == 3
