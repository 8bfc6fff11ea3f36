"""Casebook: the state of a stream, and what it tells whenever it is asked.

It holds the rows that may matter, whoever they turn out to be about, and the leases.  Asked to judge, it says again
what it can say of the workloads of which anything changed - a row came, a lease came or ended, a job reported a step -
by the functions of the batch job.  So once everything has come it has said what the batch job says, in whatever order
and pieces it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.attribute import LeaseTable
from agenttrail.attribute_named import NameTable
from agenttrail.casebook.ledger import Changes, Ledger, empty
from agenttrail.casebook.samples import SETTLED, Needless
from agenttrail.casebook.segments import Known, Segment, reporting
from agenttrail.casebook.sums import Sums
from agenttrail.columns.batches import stacked
from agenttrail.columns.groups import group_rows
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.numbers import numbers
from agenttrail.detect.progress import farthest
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST
from agenttrail.gathering.gathered import Gathered, gather_shard
from agenttrail.gathering.merging import merged
from agenttrail.gathering.named import reports
from agenttrail.gathering.observed import distinct, resolved, still_needed
from agenttrail.schema import IDENTITY, conform, record
from agenttrail.seams import Living, heard_of, named_pods

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from agenttrail.casebook.terms import Terms
    from agenttrail.casebook.urgency import Urgency
    from agenttrail.seams import Span

_LARGE = 1 << 16
"""Rows of a segment that is not put together with others any more."""
_FEW = 8
"""So many small segments are no harm."""
_MANY = 64
"""Batches of leases that are put together, so that there are few."""
_MOST_KINDS = 1 << 20
"""Kinds of rows that are remembered; once there are more, all that were are forgotten and new again."""
_LONGEST_RECORD = 6 * 3_600_000_000
"""How long a record lasts at most, in microseconds, that is told when it ends and belongs to where it began."""
_EVERY = 3_600_000_000
"""How often samples are let go of, in microseconds of event time: what they told is written down each time."""
_SOURCES = ("sandbox.id", "job.id")
_NO_WORKLOADS = pa.array([], pa.binary(16))
_NOTHING = Gathered(empty("finding"), None, empty("timeline"), {})
_NOBODY = pa.RecordBatch.from_arrays([_NO_WORKLOADS, _NO_WORKLOADS], names=[ENTITY_DIGEST, WORKLOAD_DIGEST])


@dataclass
class _Arrived:
    """What came since the last judgement."""

    events: dict[tuple[int, str | None, bool], list[pa.RecordBatch]] = field(default_factory=dict)
    leases: bool = False


@dataclass
class _Due:
    """Workloads that are to be judged.

    Attributes:
        some: of which anything changed.
        urgent: of which something came that opens an incident by itself and is not more of what had come.
        kinds: sorted words, one for each kind of such rows that has come.
    """

    some: pa.Array = field(default_factory=lambda: _NO_WORKLOADS)
    urgent: pa.Array = field(default_factory=lambda: _NO_WORKLOADS)
    kinds: NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, dtype="S16"))

    def add(self, workloads: Sequence[pa.Array], *, urgent: bool = True) -> None:
        """Take in workloads of which anything is known otherwise."""
        self.some = pa.concat_arrays([self.some, *workloads]).unique()
        if urgent:
            self.urgent = pa.concat_arrays([self.urgent, *workloads]).unique()

    def add_rows(self, segment: Segment, urgency: Urgency) -> None:
        """Take in what came of rows."""
        self.some = pa.concat_arrays([self.some, segment.workload]).unique()
        workload, kinds = urgency.kinds(segment)
        new = ~np.isin(kinds, self.kinds)
        if new.any():
            known = self.kinds if len(self.kinds) < _MOST_KINDS else self.kinds[:0]
            self.kinds = np.union1d(known, kinds[new])
            self.urgent = pa.concat_arrays([self.urgent, workload.filter(pa.array(new))]).unique()

    def taken(self, *, urgent: bool) -> pa.Array:
        """Return those whose turn it is; the urgent ones come up again with all others, for their timelines."""
        turn = self.urgent if urgent else self.some
        self.urgent = _NO_WORKLOADS
        if not urgent:
            self.some = _NO_WORKLOADS
        return turn


class Casebook:
    """All that a stream knows of some workloads."""

    def __init__(self, terms: Terms, start: int | None = None) -> None:
        """Begin an empty one on the ``terms`` of a job; after a restart rows are looked at from ``start`` on."""
        self._terms = terms
        self._observed: list[pa.RecordBatch] = []
        self._known: Known | None = None
        self._segments: list[Segment] = []
        self._arrived = _Arrived()
        self._due = _Due()
        self._ledger = Ledger(terms)
        self._span: Span | None = None
        if start is not None:
            self.settle(start)
        self._late: list[tuple[int, pa.RecordBatch]] = []
        self._sums = Sums.none()

    @property
    def rows(self) -> int:
        """Rows that are held."""
        waiting = [batch for batches in self._arrived.events.values() for batch in batches]
        return sum(int(batch.num_rows) for batch in [*waiting, *(segment.raw for segment in self._segments)])

    @property
    def due(self) -> bool:
        """Whether anything came that was not judged yet."""
        return bool(self._arrived.events) or self._arrived.leases or bool(len(self._due.some))

    def observe(self, leases: pa.RecordBatch) -> None:
        """Take in leases, or trajectories, as a format gives them."""
        if leases.num_rows:
            self._observed.append(conform(leases, record("lease")))
            self._arrived.leases = True

    def take(self, source: int, dataset: str | None, events: pa.RecordBatch, *, known: bool = False) -> None:
        """Take in events of a source that may matter.

        Args:
            source: its number.
            dataset: its format; None where events name their workload.
            events: as they were parsed.
            known: whether they had come before a restart: those that are not looked at any more are not late.
        """
        if events.num_rows:
            self._arrived.events.setdefault((source, dataset, known), []).append(events)

    def remember(self, findings: pa.RecordBatch, incidents: Sequence[str]) -> pa.Array:
        """Take in what had been said before a restart.

        Args:
            findings: in the shape of the finding record, without evidence.
            incidents: ids.

        Returns:
            Digests of the workloads to :meth:`doubt` once all rows have come again.
        """
        return self._ledger.remember(findings, incidents, self._span)

    def latest(self) -> int:
        """Return the latest time of what had been said, in microseconds, see :meth:`Ledger.latest`."""
        return self._ledger.latest()

    def stand(self, until: int) -> None:
        """Let what had been said up to a time stand, see :meth:`Ledger.stand`."""
        self._ledger.stand(until)

    @property
    def sums(self) -> Sums:
        """What was found on rows that were let go of, of workloads that go on."""
        return self._sums

    def recall(self, sums: Sums) -> None:
        """Take in what had been summed before; what rules found that are not on any more is forgotten."""
        on = pa.array([rule.id for rule in self._terms.asked.rules if not rule.off], pa.string())
        findings = sums.findings.filter(pc.is_in(sums.findings.column("rule.id"), value_set=on))
        self._sums = replace(sums, findings=findings)

    def doubt(self, workloads: Sequence[pa.Array]) -> None:
        """Judge workloads, whether anything came of them or not: what does not hold any more goes."""
        self._due.add(workloads)

    def distinct(self, name: str) -> NDArray[np.int64]:
        """Return the distinct values of a column of numbers of the rows that are held."""
        rows = [batch for batches in self._arrived.events.values() for batch in batches]
        columns = [numbers(batch.column(name)) for batch in [*rows, *(segment.raw for segment in self._segments)]]
        return np.unique(np.concatenate([np.empty(0, np.int64), *columns]))

    def judge(self, *, urgent: bool = False) -> Changes:
        """Say what is to be said otherwise than the last time.

        Args:
            urgent: only of workloads of which something came that opens an incident by itself and is not more of the
                same - a rule of medium or above that had not hit there, or not with that peer or verdict - or a lease;
                and without timelines.  All else waits until everything is judged: to judge a workload costs as much as
                it has rows, however few of them are new, and what is said is to be written.
        """
        self._again()
        self._anew()
        turn = self._due.taken(urgent=urgent)
        if not len(turn):
            return Changes.none()
        gathered, holders = self._gathered(turn)
        return self._ledger.say(gathered, holders, turn, self._held(), stories=not urgent)

    # -- what is let go

    def evict(self, start: int) -> Changes:
        """Judge everything, and let go of what a run from ``start`` on does not look at: nothing older is to come.

        What is looked at are whole occupancies: the pods that have not ended, and for all else the UTC days.  What was
        said of the others stands.

        Args:
            start: in microseconds.

        Returns:
            What is to be said otherwise.
        """
        changes = self.judge()
        if self._span is not None and start <= self._span.start:
            return changes
        span = self.settle(start)
        self._known = self._knowing()
        internal = self._terms.internal
        rows = [self._known.looked_at(segment.dataset, segment.raw, internal) for segment in self._segments]
        settled = (start - SETTLED) // _EVERY * _EVERY
        needless = None
        if settled > self._sums.settled:
            pods = _of_one_lease(self._known.leases)
            needless = Needless.of(self._segments, self._terms.asked, settled, self._ledger.accused(), pods)
            self._sums = needless.added_to(self._sums)
        self._segments = self._kept(rows, needless)
        if self._observed:
            self._observed = [self.still_needed(self._observed)]
        held = self._held()
        self._ledger.forget(held, span)
        pods = [leases.column("k8s.pod.uid") for leases in self._observed]
        self._sums = self._sums.alone(held, pa.concat_arrays([pa.array([], pa.string()), *pods]))
        return changes

    def still_needed(self, observed: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        """Return of leases, or trajectories, each once, those of which rows are looked at."""
        if self._known is None or self._known.living is None or self._span is None:
            return distinct(observed)
        return still_needed(observed, self._known.leases, self._known.living.ended, self._span.first_day)

    def settle(self, start: int) -> Span:
        """Look at rows from ``start`` on, in microseconds, as a run from there does; return what is looked at."""
        reach = max(self._terms.span.look_back, _LONGEST_RECORD)
        self._span = replace(self._terms.span, start=start, look_back=reach)
        return self._span

    def _kept(self, rows: Sequence[NDArray[np.int64]], needless: Needless | None) -> list[Segment]:
        """Return the segments with some rows alone, of those neither samples that prove nothing nor reports to none."""
        if needless is not None:
            rows = self._needed(rows, needless)
        kept = []
        for segment, row in zip(self._segments, rows, strict=True):
            if len(row) == segment.raw.num_rows:
                kept.append(segment)
            elif len(row):
                kept.append(self._judged(segment.source, segment.dataset, segment.raw.take(pa.array(row))))
        return kept

    def _needed(self, rows: Sequence[NDArray[np.int64]], needless: Needless) -> list[NDArray[np.int64]]:
        """Return the rows of each segment, among some, without samples that prove nothing and reports to none."""
        assert self._known is not None  # noqa: S101 - for mypy: it is made first
        if not self._segments:
            return []
        segments, known = self._segments, self._known
        rows = [row[~needless.among(one, known)[row]] for one, row in zip(segments, rows, strict=True)]
        sampled = np.unique(np.concatenate([one.sampled_at(row) for one, row in zip(segments, rows, strict=True)]))
        reports_ = [row[reporting(one.raw)[row]] for one, row in zip(segments, rows, strict=True)]
        told = [one.reported(place) for one, place in zip(segments, reports_, strict=True)]
        every = reports([one for one in told if one is not None])
        times = [one.started()[place] for one, place in zip(segments, reports_, strict=True)]
        kept = needless.told_of(np.concatenate(times), sampled)
        kept |= farthest(every, kept, *self._named())
        ends = np.cumsum([len(place) for place in reports_])[:-1]
        gone = [place[~one] for place, one in zip(reports_, np.split(kept, ends), strict=True)]
        return [np.setdiff1d(row, one) for row, one in zip(rows, gone, strict=True)]

    def _named(self) -> list[pa.Array]:
        """Return the names of the sandboxes, and of the jobs, of which there are rows."""
        holders = [segment.signals.holders for segment in self._segments]
        none = pa.array([], pa.string())
        return [pa.concat_arrays([none, *(one.column(name) for one in holders)]).unique() for name in _SOURCES]

    def late(self) -> list[tuple[int, pa.RecordBatch]]:
        """Return by source the events that came once they were not looked at any more, since this was asked last."""
        late, self._late = self._late, []
        return late

    def contents(self) -> Iterator[tuple[int, pa.RecordBatch | None, pa.RecordBatch | None]]:
        """Yield (source, events, leases) of all that is held; leases are of source 0, whatever source told them."""
        for (source, _, _), batches in self._arrived.events.items():
            yield source, stacked(batches), None
        for segment in self._segments:
            yield segment.source, segment.raw, None
        if self._observed:
            yield 0, None, distinct(self._observed)

    def _held(self) -> pa.Array:
        """Return the digests of all workloads of which there are rows."""
        return pa.concat_arrays([_NO_WORKLOADS, *(segment.workload for segment in self._segments)]).unique()

    def _in_view(self, source: int, dataset: str | None, raw: pa.RecordBatch, *, known: bool) -> pa.RecordBatch:
        """Return of events that came those that are looked at; the others are late."""
        leases = self._known
        if self._span is None or leases is None:
            return raw
        old = numbers(raw.column("event.start").cast(pa.int64())) < self._span.start
        if not old.any():
            return raw
        place = np.flatnonzero(old)
        seen = place[leases.looked_at(dataset, raw.take(pa.array(place)), self._terms.internal)]
        if dataset is None and self._sums:
            seen = seen[~self._sums.hold(raw.take(pa.array(seen)), leases)]
        late = np.setdiff1d(place, seen)
        if len(late) and not known:
            self._late.append((source, raw.take(pa.array(late))))
        return raw.take(pa.array(np.delete(np.arange(raw.num_rows), late)))

    # -- what is known of each row

    def _again(self) -> None:
        """Judge segments again of whose leases anything is known otherwise."""
        if self._known is not None and not self._arrived.leases:
            return
        self._arrived.leases = False
        before, self._known = self._known, self._knowing()
        if len(self._observed) >= _MANY:
            self._observed = [distinct(self._observed)]
        if before is None:
            return
        addresses, names = _changed(before.leases, self._known.leases)
        self._due.add([self._sums.touched(names)], urgent=False)
        for place, segment in enumerate(self._segments):
            if segment.met_by(addresses, names):
                self._segments[place] = self._judged(segment.source, segment.dataset, segment.raw)
                touched = [self._segments[place].changed_from(segment)]
                self._due.add([*touched, *self._reached(self._segments[place].progress, segment.progress)])

    def _anew(self) -> None:
        """Judge what came."""
        arrived, self._arrived = self._arrived.events, _Arrived()
        for (source, dataset, known), batches in arrived.items():
            segment = self._judged(source, dataset, self._in_view(source, dataset, stacked(batches), known=known))
            self._segments.append(segment)
            self._due.add_rows(segment, self._terms.urgency)
            self._due.add(self._reached(segment.progress), urgent=False)
        self._put_together()

    def _knowing(self) -> Known:
        leases, _ = resolved(self._observed)
        tolerance, span = self._terms.tolerance, self._span
        table = LeaseTable.build(leases, tolerance)
        living = None
        if span is not None:
            named = [segment.raw for segment in self._segments if segment.dataset is None]
            heard = [heard_of(raw, span) for raw in named]
            living = Living.of(table.resolutions, span, heard, [named_pods(raw) for raw in named])
        return Known(leases, table, NameTable.build(leases, tolerance), span, living)

    def _judged(self, source: int, dataset: str | None, raw: pa.RecordBatch) -> Segment:
        assert self._known is not None  # noqa: S101 - for mypy: it is made first
        return Segment.judged(source, dataset, raw, self._known, self._terms)

    def _reached(self, *progress: pa.RecordBatch | None) -> list[pa.Array]:
        """Return the workloads of which reports of progress say something: those of the same sandbox or job."""
        told = [one for one in progress if one is not None]
        if not told:
            return []
        names = {name: pa.concat_arrays([one.column(name) for one in told]).drop_null() for name in _SOURCES}
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
            if len(some) < _FEW and sum(one.raw.num_rows for one in some) < _LARGE:
                large += some
            else:
                large.append(self._judged(source, dataset, stacked([one.raw for one in some])))
        self._segments = large

    # -- what that says together

    def _gathered(self, touched: pa.Array) -> tuple[Gathered, pa.RecordBatch]:
        """Return what all rows of ``touched`` workloads tell together, and whom they are about."""
        signals = [part for segment in self._segments if (part := segment.of(touched)) is not None]
        if not signals and not self._segments:
            return _NOTHING, _NOBODY
        signals = signals or [self._segments[0].nothing()]
        progress = reports([segment.progress for segment in self._segments if segment.progress is not None])
        together, _ = merged(signals)
        assert self._known is not None  # noqa: S101 - for mypy: it is made first
        sums = self._sums.of(touched, self._known, progress)
        told = gather_shard(together, self._terms.asked, progress, sums=sums)
        return told, together.holders


def _of_one_lease(leases: pa.RecordBatch) -> pa.Array:
    """Return the uids of the pods that have one lease alone."""
    held = ("lease.start", "lease.end", "lease.scope", *IDENTITY)  # without address: it may have several
    _, first = group_rows([leases.column(name) for name in held])
    counts = leases.column("k8s.pod.uid").take(pa.array(first)).drop_null().value_counts()
    return counts.field("values").filter(pc.equal(counts.field("counts"), 1))


def _changed(before: pa.RecordBatch, after: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Return the addresses, and the names and uids of pods, of leases of which anything is known otherwise."""
    old, new = json_objects(before), json_objects(after)
    differ = [
        before.filter(pc.invert(pc.is_in(old, value_set=new))), after.filter(pc.invert(pc.is_in(new, value_set=old))),
    ]  # fmt: skip
    addresses = pa.concat_arrays([one.column("lease.address") for one in differ]).drop_null().unique()
    names = [one.column(name) for one in differ for name in ("k8s.pod.uid", "sandbox.id")]
    return addresses, pa.concat_arrays(names).drop_null().unique()
