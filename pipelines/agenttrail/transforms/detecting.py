"""Attributed events to what of them leaves the batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import attribute as attribution
from agenttrail.accounting import ACCOUNT, EVENTS, Account
from agenttrail.coders import packed
from agenttrail.columns.batches import stacked
from agenttrail.columns.dictionaries import addresses_decoded
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
    travelling,
)
from agenttrail.entities import NAMED_BY, WORKLOAD_DIGEST, digested, each_once, holders_of, shards
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import TOOL_CALL, select_named
from agenttrail.rollups import roll_up
from agenttrail.transforms.timed import ROLLED, Timed, at_the_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.rules import Rule
    from agenttrail.transforms.parsing import Source


_ROWS_TOGETHER = 1 << 17
"""Signals of one source that leave a worker together, or sooner,"""
_BYTES_TOGETHER = 1 << 26
"""once their lines take this much: those of tool calls may be long, and a column has room for 2 GiB."""


@dataclass(frozen=True)
class _Held:
    """Rows of one batch that matter, before anything is made of them.

    Attributes:
        events: what :func:`travelling` leaves of them.
        hits: the rules that hit each.
        holders: whom they are about.
        which: place of each row's holder.
    """

    events: pa.RecordBatch
    hits: pa.Array
    holders: pa.RecordBatch
    which: NDArray[np.int64]


def _enough(held: Sequence[_Held]) -> bool:
    """Tell whether rows that wait are to leave."""
    rows = sum(len(one.which) for one in held)
    return rows >= _ROWS_TOGETHER or sum(one.events.column("event.original").nbytes for one in held) >= _BYTES_TOGETHER


class _Detect(Timed):
    stage = "detect"

    def __init__(
        self, sources: Sequence[Source], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]], shard_count: int
    ) -> None:
        self._sources, self._rules, self._lists, self._shard_count = sources, rules, lists, shard_count
        self._plans: dict[str, Plan] = {}
        self._listed: Lists | None = None
        self._held: dict[int, list[_Held]] = {}

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
        if len(chosen):
            matter = pc.take(travelling(events, *NAMED_BY), pa.array(chosen), boundscheck=False)
            matter = addresses_decoded(matter)
            held = self._held.setdefault(source, [])
            held.append(_Held(travelling(matter), rule_hits(hits, chosen, plan), *holders_of(matter)))
            if _enough(held):
                yield from self._leaving(source, self._held.pop(source))
        yield beam.pvalue.TaggedOutput(ACCOUNT, Account(seconds=Counter(self._seconds(started))))

    def finish_bundle(self) -> Iterator[Any]:
        """Give what is left."""
        started = self._started()
        for source, held in self._held.items():
            yield from map(at_the_end, self._leaving(source, held))
        account = Account(seconds=Counter(self._seconds(started)))
        yield at_the_end(beam.pvalue.TaggedOutput(ACCOUNT, account))
        self._held = {}

    def _leaving(self, source: int, held: Sequence[_Held]) -> Iterator[Any]:
        """Make held rows ready and spread them over the shards.

        They were held back to be many: what a batch costs to look through for secrets (their patterns are compiled
        each time), to spread, to compress and to read again is nearly all fixed.
        """
        holders, place = each_once(stacked([one.holders for one in held]))
        holders = digested(holders)
        shifts = np.cumsum([0, *(one.holders.num_rows for one in held)])
        holder = np.concatenate([place[one.which + shift] for one, shift in zip(held, shifts, strict=False)])
        events = stacked([one.events for one in held])
        rows, duplicates = detect(events, pa.concat_arrays([one.hits for one in held]), holder)
        account = Account.of(source, signals=rows.num_rows, duplicates=duplicates)
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)
        yield from self._sharded(source, rows, holders)

    def _sharded(self, source: int, rows: pa.RecordBatch, holders: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
        holder = numbers(rows.column(HOLDER))
        shard = shards(holders.column(WORKLOAD_DIGEST), self._shard_count)
        order = np.argsort(shard[holder], kind="stable")
        rows, holder = pc.take(rows, pa.array(order), boundscheck=False), holder[order]
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
