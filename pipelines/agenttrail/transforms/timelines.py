"""Entries to timelines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import timeline
from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.columns.batches import joined
from agenttrail.entities import WORKLOAD_DIGEST, shards
from agenttrail.rollups import Wanted
from agenttrail.transforms.timed import Timed, at_the_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agenttrail.attribute import LeaseTable


def _of_incidents(
    element: tuple[int, pa.RecordBatch], incidents: Sequence[tuple[int, pa.RecordBatch]]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    shard, entries = element
    ids = pa.concat_arrays([pa.array([], pa.string()), *(batch.column("incident.id") for _, batch in incidents)])
    kept = entries.filter(pc.is_in(entries.column("incident.id"), value_set=ids))
    if kept.num_rows:
        yield shard, kept


class _OfIncidents(Timed):
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
        found = self._wanted.of_cells(self._held)
        of_row = shards(found.column(WORKLOAD_DIGEST), self._shard_count)
        found = found.drop_columns([WORKLOAD_DIGEST])
        for number in np.unique(of_row).tolist():
            part = number, found.filter(pa.array(of_row == number))
            yield at_the_end(part)
        account = Account(seconds=Counter(self._seconds(started)))
        yield at_the_end(beam.pvalue.TaggedOutput(ACCOUNT, account))


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
