"""Community ID v1: one name for a connection, whichever way its packets went and whoever reports it.

Source: the Community ID Flow Hashing specification, seed 0.  Logs without ICMP types give such flows by address only.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.addresses import packed
from agenttrail.columns.numbers import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED = b"\x00\x00"
_WITH_PORTS = (6, 17, 132)  # tcp, udp, sctp


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
    sha = hashlib.sha1
    encode = base64.b64encode
    # per row in Python: asked for conversations and evidence only
    texts = [
        "1:" + encode(sha(_SEED + row).digest()).decode() if fine else None
        for row, fine in zip(rows, known.tolist(), strict=True)
    ]
    return pa.array(texts, pa.string())


def _tuples(
    source: NDArray[np.uint32], destination: NDArray[np.uint32], ports: NDArray[np.uint16], protocols: NDArray[np.int64]
) -> list[bytes]:
    """Return the bytes that are hashed: the smaller end, the larger end, protocol, padding, and ports if it has any."""
    ends = np.stack(
        [np.ascontiguousarray(source).view("S16").ravel(), np.ascontiguousarray(destination).view("S16").ravel()],
        axis=1,
    )
    swapped = (ends[:, 0] > ends[:, 1]) | ((ends[:, 0] == ends[:, 1]) & (ports[:, 0] > ports[:, 1]))
    low = np.where(swapped, ends[:, 1], ends[:, 0])
    high = np.where(swapped, ends[:, 0], ends[:, 1])
    ordered = np.where(swapped[:, None], ports[:, ::-1], ports).astype(">u2")
    is_ipv4 = (
        (source[:, 2] == destination[:, 2]) & (source[:, :2] == 0).all(axis=1) & (destination[:, :2] == 0).all(axis=1)
    )
    rows = []
    # NumPy drops trailing zero bytes of S16 on the way to Python: they are filled up again
    for first, last, port, protocol, short in zip(
        low.tolist(), high.tolist(), ordered, protocols.tolist(), is_ipv4.tolist(), strict=True
    ):
        cut = slice(12, 16) if short else slice(0, 16)
        tail = port.tobytes() if protocol in _WITH_PORTS else b""
        rows.append(first.ljust(16, b"\0")[cut] + last.ljust(16, b"\0")[cut] + bytes((protocol & 0xFF, 0)) + tail)
    return rows
