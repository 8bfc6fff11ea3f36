"""What a run over a span of time writes of what it looked at, and how that settles with what earlier runs wrote."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.numbers import numbers
from agenttrail.entities import WORKLOAD_DIGEST, shards, workload_digests
from agenttrail.incidents import group
from agenttrail.schema import conform, record
from agenttrail.seams import heard_of, in_span, said, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenttrail.seams import Span

SETTLEMENT, TOGETHER = "settlement", "together"
"""Tags of the settlement, and of all findings on the entities that the run touched."""


@dataclass(frozen=True)
class Settlement:
    """What becomes of what earlier runs left.

    Attributes:
        gone: ids of the "findings" and the "incidents" that do not stay as they are.
        stay: severities of the "findings" and the "incidents" that do, counted.
        counts: of findings: those there were before, and how many were replaced, superseded and added.
    """

    gone: dict[str, pa.Array]
    stay: dict[str, dict[str, int]]
    counts: dict[str, int]


class HearOf(beam.PTransform):
    """(source, events that name their workload) to uids of the pods that were heard of in what a run looks at."""

    def __init__(self, span: Span) -> None:
        """Listen from the horizon of ``span`` on."""
        super().__init__()
        self._span = span

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[pa.Array]:
        """Return arrays of uids."""
        return events | beam.MapTuple(lambda _, batch, span=self._span: heard_of(batch, span))


class InSpan(beam.PTransform):
    """(source, events) to those that start in a span of time."""

    def __init__(self, span: Span) -> None:
        """Keep the events of ``span``."""
        super().__init__()
        self._span = span

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the events."""
        return events | beam.FlatMap(_in_span, self._span).with_output_types(tuple[int, pa.RecordBatch])


def _in_span(element: tuple[int, pa.RecordBatch], span: Span) -> Iterator[tuple[int, pa.RecordBatch]]:
    source, events = element
    kept = in_span(events, span)
    if kept.num_rows:
        yield source, kept


class Say(beam.PTransform):
    """(shard, findings) to those that a run over a span of time says."""

    def __init__(self, span: Span) -> None:
        """Keep what a run over ``span`` says."""
        super().__init__()
        self._span = span

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the findings."""
        return findings | beam.Map(_said, self._span).with_output_types(tuple[int, pa.RecordBatch])


def _said(element: tuple[int, pa.RecordBatch], span: Span) -> tuple[int, pa.RecordBatch]:
    shard, findings = element
    return shard, said(findings, span)


class Settle(beam.PTransform):
    """(shard, findings without evidence) of a run to (shard, incidents), made anew on every entity that it looked at.

    Beside them all findings on these entities, and the settlement.
    """

    def __init__(
        self,
        span: Span,
        ran: Sequence[str],
        kinds: Mapping[str, str],
        shard_count: int,
        stored: beam.PCollection[pa.RecordBatch],
        incidents: beam.PCollection[pa.RecordBatch],
        seen: beam.PCollection[tuple[int, pa.RecordBatch]],
    ) -> None:
        """Settle a run over ``span``.

        Args:
            span: what it is over.
            ran: ids of the rules that were on.
            kinds: of source of each dataset.
            shard_count: slices of all entities.
            stored: all findings of earlier runs in one batch, without evidence.
            incidents: id and severity of their incidents, likewise.
            seen: (shard, entities that the run looked at).
        """
        super().__init__()
        self._fn = _Settle(span, ran, kinds, shard_count)
        self._sides = [beam.pvalue.AsSingleton(one) for one in (stored, incidents)] + [beam.pvalue.AsList(seen)]

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        once = findings.pipeline | beam.Create([None])
        outputs = beam.ParDo(self._fn, beam.pvalue.AsList(findings), *self._sides)
        outputs = outputs.with_output_types(tuple[int, pa.RecordBatch])
        return once | outputs.with_outputs(SETTLEMENT, TOGETHER, main="incidents")


class _Settle(beam.DoFn):
    def __init__(self, span: Span, ran: Sequence[str], kinds: Mapping[str, str], shard_count: int) -> None:
        self._span, self._ran, self._kinds, self._shard_count = span, tuple(ran), kinds, shard_count

    def process(
        self,
        _: None,
        findings: Sequence[tuple[int, pa.RecordBatch]],
        stored: pa.RecordBatch,
        incidents: pa.RecordBatch,
        seen: Sequence[tuple[int, pa.RecordBatch]],
    ) -> Iterator[Any]:
        nothing = conform(stored.slice(0, 0), record("finding")).drop_columns(["finding.evidence"])
        found = as_one_batch(pa.Table.from_batches([nothing, *(batch for _, batch in findings)]))
        told = found.column("finding.id")
        workloads = [batch.column(WORKLOAD_DIGEST) for _, batch in seen]
        settled = settle(
            stored, told, pa.concat_arrays([pa.array([], pa.binary(16)), *workloads]),
            pa.array(self._ran, pa.string()), self._span,
        )  # fmt: skip
        stands = stored.filter(pa.array(settled.stand))
        in_view = stored.column("incident.id").filter(pa.array(settled.in_view))
        touched = pa.concat_arrays([found.column("incident.id"), in_view]).unique()
        beside = stands.filter(pc.is_in(stands.column("incident.id"), value_set=touched))
        together = as_one_batch(pa.Table.from_batches([found, beside]))
        together = together.take(pc.sort_indices(together.column("finding.id")))
        shard = shards(workload_digests(together), self._shard_count)
        # on the shards of their findings, where their timelines are, too
        incidents_ = group(together, self._kinds)
        place = pc.index_in(incidents_.column("incident.id"), value_set=together.column("incident.id"))
        of_incident = shard[numbers(place)]
        for number in np.unique(of_incident).tolist():
            yield number, incidents_.filter(pa.array(of_incident == number))
        for number in np.unique(shard).tolist():
            yield beam.pvalue.TaggedOutput(TOGETHER, (number, together.filter(pa.array(shard == number))))
        kept = incidents.filter(pc.invert(pc.is_in(incidents.column("incident.id"), value_set=touched)))
        new = int(pc.sum(pc.invert(pc.is_in(told, value_set=stored.column("finding.id")))).as_py() or 0)
        yield beam.pvalue.TaggedOutput(
            SETTLEMENT,
            Settlement(
                {"findings": stored.column("finding.id").filter(pa.array(~settled.stand)), "incidents": touched},
                {"findings": _severities(stands, "finding"), "incidents": _severities(kept, "incident")},
                {
                    "before": stored.num_rows, "replaced": int(settled.replaced.sum()),
                    "superseded": int(settled.superseded.sum()), "added": new,
                },
            ),
        )  # fmt: skip


def _severities(documents: pa.RecordBatch, kind: str) -> dict[str, int]:
    return dict(Counter(documents.column(f"{kind}.severity").to_pylist()))
