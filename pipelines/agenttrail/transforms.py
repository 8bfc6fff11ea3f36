"""The PTransforms: one per pure function, of the same name, with as little logic as possible."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from agenttrail import attribute as attribution
from agenttrail import leases as leases_
from agenttrail import timeline
from agenttrail.accounting import ACCOUNT, DEAD, EVENTS, Account
from agenttrail.attribute import LeaseTable
from agenttrail.attribute_named import NameTable, attribute_named
from agenttrail.coders import packed, unpacked
from agenttrail.columns.batches import joined, stacked
from agenttrail.columns.memory import keep_freed_memory
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import constant
from agenttrail.coverage import UNMET
from agenttrail.detect.correlation_findings import correlation_findings
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import (
    DIGEST,
    HOLDER,
    LISTED,
    Lists,
    Signals,
    detect,
    first_of_each,
    rule_hits,
    select,
)
from agenttrail.entities import WORKLOAD_DIGEST, name_holders, shards, workload_digests
from agenttrail.flows import GAPS
from agenttrail.formats import FORMATS
from agenttrail.gathering.gathered import Asked, gather_shard
from agenttrail.gathering.named import TOOL_CALL, progress_of, reports, select_named
from agenttrail.incidents import group
from agenttrail.rollups import Wanted, roll_up
from agenttrail.schema import conform, record
from agenttrail.seams import Living, Span, in_span, looked_at, seen_of
from agenttrail.trajectories import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule
    from agenttrail.parsing import Block, Parsed


LEASES = "leases"
"""Tag of the leases that events tell of."""
UNITS = "units"
"""Tag of what correlations look at."""
TIMELINE = "timeline"
"""Tag of entries of timelines."""
ROLLED = "rolled"
"""Tag of egress to listed peers, rolled up."""
PROGRESS = "progress"
"""Tag of reports of training progress."""
SEEN = "seen"
"""Tag of the entities that a run over a span of time looked at."""


class _Timed(beam.DoFn):
    """A DoFn that keeps freed memory and counts its CPU seconds."""

    stage = ""

    def setup(self) -> None:
        """Prepare the process."""
        keep_freed_memory()

    def _started(self) -> float:
        return time.thread_time()

    def _seconds(self, started: float) -> dict[str, float]:
        return {self.stage: time.thread_time() - started}


@dataclass(frozen=True)
class Source:
    """What the graph needs to know of one source of a job.

    Attributes:
        name: for messages.
        format: format id.
        settings: what its parser is made of.
        scope: constant scope, or None.
        scope_column: event column that holds the scope, or None.
    """

    name: str
    format: str
    settings: Mapping[str, Any]
    scope: str | None = None
    scope_column: str | None = None


class _Parse(_Timed):
    stage = "parse"

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._parsers: dict[int, Callable[[Block], Parsed]] = {}

    def process(self, block: Block) -> Iterator[Any]:
        started = self._started()
        source = self._sources[block.source]
        parser = self._parsers.get(block.source)
        if parser is None:
            parser = self._parsers[block.source] = FORMATS[source.format].parser(source.settings)
        parsed = parser(block)
        events = with_scope(parsed.events, source)
        account = _parsed_account(block, parsed, FORMATS[source.format].gives)
        account.seconds.update(self._seconds(started))
        if events.num_rows:
            yield (block.source, events)
        if parsed.leases is not None and parsed.leases.num_rows:
            leases = parsed.leases
            if source.scope is not None:
                leases = attribution.with_columns(leases, {"lease.scope": constant(source.scope, leases.num_rows)})
            yield beam.pvalue.TaggedOutput(LEASES, (block.source, leases))
        if parsed.dead.num_rows:
            yield beam.pvalue.TaggedOutput(DEAD, parsed.dead)
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def _parsed_account(block: Block, parsed: Parsed, gives: str) -> Account:
    counts = {"lines": parsed.lines, "skipped": parsed.skipped, "dead": parsed.dead.num_rows, "bytes": len(block.data)}
    given = {"with_events": parsed.with_records, "leases" if gives == "leases" else "events": parsed.events.num_rows}
    if parsed.leases is not None:
        given["leases"] = parsed.leases.num_rows
    return Account.of(block.source, **counts, **given)


def with_scope(events: pa.RecordBatch, source: Source) -> pa.RecordBatch:
    """Add ``attribution.scope``: the source's constant, or a copy of the column that it names."""
    if source.scope_column is not None and source.scope_column in events.schema.names:
        return attribution.with_columns(events, {"attribution.scope": events.column(source.scope_column)})
    if source.scope is not None:
        return attribution.with_columns(events, {"attribution.scope": constant(source.scope, events.num_rows)})
    return events


class Parse(beam.PTransform):
    """Blocks to (source, events) or (source, leases); dead letters, accounts, and leases beside events next to them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Parse blocks of ``sources``."""
        super().__init__()
        self._sources = sources

    def expand(self, blocks: beam.PCollection[Block]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(_Parse(self._sources)).with_output_types(tuple[int, pa.RecordBatch])
        return blocks | outputs.with_outputs(DEAD, ACCOUNT, LEASES, main=EVENTS)


class Resolve(beam.PTransform):
    """Leases of all sources to one lease table, as a side input for Attribute, and one by name for AttributeNamed."""

    def __init__(self, tolerance: int) -> None:
        """Make tables with ``tolerance`` microseconds."""
        super().__init__()
        self._tolerance = tolerance

    def expand(self, observed: beam.PCollection[tuple[int, pa.RecordBatch]]) -> tuple[Any, Any, Any]:
        """Return the tables as singletons, and accounts."""
        once = observed.pipeline | "Once" >> beam.Create([None])
        outputs = beam.ParDo(_Resolve(), beam.pvalue.AsList(observed)).with_output_types(pa.RecordBatch)
        resolved = once | "Resolve" >> outputs.with_outputs(ACCOUNT, main=LEASES)
        leases, tolerance = resolved[LEASES], self._tolerance
        return (
            leases | "BuildLeaseTable" >> beam.Map(lambda resolved: LeaseTable.build(resolved, tolerance)),
            leases | "BuildNameTable" >> beam.Map(lambda resolved: NameTable.build(resolved, tolerance)),
            resolved[ACCOUNT],
        )


class _Resolve(beam.DoFn):
    def process(self, _: None, observed: list[tuple[int, pa.RecordBatch]]) -> Iterator[Any]:
        batches = [conform(batch, record("lease")) for _, batch in observed]
        held = [batch.filter(batch.column("lease.address").is_valid()) for batch in batches]
        spans = [batch.filter(batch.column("lease.address").is_null()) for batch in batches]
        leases = leases_.resolve(held)
        if any(batch.num_rows for batch in spans):
            leases, unmet = cut(leases, joined(spans))
            yield beam.pvalue.TaggedOutput(ACCOUNT, Account(coverage=Counter({UNMET: unmet})))
        yield leases


class _LookingAt(_Timed):
    """Attributes, and passes on what a run over a span of time looks at; everything where there is no span."""

    stage = "attribute"

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._living: Living | None = None

    def _looked_at(
        self, source: int, events: pa.RecordBatch, table: LeaseTable, account: Account, heard: Sequence[pa.Array]
    ) -> pa.RecordBatch:
        if self._span is None:
            return events
        self._living = self._living or Living.of(table.resolutions, self._span, heard)
        events = looked_at(events, self._living, self._span)
        told = in_span(events, self._span).num_rows
        account.add(Account.of(source, in_range=told, context=events.num_rows - told))
        return events


class _Attribute(_LookingAt):
    def __init__(self, internal: Sequence[str], span: Span | None) -> None:
        super().__init__(span)
        self._internal = tuple(internal)
        self._lists: NetworkLists | None = None

    def process(
        self, element: tuple[int, pa.RecordBatch], table: LeaseTable, heard: Sequence[pa.Array] = ()
    ) -> Iterator[Any]:
        started = self._started()
        source, events = element
        if self._lists is None:
            self._lists = NetworkLists.compile([[parse_network(entry) for entry in self._internal]])
        attributed = attribution.attribute(events, table, self._lists)
        account = attributed_account(source, attributed, table)
        attributed = self._looked_at(source, attributed, table, account, heard)
        account.seconds.update(self._seconds(started))
        if attributed.num_rows:
            yield source, attributed
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def attributed_account(source: int, events: pa.RecordBatch, table: LeaseTable) -> Account:
    """Count events by status, coverage gaps, and rows in scopes that no lease is in."""
    counts = _by_status(events)
    scopes: dict[str, int] = {}
    if "attribution.scope" in events.schema.names:
        scope = events.column("attribution.scope")
        plain = scope.dictionary_decode() if pa.types.is_dictionary(scope.type) else scope
        for entry in pc.value_counts(plain).to_pylist():
            if entry["values"] and entry["values"] not in table.scopes:
                scopes[entry["values"]] = entry["counts"]
    account = Account.of(source, scopes=scopes, gaps=_gaps(events))
    account.add(Account.of(source, **counts))  # type: ignore[arg-type] # of its keywords, only those are counts
    return account


def _by_status(events: pa.RecordBatch) -> dict[str, int]:
    status = events.column("attribution.status")
    by_code = np.bincount(numbers(status.indices), minlength=len(status.dictionary))
    words = np.asarray(pc.index_in(status.dictionary, pa.array(attribution.STATUSES)))
    by_word = np.bincount(words, weights=by_code, minlength=len(attribution.STATUSES))
    return {word: int(count) for word, count in zip(attribution.STATUSES, by_word, strict=True)}


def _gaps(events: pa.RecordBatch) -> int:
    """Count the records that tell what a sensor did not see."""
    told = 0
    for name in ("event.action", "event.reason"):
        if name in events.schema.names:
            column = events.column(name)
            plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            told += int(pc.sum(pc.is_in(plain, value_set=pa.array(GAPS))).as_py() or 0)
    return told


class _AttributeNamed(_LookingAt):
    def process(
        self, element: tuple[int, pa.RecordBatch], table: NameTable, heard: Sequence[pa.Array] = ()
    ) -> Iterator[Any]:
        started = self._started()
        source, events = element
        attributed = attribute_named(events, table)
        account = Account.of(source, **_by_status(attributed))  # type: ignore[arg-type] # counts alone
        # as a whole, whatever the span: it is what is not among them that proves something
        told = progress_of(attributed)
        attributed = self._looked_at(source, attributed, table.leases, account, heard)
        account.seconds.update(self._seconds(started))
        if told is not None:
            yield beam.pvalue.TaggedOutput(PROGRESS, told)
        if attributed.num_rows:
            yield source, attributed
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def _sides(table: Any, heard: Any) -> list[Any]:
    sides = [beam.pvalue.AsSingleton(table)]
    return sides if heard is None else [*sides, beam.pvalue.AsList(heard)]


class AttributeNamed(beam.PTransform):
    """(source, events that name their workload) to (source, attributed events); accounts and reports beside them."""

    def __init__(self, table: Any, span: Span | None = None, heard: Any = None) -> None:
        """Attribute by the singleton ``table``; keep what a run over ``span`` looks at, pods ``heard`` of included."""
        super().__init__()
        self._sides = _sides(table, heard)
        self._fn = _AttributeNamed(span)

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn, *self._sides)
        outputs = outputs.with_output_types(tuple[int, pa.RecordBatch])
        return events | outputs.with_outputs(ACCOUNT, PROGRESS, main=EVENTS)


class Attribute(beam.PTransform):
    """(source, events) to (source, attributed events); accounts beside them."""

    def __init__(self, table: Any, internal: Sequence[str], span: Span | None = None, heard: Any = None) -> None:
        """Attribute by the singleton ``table``; keep what a run over ``span`` looks at, pods ``heard`` of included."""
        super().__init__()
        self._sides = _sides(table, heard)
        self._fn = _Attribute(internal, span)

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn, *self._sides).with_output_types(tuple[int, pa.RecordBatch])
        return events | outputs.with_outputs(ACCOUNT, main=EVENTS)


_ROWS_TOGETHER = 1 << 15
"""Signals of one source that leave a worker together."""


class _Detect(_Timed):
    stage = "detect"

    def __init__(
        self, sources: Sequence[Source], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]], shard_count: int
    ) -> None:
        self._sources, self._rules, self._lists, self._shard_count = sources, rules, lists, shard_count
        self._plans: dict[str, Plan] = {}
        self._listed: Lists | None = None
        self._held: dict[int, list[tuple[pa.RecordBatch, pa.RecordBatch]]] = {}

    def start_bundle(self) -> None:
        """Hold nothing of an earlier bundle, which may have failed."""
        self._held = {}

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
        started = self._started()
        source, events = element
        format_ = FORMATS[self._sources[source].format]
        dataset = TOOL_CALL if format_.named else format_.name
        if dataset not in self._plans:
            self._plans[dataset] = Plan.compile(self._rules, dataset, self._lists)
            self._listed = self._listed or Lists.of(self._lists)
        plan = self._plans[dataset]
        if format_.named:
            chosen, hits = select_named(events, plan)
        else:
            chosen, hits, listed = select(events, plan, self._listed)  # type: ignore[arg-type] # set above
            if (cells := roll_up(events, listed, LISTED, chosen)) is not None:
                yield beam.pvalue.TaggedOutput(ROLLED, cells)
        account = Account(seconds=Counter(self._seconds(started)))
        if len(chosen):
            matter = events.take(pa.array(chosen))
            holders, which = name_holders(matter)
            rows, duplicates = detect(matter, rule_hits(hits, chosen, plan), which)
            held = self._held.setdefault(source, [])
            held.append((rows, holders))
            if sum(some.num_rows for some, _ in held) >= _ROWS_TOGETHER:
                yield from self._sharded(source, self._held.pop(source))
            account = Account.of(source, signals=rows.num_rows, duplicates=duplicates, seconds=self._seconds(started))
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Give what is left."""
        window = GlobalWindow()
        for source, held in self._held.items():
            for part in self._sharded(source, held):
                yield WindowedValue(part, window.max_timestamp(), [window])
        self._held = {}

    def _sharded(
        self, source: int, held: Sequence[tuple[pa.RecordBatch, pa.RecordBatch]]
    ) -> Iterator[tuple[int, bytes]]:
        """Spread signals over the shards.

        They were held back to be many: what a batch costs to spread, to compress and to read again is nearly all fixed.
        """
        holders = stacked([whom for _, whom in held])
        shifts = np.cumsum([0, *(whom.num_rows for _, whom in held)])
        rows = stacked([some for some, _ in held])
        counts = [some.num_rows for some, _ in held]
        holder = numbers(rows.column(HOLDER)) + np.repeat(shifts[:-1], counts)
        shard = shards(holders.column(WORKLOAD_DIGEST), self._shard_count)
        order = np.argsort(shard[holder], kind="stable")
        rows, holder = rows.take(pa.array(order)), holder[order]
        found, starts = np.unique(shard[holder], return_index=True)
        for number, first, last in zip(found.tolist(), starts, [*starts[1:], len(order)], strict=True):
            used, renumbered = np.unique(holder[first:last], return_inverse=True)
            own = {HOLDER: pa.array(renumbered.ravel().astype(np.int32))}
            part = attribution.with_columns(rows.slice(first, last - first), own)
            yield number, packed(Signals(part, holders.take(pa.array(used)), source))


class Detect(beam.PTransform):
    """(source, attributed events) to (shard, packed signals); accounts, and roll-ups of what is none, beside them."""

    def __init__(
        self, sources: Sequence[Source], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]], shard_count: int
    ) -> None:
        """Evaluate ``rules`` with ``lists``; spread what they hit over ``shard_count`` shards by entity."""
        super().__init__()
        self._fn = _Detect(sources, rules, lists, shard_count)

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn).with_output_types(tuple[int, bytes])
        return events | outputs.with_outputs(ACCOUNT, ROLLED, main=EVENTS)


def merged(signals: Iterable[Signals]) -> tuple[Signals, Account]:
    """Put the signals of one shard together, without exact duplicates, whatever the order in which they came."""
    parts = list(signals)
    shifts = np.cumsum([0] + [part.holders.num_rows for part in parts])
    rows = joined(
        [
            attribution.with_columns(
                part.rows,
                {
                    HOLDER: pa.array(numbers(part.rows.column(HOLDER)) + shift),
                    "source": pa.array(np.full(part.rows.num_rows, part.source)),
                },
            )
            for part, shift in zip(parts, shifts, strict=False)
        ]
    )
    holders = joined([part.holders for part in parts])
    unique = first_of_each(rows.column(DIGEST), rows.column("log.file.path"), rows.column("log.offset"))
    account = Account()
    if not unique.all():
        dropped = numbers(rows.column("source"))[~unique]
        for source, count in zip(*np.unique(dropped, return_counts=True), strict=True):
            account.add(Account.of(int(source), duplicates=int(count), signals=-int(count)))
        rows = rows.filter(pa.array(unique))
    return Signals(rows, holders, -1), account


class _Gather(_Timed):
    stage = "findings"

    def __init__(
        self,
        rules: Sequence[Rule],
        correlations: Sequence[Correlation],
        lists: Mapping[str, tuple[str, ...]],
        span: Span | None = None,
        *,
        every: bool = False,
    ) -> None:
        self._rules, self._correlations, self._lists, self._span = rules, correlations, lists, span
        self._every = every
        self._asked: Asked | None = None

    def process(
        self,
        element: tuple[int, Iterable[bytes]],
        progress: Sequence[pa.RecordBatch] = (),
        earlier: Sequence[pa.RecordBatch] = (),
    ) -> Iterator[Any]:
        started = self._started()
        if self._asked is None:
            until = None if self._span is None else self._span.until
            self._asked = Asked.of(self._rules, self._correlations, self._lists, until, every=self._every)
        shard, signals = element
        together, account = merged(map(unpacked, signals))
        stored = earlier[0].column("incident.id") if earlier else None
        gathered = gather_shard(together, self._asked, reports(progress), stored)
        account.coverage.update(gathered.coverage)
        account.seconds.update(self._seconds(started))
        yield shard, gathered.findings
        if self._span is not None:
            yield beam.pvalue.TaggedOutput(SEEN, (shard, seen_of(together.holders)))
        if gathered.units is not None and gathered.units.num_rows:
            yield beam.pvalue.TaggedOutput(UNITS, gathered.units)
        if gathered.timeline.num_rows:
            yield beam.pvalue.TaggedOutput(TIMELINE, (shard, gathered.timeline))
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


class Gather(beam.PTransform):
    """(shard, signals) to (shard, findings of the whole input); accounts, and units for correlations beside them."""

    def __init__(
        self,
        rules: Sequence[Rule],
        correlations: Sequence[Correlation],
        lists: Mapping[str, tuple[str, ...]],
        progress: beam.PCollection[pa.RecordBatch] | None = None,
        span: Span | None = None,
        earlier: beam.PCollection[pa.RecordBatch] | None = None,
        *,
        every: bool = False,
    ) -> None:
        """Gather the findings of ``rules``, with all reports of training ``progress``.

        In a run over ``span`` the ``earlier`` incidents have timelines, too, and where it says so ``every`` entity.
        """
        super().__init__()
        self._fn = _Gather(rules, correlations, lists, span, every=every)
        sides = {"progress": progress, "earlier": earlier}
        self._sides = {name: beam.pvalue.AsList(side) for name, side in sides.items() if side is not None}

    def expand(self, signals: beam.PCollection[tuple[int, bytes]]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn, **self._sides).with_output_types(tuple[int, pa.RecordBatch])
        return (
            signals
            | beam.GroupByKey()
            | "Findings" >> outputs.with_outputs(ACCOUNT, UNITS, TIMELINE, SEEN, main=EVENTS)
        )


class _Correlate(_Timed):
    stage = "correlate"

    def __init__(self, correlations: Sequence[Correlation], shard: int, span: Span | None) -> None:
        self._correlations, self._shard, self._span = correlations, shard, span

    def process(
        self, _: None, units: Sequence[pa.RecordBatch], earlier: Sequence[pa.RecordBatch] = ()
    ) -> Iterator[Any]:
        started = self._started()
        if units:
            told = earlier[0] if earlier else None
            yield self._shard, correlation_findings(self._correlations, joined(units), told, self._span)
        yield beam.pvalue.TaggedOutput(ACCOUNT, Account(seconds=Counter(self._seconds(started))))


class Correlate(beam.PTransform):
    """Units of the whole input to (a shard of its own, findings of correlations); accounts beside them."""

    def __init__(
        self,
        correlations: Sequence[Correlation],
        shard: int,
        span: Span | None = None,
        earlier: beam.PCollection[pa.RecordBatch] | None = None,
    ) -> None:
        """Evaluate ``correlations``, each of which stands after those that it refers to; call their shard ``shard``.

        In a run over ``span`` what is found goes on under the ids of ``earlier`` findings.
        """
        super().__init__()
        self._fn, self._earlier = _Correlate(correlations, shard, span), earlier

    def expand(self, units: beam.PCollection[pa.RecordBatch]) -> Any:
        """Return the outputs by tag."""
        once = units.pipeline | beam.Create([None])
        sides = [beam.pvalue.AsList(side) for side in (units, self._earlier) if side is not None]
        outputs = beam.ParDo(self._fn, *sides).with_output_types(tuple[int, pa.RecordBatch])
        return once | "Correlations" >> outputs.with_outputs(ACCOUNT, main=EVENTS)


class Slim(beam.PTransform):
    """(shard, findings) to the same without evidence, for all that does not show it."""

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the findings."""
        return findings | beam.MapTuple(
            lambda shard, batch: (shard, batch.drop_columns(["finding.evidence"]))
        ).with_output_types(tuple[int, pa.RecordBatch])


class _AddFindings(beam.DoFn):
    def __init__(self, shard_count: int) -> None:
        self._shard_count = shard_count

    def process(
        self, element: tuple[int, pa.RecordBatch], more: Sequence[tuple[int, pa.RecordBatch]]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        shard, findings = element
        own = [part for _, batch in more if (part := self._of(batch, shard)).num_rows]
        if own:
            findings = pa.Table.from_batches([findings, *own]).combine_chunks().to_batches()[0]
            findings = findings.take(pc.sort_indices(findings.column("finding.id")))
        yield shard, findings

    def _of(self, batch: pa.RecordBatch, shard: int) -> pa.RecordBatch:
        return batch.filter(pa.array(shards(workload_digests(batch), self._shard_count) == shard))


class AddFindings(beam.PTransform):
    """(shard, findings) to the same with those of the correlations in it that are on entities of that shard.

    Whatever is on one entity stays together, since its incident is made of all of it.
    """

    def __init__(self, more: beam.PCollection[tuple[int, pa.RecordBatch]], shard_count: int) -> None:
        """Add ``more`` findings, which are few, to those of ``shard_count`` shards."""
        super().__init__()
        self._more, self._fn = more, _AddFindings(shard_count)

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the findings."""
        outputs = beam.ParDo(self._fn, beam.pvalue.AsList(self._more)).with_output_types(tuple[int, pa.RecordBatch])
        return findings | outputs


class _Group(_Timed):
    stage = "incidents"

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
        shard, findings = element
        yield shard, group(findings, self._kinds)


class Group(beam.PTransform):
    """(shard, findings) to (shard, incidents)."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        """Group with the ``kinds`` of source of each dataset."""
        super().__init__()
        self._fn = _Group(kinds)

    def expand(
        self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]
    ) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Return the incidents."""
        return findings | beam.ParDo(self._fn).with_output_types(tuple[int, pa.RecordBatch])


def _of_incidents(
    element: tuple[int, pa.RecordBatch], incidents: Sequence[tuple[int, pa.RecordBatch]]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    shard, entries = element
    ids = pa.concat_arrays([pa.array([], pa.string()), *(batch.column("incident.id") for _, batch in incidents)])
    kept = entries.filter(pc.is_in(entries.column("incident.id"), value_set=ids))
    if kept.num_rows:
        yield shard, kept


class _OfIncidents(_Timed):
    stage = "timeline"

    def __init__(self, shard_count: int, *, every: bool) -> None:
        self._shard_count, self._every = shard_count, every
        self._wanted: Wanted | None = None
        self._held: list[pa.RecordBatch] = []

    def start_bundle(self) -> None:
        """Forget what was wanted of an earlier bundle, which may be of other incidents, or have failed."""
        self._wanted, self._held = None, []

    def process(
        self, cells: pa.RecordBatch, table: LeaseTable, incidents: Sequence[tuple[int, pa.RecordBatch]]
    ) -> Iterator[Any]:
        started = self._started()
        if self._wanted is None:
            self._wanted = self._wanted_of(table, incidents)
        if (likely := self._wanted.likely_of(cells)).num_rows:
            self._held.append(likely)
        yield beam.pvalue.TaggedOutput(ACCOUNT, Account(seconds=Counter(self._seconds(started))))

    def _wanted_of(self, table: LeaseTable, incidents: Sequence[tuple[int, pa.RecordBatch]]) -> Wanted:
        if self._every:
            return Wanted.every(table.resolutions)
        ids, entities = (
            pa.concat_arrays([pa.array([], pa.string()), *(batch.column(name) for _, batch in incidents)])
            for name in ("incident.id", "entity.id")
        )
        return Wanted.of(table.resolutions, ids, entities)

    def finish_bundle(self) -> Iterator[Any]:
        """Give the cells of incidents: to name whose cells they are costs much the same for few and for many."""
        if self._wanted is None or not self._held:
            return
        started = self._started()
        window = GlobalWindow()
        found = self._wanted.of_cells(self._held)
        of_row = shards(found.column(WORKLOAD_DIGEST), self._shard_count)
        found = found.drop_columns([WORKLOAD_DIGEST])
        for number in np.unique(of_row).tolist():
            part = number, found.filter(pa.array(of_row == number))
            yield WindowedValue(part, window.max_timestamp(), [window])
        account = Account(seconds=Counter(self._seconds(started)))
        yield beam.pvalue.TaggedOutput(ACCOUNT, WindowedValue(account, window.max_timestamp(), [window]))


def _by_list(element: tuple[int, Iterable[pa.RecordBatch]]) -> tuple[int, pa.RecordBatch]:
    shard, cells = element
    return shard, timeline.egress_by_list(joined(list(cells)))


class EgressByList(beam.PTransform):
    """Roll-ups of egress to listed peers to (shard, entries) of the entities with an incident; accounts beside them.

    They wait for the incidents where they arose, and only those of incidents go further: a day has as many as its
    workloads have minutes.
    """

    def __init__(
        self,
        table: Any,
        incidents: beam.PCollection[tuple[int, pa.RecordBatch]],
        shard_count: int,
        *,
        every: bool = False,
    ) -> None:
        """Keep the cells of ``incidents``, or of ``every`` entity; ``table`` is the singleton with their leases."""
        super().__init__()
        self._table, self._incidents = table, incidents
        self._fn = _OfIncidents(shard_count, every=every)

    def expand(self, cells: beam.PCollection[pa.RecordBatch]) -> Any:
        """Return the outputs by tag."""
        typed = tuple[int, pa.RecordBatch]
        sides = beam.pvalue.AsSingleton(self._table), beam.pvalue.AsList(self._incidents)
        found = cells | "CellsOfIncidents" >> beam.ParDo(self._fn, *sides).with_output_types(typed).with_outputs(
            ACCOUNT, main=EVENTS
        )
        entries = found[EVENTS] | beam.GroupByKey() | "ByList" >> beam.Map(_by_list).with_output_types(typed)
        return {EVENTS: entries, ACCOUNT: found[ACCOUNT]}


def _ordered(element: tuple[int, Iterable[pa.RecordBatch]]) -> tuple[int, pa.RecordBatch]:
    shard, entries = element
    return shard, timeline.ordered(list(entries))


class Timeline(beam.PTransform):
    """(shard, entries), those by list, and (shard, findings) to (shard, timeline) of the entities with an incident."""

    def __init__(self, incidents: beam.PCollection[tuple[int, pa.RecordBatch]], *, every: bool = False) -> None:
        """Keep the entries of ``incidents``, or of ``every`` entity."""
        super().__init__()
        self._incidents, self._every = incidents, every

    def expand(self, told: tuple[Any, Any, Any]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Return the timelines."""
        entries, rolled, findings = told
        typed = tuple[int, pa.RecordBatch]
        found = findings | "FindingEntries" >> beam.MapTuple(
            lambda shard, batch: (shard, timeline.findings(batch))
        ).with_output_types(typed)
        told_of = (entries, rolled, found) | beam.Flatten()
        if not self._every:
            incidents = beam.pvalue.AsList(self._incidents)
            told_of = told_of | "OfIncidents" >> beam.FlatMap(_of_incidents, incidents).with_output_types(typed)
        return told_of | beam.GroupByKey() | "Ordered" >> beam.Map(_ordered).with_output_types(typed)
