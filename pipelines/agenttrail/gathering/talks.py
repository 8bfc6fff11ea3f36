"""The conversations of a shard, with all that analytics and rules ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import max_by, min_by
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.columns.text import constant
from agenttrail.detect.derived import Derived
from agenttrail.detect.nearby import unanswered_nearby
from agenttrail.gathering.shard import column, with_columns
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.detect.signals import Lists
    from agenttrail.gathering.shard import Shard
    from agenttrail.gathering.tool_calls import ToolCalls

CONVERSATION = "conversation"
_SECOND = 1_000_000
_OPEN = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Talks:
    """The conversations of a shard as derived events.

    Attributes:
        conversations: with all that analytics and rules ask of them.
        offsets: the rows of conversation i stand at [offsets[i], offsets[i + 1]) of ``rows``.
        rows: rows of the shard.
    """

    conversations: pa.RecordBatch
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(
        cls, shard: Shard, conversations: pa.RecordBatch, which: NDArray[np.int64], lists: Lists, calls: ToolCalls
    ) -> Talks:
        """Describe the ``conversations`` of a shard, of which ``which`` tells the one of each row (-1 for none)."""
        known = np.flatnonzero(which >= 0)
        rows = known[np.argsort(which[known], kind="stable")]
        offsets = offsets_of(np.bincount(which[known], minlength=conversations.num_rows))
        first = rows[offsets[:-1]] if len(rows) else rows
        start, end = (numbers(conversations.column(f"event.{name}").cast(pa.int64())) for name in ("start", "end"))
        peer = conversations.column("destination.ip")
        sent, received = (numbers(conversations.column(f"{side}.bytes")) for side in ("source", "destination"))
        both, seconds = sent + received, (end - start) / _SECOND
        with np.errstate(divide="ignore", invalid="ignore"):
            upload, rate = sent / both, both / seconds
        verdicts = pc.binary_join(conversations.column("event.action"), " ")
        columns = {
            "event.dataset": constant(CONVERSATION, conversations.num_rows),
            "event.action": verdicts,
            "entity": pa.array(shard.workload[first]),
            "peer.ip": peer,
            "peer.port": conversations.column("destination.port"),
            "network.transport": column(shard.rows, "network.transport").take(pa.array(first)),
            "outward": pc.fill_null(pc.not_equal(conversations.column("network.initiator"), "peer"), fill_value=True),
            "unlisted": pa.array(lists.unlisted(pa.RecordBatch.from_arrays([peer], names=["peer.ip"]))),
            "connection.duration": pa.array(seconds),
            "connection.upload_share": pa.array(upload, mask=both == 0),
            "connection.rate": pa.array(rate, mask=seconds == 0),
            "connection.count": pa.array(np.ones(conversations.num_rows, dtype=np.int64)),
        } | _lease_columns(shard, rows, offsets)
        described = with_columns(conversations, columns)
        described = with_columns(described, {"connection.unanswered_nearby": unanswered_nearby(described)})
        return cls(calls.named(described, shard.workload[first], start), offsets, rows)

    def whole(self) -> Derived:
        """Return every conversation as an event of its own."""
        count = self.conversations.num_rows
        return Derived(self.conversations, np.arange(count + 1), np.arange(count))

    def rows_of(self, members: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of conversations, and to which place of ``members`` each belongs."""
        lengths = np.diff(self.offsets)[members]
        return self.rows[ranges(self.offsets[members], lengths)], np.repeat(np.arange(len(members)), lengths)


def _lease_columns(shard: Shard, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return the earliest start and the latest end of the leases of each conversation; null where one is open."""
    count = len(offsets) - 1
    which = np.repeat(np.arange(count), np.diff(offsets))
    holders = shard.holder[rows]
    start = numbers(shard.holders.column("attribution.lease_start").cast(pa.int64()), _OPEN)[holders]
    end = numbers(shard.holders.column("attribution.lease_end").cast(pa.int64()), _OPEN)[holders]
    first, last = min_by(which, count, start), max_by(which, count, end)
    return {
        "lease.start": pa.array(first, mask=first == _OPEN).cast(TIMESTAMP),
        "lease.end": pa.array(last, mask=last == _OPEN).cast(TIMESTAMP),
    }
