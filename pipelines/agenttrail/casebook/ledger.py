"""What was said, by workload: so that only what is to be said otherwise is said again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import timeline
from agenttrail.casebook.shelves import Shelves
from agenttrail.columns.batches import joined
from agenttrail.columns.ids import content_digests, hexadecimal
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.numbers import numbers
from agenttrail.detect.correlation_findings import correlation_findings
from agenttrail.detect.rule_metadata import SEVERITIES
from agenttrail.detect.rules import INCIDENT_SEVERITY
from agenttrail.detect.signals import as_digests, digest_words
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST, workload_digests
from agenttrail.incidents import group
from agenttrail.parsing import LATEST
from agenttrail.schema import conform, record
from agenttrail.seams import settle, sound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.casebook.terms import Terms
    from agenttrail.gathering.gathered import Gathered
    from agenttrail.seams import Span

_MARK = "mark"
"""Column of the ledger only: 16 bytes that differ wherever anything differs that a finding says."""
_EVIDENCE = ["finding.evidence"]
_COMPARED = ("finding.id", "incident.id", _MARK)
_OPENING = pa.array(SEVERITIES[INCIDENT_SEVERITY:])
_NO_TEXTS, _NO_DIGESTS = pa.array([], pa.string()), pa.array([], pa.binary(16))


@dataclass(frozen=True)
class Changes:
    """What is to be said otherwise than before.

    Attributes:
        findings: new ones, and those of which anything changed.
        gone_findings: ids of those that do not hold any more.
        incidents: likewise.
        gone_incidents: likewise.
        timeline: whole timelines of ``incidents``.
        successors: of each of ``gone_incidents`` the incident in its place; where there is none, itself.
        stories: whether timelines are told; otherwise what was told of them stands for now.
    """

    findings: pa.RecordBatch
    gone_findings: pa.Array
    incidents: pa.RecordBatch
    gone_incidents: pa.Array
    timeline: pa.RecordBatch
    successors: pa.Array
    stories: bool = True

    @classmethod
    def none(cls) -> Changes:
        """Return that there are none."""
        return cls(empty("finding"), _NO_TEXTS, empty("incident"), _NO_TEXTS, empty("timeline"), _NO_TEXTS)


class _Compared(NamedTuple):
    """Findings as they were and as they are.

    Attributes:
        changed: those of which anything is otherwise.
        gone: ids of those that are no more.
        slim: all that are, without evidence and with their marks.
        incidents: ids of all incidents that the former and the present are of.
    """

    changed: pa.RecordBatch
    gone: pa.Array
    slim: pa.RecordBatch
    incidents: pa.Array


class _Mark(NamedTuple):
    """What was told of an incident, as 16 bytes each; none where it was not.

    Attributes:
        own: of its fields.
        story: of its timeline.
    """

    own: bytes
    story: bytes


class Ledger:
    """All that was said of the workloads of a casebook."""

    def __init__(self, terms: Terms) -> None:
        """Begin an empty one on the ``terms`` of a job."""
        self._terms = terms
        self._findings, self._units, self._entries = Shelves(), Shelves(), Shelves()
        self._correlated: pa.RecordBatch | None = None
        self._incidents: dict[str, _Mark] = {}
        self._span: Span | None = None
        self._stand = _NO_TEXTS
        self._doubted = False  # what correlations had said before a restart was not looked at yet

    def remember(self, findings: pa.RecordBatch, incidents: Sequence[str], span: Span | None) -> pa.Array:
        """Take in what had been said before a restart.

        Returns:
            Digests of the workloads of which everything is looked at that these findings rest on: once all rows have
            come again, they are to be judged, whether there are rows of them or not.
        """
        self._span = span
        marked = conform(findings, record("finding")).drop_columns(_EVIDENCE)
        marked = marked.append_column(_MARK, pa.array([bytes(16)] * marked.num_rows, pa.binary(16)))
        ids = pa.array([one.id for one in self._terms.correlations], pa.string())
        correlated = pc.is_in(marked.column("rule.id"), value_set=ids)
        self._correlated = marked.filter(correlated)
        self._doubted = self._correlated.num_rows > 0
        own = marked.filter(pc.invert(correlated))
        workloads = workload_digests(own)
        self._findings.replace(_NO_DIGESTS, own, workloads)
        self._incidents = dict.fromkeys(incidents, _Mark(b"", b""))
        return workloads.filter(pa.array(in_view(own, span))).unique()

    def latest(self) -> int:
        """Return when anything was seen last of what was said, in microseconds; long ago where nothing was said."""
        return max((int(_last_seen(one).max(initial=-LATEST)) for one in self._every()), default=-LATEST)

    def stand(self, until: int) -> None:
        """Let findings that were said stand if they were seen up to a time, in microseconds, and are not found again.

        Some of what they rest on is gone.  Those that are found again are as they are found then.
        """
        ids = [one.column("finding.id").filter(pa.array(_last_seen(one) <= until)) for one in self._every()]
        self._stand = pa.concat_arrays([_NO_TEXTS, *ids])

    def _every(self) -> list[pa.RecordBatch]:
        return [one for one in (self._findings.everything(), self._correlated) if one is not None]

    def _standing(self, before: pa.RecordBatch | None, now: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Return of what was said ``before`` what stands though it was not found ``now``."""
        if before is None or not len(self._stand):
            return []
        known = before.column("finding.id")
        again = pc.is_in(known, value_set=now.column("finding.id"))
        return [before.filter(pc.and_not(pc.is_in(known, value_set=self._stand), again))]

    def accused(self) -> pa.Array:
        """Return the digests of workloads on which anything was found that opens an incident, or by a correlation."""
        own = self._findings.everything()
        found = [] if own is None else [own.filter(pc.is_in(own.column("finding.severity"), value_set=_OPENING))]
        found += [] if self._correlated is None else [self._correlated]
        return pa.concat_arrays([_NO_DIGESTS, *(workload_digests(one) for one in found)]).unique()

    def forget(self, held: pa.Array, span: Span) -> None:
        """Let go of what was said of other workloads than those ``held``: it stands.

        Findings of correlations that may go on in the ``span`` from now on are kept, whatever they are on.
        """
        for shelves in (self._findings, self._units, self._entries):
            gone = np.setdiff1d(shelves.workloads(), digest_words(held))
            shelves.replace(as_digests(gone), empty("finding"), _NO_DIGESTS)
        self._span = span
        stays = [self._findings.everything()]
        if self._correlated is not None:
            last = _last_seen(self._correlated)
            on_held = pc.is_in(workload_digests(self._correlated), value_set=held)
            self._correlated = self._correlated.filter(pc.or_(on_held, pa.array(last >= span.horizon)))
            stays.append(self._correlated)
        known = {id_ for one in stays if one is not None for id_ in one.column("incident.id").to_pylist()}
        self._incidents = {id_: mark for id_, mark in self._incidents.items() if id_ in known}

    def say(
        self, gathered: Gathered, holders: pa.RecordBatch, touched: pa.Array, held: pa.Array, *, stories: bool = True
    ) -> Changes:
        """Put what was gathered of the ``touched`` workloads in the place of what was said of them.

        Args:
            gathered: of all rows of these workloads.
            holders: whom the rows are about, as ``name_holders`` gives them.
            touched: digests of the workloads.
            held: digests of all workloads of which there are rows.
            stories: whether timelines are told, too, and incidents of which nothing else is otherwise.  What is told
                without them is told with them the next time that it is its turn.
        """
        findings = conform(gathered.findings, record("finding"))
        whose = workload_digests(findings)
        standing = self._standing(self._findings.of(touched), findings) if len(self._stand) else []
        own = _compared(self._findings.of(touched, _COMPARED), findings, self._stand)
        whose = pa.concat_arrays([whose, *map(workload_digests, standing)])
        self._findings.replace(touched, joined([own.slim, *standing]), whose)
        self._put_entries(gathered.timeline, holders, touched)
        compared = [own, self._correlate(gathered.units, touched, held)]
        told = [one.incidents for one in compared]
        if stories:
            of_touched = self._findings.of(touched, ["incident.id"])
            told += [] if of_touched is None else [of_touched.column("incident.id")]
        ids = pa.concat_arrays(told).unique()
        known = self._together(ids, touched)
        incidents = group(known.drop_columns([_MARK]), self._terms.kinds)
        timelines = self._timeline(known, incidents) if stories else empty("timeline")
        stories_ = _marks_of_stories(timelines, incidents) if stories else None
        changed, closed = self._told(incidents, stories_, ids)
        timelines = timelines.filter(pc.is_in(timelines.column("incident.id"), value_set=changed.column("incident.id")))
        whole = joined([one.changed for one in compared])
        gone = pa.concat_arrays([one.gone for one in compared])
        gone = gone.filter(pc.invert(pc.is_in(gone, value_set=whole.column("finding.id"))))
        whole = conform(whole, record("finding"))
        return Changes(whole, gone, changed, closed, timelines, closed, stories)

    def _put_entries(self, entries: pa.RecordBatch, holders: pa.RecordBatch, touched: pa.Array) -> None:
        entries = conform(entries, record("timeline"))
        place = pc.index_in(entries.column("incident.id"), value_set=hexadecimal(holders.column(ENTITY_DIGEST)))
        self._entries.replace(touched, entries, holders.column(WORKLOAD_DIGEST).take(place))

    def _correlate(self, units: pa.RecordBatch | None, touched: pa.Array, held: pa.Array) -> _Compared:
        """Return what correlations say otherwise, now that the ``touched`` workloads have these units."""
        none = _compared(None, empty("finding"))
        if not self._terms.correlations:
            return none
        before = self._units.of(touched, ["rule.id"])
        if units is not None:
            self._units.replace(touched, units, workload_digests(units))
        elif before is not None:
            self._units.replace(touched, before.slice(0, 0), _NO_DIGESTS)
        elif not self._doubted:
            return none
        self._doubted = False
        every = self._units.everything()
        before, span = self._correlated, self._span
        said = empty("finding")
        if every is not None:
            said = correlation_findings(self._terms.correlations, every, before, span)
        if span is None or before is None:
            said = conform(said, record("finding"))
            compared = _compared(before, said, self._stand)
            self._correlated = joined([compared.slim, *self._standing(before, said)])
            return compared
        said = conform(said.filter(pa.array(sound(said, span))), record("finding"))
        settled = settle(before, said.column("finding.id"), held, before.column("rule.id").unique(), span)
        doubted = before.filter(pa.array(~settled.stand))
        compared = _compared(doubted, said, self._stand)
        others = before.filter(pa.array(settled.stand))
        self._correlated = joined([compared.slim, *self._standing(doubted, said), others])
        return compared

    def _together(self, incidents: pa.Array, touched: pa.Array) -> pa.RecordBatch:
        """Return all findings of some incidents, without evidence: those of workloads, and those of correlations."""
        correlated = self._correlated
        if correlated is not None:
            correlated = correlated.filter(pc.is_in(correlated.column("incident.id"), value_set=incidents))
            touched = pa.concat_arrays([touched, workload_digests(correlated)]).unique()
        own = self._findings.of(touched)
        found = [one for one in (own, correlated) if one is not None]
        whole = joined([_compared(None, empty("finding")).slim, *found])
        whole = whole.filter(pc.is_in(whole.column("incident.id"), value_set=incidents))
        return whole.take(pc.sort_indices(whole.column("finding.id")))

    def _told(
        self, incidents: pa.RecordBatch, stories: pa.Array | None, asked: pa.Array
    ) -> tuple[pa.RecordBatch, pa.Array]:
        """Return the incidents that are otherwise than told, and the ids of those of ``asked`` that are no more.

        Args:
            incidents: of all findings of these.
            stories: mark of the timeline of each; None if they are not told now.
            asked: ids.
        """
        ids, own = incidents.column("incident.id").to_pylist(), _marks(incidents).to_pylist()
        if stories is None:
            told = [self._incidents.get(id_, _Mark(b"", b"")).story for id_ in ids]
            marks = dict(zip(ids, map(_Mark, own, told), strict=True))
        else:
            marks = dict(zip(ids, map(_Mark, own, stories.to_pylist()), strict=True))
        changed = pa.array([self._incidents.get(id_) != mark for id_, mark in marks.items()], pa.bool_())
        closed = [id_ for id_ in asked.to_pylist() if id_ not in marks and id_ in self._incidents]
        self._incidents |= marks
        for id_ in closed:
            del self._incidents[id_]
        return incidents.filter(changed), pa.array(closed, pa.string())

    def _timeline(self, known: pa.RecordBatch, incidents: pa.RecordBatch) -> pa.RecordBatch:
        """Return the timelines of incidents of which these findings are known."""
        ids = incidents.column("incident.id")
        of_findings = timeline.findings(known.filter(pc.is_in(known.column("incident.id"), value_set=ids)))
        entries = self._entries.of(pa.concat_arrays([workload_digests(known)]).unique())
        wanted = [] if entries is None else [entries.filter(pc.is_in(entries.column("incident.id"), value_set=ids))]
        return timeline.ordered([*wanted, of_findings])


def in_view(findings: pa.RecordBatch, span: Span | None) -> NDArray[np.bool_]:
    """Tell which findings rest on rows that are all looked at: those that reach into the span, or into its days."""
    if span is None:
        return np.ones(findings.num_rows, dtype=bool)
    last = _last_seen(findings)
    settled = settle(findings, _NO_TEXTS, _NO_DIGESTS, findings.column("rule.id").unique(), span)
    return np.asarray(settled.in_view | (last >= span.start), dtype=bool)


def _last_seen(findings: pa.RecordBatch) -> NDArray[np.int64]:
    return numbers(findings.column("finding.last_seen").cast(pa.int64()))


def _compared(before: pa.RecordBatch | None, now: pa.RecordBatch, stand: pa.Array = _NO_TEXTS) -> _Compared:
    """Return what findings say otherwise than they did ``before``, but for those that ``stand`` whatever is found."""
    marks = _marks(now)
    slim = now.drop_columns(_EVIDENCE).append_column(_MARK, marks)
    if before is None:
        return _Compared(now, _NO_TEXTS, slim, slim.column("incident.id").unique())
    ids, known = now.column("finding.id"), before.column("finding.id")
    same = pc.equal(marks, before.column(_MARK).take(pc.index_in(ids, value_set=known)))
    changed = now.filter(pc.invert(pc.fill_null(same, fill_value=False)))
    goes = pc.invert(pc.or_(pc.is_in(known, value_set=ids), pc.is_in(known, value_set=stand)))
    touched = pa.concat_arrays([changed.column("incident.id"), before.column("incident.id").filter(goes)]).unique()
    return _Compared(changed, known.filter(goes), slim, touched)


def _marks_of_stories(entries: pa.RecordBatch, incidents: pa.RecordBatch) -> pa.Array:
    """Return 16 bytes per incident that differ wherever anything differs in its timeline.

    Args:
        entries: timelines of all the incidents, sorted.
        incidents: sorted by id.
    """
    ids = incidents.column("incident.id")
    if not len(ids):
        return _NO_DIGESTS
    place = numbers(pc.index_in(entries.column("incident.id"), value_set=ids))
    offsets = np.searchsorted(place, np.arange(len(ids) + 1)).astype(np.int32)
    stories = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), json_objects(entries)), "\n")
    return content_digests([stories])


def _marks(documents: pa.RecordBatch) -> pa.Array:
    return content_digests([json_objects(documents)]) if documents.num_rows else _NO_DIGESTS


def empty(kind: str) -> pa.RecordBatch:
    """Return no rows in the shape of a record."""
    return conform(pa.RecordBatch.from_arrays([], names=[]), record(kind))
