"""What leaves the batches to findings, by shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa

from agenttrail.accounting import ACCOUNT, EVENTS
from agenttrail.coders import unpacked
from agenttrail.gathering.gathered import Asked, gather_shard
from agenttrail.gathering.merging import merged
from agenttrail.gathering.named import reports
from agenttrail.seams import Span, seen_of
from agenttrail.transforms.timed import SEEN, TIMELINE, UNITS, Timed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule


class _Gather(Timed):
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
        account.found(gathered.findings)
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
