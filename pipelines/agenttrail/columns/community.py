"""Community ID v1: one name for a connection, whichever way its packets went and whoever reports it.

Source: the Community ID Flow Hashing specification, seed 0.  Logs without ICMP types give such flows by address only.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import packed
from agenttrail.columns.numbers import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WITH_PORTS = (6, 17, 132)  # tcp, udp, sctp
_WIDTH = 41  # seed, two ends, protocol, padding and ports; and how many bytes of these there are
_ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8)


def community_ids(
    sources: pa.Array, source_ports: pa.Array, destinations: pa.Array, destination_ports: pa.Array, protocols: pa.Array
) -> pa.Array:
    """Return the Community ID of each row; null where an address or the protocol is missing.

    Args:
        sources: addresses.
        source_ports: integers, null counted as 0.
        destinations: addresses.
        destination_ports: as the source's.
        protocols: IANA numbers.
    """
    known = np.array(sources.is_valid()) & np.array(destinations.is_valid()) & np.array(protocols.is_valid())
    ports = np.column_stack([numbers(source_ports), numbers(destination_ports)]).astype(">u2")
    rows = _tuples(packed(sources), packed(destinations), ports, numbers(protocols))
    connections = pa.Array.from_buffers(pa.binary(_WIDTH), len(rows), [None, pa.py_buffer(rows)]).dictionary_encode()
    sha = hashlib.sha1
    # per connection in Python: asked for evidence only
    digests = b"".join([sha(row[: row[-1]]).digest() for row in connections.dictionary.to_pylist()])
    texts = _base64(np.frombuffer(digests, dtype=np.uint8).reshape(-1, 20))
    return pc.if_else(pa.array(known), texts.take(connections.indices), pa.scalar(None, pa.string()))


def _tuples(
    source: NDArray[np.uint32], destination: NDArray[np.uint32], ports: NDArray[np.uint16], protocols: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the bytes that are hashed, with their number as the last byte of the row.

    They are: seed, the smaller end, the larger end, protocol, padding, and ports if it has any.
    """
    ends = [np.ascontiguousarray(end).view("u1").reshape(-1, 16) for end in (source, destination)]
    one, other = (end.view("S16").ravel() for end in ends)
    swapped = ((one > other) | ((one == other) & (ports[:, 0] > ports[:, 1])))[:, None]
    ordered = np.where(swapped, ports[:, ::-1], ports).astype(">u2").view("u1")
    low, high = np.where(swapped, ends[1], ends[0]), np.where(swapped, ends[0], ends[1])
    is_ipv4 = (
        (source[:, 2] == destination[:, 2]) & (source[:, :2] == 0).all(axis=1) & (destination[:, :2] == 0).all(axis=1)
    )
    ported = np.isin(protocols, _WITH_PORTS)
    rows = np.zeros((len(source), _WIDTH), dtype=np.uint8)
    for chosen, size in ((is_ipv4, 4), (~is_ipv4, 16)):
        after = 2 + 2 * size  # the seed is two zero bytes
        rows[chosen, 2 : 2 + size], rows[chosen, 2 + size : after] = low[chosen, -size:], high[chosen, -size:]
        rows[chosen, after] = protocols[chosen] & 0xFF
        rows[chosen, after + 2 : after + 6] = np.where(ported[chosen, None], ordered[chosen], 0)
        rows[chosen, -1] = after + 2 + 4 * ported[chosen]
    return rows


def _base64(digests: NDArray[np.uint8]) -> pa.Array:
    """Return "1:" and the base64 text of digests of 20 bytes."""
    filled = np.zeros((len(digests), 21), dtype=np.uint32)
    filled[:, :20] = digests
    words = (filled[:, 0::3] << 16) | (filled[:, 1::3] << 8) | filled[:, 2::3]
    letters = _ALPHABET[np.stack([(words >> shift) & 0x3F for shift in (18, 12, 6, 0)], axis=2).reshape(-1, 28)]
    text = np.empty((len(digests), 30), dtype=np.uint8)
    text[:, :2], text[:, 2:-1], text[:, -1] = (ord("1"), ord(":")), letters[:, :27], ord("=")
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * 30
    return pa.Array.from_buffers(pa.string(), len(digests), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
