"""Findings of correlations, and incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.columns.batches import joined
from agenttrail.detect.correlation_findings import correlation_findings
from agenttrail.entities import shards, workload_digests
from agenttrail.incidents import group
from agenttrail.transforms.timed import Timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.seams import Span


class _Correlate(Timed):
    stage = "correlate"

    def __init__(self, correlations: Sequence[Correlation], shard: int, span: Span | None) -> None:
        self._correlations, self._shard, self._span = correlations, shard, span

    def process(
        self, _: None, units: Sequence[pa.RecordBatch], earlier: Sequence[pa.RecordBatch] = ()
    ) -> Iterator[Any]:
        started, account = self._started(), Account()
        if units:
            told = earlier[0] if earlier else None
            findings = correlation_findings(self._correlations, joined(units), told, self._span)
            account.found(findings)
            yield self._shard, findings
        account.seconds.update(self._seconds(started))
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


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


class _Group(Timed):
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
