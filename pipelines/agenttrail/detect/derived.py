"""Derived events: rows in the event schema that each stand for many others, and which ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import agreed, ordinals
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.columns.text import constant
from agenttrail.schema import ADDRESS, ENUM, TIMESTAMP, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Derived:
    """What an analytic found.

    Attributes:
        events: one row per derived event, in columns of the event schema, and ``entity`` (int64): its workload.
        members_offsets: the members of event i stand at [members_offsets[i], members_offsets[i + 1]) of ``members``.
        members: rows of the analytic's input, ascending in time within each event.
    """

    events: pa.RecordBatch
    members_offsets: NDArray[np.int64]
    members: NDArray[np.int64]


def from_conversations(
    name: str,
    conversations: pa.RecordBatch,
    offsets: NDArray[np.int64],
    members: NDArray[np.int64],
    facts: dict[str, pa.Array],
) -> Derived:
    """Describe groups of conversations by what they have in common.

    Args:
        name: the analytic's.
        conversations: its input.
        offsets: where the members of each event start, and the end of the last; no event is without members.
        members: rows of ``conversations``, ascending in time within each event, all of one workload.
        facts: the analytic's own columns, one value per event.

    Returns:
        The events, sorted by workload, peer, port, protocol and start, with:
        ``event.start`` the first start and ``event.end`` the last end;
        ``source.ip`` the workload's address, ``peer.*`` = ``destination.*`` the peer's end and
        ``network.iana_number``: each null where members differ or one does not tell;
        ``source.bytes``, ``destination.bytes`` sums;
        ``event.outcome`` success where one member passed, failure where all that tell were blocked, else null;
        ``network.initiator`` peer where no member was opened outward, else null (outward means perhaps);
        ``connection.count`` the number of members.
    """
    count = len(offsets) - 1
    which = np.repeat(np.arange(count), np.diff(offsets))
    first, rows = offsets[:-1], pa.array(members)

    def told(column: str, type_: pa.DataType) -> pa.Array:
        return agreed(which, count, column_of(conversations, column, type_).take(rows), null_agrees=False)

    def whole(column: str) -> NDArray[np.int64]:
        return integers(conversations, column)[members]

    peer, port = told("destination.ip", ADDRESS), told("destination.port", pa.int32())
    outward = np.logical_or.reduceat(flags(conversations, "outward")[members], first)
    columns = {
        "entity": pa.array(whole("entity")[first]),
        "event.dataset": constant(name, count),
        "event.start": pa.array(np.minimum.reduceat(whole("event.start"), first)).view(TIMESTAMP),
        "event.end": pa.array(np.maximum.reduceat(whole("event.end"), first)).view(TIMESTAMP),
        "event.outcome": _outcome(column_of(conversations, "event.outcome", pa.string()).take(rows), first),
        "source.ip": told("source.ip", ADDRESS),
        "peer.ip": peer,
        "peer.port": port,
        "destination.ip": peer,
        "destination.port": port,
        "network.iana_number": told("network.iana_number", pa.int32()),
        "network.initiator": cast(pa.array(np.full(count, "peer"), pa.string(), mask=outward), ENUM),
        "source.bytes": pa.array(np.add.reduceat(whole("source.bytes"), first)),
        "destination.bytes": pa.array(np.add.reduceat(whole("destination.bytes"), first)),
        "connection.count": pa.array(np.diff(offsets)),
    } | facts
    keys = (
        numbers(columns["event.start"].cast(pa.int64())),
        *map(ordinals, (columns["network.iana_number"], port, peer)),
    )
    order = np.lexsort((*keys, numbers(columns["entity"])))
    events = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)).take(pa.array(order))
    starts, lengths = first[order], np.diff(offsets)[order]
    return Derived(events, offsets_of(lengths), members[ranges(starts, lengths)])


def column_of(rows: pa.RecordBatch, name: str, type_: pa.DataType) -> pa.Array:
    """Return a column as ``type_``; an absent one is all null."""
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, type_) if index < 0 else cast(rows.column(index), type_)


def integers(rows: pa.RecordBatch, name: str, missing: int = 0) -> NDArray[np.int64]:
    """Return a column of integers or times as int64, with ``missing`` for null."""
    index = rows.schema.get_field_index(name)
    if index < 0:
        return np.full(rows.num_rows, missing, dtype=np.int64)
    return numbers(rows.column(index).cast(pa.int64()), missing)


def flags(rows: pa.RecordBatch, name: str) -> NDArray[np.bool_]:
    """Return a boolean column; null is false."""
    return np.asarray(pc.fill_null(column_of(rows, name, pa.bool_()), fill_value=False), dtype=bool)


def _outcome(outcome: pa.Array, first: NDArray[np.int64]) -> pa.Array:
    passed = np.asarray(pc.fill_null(pc.equal(outcome, "success"), fill_value=False))
    any_passed = np.logical_or.reduceat(passed.astype(bool), first)
    any_told = np.logical_or.reduceat(np.asarray(outcome.is_valid()).astype(bool), first)
    return cast(pa.array(np.where(any_passed, "success", "failure"), pa.string(), mask=~any_told), ENUM)
