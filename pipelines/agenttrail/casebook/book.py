"""Casebook: the state of a stream, and what it tells whenever it is asked.

It holds the rows that may matter, whoever they turn out to be about, and the leases.  Asked to judge, it says again
what it can say of the workloads of which anything changed - a row came, a lease came or ended, a job reported a step -
by the functions of the batch job.  So once everything has come it has said what the batch job says, in whatever order
and pieces it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import timeline
from agenttrail.attribute import LeaseTable
from agenttrail.attribute_named import NameTable
from agenttrail.casebook.segments import Known, Segment
from agenttrail.columns.batches import as_one_batch, stacked
from agenttrail.columns.ids import content_digests, hexadecimal
from agenttrail.columns.json_text import json_objects
from agenttrail.detect.correlation_findings import correlation_findings
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST, workload_digests
from agenttrail.gathering.gathered import Gathered, gather_shard
from agenttrail.gathering.merging import merged
from agenttrail.gathering.named import reports
from agenttrail.gathering.observed import resolved
from agenttrail.incidents import group
from agenttrail.schema import conform, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrail.casebook.terms import Terms

_LARGE = 1 << 16
"""Rows of a segment that is not put together with others any more."""
_MANY = 64
"""Batches of leases that are put together, so that there are few."""
_NO_WORKLOADS = pa.array([], pa.binary(16))


@dataclass(frozen=True)
class Changes:
    """What is to be said otherwise than before.

    Attributes:
        findings: new ones, and those of which anything changed.
        gone_findings: ids of those that do not hold any more.
        incidents: likewise.
        gone_incidents: likewise.
        timeline: whole timelines of ``incidents``.
    """

    findings: pa.RecordBatch
    gone_findings: pa.Array
    incidents: pa.RecordBatch
    gone_incidents: pa.Array
    timeline: pa.RecordBatch


@dataclass
class _Arrived:
    """What came since the last judgement."""

    events: dict[tuple[int, str | None], list[pa.RecordBatch]] = field(default_factory=dict)
    leases: bool = False


class Casebook:
    """All that a stream knows of some workloads."""

    def __init__(self, terms: Terms) -> None:
        """Begin an empty one on the ``terms`` of a job."""
        self._terms = terms
        self._observed: list[pa.RecordBatch] = []
        self._known: Known | None = None
        self._segments: list[Segment] = []
        self._arrived = _Arrived()
        self._findings, self._units = _empty("finding"), None
        self._entries: pa.RecordBatch | None = None
        self._told = _Told(), _Told()

    @property
    def rows(self) -> int:
        """Rows that are held."""
        waiting = [batch for batches in self._arrived.events.values() for batch in batches]
        return sum(int(batch.num_rows) for batch in [*waiting, *(segment.raw for segment in self._segments)])

    def observe(self, leases: pa.RecordBatch) -> None:
        """Take in leases, or trajectories, as a format gives them."""
        if leases.num_rows:
            self._observed.append(conform(leases, record("lease")))
            self._arrived.leases = True

    def take(self, source: int, dataset: str | None, events: pa.RecordBatch) -> None:
        """Take in events of a source that may matter; of one whose events name their workload ``dataset`` is None."""
        if events.num_rows:
            self._arrived.events.setdefault((source, dataset), []).append(events)

    def judge(self) -> Changes:
        """Say what is to be said otherwise than the last time."""
        touched = pa.concat_arrays([_NO_WORKLOADS, *self._again(), *self._anew()]).unique()
        if not len(touched):
            return _nothing()
        self._say(self._gathered(touched), touched)
        return self._changes()

    # -- what is known of each row

    def _again(self) -> list[pa.Array]:
        """Judge segments again of whose leases anything is known otherwise; return the workloads that it touches."""
        if self._known is not None and not self._arrived.leases:
            return []
        self._arrived.leases = False
        before, self._known = self._known, _known(self._observed, self._terms.tolerance)
        if len(self._observed) >= _MANY:
            self._observed = [pa.concat_batches(self._observed)]
        if before is None:
            return []
        addresses, names = _changed(before.leases, self._known.leases)
        touched = []
        for place, segment in enumerate(self._segments):
            if segment.met_by(addresses, names):
                self._segments[place] = self._judged(segment.source, segment.dataset, segment.raw)
                touched.append(self._segments[place].changed_from(segment))
                touched += self._reached(self._segments[place].progress, segment.progress)
        return touched

    def _anew(self) -> list[pa.Array]:
        """Judge what came; return the workloads that it touches."""
        arrived, self._arrived = self._arrived.events, _Arrived()
        touched = []
        for (source, dataset), batches in arrived.items():
            segment = self._judged(source, dataset, stacked(batches))
            touched += [segment.workload, *self._reached(segment.progress)]
            self._segments.append(segment)
        self._put_together()
        return touched

    def _judged(self, source: int, dataset: str | None, raw: pa.RecordBatch) -> Segment:
        assert self._known is not None  # noqa: S101 - for mypy: it is made first
        return Segment.judged(source, dataset, raw, self._known, self._terms)

    def _reached(self, *progress: pa.RecordBatch | None) -> list[pa.Array]:
        """Return the workloads of which reports of progress say something: those of the same sandbox or job."""
        told = [one for one in progress if one is not None]
        if not told:
            return []
        names = {
            name: pa.concat_arrays([one.column(name) for one in told]).drop_null() for name in ("sandbox.id", "job.id")
        }
        reached = []
        for segment in self._segments:
            holders = segment.signals.holders
            hit = [pc.is_in(holders.column(name), value_set=values) for name, values in names.items()]
            reached.append(holders.column(WORKLOAD_DIGEST).filter(pc.or_(*hit)))
        return reached

    def _put_together(self) -> None:
        """Let small segments of one source become one, so that there are few."""
        small: dict[tuple[int, str | None], list[Segment]] = {}
        large = []
        for segment in self._segments:
            if segment.raw.num_rows >= _LARGE:
                large.append(segment)
            else:
                small.setdefault((segment.source, segment.dataset), []).append(segment)
        for (source, dataset), some in small.items():
            if len(some) < 8 and sum(one.raw.num_rows for one in some) < _LARGE:  # noqa: PLR2004 - a few are no harm
                large += some
            else:
                large.append(self._judged(source, dataset, stacked([one.raw for one in some])))
        self._segments = large

    # -- what that says together

    def _gathered(self, touched: pa.Array) -> Gathered:
        signals = [part for segment in self._segments if (part := segment.of(touched)) is not None]
        progress = reports([segment.progress for segment in self._segments if segment.progress is not None])
        together, _ = merged(signals)
        self._names_of(together.holders, touched)
        return gather_shard(together, self._terms.asked, progress)

    def _names_of(self, holders: pa.RecordBatch, touched: pa.Array) -> None:
        whose = hexadecimal(
            holders.column(ENTITY_DIGEST).filter(pc.is_in(holders.column(WORKLOAD_DIGEST), value_set=touched))
        )
        self._spoken = whose.unique()

    def _say(self, gathered: Gathered, touched: pa.Array) -> None:
        """Put what was gathered of ``touched`` workloads in the place of what was said of them."""
        self._findings = _replaced(self._findings, gathered.findings, touched)
        if gathered.units is not None:
            self._units = _replaced(self._units, gathered.units, touched) if self._units is not None else gathered.units
        entries = conform(gathered.timeline, record("timeline"))
        if self._entries is not None:
            stays = pc.invert(pc.is_in(self._entries.column("incident.id"), value_set=self._spoken))
            entries = pa.concat_batches([self._entries.filter(stays), entries])
        self._entries = entries

    def _changes(self) -> Changes:
        found = [self._findings]
        if self._terms.correlations and self._units is not None and self._units.num_rows:
            found.append(correlation_findings(self._terms.correlations, self._units))
        whole = as_one_batch(pa.Table.from_batches([conform(one, record("finding")) for one in found]))
        whole = whole.take(pc.sort_indices(whole.column("finding.id")))
        incidents = group(whole.drop_columns(["finding.evidence"]), self._terms.kinds)
        findings, gone = self._told[0].changed(whole, "finding.id")
        changed, closed = self._told[1].changed(incidents, "incident.id")
        return Changes(findings, gone, changed, closed, self._timeline(whole, changed))

    def _timeline(self, findings: pa.RecordBatch, incidents: pa.RecordBatch) -> pa.RecordBatch:
        ids = incidents.column("incident.id")
        of_findings = timeline.findings(findings.filter(pc.is_in(findings.column("incident.id"), value_set=ids)))
        entries = [self._entries] if self._entries is not None else []
        wanted = [one.filter(pc.is_in(one.column("incident.id"), value_set=ids)) for one in entries]
        return timeline.ordered([*wanted, of_findings])


class _Told:
    """What was said last, by id."""

    def __init__(self) -> None:
        self._ids, self._marks = pa.array([], pa.string()), pa.array([], pa.binary(16))

    def changed(self, documents: pa.RecordBatch, id_: str) -> tuple[pa.RecordBatch, pa.Array]:
        """Return the documents of which anything changed, and the ids of those that are no more."""
        ids = documents.column(id_)
        marks = content_digests([json_objects(documents)]) if documents.num_rows else pa.array([], pa.binary(16))
        place = pc.index_in(ids, value_set=self._ids)
        same = pc.fill_null(pc.equal(marks, self._marks.take(place)), fill_value=False)
        gone = self._ids.filter(pc.invert(pc.is_in(self._ids, value_set=ids)))
        self._ids, self._marks = ids, marks
        return documents.filter(pc.invert(same)), gone


def _known(observed: Sequence[pa.RecordBatch], tolerance: int) -> Known:
    leases, _ = resolved(observed)
    return Known(leases, LeaseTable.build(leases, tolerance), NameTable.build(leases, tolerance))


def _changed(before: pa.RecordBatch, after: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Return the addresses, and the names and uids of pods, of leases of which anything is known otherwise."""
    old, new = json_objects(before), json_objects(after)
    differ = [
        before.filter(pc.invert(pc.is_in(old, value_set=new))), after.filter(pc.invert(pc.is_in(new, value_set=old))),
    ]  # fmt: skip
    addresses = pa.concat_arrays([one.column("lease.address") for one in differ]).drop_null().unique()
    names = [one.column(name) for one in differ for name in ("k8s.pod.uid", "sandbox.id")]
    return addresses, pa.concat_arrays(names).drop_null().unique()


def _empty(kind: str) -> pa.RecordBatch:
    return conform(pa.RecordBatch.from_arrays([], names=[]), record(kind))


def _replaced(before: pa.RecordBatch, now: pa.RecordBatch, touched: pa.Array) -> pa.RecordBatch:
    if not before.num_rows:
        return now
    stays = before.filter(pc.invert(pc.is_in(workload_digests(before), value_set=touched)))
    return as_one_batch(
        pa.concat_tables([pa.Table.from_batches([one]) for one in (stays, now)], promote_options="default")
    )


def _nothing() -> Changes:
    ids = pa.array([], pa.string())
    return Changes(_empty("finding"), ids, _empty("incident"), ids, _empty("timeline"))
