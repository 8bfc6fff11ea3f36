"""What all rows of a shard tell together: conversations, the tool calls before them, derived events, and findings.

The pure functions of the middle meet here, as batches; Beam stays out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.offsets import ranges
from agenttrail.columns.ordering import distinct, firsts
from agenttrail.conversations import converse
from agenttrail.coverage import SANDBOXES, SILENT_AGENTS, WITH_GPUS
from agenttrail.detect.analytics import ANALYTICS, JOINT_ANALYTICS, TELEMETRY_ANALYTICS, gpu_conversation, gpu_progress
from agenttrail.detect.correlation_findings import KEY_PREFIX, UNIT_DIGEST, key_columns
from agenttrail.detect.correlation_needs import Need, enough, needs_of, silent
from agenttrail.detect.finding_sums import added
from agenttrail.detect.findings import NOTHING, Found, Hits, gather
from agenttrail.detect.kept_values import KEPT, asked_fields, by_begin, values_of
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import DIGEST, HOLDER, Lists
from agenttrail.entities import WORKLOAD_DIGEST
from agenttrail.gathering.entries import timeline_of
from agenttrail.gathering.shard import Shard, column, with_columns
from agenttrail.gathering.talks import CONVERSATION, Talks
from agenttrail.gathering.tool_calls import EXECUTE_TOOL, ToolCalls
from agenttrail.schema import ENUM, arrow_type, cast, conform, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.derived import Derived
    from agenttrail.detect.rules import Rule
    from agenttrail.detect.signals import Signals

    _RowsOf = Callable[[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]

LONG_CONNECTION, GPU_PROGRESS, GPU_CONVERSATION = "long_connection", "gpu_progress", "gpu_conversation"
DERIVED = (CONVERSATION, *ANALYTICS, *TELEMETRY_ANALYTICS, *JOINT_ANALYTICS)
"""Categories of derived events, which rules name in ``logsource``."""
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


def gather_shard(
    signals: Signals,
    asked: Asked,
    progress: pa.RecordBatch,
    stored: pa.Array | None = None,
    sums: pa.RecordBatch | None = None,
) -> Gathered:
    """Return what the rows of a shard tell together.

    Args:
        signals: all distinct rows that matter, of some workloads, from the whole input.
        asked: what the rules ask for.
        progress: every report of training progress, of all workloads.
        stored: ids of the incidents that earlier runs left; they have a timeline whatever is found now.
        sums: findings on rows of these workloads that were let go of, as :func:`gpu_findings` gave them.
    """
    shard = Shard.of(signals)
    # by workload, not by entity: what lasts longer than one of its trajectories is one thing all the same
    workloads = signals.holders.column(WORKLOAD_DIGEST).take(signals.rows.column(HOLDER))
    conversations, which = converse(shard.rows, workloads)
    calls = ToolCalls.of(shard)
    samples = shard.are("metric.name")
    busy, gaps = gpu_progress.derive(samples_of(shard, samples), progress)
    seen = [_Seen.of_rows(Hits.of(shard.rows), which)]
    seen += _of_derived(shard, asked, Talks.of(shard, conversations, which, asked.lists, calls), (samples, busy))

    def found(hits: Hits, fired_on: Sequence[_Seen]) -> Found:
        made = gather(shard.rows, shard.holders, conversations, which, asked.rules, hits)
        return _told_of(shard, calls, made, fired_on)

    units = _units(shard, asked, seen, found) if asked.needs else None
    findings = found(_telling(_together(seen), asked.silent), seen).findings
    if sums is not None and sums.num_rows:
        findings = added(sums, findings)
    entries = timeline_of(shard, asked, progress, gaps, ([findings, units], stored), which)
    return Gathered(findings, units, entries, _coverage(shard, gaps))


def _told_of(shard: Shard, calls: ToolCalls, made: Found, fired_on: Sequence[_Seen]) -> Found:
    """Name the tool call before each finding, and what the rule saw where it fired."""
    named = calls.named(made.findings, shard.workload[made.first], shard.start()[made.first], made.first)
    kept = with_columns(named, {"finding.values": _values(fired_on, made.fired)})
    return Found(kept, made.first, made.unit, made.fired)


def gpu_findings(shard: Shard, asked: Asked, busy: Derived) -> pa.RecordBatch:
    """Return the findings on some intervals of ``gpu_progress`` alone, in the shape of the finding record.

    Args:
        shard: whose rows with a metric are the samples that the members of ``busy`` count.
        asked: what the rules ask for.
        busy: the intervals.
    """
    samples = shard.are("metric.name")
    seen = list(_seen(asked.plans[GPU_PROGRESS], busy, lambda members: (samples[members], np.arange(len(members)))))
    conversations, _ = converse(shard.rows.slice(0, 0), pa.array([], pa.binary(16)))
    alone = np.full(shard.rows.num_rows, -1)
    hits = _telling(_together(seen), asked.silent)
    made = gather(shard.rows, shard.holders, conversations, alone, asked.rules, hits)
    return conform(_told_of(shard, ToolCalls.of(shard), made, seen).findings, record("finding"))


def conversation_hits(signals: Signals, asked: Asked) -> Hits:
    """Return which rows the rules on conversations hit as conversations of these rows alone."""
    plan = asked.plans[CONVERSATION]
    if not plan.rules or not signals.rows.num_rows:
        return Hits(np.empty(0, np.int64), np.empty(0, np.int64))
    shard = Shard.of(signals)
    workloads = signals.holders.column(WORKLOAD_DIGEST).take(signals.rows.column(HOLDER))
    conversations, which = converse(shard.rows, workloads)
    talks = Talks.of(shard, conversations, which, asked.lists, ToolCalls.of(shard))
    return _together([*_seen(plan, talks.whole(), talks.rows_of)])


def _coverage(shard: Shard, gaps: pa.RecordBatch) -> dict[str, int]:
    """Count workloads that are sandboxes of which anything matters, and of how many of them something is missing."""
    level = shard.holders.column("attribution.level")
    occupied = np.asarray(pc.is_in(level, value_set=pa.array(["trajectory", "sandbox"])))[shard.holder]
    sandboxes = distinct(shard.workload[occupied])
    called = np.isin(sandboxes, shard.workload[shard.are("gen_ai.operation.name", EXECUTE_TOOL)])
    sampled = np.isin(sandboxes, shard.workload[shard.are("metric.name")])
    counts = {SANDBOXES: len(sandboxes), SILENT_AGENTS: int((~called).sum()), WITH_GPUS: int(sampled.sum())}
    for what in gpu_progress.GAPS:
        missing = gaps.filter(pc.equal(cast(gaps.column("what"), pa.string()), what))
        counts[what] = pc.count_distinct(missing.column("entity")).as_py()
    return counts


def _of_derived(shard: Shard, asked: Asked, talks: Talks, gpus: tuple[NDArray[np.int64], Derived]) -> Iterator[_Seen]:
    """Yield what the rules on derived events hit; ``gpus`` are the rows of samples, and when those were busy."""
    samples, busy = gpus
    wanted = {category for category in DERIVED if asked.plans[category].rules}
    of_gpus = {GPU_PROGRESS: busy}
    if GPU_CONVERSATION in wanted:
        wanted.add(LONG_CONNECTION)
    for category in sorted(wanted & {CONVERSATION, *ANALYTICS}):
        derived = talks.whole() if category == CONVERSATION else ANALYTICS[category](talks.conversations)
        if category == LONG_CONNECTION:
            beside = gpu_conversation.derive(derived, busy, samples_of(shard, samples))
            derived, of_gpus[GPU_CONVERSATION] = beside.connections, beside.gpus
        yield from _seen(asked.plans[category], derived, talks.rows_of)
    for category in sorted(wanted & set(of_gpus)):
        rows_of = lambda members: (samples[members], np.arange(len(members)))  # noqa: E731 - of one line, as others are
        yield from _seen(asked.plans[category], of_gpus[category], rows_of)


def samples_of(shard: Shard, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """Return the GPU samples among the rows, with whom they are about."""
    holders = shard.holders.take(pa.array(shard.holder[rows]))
    samples = shard.rows.take(pa.array(rows))
    columns = {name: holders.column(name) for name in ("sandbox.id", "job.id", "trajectory.id")}
    return with_columns(samples, columns | {"entity": pa.array(shard.workload[rows])})


@dataclass(frozen=True)
class _Seen:
    """Rows that rules hit, as part of something: a conversation, or a derived event.

    Attributes:
        hits: the rows and the rules.
        part: what each row was hit as part of.
        events: the derived events that ``part`` counts; None for conversations.
        fired: those of them that the rule fired on, the first first, which ``hits.fired`` counts.
        fields: what the rule asks about.
    """

    hits: Hits
    part: NDArray[np.int64]
    events: pa.RecordBatch | None = None
    fired: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    fields: tuple[str, ...] = ()

    @classmethod
    def of_rows(cls, hits: Hits, conversation: NDArray[np.int64]) -> _Seen:
        """Return rows as part of their conversations; one that is part of none is by itself."""
        part = conversation[hits.rows]
        return cls(hits, np.where(part < 0, len(conversation) + hits.rows, part))


def _seen(plan: Plan, derived: Derived, rows_of: _RowsOf) -> Iterator[_Seen]:
    """Yield the rows that derived events stand for and the rules that hit these."""
    events = _as_asked(derived.events)
    peerless = np.asarray(column(events, "peer.ip").is_null())
    for number, rule, hit in zip(plan.numbers, plan.rules, plan.run(events), strict=True):
        fields = asked_fields(rule.condition)
        found = by_begin(events, hit, fields)
        lengths = np.diff(derived.members_offsets)[found]
        members = derived.members[ranges(derived.members_offsets[found], lengths)]
        rows, place = rows_of(members)
        fired = np.repeat(np.arange(len(found)), lengths)[place]
        event = found[fired]
        hits = Hits(rows, np.full(len(rows), number), peerless[event], fired=fired)
        yield _Seen(hits, event, events, found, fields)


def _as_asked(derived: pa.RecordBatch) -> pa.RecordBatch:
    names = set(record("event").fields)
    return derived.select([name for name in derived.schema.names if name in names])


def fires(plan: Plan, derived: pa.RecordBatch, among: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
    """Tell which derived events any rule of a plan fires on, or any rule ``among`` these numbers."""
    fired = np.zeros(derived.num_rows, dtype=bool)
    for number, hit in zip(plan.numbers, plan.run(_as_asked(derived)), strict=True):
        if among is None or number in among:
            fired[hit] = True
    return fired


def _values(seen: Sequence[_Seen], fired: NDArray[np.int64]) -> pa.Array:
    """Return of each place among all that fired, as :func:`_together` counts them, what the rule saw there."""
    values, begin = [pa.array([[]], KEPT)], 0
    place = np.zeros(len(fired), np.int64)
    taken = 1
    for one in seen:
        own = np.flatnonzero((fired >= begin) & (fired < begin + len(one.fired)))
        if one.events is not None and len(own):
            values.append(values_of(one.events.take(pa.array(one.fired[fired[own] - begin])), one.fields))
            place[own] = np.arange(taken, taken + len(own))
            taken += len(own)
        begin += len(one.fired)
    return pa.concat_arrays(values).take(pa.array(place))


def _together(seen: Sequence[_Seen]) -> Hits:
    """Put hits together, each row once per rule: as part of what fired first."""
    hits = [one.hits for one in seen]
    if len(hits) == 1:
        return hits[0]
    rows, rules = (np.concatenate([getattr(one, name) for one in hits]) for name in ("rows", "rules"))
    none = (np.zeros(len(one.rows), dtype=bool) if one.peerless is None else one.peerless for one in hits)
    peerless = np.concatenate(list(none))
    begins = np.cumsum([0, *(len(one.fired) for one in seen)])
    fired = np.concatenate([
        np.full(len(one.hits.rows), NOTHING) if one.hits.fired is None else begin + one.hits.fired
        for begin, one in zip(begins, seen, strict=False)
    ])  # fmt: skip
    # hits of a rule stand in the order in which it fired, so that the first of a row is the one to keep
    _, first = firsts((rules * 2 + peerless) * (int(rows.max(initial=0)) + 1) + rows)
    return Hits(rows[first], rules[first], peerless[first], fired=fired[first])


def _telling(hits: Hits, silent_: NDArray[np.int64]) -> Hits:
    """Return the hits of rules that give findings of their own."""
    kept = np.flatnonzero(~np.isin(hits.rules, silent_))
    peerless = None if hits.peerless is None else hits.peerless[kept]
    fired = None if hits.fired is None else hits.fired[kept]
    return Hits(hits.rows[kept], hits.rules[kept], peerless, fired=fired)


def _units(
    shard: Shard, asked: Asked, seen: Sequence[_Seen], found: Callable[[Hits, Sequence[_Seen]], Found]
) -> pa.RecordBatch | None:
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
            fired = None if one.hits.fired is None else one.hits.fired[chosen]
            told = found(Hits(rows, rules, peerless, part, fired), [one])
            columns = {name: told.findings.column(name) for name in told.findings.schema.names}
            columns[UNIT_DIGEST] = shard.rows.column(DIGEST).take(pa.array(told.first))
            for name in asked.keys:
                columns[KEY_PREFIX + name] = _of_unit(name, shard, one.events, told, columns)
            batches.append(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0] if batches else None


def _of_unit(
    name: str, shard: Shard, events: pa.RecordBatch | None, told: Found, columns: Mapping[str, pa.Array]
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
    return cast(column(shard.rows, name), type_).take(first)
