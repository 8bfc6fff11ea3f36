"""What all rows of a shard tell together: conversations, the tool calls before them, derived events, and findings.

The pure functions of the middle meet here, as batches; Beam stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.asof import last_before
from agenttrail.columns.batches import joined
from agenttrail.columns.groups import column_codes, max_by, min_by
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import constant
from agenttrail.conversations import converse
from agenttrail.detect.analytics import ANALYTICS, TELEMETRY_ANALYTICS
from agenttrail.detect.derived import Derived, offsets_of, ranges
from agenttrail.detect.findings import Hits, gather
from agenttrail.detect.signals import DIGEST, HOLDER, digest_words
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST
from agenttrail.schema import TIMESTAMP, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.plan import Plan
    from agenttrail.detect.rules import Rule
    from agenttrail.detect.signals import Lists, Signals

    _RowsOf = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]

CONVERSATION, TOOL_CALL = "conversation", "tool_call"
DERIVED = (CONVERSATION, *ANALYTICS, *TELEMETRY_ANALYTICS)
"""Categories of derived events, which rules name in ``logsource``."""
EXECUTE_TOOL = "execute_tool"
_SECOND = 1_000_000
_UNKNOWN = np.iinfo(np.int64).min
_OPEN = np.iinfo(np.int64).max
_CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id")


@dataclass(frozen=True)
class Gathered:
    """What came of the rows of a shard.

    Attributes:
        findings: of the row rules and of the rules on derived events, sorted by id.
        gaps: what could not be seen of GPUs and steps, as ``gpu_progress`` tells it.
    """

    findings: pa.RecordBatch
    gaps: pa.RecordBatch | None


@dataclass(frozen=True)
class _Shard:
    """The rows of a shard and what is known of each.

    Attributes:
        rows: all distinct rows that matter.
        holders: whom they are about.
        holder: place of each row's holder.
        entity: number of each row's entity.
        workload: number of each row's workload.
    """

    rows: pa.RecordBatch
    holders: pa.RecordBatch
    holder: NDArray[np.int64]
    entity: NDArray[np.int64]
    workload: NDArray[np.int64]

    @classmethod
    def of(cls, signals: Signals) -> _Shard:
        holder = numbers(signals.rows.column(HOLDER))
        entity, workload = (
            column_codes(signals.holders.column(name))[0][holder] for name in (ENTITY_DIGEST, WORKLOAD_DIGEST)
        )
        return cls(signals.rows, signals.holders, holder, entity, workload)

    def start(self) -> NDArray[np.int64]:
        """Return when each row's event starts."""
        return numbers(self.rows.column("event.start").cast(pa.int64()))

    def are(self, name: str, word: str | None = None) -> NDArray[np.int64]:
        """Return the rows that have the column ``name``, or ``word`` in it."""
        if name not in self.rows.schema.names:
            return np.empty(0, dtype=np.int64)
        column = self.rows.column(name)
        known = column.is_valid() if word is None else pc.fill_null(pc.equal(column, word), fill_value=False)
        return np.flatnonzero(np.asarray(known))


def gather_shard(
    signals: Signals, rules: Sequence[Rule], plans: Mapping[str, Plan], lists: Lists, progress: pa.RecordBatch
) -> Gathered:
    """Return what the rows of a shard tell together.

    Args:
        signals: all distinct rows that matter, of some workloads, from the whole input.
        rules: all rules of the job.
        plans: of each category of derived events the plan of the rules that look at it.
        lists: what is listed.
        progress: every report of training progress, of all workloads.
    """
    shard = _Shard.of(signals)
    entities = signals.holders.column(ENTITY_DIGEST).take(signals.rows.column(HOLDER))
    conversations, which = converse(shard.rows, entities)
    calls = _ToolCalls.of(shard)
    hits, gaps = [Hits.of(shard.rows)], None
    wanted = {category for category in DERIVED if plans[category].rules}
    if wanted - set(TELEMETRY_ANALYTICS):
        talks = _Talks.of(shard, conversations, which, lists, calls)
        for category in sorted(wanted & {CONVERSATION, *ANALYTICS}):
            derived = talks.whole() if category == CONVERSATION else ANALYTICS[category](talks.conversations)
            hits += _hits(plans[category], derived, talks.rows_of)
    samples = shard.are("metric.name")
    for category in sorted(wanted & set(TELEMETRY_ANALYTICS)):
        derived, gaps = TELEMETRY_ANALYTICS[category](_samples(shard, samples), progress)
        hits += _hits(plans[category], derived, lambda members: (samples[members], np.arange(len(members))))
    findings, first = gather(shard.rows, shard.holders, conversations, which, rules, _together(hits))
    return Gathered(calls.named(findings, shard.workload[first], shard.start()[first]), gaps)


def reports(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return all reports of training progress as one batch."""
    return joined(batches) if batches else pa.RecordBatch.from_arrays([pa.array([], TIMESTAMP)], names=["event.start"])


@dataclass(frozen=True)
class _ToolCalls:
    """Every tool call of a shard, for what came after.

    Attributes:
        calls: their rows, by time.
        workload: of each.
        start: of each.
    """

    calls: pa.RecordBatch
    workload: NDArray[np.int64]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, shard: _Shard) -> _ToolCalls:
        rows = shard.are("gen_ai.operation.name", EXECUTE_TOOL)
        rows = rows[np.lexsort((digest_words(shard.rows.column(DIGEST))[rows], shard.start()[rows]))]
        return cls(shard.rows.take(pa.array(rows)), shard.workload[rows], shard.start()[rows])

    def named(self, events: pa.RecordBatch, workload: NDArray[np.int64], start: NDArray[np.int64]) -> pa.RecordBatch:
        """Name beside each event the tool call before it in the same workload, and how long before it that began."""
        if not len(self.start):
            return events
        call = last_before(workload, start, self.workload, self.start)
        none = call < 0
        index = pa.array(call, mask=none)
        columns = {name: self.calls.column(name).take(index) for name in _CALL if name in self.calls.schema.names}
        begun = self.start[np.maximum(call, 0)]
        columns["gen_ai.tool.call.start"] = pa.array(begun, mask=none).cast(TIMESTAMP)
        columns["gen_ai.tool.call.gap"] = pa.array((start - begun) / _SECOND, mask=none)
        return _with_columns(events, columns)


def _with_columns(batch: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    kept = {name: batch.column(index) for index, name in enumerate(batch.schema.names)} | columns
    return pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))


@dataclass(frozen=True)
class _Talks:
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
        cls, shard: _Shard, conversations: pa.RecordBatch, which: NDArray[np.int64], lists: Lists, calls: _ToolCalls
    ) -> _Talks:
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
            "entity": pa.array(shard.entity[first]),
            "peer.ip": peer,
            "peer.port": conversations.column("destination.port"),
            "network.transport": _column(shard.rows, "network.transport").take(pa.array(first)),
            "outward": pc.fill_null(pc.not_equal(conversations.column("network.initiator"), "peer"), fill_value=True),
            "unlisted": pa.array(lists.unlisted(pa.RecordBatch.from_arrays([peer], names=["peer.ip"]))),
            "connection.duration": pa.array(seconds),
            "connection.upload_share": pa.array(upload, mask=both == 0),
            "connection.rate": pa.array(rate, mask=seconds == 0),
            "connection.count": pa.array(np.ones(conversations.num_rows, dtype=np.int64)),
        } | _lease_columns(shard, rows, offsets)
        described = _with_columns(conversations, columns)
        return cls(calls.named(described, shard.workload[first], start), offsets, rows)

    def whole(self) -> Derived:
        """Return every conversation as an event of its own."""
        count = self.conversations.num_rows
        return Derived(self.conversations, np.arange(count + 1), np.arange(count))

    def rows_of(self, members: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of conversations, and to which place of ``members`` each belongs."""
        lengths = np.diff(self.offsets)[members]
        return self.rows[ranges(self.offsets[members], lengths)], np.repeat(np.arange(len(members)), lengths)


def _column(rows: pa.RecordBatch, name: str) -> pa.Array:
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, pa.string()) if index < 0 else rows.column(index)


def _lease_columns(shard: _Shard, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, pa.Array]:
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


def _samples(shard: _Shard, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Return the GPU samples among the rows, with whom they are about."""
    holders = shard.holders.take(pa.array(shard.holder[rows]))
    samples = shard.rows.take(pa.array(rows))
    columns = {name: holders.column(name) for name in ("sandbox.id", "job.id", "trajectory.id")}
    return _with_columns(samples, columns | {"entity": pa.array(shard.entity[rows])})


def _hits(plan: Plan, derived: Derived, rows_of: _RowsOf) -> Iterator[Hits]:
    """Yield the rows that derived events stand for and the rules that hit these."""
    names = set(record("event").fields)
    events = derived.events.select([name for name in derived.events.schema.names if name in names])
    peerless = np.asarray(_column(events, "peer.ip").is_null())
    for number, found in zip(plan.numbers, plan.run(events), strict=True):
        lengths = np.diff(derived.members_offsets)[found]
        members = derived.members[ranges(derived.members_offsets[found], lengths)]
        rows, place = rows_of(members)
        event = np.repeat(found, lengths)[place]
        yield Hits(rows, np.full(len(rows), number), peerless[event])


def _together(hits: Sequence[Hits]) -> Hits:
    """Put hits together, each row once per rule."""
    if len(hits) == 1:
        return hits[0]
    rows, rules = (np.concatenate([getattr(one, name) for one in hits]) for name in ("rows", "rules"))
    none = (np.zeros(len(one.rows), dtype=bool) if one.peerless is None else one.peerless for one in hits)
    peerless = np.concatenate(list(none))
    _, first = np.unique((rules * 2 + peerless) * (int(rows.max(initial=0)) + 1) + rows, return_index=True)
    return Hits(rows[first], rules[first], peerless[first])
