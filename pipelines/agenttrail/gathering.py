"""What all rows of a shard tell together: conversations, the tool calls before them, derived events, and findings.

The pure functions of the middle meet here, as batches; Beam stays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import timeline
from agenttrail.columns.asof import last_before
from agenttrail.columns.batches import joined
from agenttrail.columns.groups import column_codes, group_rows, max_by, min_by
from agenttrail.columns.ids import hexadecimal
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.columns.text import constant
from agenttrail.conversations import converse
from agenttrail.coverage import SANDBOXES, SILENT_AGENTS, WITH_GPUS
from agenttrail.detect.analytics import ANALYTICS, JOINT_ANALYTICS, TELEMETRY_ANALYTICS, gpu_conversation, gpu_progress
from agenttrail.detect.analytics.gpu_conversation import TENSOR
from agenttrail.detect.analytics.gpu_progress import METRIC
from agenttrail.detect.correlation_findings import KEY_PREFIX, UNIT_DIGEST, key_columns
from agenttrail.detect.correlation_needs import Need, enough, needs_of, silent
from agenttrail.detect.derived import Derived
from agenttrail.detect.findings import Found, Hits, gather, peers
from agenttrail.detect.nearby import unanswered_nearby
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import DIGEST, HOLDER, Lists, digest_words
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST, lifetimes
from agenttrail.schema import ENUM, TIMESTAMP, arrow_type, cast, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule
    from agenttrail.detect.signals import Signals

    _RowsOf = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]

CONVERSATION, TOOL_CALL = "conversation", "tool_call"
LONG_CONNECTION, GPU_PROGRESS, GPU_CONVERSATION = "long_connection", "gpu_progress", "gpu_conversation"
DERIVED = (CONVERSATION, *ANALYTICS, *TELEMETRY_ANALYTICS, *JOINT_ANALYTICS)
"""Categories of derived events, which rules name in ``logsource``."""
EXECUTE_TOOL = "execute_tool"
_SECOND = 1_000_000
_OPENING = ("medium", "high", "critical")
_UNKNOWN = np.iinfo(np.int64).min
_OPEN = np.iinfo(np.int64).max
_CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id")


@dataclass(frozen=True)
class Gathered:
    """What came of the rows of a shard.

    Attributes:
        findings: of the row rules and of the rules on derived events, sorted by id.
        units: what correlations ask for, see ``correlation_findings``; None where none asks.
        timeline: entries of every entity that may have an incident.
        coverage: workloads by what was seen, or could not be seen, of them.
    """

    findings: pa.RecordBatch
    units: pa.RecordBatch | None
    timeline: pa.RecordBatch
    coverage: dict[str, int]


@dataclass(frozen=True)
class _Shard:
    """The rows of a shard and what is known of each.

    Attributes:
        rows: all distinct rows that matter.
        holders: whom they are about.
        holder: place of each row's holder.
        workload: number of each row's workload.
    """

    rows: pa.RecordBatch
    holders: pa.RecordBatch
    holder: NDArray[np.int64]
    workload: NDArray[np.int64]

    @classmethod
    def of(cls, signals: Signals) -> _Shard:
        holder = numbers(signals.rows.column(HOLDER))
        workload = column_codes(signals.holders.column(WORKLOAD_DIGEST))[0][holder]
        return cls(signals.rows, signals.holders, holder, workload)

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


@dataclass(frozen=True)
class Asked:
    """What the rules of a job ask for.

    Attributes:
        rules: all of them.
        plans: of each category of derived events the plan of the rules that look at it.
        lists: what is listed.
        needs: what each correlation needs to find anything.
        silent: numbers of the building blocks that give no findings of their own.
        keys: columns that correlations group by or count.
        until: reports of progress from this time on are in no timeline, in microseconds; None is open.
        every: whether entities on which nothing was found have a timeline, too.
    """

    rules: Sequence[Rule]
    plans: Mapping[str, Plan]
    lists: Lists
    needs: Sequence[Need]
    silent: NDArray[np.int64]
    keys: tuple[str, ...]
    until: int | None = None
    every: bool = False

    @classmethod
    def of(
        cls,
        rules: Sequence[Rule],
        correlations: Sequence[Correlation],
        lists: Mapping[str, tuple[str, ...]],
        until: int | None = None,
        *,
        every: bool = False,
    ) -> Asked:
        """Compile what a job asks for."""
        on = [one for one in correlations if not one.off]
        quiet = silent(on, [rule.id for rule in rules if rule.building_block])
        blocks = np.array(
            [place for place, rule in enumerate(rules) if rule.id in quiet or rule.rows_only], dtype=np.int64
        )
        plans = {category: Plan.compile(rules, category, lists) for category in DERIVED}
        needs = needs_of(on, rules)
        return cls(rules, plans, Lists.of(lists), needs, blocks, key_columns(on), until, every)


def gather_shard(signals: Signals, asked: Asked, progress: pa.RecordBatch, stored: pa.Array | None = None) -> Gathered:
    """Return what the rows of a shard tell together.

    Args:
        signals: all distinct rows that matter, of some workloads, from the whole input.
        asked: what the rules ask for.
        progress: every report of training progress, of all workloads.
        stored: ids of the incidents that earlier runs left; they have a timeline whatever is found now.
    """
    shard = _Shard.of(signals)
    # by workload, not by entity: what lasts longer than one of its trajectories is one thing all the same
    workloads = signals.holders.column(WORKLOAD_DIGEST).take(signals.rows.column(HOLDER))
    conversations, which = converse(shard.rows, workloads)
    calls = _ToolCalls.of(shard)
    samples = shard.are("metric.name")
    busy, gaps = gpu_progress.derive(_samples(shard, samples), progress)
    seen = [_Seen.of_rows(Hits.of(shard.rows), which)]
    seen += _of_derived(shard, asked, _Talks.of(shard, conversations, which, asked.lists, calls), (samples, busy))

    def found(hits: Hits) -> Found:
        made = gather(shard.rows, shard.holders, conversations, which, asked.rules, hits)
        named = calls.named(made.findings, shard.workload[made.first], shard.start()[made.first], made.first)
        return Found(named, made.first, made.unit)

    units = _units(shard, asked, seen, found) if asked.needs else None
    findings = found(_telling(_together(seen), asked.silent)).findings
    entries = _timeline(shard, asked, progress, gaps, ([findings, units], stored))
    return Gathered(findings, units, entries, _coverage(shard, gaps))


def _coverage(shard: _Shard, gaps: pa.RecordBatch) -> dict[str, int]:
    """Count workloads that are sandboxes of which anything matters, and of how many of them something is missing."""
    level = shard.holders.column("attribution.level")
    occupied = np.asarray(pc.is_in(level, value_set=pa.array(["trajectory", "sandbox"])))[shard.holder]
    sandboxes = np.unique(shard.workload[occupied])
    called = np.isin(sandboxes, shard.workload[shard.are("gen_ai.operation.name", EXECUTE_TOOL)])
    sampled = np.isin(sandboxes, shard.workload[shard.are("metric.name")])
    counts = {SANDBOXES: len(sandboxes), SILENT_AGENTS: int((~called).sum()), WITH_GPUS: int(sampled.sum())}
    for what in gpu_progress.GAPS:
        missing = gaps.filter(pc.equal(cast(gaps.column("what"), pa.string()), what))
        counts[what] = pc.count_distinct(missing.column("entity")).as_py()
    return counts


def _of_derived(shard: _Shard, asked: Asked, talks: _Talks, gpus: tuple[NDArray[np.int64], Derived]) -> Iterator[_Seen]:
    """Yield what the rules on derived events hit; ``gpus`` are the rows of samples, and when those were busy."""
    samples, busy = gpus
    wanted = {category for category in DERIVED if asked.plans[category].rules}
    of_gpus = {GPU_PROGRESS: busy}
    if GPU_CONVERSATION in wanted:
        wanted.add(LONG_CONNECTION)
    for category in sorted(wanted & {CONVERSATION, *ANALYTICS}):
        derived = talks.whole() if category == CONVERSATION else ANALYTICS[category](talks.conversations)
        if category == LONG_CONNECTION:
            beside = gpu_conversation.derive(derived, busy, _samples(shard, samples))
            derived, of_gpus[GPU_CONVERSATION] = beside.connections, beside.gpus
        yield from _seen(asked.plans[category], derived, talks.rows_of)
    for category in sorted(wanted & set(of_gpus)):
        rows_of = lambda members: (samples[members], np.arange(len(members)))  # noqa: E731 - of one line, as others are
        yield from _seen(asked.plans[category], of_gpus[category], rows_of)


def _before(reports_: pa.RecordBatch, until: int | None) -> pa.RecordBatch:
    """Return the reports before a time."""
    times = numbers(reports_.column("event.start").cast(pa.int64()))
    return reports_ if until is None else reports_.filter(pa.array(times < until))


def _timeline(
    shard: _Shard,
    asked: Asked,
    progress: pa.RecordBatch,
    gaps: pa.RecordBatch,
    known: tuple[Sequence[pa.RecordBatch | None], pa.Array | None],
) -> pa.RecordBatch:
    """Return the entries of all entities on which something was found that may open an incident, or had opened one.

    Where timelines of ``every`` entity are asked for, all of which anything is known here.
    """
    incident = hexadecimal(shard.holders.column(ENTITY_DIGEST))
    wanted = np.ones(len(incident), dtype=bool) if asked.every else _may_open(incident, *known)
    progress = _before(progress, asked.until)
    rows = np.flatnonzero(wanted[shard.holder])
    told = _with_columns(shard.rows.take(pa.array(rows)), _whom(shard, incident, shard.holder[rows]))
    flows = told.filter(_column(told, "network.direction").is_valid())
    samples = _where(told, "metric.name", METRIC)
    entries = timeline.leases(shard.holders.filter(pa.array(wanted)), incident.filter(pa.array(wanted)))
    entries.append(timeline.tool_calls(_where(told, "gen_ai.operation.name", EXECUTE_TOOL)))
    if samples.num_rows:
        entries.append(timeline.gpu_use(samples))
    if flows.num_rows:
        entries.append(timeline.egress(_with_columns(flows, peers(flows))))
    entries += _of_reports(shard, incident, wanted, progress, gaps)
    return joined([entry for entry in entries if entry.num_rows] or [entries[0]])


def _may_open(incident: pa.Array, found: Sequence[pa.RecordBatch | None], stored: pa.Array | None) -> NDArray[np.bool_]:
    """Tell on whom a finding of a level that opens incidents was made, a unit, or a ``stored`` incident."""
    opening = [
        one.column("incident.id").filter(pc.is_in(one.column("finding.severity"), value_set=pa.array(_OPENING)))
        if place == 0
        else one.column("incident.id")
        for place, one in enumerate(found)
        if one is not None
    ]
    opening += [] if stored is None else [stored]
    return np.asarray(pc.is_in(incident, value_set=pa.concat_arrays(opening)), dtype=bool)


def _where(rows: pa.RecordBatch, name: str, word: str) -> pa.RecordBatch:
    return rows.filter(pa.array(_are(rows, name, word)))


def _whom(shard: _Shard, incident: pa.Array, holders: NDArray[np.int64]) -> dict[str, pa.Array]:
    index = pa.array(holders)
    whom = {name: shard.holders.column(name).take(index) for name in timeline.WHOM}
    return whom | {"incident.id": incident.take(index)}


def _of_reports(
    shard: _Shard,
    incident: pa.Array,
    wanted: NDArray[np.bool_],
    progress: pa.RecordBatch,
    gaps: pa.RecordBatch,
) -> list[pa.RecordBatch]:
    """Return steps that the entities' sandboxes reported, and what is missing."""
    out = []
    holders = np.flatnonzero(wanted)
    report, owner = _reported(shard.holders.take(pa.array(holders)), incident.take(pa.array(holders)), progress)
    if len(report):
        told = progress.take(pa.array(report)).select(["event.start", "training.step"])
        out.append(timeline.steps(_with_columns(told, _whom(shard, incident, holders[owner]))))
    if gaps.num_rows:
        entities, place_ = np.unique(shard.workload, return_index=True)
        owner = shard.holder[place_[np.searchsorted(entities, numbers(gaps.column("entity")))]]
        missing = _with_columns(gaps, _whom(shard, incident, owner))
        out.append(timeline.gaps(missing.filter(pa.array(wanted[owner]))))
    return out


def _reported(
    holders: pa.RecordBatch, incident: pa.Array, progress: pa.RecordBatch
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of a report and a holder, one per incident, in whose lifetime the sandbox of that name sent it."""
    none = np.empty(0, dtype=np.int64)
    if not progress.num_rows or not holders.num_rows:
        return none, none
    which, first = group_rows([incident])
    begin, end = lifetimes(holders)
    leased = np.asarray(holders.column("attribution.lease_start").is_valid())
    # of an incident that has leases, those tell; what several of them agree on has none
    tells = leased | ~(max_by(which, len(first), leased.astype(np.int64)) > 0)[which]
    begin, end = (
        min_by(which[tells], len(first), begin[tells]), max_by(which[tells], len(first), end[tells]),
    )  # fmt: skip
    names = pa.concat_arrays([holders.column("sandbox.id").take(pa.array(first)), progress.column("sandbox.id")])
    codes, _ = column_codes(names)
    known = np.asarray(names.is_valid())
    ours, theirs = codes[: len(first)], codes[len(first) :]
    order = np.flatnonzero(known[: len(first)])
    order = order[np.argsort(ours[order], kind="stable")]
    reports_ = np.flatnonzero(known[len(first) :])
    at = np.searchsorted(ours[order], theirs[reports_])
    lengths = np.searchsorted(ours[order], theirs[reports_], side="right") - at
    report, owner = np.repeat(reports_, lengths), order[ranges(at, lengths)]
    times = numbers(progress.column("event.start").cast(pa.int64()))[report]
    inside = (times >= begin[owner]) & (times < end[owner])
    return report[inside], first[owner[inside]]


def select_named(events: pa.RecordBatch, plan: Plan) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the rows of events that name their workload that matter, and per rule of ``plan`` the rows that it hits.

    What matters is every tool call, at which alone rules look, and every sample of how much a GPU and its tensor cores
    are used.
    """
    called = np.flatnonzero(_are(events, "event.action", EXECUTE_TOOL))
    hits = [called[found] for found in plan.run(events.take(pa.array(called)))] if len(called) else []
    sampled = np.flatnonzero(_are(events, "metric.name", METRIC) | _are(events, "metric.name", TENSOR))
    return np.sort(np.concatenate([called, sampled])), hits or [called for _ in plan.rules]


def _are(events: pa.RecordBatch, name: str, word: str) -> NDArray[np.bool_]:
    equal = pc.equal(cast(_column(events, name), pa.string()), word)
    return np.asarray(pc.fill_null(equal, fill_value=False), dtype=bool)


_REPORT = {"event.start": TIMESTAMP, "training.step": pa.int64(), "sandbox.id": pa.string(), "job.id": pa.string()}


def progress_of(events: pa.RecordBatch) -> pa.RecordBatch | None:
    """Return the reports of training progress among events; None where there are none."""
    if "training.step" not in events.schema.names:
        return None
    told = events.filter(events.column("training.step").is_valid())
    columns = [cast(_column(told, name), type_) for name, type_ in _REPORT.items()]
    return pa.RecordBatch.from_arrays(columns, names=list(_REPORT)) if told.num_rows else None


def reports(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return all reports of training progress as one batch."""
    return joined(batches) if batches else pa.RecordBatch.from_arrays([pa.array([], TIMESTAMP)], names=["event.start"])


@dataclass(frozen=True)
class _ToolCalls:
    """Every tool call of a shard, for what came after.

    Attributes:
        calls: their rows, by time.
        rows: where each stands in the shard.
        workload: of each.
        start: of each.
    """

    calls: pa.RecordBatch
    rows: NDArray[np.int64]
    workload: NDArray[np.int64]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, shard: _Shard) -> _ToolCalls:
        rows = shard.are("gen_ai.operation.name", EXECUTE_TOOL)
        rows = rows[np.lexsort((digest_words(shard.rows.column(DIGEST))[rows], shard.start()[rows]))]
        return cls(shard.rows.take(pa.array(rows)), rows, shard.workload[rows], shard.start()[rows])

    def named(
        self,
        events: pa.RecordBatch,
        workload: NDArray[np.int64],
        start: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> pa.RecordBatch:
        """Name beside each event the tool call before it in the same workload, and how long before it that began.

        Logs of flows count whole seconds, rounded down: what starts at a whole second may have started up to a second
        later, and the call before it within that second (then the time between is told as 0).  What stands at one of
        the ``rows`` of the shard that are tool calls is named by that call, also where another one started at the same
        time.
        """
        if not len(self.start):
            return events
        latest = np.where(start % _SECOND == 0, start + _SECOND - 1, start)
        call = last_before(workload, latest, self.workload, self.start)
        if rows is not None:
            place = np.argsort(self.rows)
            own = place[np.minimum(np.searchsorted(self.rows[place], rows), len(place) - 1)]
            call = np.where(self.rows[own] == rows, own, call)
        none = call < 0
        index = pa.array(call, mask=none)
        columns = {name: self.calls.column(name).take(index) for name in _CALL if name in self.calls.schema.names}
        begun = self.start[np.maximum(call, 0)]
        columns["gen_ai.tool.call.start"] = pa.array(begun, mask=none).cast(TIMESTAMP)
        columns["gen_ai.tool.call.gap"] = pa.array(np.maximum(start - begun, 0) / _SECOND, mask=none)
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
            "entity": pa.array(shard.workload[first]),
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
        described = _with_columns(described, {"connection.unanswered_nearby": unanswered_nearby(described)})
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
    return _with_columns(samples, columns | {"entity": pa.array(shard.workload[rows])})


@dataclass(frozen=True)
class _Seen:
    """Rows that rules hit, as part of something: a conversation, or a derived event.

    Attributes:
        hits: the rows and the rules.
        part: what each row was hit as part of.
        events: the derived events that ``part`` counts; None for conversations.
    """

    hits: Hits
    part: NDArray[np.int64]
    events: pa.RecordBatch | None = None

    @classmethod
    def of_rows(cls, hits: Hits, conversation: NDArray[np.int64]) -> _Seen:
        """Return rows as part of their conversations; one that is part of none is by itself."""
        part = conversation[hits.rows]
        return cls(hits, np.where(part < 0, len(conversation) + hits.rows, part))


def _seen(plan: Plan, derived: Derived, rows_of: _RowsOf) -> Iterator[_Seen]:
    """Yield the rows that derived events stand for and the rules that hit these."""
    names = set(record("event").fields)
    events = derived.events.select([name for name in derived.events.schema.names if name in names])
    peerless = np.asarray(_column(events, "peer.ip").is_null())
    for number, found in zip(plan.numbers, plan.run(events), strict=True):
        lengths = np.diff(derived.members_offsets)[found]
        members = derived.members[ranges(derived.members_offsets[found], lengths)]
        rows, place = rows_of(members)
        event = np.repeat(found, lengths)[place]
        yield _Seen(Hits(rows, np.full(len(rows), number), peerless[event]), event, events)


def _together(seen: Sequence[_Seen]) -> Hits:
    """Put hits together, each row once per rule."""
    hits = [one.hits for one in seen]
    if len(hits) == 1:
        return hits[0]
    rows, rules = (np.concatenate([getattr(one, name) for one in hits]) for name in ("rows", "rules"))
    none = (np.zeros(len(one.rows), dtype=bool) if one.peerless is None else one.peerless for one in hits)
    peerless = np.concatenate(list(none))
    _, first = np.unique((rules * 2 + peerless) * (int(rows.max(initial=0)) + 1) + rows, return_index=True)
    return Hits(rows[first], rules[first], peerless[first])


def _telling(hits: Hits, silent_: NDArray[np.int64]) -> Hits:
    """Return the hits of rules that give findings of their own."""
    kept = np.flatnonzero(~np.isin(hits.rules, silent_))
    return Hits(hits.rows[kept], hits.rules[kept], None if hits.peerless is None else hits.peerless[kept])


def _units(shard: _Shard, asked: Asked, seen: Sequence[_Seen], found: Callable[[Hits], Found]) -> pa.RecordBatch | None:
    """Return what the rules that correlations refer to hit, each as the finding that it would make by itself.

    What no correlation can find anything with is left out: units are as dear as findings, and most lead to nothing.
    """
    batches = []
    rules, rows = (np.concatenate([getattr(one.hits, name) for one in seen]) for name in ("rules", "rows"))
    wanted = enough(asked.needs, rules, shard.workload[rows], shard.start()[rows])
    bounds = np.cumsum([0, *(len(one.hits.rows) for one in seen)])
    for one, begin, end in zip(seen, bounds, bounds[1:], strict=False):
        # all rows of whatever has one that is wanted
        whole = one.part * len(asked.rules) + one.hits.rules
        chosen = np.flatnonzero(np.isin(whole, whole[wanted[begin:end]]))
        if len(chosen):
            rows, rules, part = one.hits.rows[chosen], one.hits.rules[chosen], one.part[chosen]
            peerless = None if one.hits.peerless is None else one.hits.peerless[chosen]
            told = found(Hits(rows, rules, peerless, part))
            columns = {name: told.findings.column(name) for name in told.findings.schema.names}
            columns[UNIT_DIGEST] = shard.rows.column(DIGEST).take(pa.array(told.first))
            for name in asked.keys:
                columns[KEY_PREFIX + name] = _of_unit(name, shard, one.events, told, columns)
            batches.append(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0] if batches else None


def _of_unit(
    name: str, shard: _Shard, events: pa.RecordBatch | None, told: Found, columns: Mapping[str, pa.Array]
) -> pa.Array:
    """Return an event column of units: of the derived event, else of the holder, else of the first row."""
    type_ = arrow_type(record("event").fields[name])
    type_ = pa.string() if type_ == ENUM else type_
    first = pa.array(told.first)
    if events is not None and name in events.schema.names:
        return cast(events.column(name), type_).take(pa.array(told.unit))
    if name in shard.holders.schema.names:
        return cast(shard.holders.column(name), type_).take(pa.array(shard.holder[told.first]))
    if name == "peer.ip":
        return columns[name]
    if name == "peer.port":
        ports = columns[name]
        one = pc.list_element(
            pc.if_else(pc.equal(pc.list_value_length(ports), 1), ports, pa.scalar([0], ports.type)), 0
        )
        return pc.if_else(pc.equal(pc.list_value_length(ports), 1), one, pa.scalar(None, type_))
    return cast(_column(shard.rows, name), type_).take(first)
