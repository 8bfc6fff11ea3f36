"""Connections that last: consecutive conversations of one workload with one peer, pieced together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.chains import chain
from agenttrail.columns.groups import group_rows, max_by, min_by
from agenttrail.columns.offsets import run_offsets
from agenttrail.columns.ordering import distinct, order_by
from agenttrail.detect.derived import Derived, column_of, from_conversations, integers
from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAP = 120_000_000
"""Microseconds without a record that one connection may have: windows of flow logs leave holes, and a tunnel or a
miner that lost its connection is back within seconds or two minutes."""
LEAST = 300_000_000
"""Microseconds that a connection must last to be stated: a floor; rules say what length and what share is wrong."""
_PORTS = 1 << 17
"""More than there are ports."""
_UNKNOWN = np.iinfo(np.int64).min


def derive(conversations: pa.RecordBatch, gap: int = GAP) -> Derived:
    """State the connections that last.

    Conversations of one workload (``entity``) with one peer, peer's port and protocol, whatever the workload's port,
    are one connection as long as none starts more than ``gap`` after the furthest end before it.  Conversations that
    were blocked connect nothing and are left out.  A connection is stated if it lasts ``LEAST``.  At what length
    something is wrong, rules say: hours for hosts (long connections of RITA and Zeek: 1, 4, 8 and 12), a share of the
    lease for workloads that live for minutes, and less where other evidence coincides.

    Args:
        conversations: what ``converse()`` returns, with ``entity``, ``lease.start``, ``lease.end``, ``outward``.
        gap: in microseconds.

    Returns:
        One event per connection, with the columns of ``from_conversations()`` and
        ``connection.duration``: seconds from the first start to the last end;
        ``connection.lease_share``: the part of that within the lease / length of the lease, 0 to 1, where the lease
        reaches from the earliest start to the latest end of the members' leases; null where any of these is open or
        unknown, or nothing lies between them;
        ``connection.upload_share``: bytes sent / bytes in both directions; null without bytes;
        ``connection.rate``: bytes in both directions / duration, per second;
        ``connection.sockets``: number of distinct ports of the workload, an unknown one counted as one more: 1 for one
        connection however many records it left, more for one that was opened again, or for many short ones.
    """
    passed = pc.fill_null(
        pc.not_equal(column_of(conversations, "event.outcome", pa.string()), "failure"), fill_value=True
    )
    rows = np.flatnonzero(np.asarray(passed))
    kept = conversations.take(pa.array(rows))
    start, end = integers(kept, "event.start"), integers(kept, "event.end")
    peers, _ = group_rows(
        [
            column_of(kept, "entity", pa.int64()),
            column_of(kept, "destination.ip", ADDRESS),
            column_of(kept, "destination.port", pa.int32()),
            column_of(kept, "network.iana_number", pa.int32()),
        ]
    )
    chains = chain(peers, start, end, gap)
    count = int(chains.max(initial=-1)) + 1
    first, last = min_by(chains, count, start), max_by(chains, count, end)
    long = np.flatnonzero((last - first >= LEAST)[chains])
    members = long[order_by(chains[long], start[long], end[long])]
    offsets = run_offsets(chains[members])
    which = chains[members][offsets[:-1]]
    first, last = first[which], last[which]
    share = _lease_share(kept, members, offsets, first, last)
    members = rows[members]
    facts = _facts(conversations, members, offsets, last - first)
    facts["connection.lease_share"] = pa.array(share, mask=np.isnan(share))
    return from_conversations("long_connection", conversations, offsets, members, facts)


def _lease_share(
    kept: pa.RecordBatch,
    members: NDArray[np.int64],
    offsets: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the share of the lease that each connection covers, not a number where the lease is not known."""
    opened, closed = (integers(kept, f"lease.{name}", _UNKNOWN)[members] for name in ("start", "end"))
    known = np.logical_and.reduceat((opened != _UNKNOWN) & (closed != _UNKNOWN), offsets[:-1])
    begin, finish = np.minimum.reduceat(opened, offsets[:-1]), np.maximum.reduceat(closed, offsets[:-1])
    known &= finish > begin
    begin, finish = np.where(known, begin, 0), np.where(known, finish, 1)
    inside = np.maximum(np.minimum(last, finish) - np.maximum(first, begin), 0)
    return np.where(known, inside / (finish - begin), np.nan)


def _facts(
    conversations: pa.RecordBatch, members: NDArray[np.int64], offsets: NDArray[np.int64], length: NDArray[np.int64]
) -> dict[str, pa.Array]:
    sent, received = (
        np.add.reduceat(integers(conversations, f"{side}.bytes")[members], offsets[:-1])
        for side in ("source", "destination")
    )
    total = sent + received
    seconds = length / 1e6
    ports = integers(conversations, "source.port", -1)[members]
    which = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    sockets = np.bincount(distinct(which * _PORTS + ports + 1) // _PORTS, minlength=len(offsets) - 1)
    return {
        "connection.duration": pa.array(seconds),
        "connection.upload_share": pa.array(sent / np.maximum(total, 1), mask=total == 0),
        "connection.rate": pa.array(total / seconds),
        "connection.sockets": pa.array(sockets),
    }
