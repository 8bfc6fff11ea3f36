"""What leaves the batches to findings, by shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from agenttrail import attribute as attribution
from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.coders import unpacked
from agenttrail.columns.batches import joined
from agenttrail.columns.numbers import numbers
from agenttrail.detect.signals import (
    DIGEST,
    HOLDER,
    Signals,
    first_of_each,
)
from agenttrail.gathering.gathered import Asked, gather_shard
from agenttrail.gathering.named import reports
from agenttrail.seams import Span, seen_of
from agenttrail.transforms.timed import SEEN, TIMELINE, UNITS, Timed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule


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
