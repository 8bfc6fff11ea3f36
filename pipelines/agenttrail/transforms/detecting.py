"""Attributed events to what of them leaves the batches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from agenttrail import attribute as attribution
from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.coders import packed
from agenttrail.columns.batches import stacked
from agenttrail.columns.numbers import numbers
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import (
    HOLDER,
    LISTED,
    Lists,
    Signals,
    detect,
    rule_hits,
    select,
)
from agenttrail.entities import WORKLOAD_DIGEST, name_holders, shards
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import TOOL_CALL, select_named
from agenttrail.rollups import roll_up
from agenttrail.transforms.timed import ROLLED, Timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenttrail.detect.rules import Rule
    from agenttrail.transforms.parsing import Source


_ROWS_TOGETHER = 1 << 15
"""Signals of one source that leave a worker together."""


class _Detect(Timed):
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
