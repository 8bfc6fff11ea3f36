"""Some rows of one source that a stream brought, and what they say as far as leases are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.attribute import attribute, with_columns
from agenttrail.attribute_named import attribute_named
from agenttrail.columns.ids import content_digests
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.numbers import numbers
from agenttrail.detect.signals import DIGEST, HITS, HOLDER, Signals, detect, digest_words, rule_hits, select
from agenttrail.entities import WORKLOAD_DIGEST, name_holders
from agenttrail.gathering.named import TOOL_CALL, progress_of, select_named
from agenttrail.schema import cast
from agenttrail.seams import looked_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.attribute import LeaseTable
    from agenttrail.attribute_named import NameTable
    from agenttrail.casebook.terms import Terms
    from agenttrail.columns.networks import NetworkLists
    from agenttrail.seams import Living, Span

_ENDS = ("source.ip", "destination.ip")
_NAMES = ("k8s.pod.uid", "sandbox.id")
_STEP, _METRIC = "training.step", "metric.name"
_ROW = "row"
"""Column in flight only: place of a row."""
_SEEN = ("network.direction", "network.initiator", "attribution.reason")
"""What attribution says of a row beside its holder."""


@dataclass(frozen=True)
class Known:
    """All leases that are known.

    Attributes:
        leases: resolved.
        by_address: for events that tell of two addresses.
        by_name: for events that name their workload.
        span: from where on rows are looked at, with all that their occupancies had before; None for all rows.
        living: occupancies that may still have rows then.
    """

    leases: pa.RecordBatch
    by_address: LeaseTable
    by_name: NameTable
    span: Span | None = None
    living: Living | None = None

    def of(self, dataset: str | None, raw: pa.RecordBatch, internal: NetworkLists) -> pa.RecordBatch:
        """Say of raw events whose they are."""
        return self.named(raw) if dataset is None else attribute(raw, self.by_address, internal)

    def named(self, raw: pa.RecordBatch) -> pa.RecordBatch:
        """Say of raw events that name their workload whose they are."""
        return attribute_named(raw, self.by_name)

    def looked_at(self, dataset: str | None, raw: pa.RecordBatch, internal: NetworkLists) -> NDArray[np.int64]:
        """Return which of some raw events are looked at, ascending; reports of training progress are, all of them.

        It is what is not among these that proves something.
        """
        rows = np.arange(raw.num_rows)
        if self.span is None or self.living is None:
            return rows
        attributed = self.of(dataset, with_columns(raw, {_ROW: pa.array(rows)}), internal)
        seen = numbers(looked_at(attributed, self.living, self.span).column(_ROW))
        return np.union1d(seen, np.flatnonzero(reporting(raw)))


def reporting(events: pa.RecordBatch) -> NDArray[np.bool_]:
    """Tell which events report training progress."""
    if _STEP not in events.schema.names:
        return np.zeros(events.num_rows, dtype=bool)
    return np.asarray(events.column(_STEP).is_valid(), dtype=bool)


@dataclass(frozen=True)
class Segment:
    """Rows of one source.

    Attributes:
        source: its number.
        dataset: its format; None for events that name their workload.
        raw: the events as they were parsed.
        signals: what matters of them.
        workload: digest of the workload of each signal.
        progress: reports of training progress; None where there are none.
    """

    source: int
    dataset: str | None
    raw: pa.RecordBatch
    signals: Signals
    workload: pa.Array
    progress: pa.RecordBatch | None

    @classmethod
    def judged(cls, source: int, dataset: str | None, raw: pa.RecordBatch, known: Known, terms: Terms) -> Segment:
        """Say of ``raw`` events whose they are, and which of them matter."""
        attributed = known.of(dataset, raw, terms.internal)
        if dataset is None:
            plan = terms.plans[TOOL_CALL]
            chosen, hits = select_named(attributed, plan)
            progress = progress_of(attributed)
        else:
            plan = terms.plans[dataset]
            chosen, hits, _ = select(attributed, plan, terms.lists)
            progress = None
        matter = attributed.take(pa.array(chosen))
        holders, which = name_holders(matter)
        rows, _ = detect(matter, rule_hits(hits, chosen, plan), which)
        signals = Signals(rows, holders, source)
        of_row = pa.array(numbers(rows.column(HOLDER)))
        workload = holders.column(WORKLOAD_DIGEST).take(of_row)
        return cls(source, dataset, raw, signals, workload, progress)

    def started(self) -> NDArray[np.int64]:
        """Return when each raw row's event started, in microseconds."""
        return numbers(self.raw.column("event.start").cast(pa.int64()))

    def reported(self, rows: NDArray[np.int64]) -> pa.RecordBatch | None:
        """Return the reports of progress at some raw rows that are such; None where the segment has none."""
        if self.progress is None:
            return None
        places = np.searchsorted(np.flatnonzero(reporting(self.raw)), rows)
        return self.progress.take(pa.array(places))

    def sampled_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return when the GPU samples among some raw rows were taken, in microseconds."""
        if _METRIC not in self.raw.schema.names:
            return np.empty(0, np.int64)
        sampled = np.asarray(self.raw.column(_METRIC).is_valid(), dtype=bool)
        times: NDArray[np.int64] = self.started()[rows[sampled[rows]]]
        return times

    def nothing(self) -> Signals:
        """Return none of its signals, in their shape."""
        return Signals(self.signals.rows.slice(0, 0), self.signals.holders, self.source)

    def met_by(self, addresses: pa.Array, names: pa.Array) -> bool:
        """Tell whether leases on some addresses, or of pods with some names or uids, may say something of its rows."""
        columns, values = (_NAMES, names) if self.dataset is None else (_ENDS, addresses)
        told = [self.raw.column(name) for name in columns if name in self.raw.schema.names]
        return any(pc.any(pc.is_in(column.cast(values.type), value_set=values)).as_py() for column in told)

    def changed_from(self, before: Segment) -> pa.Array:
        """Return the workloads of rows of which anything else is said than before."""
        mine, theirs = (digest_words(_marks(one.signals)) for one in (self, before))
        new = pa.array(~np.isin(mine, theirs))
        old = pa.array(~np.isin(theirs, mine))
        return pa.concat_arrays([self.workload.filter(new), before.workload.filter(old)]).unique()

    def of(self, workloads: pa.Array) -> Signals | None:
        """Return the signals of some workloads; None where there are none."""
        chosen: NDArray[np.int64] = np.flatnonzero(np.asarray(pc.is_in(self.workload, value_set=workloads)))
        if not len(chosen):
            return None
        return Signals(self.signals.rows.take(pa.array(chosen)), self.signals.holders, self.source)


def _marks(signals: Signals) -> pa.Array:
    """Return 16 bytes per signal that differ wherever anything differs that is said of it."""
    rows, holders = signals.rows, signals.holders
    of_row = pa.array(numbers(rows.column(HOLDER)))
    if not rows.num_rows:
        return pa.array([], pa.binary(16))
    said = content_digests(["holder", json_objects(holders)]).take(of_row)
    seen = [cast(rows.column(name), pa.string()) for name in _SEEN if name in rows.schema.names]
    return content_digests([rows.column(DIGEST), said, _hits(rows), *seen])


def _hits(rows: pa.RecordBatch) -> pa.Array:
    return pc.binary_join(rows.column(HITS).cast(pa.list_(pa.string())), ",")
