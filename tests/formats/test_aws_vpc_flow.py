"""Header lines of AWS flow logs: what they may look like, where they may stand, and what a damaged one costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrail.columns.addresses import format_addresses
from agenttrail.columns.delimited import Cells, Layout, read_delimited
from agenttrail.formats import FORMATS, aws_vpc_flow
from agenttrail.formats.aws_vpc_flow import is_header
from agenttrail.parsing import Block, Parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

_REST = "account-id interface-id dstaddr srcaddr dstport srcport protocol packets bytes start end action log-status"
_ROW = b"2 123 eni-1 198.51.100.9 10.0.0.1 22 40000 6 5 500 1772409600 1772409610 ACCEPT OK\n"
_V2 = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
_V2_ROW = b"2 123 eni-1 10.0.0.1 198.51.100.9 40000 22 6 5 500 1772409600 1772409610 ACCEPT OK\n"


def _parse(data: bytes) -> Parsed:
    parsed: Parsed = FORMATS["aws_vpc_flow"].parser({})(Block(data, "log", 0))
    assert parsed.lines == parsed.events.num_rows + parsed.skipped + parsed.dead.num_rows
    return parsed


def _ends(parsed: Parsed) -> set[tuple[str, int, str, int]]:
    columns = [format_addresses(parsed.events.column(f"{side}.ip")) for side in ("source", "destination")]
    ports = [parsed.events.column(f"{side}.port") for side in ("source", "destination")]
    return set(zip(*(one.to_pylist() for one in (columns[0], ports[0], columns[1], ports[1])), strict=True))


@pytest.mark.parametrize("first", ["version", "flow-id", "#version", " version", "${version}", "VERSION"])
def test_columns_come_from_the_header_whatever_its_first_word(first: str) -> None:
    """An order of one's own behind an unknown or decorated first column is not read as the default order."""
    parsed = _parse(f"{first} {_REST}\n".encode() + _ROW)
    assert _ends(parsed) == {("10.0.0.1", 40000, "198.51.100.9", 22)}
    assert (parsed.skipped, parsed.dead.num_rows) == (1, 0)


def test_a_data_line_that_holds_a_name_of_a_column_is_no_header() -> None:
    assert not is_header(b"2 123 eni-1 srcaddr 10.0.0.1 22 40000 6 5 500 1772409600 1772409610 ACCEPT OK\n")
    assert not is_header(b"eni-1 srcaddr 10.0.0.1 22 40000 6 5\n")


@pytest.mark.parametrize("damage", [b"\0", b"\xff", b"\rx"])
@pytest.mark.parametrize("above", [b"", f"{_V2}\n".encode() + _V2_ROW])
def test_a_damaged_header_costs_itself(damage: bytes, above: bytes) -> None:
    """It is a dead letter, no row below it is lost, and they are read by the columns that it still names."""
    header = f"version {_REST}".encode().replace(b"account-id", b"account" + damage + b"-id")
    parsed = _parse(above + header + b"\n" + _ROW * 20)
    assert parsed.dead.num_rows == 1
    assert parsed.dead.column("log.offset").to_pylist() == [len(above)]
    assert parsed.events.num_rows == 20 + bool(above)
    assert _ends(parsed) == {("10.0.0.1", 40000, "198.51.100.9", 22)}


def test_headers_may_repeat_and_change_line_by_line() -> None:
    """Each row is read by the header above it, in the order of the lines."""
    pieces = [f"version {_REST}\n".encode(), _ROW, f"{_V2}\n".encode(), _V2_ROW, f"{_V2}\n".encode(), _V2_ROW]
    parsed = _parse(b"".join(pieces * 50))
    assert _ends(parsed) == {("10.0.0.1", 40000, "198.51.100.9", 22)}
    assert (parsed.events.num_rows, parsed.skipped, parsed.dead.num_rows) == (150, 150, 0)
    offsets = parsed.events.column("log.offset").to_pylist()
    assert offsets == sorted(offsets)


def test_rows_are_read_a_layout_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often headers repeat, there is one read per distinct header."""
    reads: list[Layout] = []

    def read(data: pa.Buffer, made: Layout, types: Mapping[str, pa.DataType]) -> Cells:
        reads.append(made)
        return read_delimited(data, made, types)

    monkeypatch.setattr(aws_vpc_flow, "read_delimited", read)
    _parse((f"version {_REST}\n".encode() + _ROW + f"{_V2}\n".encode() + _V2_ROW) * 1_000)
    assert len(reads) == 2


def test_a_protocol_of_thousands_of_digits_is_a_protocol_nobody_knows() -> None:
    """Python refuses to read such a number; it stands as the word that it is."""
    line = (
        '{"__time__":1772409600,"log_type":"internet_log","src_ip":"10.0.0.1","dst_ip":"198.51.100.9","src_port":1,'
        '"dst_port":2,"start_time":1772409600,"end_time":1772409600,"rule_result":"pass","ip_protocol":"%s"}\n'
    )
    parsed = FORMATS["alibaba_cloud_firewall"].parser({})(Block((line % ("9" * 5000)).encode(), "log", 0))
    assert parsed.events.num_rows + parsed.dead.num_rows == 1
