"""Addresses as columns agree with the standard library, one by one."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.addresses import address, as_bytes, format_addresses, ipv4, parse_addresses, present
from agenttrail.columns.dictionaries import decoded
from agenttrail.columns.positions import AddressSet

if TYPE_CHECKING:
    from collections.abc import Callable

_IPV4 = st.ip_addresses(v=4).map(str)
_IPV6 = st.ip_addresses(v=6).map(str)
_NEARLY = st.text(alphabet="0123456789.:abcdf", max_size=18)


def _expected(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed) if "%" not in text else None


@given(st.lists(st.none() | _IPV4 | _IPV6 | _NEARLY, max_size=40), st.integers(0, 5))
def test_parsing_agrees_with_the_standard_library(texts: list[str | None], start: int) -> None:
    column = pa.array(texts, pa.string())[start:]
    expected = [_expected(text) for text in texts[start:]]
    encoded = (column.dictionary_encode(), pa.array(texts, pa.string()).dictionary_encode()[start:])
    for given_ in (column, *encoded, pc.dictionary_encode(column, null_encoding="encode")):
        parsed, bad = parse_addresses(given_)
        assert present(parsed).tolist() == [one is not None for one in expected]
        assert format_addresses(parsed).to_pylist() == format_addresses(decoded(parsed)).to_pylist() == expected
        assert bad.tolist() == [
            text is not None and want is None for text, want in zip(texts[start:], expected, strict=True)
        ]


@pytest.mark.parametrize("read", [ipv4, as_bytes])
def test_the_places_in_a_dictionary_are_not_read_as_addresses(read: Callable[[pa.Array], object]) -> None:
    parsed, _ = parse_addresses(pa.array(["10.1.2.3", "10.1.2.4"] * 8).dictionary_encode())
    with pytest.raises(TypeError, match="row by row"):
        read(parsed)


@pytest.mark.parametrize(
    "text", ["01.2.3.4", "1.2.3.04", "fe80::1%eth0", "1.2.3.4\x00", " 1.2.3.4", "256.1.1.1", "1.2.3", ""]
)
def test_what_readers_disagree_on_is_refused(text: str) -> None:
    parsed, bad = parse_addresses(pa.array([text]))
    assert parsed.null_count == 1
    assert bad.tolist() == [True]


def test_a_mapped_address_is_the_ipv4_address() -> None:
    parsed, _ = parse_addresses(pa.array(["::ffff:10.1.2.3", "10.1.2.3"]))
    values, is_ipv4 = ipv4(parsed)
    assert is_ipv4.all()
    assert values[0] == values[1] == int(ipaddress.IPv4Address("10.1.2.3"))
    assert address("10.1.2.3") == parsed[0].as_py()


@given(st.lists(_IPV4 | _IPV6, max_size=60), st.lists(_IPV4 | _IPV6 | st.none(), max_size=60))
def test_positions_are_those_in_the_sorted_set(known: list[str], asked: list[str | None]) -> None:
    column, _ = parse_addresses(pa.array(known, pa.string()))
    wanted, _ = parse_addresses(pa.array([*asked, *known], pa.string()))
    found = AddressSet.of(column).find(wanted)
    ordered = sorted({value for value in column.to_pylist() if value[:12] == b"\0" * 10 + b"\xff\xff"})
    ordered += sorted({value for value in column.to_pylist() if value not in ordered})
    places = {value: place for place, value in enumerate(ordered)}
    assert found.tolist() == [places.get(value, -1) for value in wanted.to_pylist()]
    assert AddressSet.of(column).find(wanted.dictionary_encode()).tolist() == found.tolist()


def test_a_scattered_set_is_searched_instead_of_paged() -> None:
    values = np.arange(1000, dtype=np.uint64) * 4_000_000
    column, _ = parse_addresses(pa.array([str(ipaddress.IPv4Address(int(value))) for value in values]))
    scattered = AddressSet.of(column)
    assert len(scattered.pages) == 0
    assert scattered.find(column).tolist() == list(range(1000))
