"""Seams between runs: what a run over a part of time looks at, what it says, and what it leaves of what was said.

A finding is on one occupancy of one entity, so that it can only be told right by whoever sees all events of that
occupancy.  A run therefore looks at occupancies as wholes: at every one that may still have events in its part of time,
back to its beginning.  What it then says of them takes the place of what earlier runs said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.numbers import numbers
from agenttrail.entities import DAY, ENTITY_DIGEST, OCCUPIED, WORKLOAD_DIGEST, workload_digests
from agenttrail.schema import cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

EVER = 1 << 61
"""Farther from 1970, in microseconds, than any time; negative: before all times."""
Interval = tuple[int, int]
POD_UID = "k8s.pod.uid"
_NAMES = ("trajectory.id", "sandbox.id")
_WHOSE = (*_NAMES, POD_UID, "attribution.level", "attribution.lease_start")


@dataclass(frozen=True)
class Span:
    """The part of time that a run is over.

    Attributes:
        start: first microsecond of what the run is to tell.
        stop: the first after it.
        look_back: how far a correlation looks back from an event, in microseconds.
        tolerance: how long after its lease an event may still be a workload's, in microseconds.
        names: columns whose occupancies are looked at together: workloads that share a name are one to a correlation.
        correlations: by id of each correlation whether all that it looks at lies in one pod, or under one of ``names``.
        covered: what earlier runs have told, half-open, sorted and apart.
    """

    start: int = -EVER
    stop: int = EVER
    look_back: int = 0
    tolerance: int = 0
    names: tuple[str, ...] = ()
    correlations: Mapping[str, bool] = field(default_factory=dict)
    covered: tuple[Interval, ...] = ()

    @property
    def horizon(self) -> int:
        """From here on everything is looked at."""
        return max(self.start - self.look_back, -EVER)

    @property
    def first_day(self) -> int:
        """Start of the first UTC day that is looked at as a whole."""
        return self.horizon // DAY * DAY

    @property
    def until(self) -> int:
        """Up to here it is looked at: what was told of later times can only be told again with their events."""
        return max([self.stop, *(stop for _, stop in self.covered)])

    @property
    def told(self) -> tuple[Interval, ...]:
        """What is told once this run has ended."""
        return merged([*self.covered, (self.start, self.stop)])


def merged(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return half-open intervals sorted, with those that overlap or adjoin in one."""
    out: list[Interval] = []
    for start, stop in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return tuple(out)


def within(times: NDArray[np.int64], intervals: Sequence[Interval]) -> Mask:
    """Tell which times lie in one of some half-open intervals."""
    inside = np.zeros(len(times), dtype=bool)
    for start, stop in intervals:
        inside |= (times >= start) & (times < stop)
    return inside


# -- what is looked at


@dataclass(frozen=True)
class Living:
    """Which occupancies may still have events in a span.

    Attributes:
        ended: uids of pods all of whose leases ended before, or that have none.
        begun: names and starts of the others' occupancies that have not ended: one may have several leases.
        named: of each of ``Span.names`` the names of workloads that have not ended.
    """

    ended: pa.Array
    begun: pa.Array
    named: Mapping[str, pa.Array]

    @classmethod
    def of(
        cls, resolutions: pa.RecordBatch, span: Span, heard: Sequence[pa.Array] = (), named: Sequence[pa.Array] = ()
    ) -> Living:
        """Find them in the resolutions of a lease table; those of several leases at once add nothing.

        Args:
            resolutions: of the table.
            span: of the run.
            heard: uids of pods that were heard of, whatever their leases say, see :func:`heard_of`.
            named: uids of pods that have ended if they have no lease and were not heard of: of a pod that its list has
                missed nothing else tells when it ended.
        """
        leases = resolutions.filter(resolutions.column("attribution.lease_id").is_valid())
        lives = pa.array(_lives(leases.column("attribution.lease_end"), span))
        uids = leases.column(POD_UID)
        alive = pa.concat_arrays([uids.filter(lives), *heard]).unique()
        strangers = [one.filter(pc.invert(pc.is_in(one, value_set=uids))) for one in named]
        gone = pa.concat_arrays([uids.filter(pc.invert(lives)).drop_null(), *strangers]).unique()
        living = {name: leases.column(name).filter(lives).drop_null().unique() for name in span.names}
        ended = gone.filter(pc.invert(pc.is_in(gone, value_set=alive)))
        columns = {name: leases.column(name) for name in leases.schema.names}
        return cls(ended, _occupancies(columns).filter(lives).drop_null().unique(), living)


def _occupancies(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return what sets occupancies apart that no uid does: their name and start, to the second as in their anchor."""
    second = pc.floor_temporal(columns["attribution.lease_start"], unit="second").cast(pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(second, pc.coalesce(*(columns[name] for name in _NAMES)), "/")


def _lives(ends: pa.Array, span: Span) -> Mask:
    lives: Mask = numbers(ends.cast(pa.int64()), EVER) + span.tolerance > span.horizon
    return lives


def heard_of(events: pa.RecordBatch, span: Span) -> pa.Array:
    """Return the uids of the pods that records name from the horizon on: also of those whose leases have ended."""
    place = events.schema.get_field_index(POD_UID)
    if place < 0:
        return pa.array([], pa.string())
    times = numbers(events.column("event.start").cast(pa.int64()))
    late = pa.array(within(times, [(span.horizon, span.until)]))
    return cast(events.column(place), pa.string()).filter(late).drop_null().unique()


def named_pods(events: pa.RecordBatch) -> pa.Array:
    """Return the uids of the pods that records name, each once."""
    place = events.schema.get_field_index(POD_UID)
    if place < 0:
        return pa.array([], pa.string())
    return cast(events.column(place), pa.string()).drop_null().unique()


def looked_at(events: pa.RecordBatch, living: Living, span: Span) -> pa.RecordBatch:
    """Return the attributed events that a run over ``span`` looks at: whole occupancies, up to its end.

    An event whose entity is anchored by its occupancy belongs to it; all others to their UTC day.
    """
    index = numbers(events.column("attribution.lease_id").indices)
    columns = {name: events.column(name).dictionary for name in _WHOSE}
    level, uid, start = columns["attribution.level"], columns[POD_UID], columns["attribution.lease_start"]
    anchored = pc.and_(pc.is_in(level, value_set=pa.array(OCCUPIED)), pc.or_(uid.is_valid(), start.is_valid()))
    by_uid = pc.invert(pc.is_in(uid, value_set=living.ended))
    by_start = pc.is_in(_occupancies(columns), value_set=living.begun, skip_nulls=True)
    lives = np.asarray(pc.if_else(uid.is_valid(), by_uid, by_start), dtype=bool)
    for name, known in living.named.items():
        lives |= np.asarray(pc.is_in(columns[name], value_set=known, skip_nulls=True), dtype=bool)
    times = numbers(events.column("event.start").cast(pa.int64()))
    kept = (times < span.until) & np.where(np.asarray(anchored)[index], lives[index], times >= span.first_day)
    return events if kept.all() else events.filter(pa.array(kept))


def in_span(events: pa.RecordBatch, span: Span) -> pa.RecordBatch:
    """Return the events that start in a span of time."""
    kept = within(numbers(events.column("event.start").cast(pa.int64())), [(span.start, span.stop)])
    return events if kept.all() else events.filter(pa.array(kept))


def seen_of(holders: pa.RecordBatch) -> pa.RecordBatch:
    """Return the digests of the entities and workloads of holders, and the uids of their pods, each once."""
    names = [ENTITY_DIGEST, WORKLOAD_DIGEST, POD_UID]
    return as_one_batch(pa.table(holders.select(names)).group_by(names).aggregate([]))


# -- what is said


def _times(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return numbers(batch.column(name).cast(pa.int64()))


def _days(findings: pa.RecordBatch) -> tuple[Mask, NDArray[np.int64]]:
    """Tell which findings are on an entity of one UTC day, and return the start of that day."""
    anchor = findings.column("entity.anchor")
    of_pod = pc.fill_null(pc.equal(anchor, findings.column(POD_UID)), fill_value=False)
    day = pc.strptime(anchor, format="%Y-%m-%d", unit="us", error_is_null=True)
    daily = pc.and_(pc.and_(day.is_valid(), pc.invert(of_pod)), pc.equal(pc.utf8_length(anchor), 10))
    return np.asarray(pc.fill_null(daily, fill_value=False), dtype=bool), numbers(day.cast(pa.int64()))


def seen_whole(findings: pa.RecordBatch, span: Span) -> Mask:
    """Tell which findings rest on nothing but what a run over ``span`` looks at, if it looks at their entity.

    A correlation may look at more than one entity.  It is seen whole from where all that it looks at is in view: for
    one pod always; for entities of a day once a window no longer reaches into the day before those; else from the start
    of the span.
    """
    rules = findings.column("rule.id")
    correlated = np.asarray(pc.is_in(rules, value_set=pa.array(list(span.correlations), pa.string())), dtype=bool)
    by_pod = pa.array([rule for rule, narrow in span.correlations.items() if narrow], pa.string())
    narrow = np.asarray(pc.is_in(rules, value_set=by_pod), dtype=bool)
    daily, _ = _days(findings)
    since = np.where(narrow, np.where(daily, span.first_day + span.look_back, -EVER), span.start)
    whole: Mask = ~correlated | (_times(findings, "finding.first_seen") >= since)
    return whole


def sound(findings: pa.RecordBatch, span: Span) -> Mask:
    """Tell which findings, of all that came of what a run looks at, are as good as any run could tell them."""
    good: Mask = seen_whole(findings, span) | (_times(findings, "finding.last_seen") >= span.start)
    return good


def told(findings: pa.RecordBatch, span: Span) -> Mask:
    """Tell which findings a run over ``span`` has to tell: those whose last event lies in what it or others covered."""
    return within(_times(findings, "finding.last_seen"), span.told)


def said(findings: pa.RecordBatch, span: Span) -> pa.RecordBatch:
    """Return the findings that a run over ``span`` says, of all that came of what it looks at.

    Those whose last event lies in what has been told when it ends: in the span, or in what earlier runs told and this
    one can tell better.
    """
    keep = told(findings, span) & sound(findings, span)
    return findings if keep.all() else findings.filter(pa.array(keep))


# -- what is left of what was said


@dataclass(frozen=True)
class Settled:
    """What becomes of the findings of earlier runs.

    Attributes:
        in_view: which are on entities that the run looked at.
        replaced: which came up again.
        superseded: which did not, and are no more.
    """

    in_view: Mask
    replaced: Mask
    superseded: Mask

    @property
    def stand(self) -> Mask:
        """Tell which stay as they are."""
        stand: Mask = ~self.replaced & ~self.superseded
        return stand


def settle(stored: pa.RecordBatch, found: pa.Array, seen: pa.Array, ran: pa.Array, span: Span) -> Settled:
    """Say what becomes of stored findings once a run has found what it found.

    Args:
        stored: findings of earlier runs.
        found: ids of the findings of this run.
        seen: digests of the workloads that it looked at, where they had events that matter.
        ran: ids of the rules that were on: the others have not been asked.
        span: of this run.
    """
    daily, day = _days(stored)
    in_view = np.asarray(pc.is_in(workload_digests(stored), value_set=seen), dtype=bool)
    in_view |= daily & (day >= span.first_day) & (day < span.until)
    replaced = np.asarray(pc.is_in(stored.column("finding.id"), value_set=found), dtype=bool)
    last = _times(stored, "finding.last_seen")
    # what ends after all that was looked at is known better by whoever said it
    asked = np.asarray(pc.is_in(stored.column("rule.id"), value_set=ran), dtype=bool) & (last < span.until)
    gone = in_view & asked & ~replaced & sound(stored, span)
    return Settled(in_view, replaced, gone)
