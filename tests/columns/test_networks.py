"""Membership in lists of networks agrees with asking each network in turn."""

from __future__ import annotations

import ipaddress

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.addresses import parse_addresses
from agenttrail.columns.networks import NetworkLists, parse_network


@st.composite
def _networks(draw: st.DrawFn) -> str:
    host = draw(st.ip_addresses(v=4) | st.ip_addresses(v=6))
    return str(ipaddress.ip_network((host, draw(st.integers(0, host.max_prefixlen))), strict=False))


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[list[str]], list[str | None]]:
    lists = draw(st.lists(st.lists(_networks(), max_size=8), min_size=1, max_size=6))
    edges = [str(edge) for one in lists for text in one for edge in _edges(text)]
    near = st.sampled_from(edges) if edges else st.nothing()
    asked = draw(
        st.lists(st.none() | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str) | near, max_size=40)
    )
    return lists, asked


def _edges(text: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    network = ipaddress.ip_network(text)
    kind = type(network.network_address)
    span = 1 << network.max_prefixlen
    first, last = int(network.network_address), int(network.broadcast_address)
    return [kind(value % span) for value in (first - 1, first, last, last + 1)]


@given(_cases())
def test_tags_agree_with_asking_each_network(case: tuple[list[list[str]], list[str | None]]) -> None:
    lists, asked = case
    compiled = NetworkLists.compile([[parse_network(text) for text in one] for one in lists])
    column, _ = parse_addresses(pa.array(asked, pa.string()))
    expected = [
        sum(1 << bit for bit, one in enumerate(lists) if text is not None and _inside(text, one)) for text in asked
    ]
    assert compiled.tag(column).tolist() == expected
    assert compiled.tag(column.dictionary_encode()).tolist() == expected


def _inside(text: str, networks: list[str]) -> bool:
    parsed = ipaddress.ip_address(text)
    plain = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(plain in ipaddress.ip_network(network) for network in networks)


def test_more_split_upper_halves_than_pages_are_searched() -> None:
    networks = [parse_network(f"{upper >> 8}.{upper & 255}.0.0/24") for upper in range(256, 256 + 900)]
    compiled = NetworkLists.compile([networks])
    assert (compiled.page_of == -2).any()
    column, _ = parse_addresses(pa.array(["1.0.0.9", "1.0.1.9", "4.130.0.255", "4.130.1.0"]))
    assert compiled.tag(column).tolist() == [1, 0, 1, 0]
