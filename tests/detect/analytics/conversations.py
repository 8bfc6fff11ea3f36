"""Conversations as columns, and derived events as rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from agenttrail.columns.addresses import address, format_addresses, parse_addresses
from agenttrail.schema import ENUM, TIMESTAMP, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.oracles.derived import Conversation

    from agenttrail.detect.derived import Derived

_KEY = ("entity", "peer.ip", "peer.port", "network.iana_number", "event.start")
"""What tells derived events apart."""


def batch_of(ones: Sequence[Conversation]) -> pa.RecordBatch:
    def told(name: str, type_: pa.DataType) -> pa.Array:
        return pa.array([getattr(one, name) for one in ones], type_)

    return pa.RecordBatch.from_pydict(
        {
            "entity": told("entity", pa.int64()),
            "event.start": told("start", TIMESTAMP),
            "event.end": told("end", TIMESTAMP),
            "source.ip": parse_addresses(told("source", pa.string()))[0],
            "source.port": told("source_port", pa.int32()),
            "destination.ip": parse_addresses(told("peer", pa.string()))[0],
            "destination.port": told("port", pa.int32()),
            "network.iana_number": told("protocol", pa.int32()),
            "source.bytes": told("sent", pa.int64()),
            "destination.bytes": told("received", pa.int64()),
            "event.outcome": cast(told("outcome", pa.string()), ENUM),
            "lease.start": told("lease_start", TIMESTAMP),
            "lease.end": told("lease_end", TIMESTAMP),
            "outward": told("outward", pa.bool_()),
            "unlisted": told("unlisted", pa.bool_()),
            "opened": told("opened", pa.bool_()),
            "gen_ai.tool.call.start": told("call", TIMESTAMP),
            "gen_ai.tool.call.gap": pa.array(
                [None if one.call is None else (one.start - one.call) / 1_000_000 for one in ones], pa.float64()
            ),
        }
    )


def rows_of(events: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return events as rows, times as microseconds and addresses as text."""
    columns = {}
    for name, column in zip(events.schema.names, events.columns, strict=True):
        if column.type == TIMESTAMP:
            columns[name] = column.cast(pa.int64()).to_pylist()
        elif column.type == pa.binary(16):
            columns[name] = format_addresses(column).to_pylist()
        else:
            columns[name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def checked(name: str, ones: Sequence[Conversation], derived: Derived) -> list[dict[str, Any]]:
    """Return the events as rows, after a look at their members."""
    rows = rows_of(derived.events)
    for number, row in enumerate(rows):
        assert row.pop("event.dataset") == name
        start, stop = derived.members_offsets[number : number + 2].tolist()
        members = [ones[place] for place in derived.members[start:stop].tolist()]
        assert len(set(derived.members[start:stop].tolist())) == row["connection.count"]
        assert [one.start for one in members] == sorted(one.start for one in members)
        assert {one.entity for one in members} == {row["entity"]}
        assert sum(one.sent for one in members) == row["source.bytes"]
        assert members[0].start == row["event.start"]
    assert rows == sorted(rows, key=_place)
    assert len(derived.members) == derived.members_offsets[-1]
    assert len(rows) == len(derived.members_offsets) - 1
    return rows


def _place(row: dict[str, Any]) -> list[tuple[bool, Any]]:
    """Return where an event belongs among others; what is not known comes last."""
    keys = [row["entity"], address(row["peer.ip"]) if row["peer.ip"] else None]
    keys += [row[name] for name in ("peer.port", "network.iana_number", "event.start")]
    return [(key is None, 0 if key is None else key) for key in keys]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Tell whether rows agree, but for their order and the last digits of numbers."""

    def key(row: dict[str, Any]) -> str:
        return str([row.get(name) for name in _KEY])

    pairs = zip(sorted(found, key=key), sorted(wanted, key=key), strict=False)
    return len(found) == len(wanted) and all(_alike(one, other) for one, other in pairs)


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(value, other[name], rel_tol=1e-12, abs_tol=1e-12)
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in one.items()
    )
