"""Leases to tables, and events to attributed events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import attribute as attribution
from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.attribute import LeaseTable
from agenttrail.attribute_named import NameTable, attribute_named
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.numbers import numbers
from agenttrail.coverage import UNMET
from agenttrail.flows import GAPS
from agenttrail.gathering.named import progress_of
from agenttrail.gathering.observed import resolved
from agenttrail.seams import Living, Span, in_span, looked_at
from agenttrail.transforms.timed import LEASES, PROGRESS, Timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
        leases, unmet = resolved(batch for _, batch in observed)
        if unmet is not None:
            yield beam.pvalue.TaggedOutput(ACCOUNT, Account(coverage=Counter({UNMET: unmet})))
        yield leases


class _LookingAt(Timed):
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
            words = column.dictionary if pa.types.is_dictionary(column.type) else column
            gap = pc.is_in(words, value_set=pa.array(GAPS))
            if words is not column and pc.any(gap).as_py():
                gap = gap.take(column.indices)
            told += int(pc.sum(gap).as_py() or 0)
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
