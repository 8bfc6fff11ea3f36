"""SettleIncidents: what a run over a span of time found, put together with what Elasticsearch has of earlier runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.accounting import ACCOUNT, DEAD
from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.groups import group_rows
from agenttrail.columns.ids import hexadecimal
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.numbers import numbers
from agenttrail.documents import read_records
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST, workload_digests
from agenttrail.incidents import group
from agenttrail.schema import conform, record
from agenttrail.seams import POD_UID, settle, sound, told
from agenttrail.sinks.elasticsearch import BulkWriter, ElasticsearchSettings, connect, index_names, stored_findings
from agenttrail.sinks.elasticsearch_books import told as accounts_of
from agenttrail.sinks.elasticsearch_indices import refresh
from agenttrail.sinks.elasticsearch_queries import findings_of_days, findings_of_pods
from agenttrail.sinks.elasticsearch_timeline import replace_timelines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from elasticsearch import Elasticsearch

    from agenttrail.seams import Span

_REST = -1
"""Shard of the entities that are looked at and have no events that matter any more."""


class SettleIncidents(beam.PTransform):
    """(shard, findings) of a run over a span of time to Elasticsearch; gives dead letters and accounts.

    As :class:`UpsertIncidents`; and what is stored on the entities that the run looked at, and did not come up again,
    goes: first the incidents that nothing opens any more, then the findings, so that a run that is cut short leaves
    enough for the next to see.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        kinds: Mapping[str, str],
        span: Span,
        ran: Sequence[str],
        seen: beam.PCollection[tuple[int, pa.RecordBatch]],
    ) -> None:
        """Write as a job's ``settings`` say.

        Args:
            settings: of the job.
            kinds: of source of each dataset.
            span: what the run is over.
            ran: ids of the rules that were on.
            seen: (shard, entities that the run looked at).
        """
        super().__init__()
        self._fn, self._seen = _Settle(ElasticsearchSettings(**settings), kinds, span, ran), seen

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        nothing = beam.Map(_nothing).with_output_types(tuple[int, pa.RecordBatch])
        rest = findings.pipeline | "Rest" >> beam.Create([None]) | "Nothing" >> nothing
        outputs = beam.ParDo(self._fn, beam.pvalue.AsList(self._seen)).with_outputs(DEAD, ACCOUNT, main="none")
        return (findings, rest) | beam.Flatten() | outputs


def _nothing(_: None) -> tuple[int, pa.RecordBatch]:
    return _REST, conform(pa.RecordBatch.from_arrays([], names=[]), record("finding"))


_NO_ENTRIES = conform(pa.RecordBatch.from_arrays([], names=[]), record("timeline"))


def _whose(gone: pa.RecordBatch, closed: pa.Array) -> pa.RecordBatch:
    """Return one of the findings that went of each incident that is closed."""
    of_closed = gone.filter(pc.is_in(gone.column("incident.id"), value_set=closed))
    _, first = group_rows([of_closed.column("incident.id")])
    return of_closed.take(pa.array(first))


class _Settle(beam.DoFn):
    def __init__(
        self, settings: ElasticsearchSettings, kinds: Mapping[str, str], span: Span, ran: Sequence[str]
    ) -> None:
        self._settings, self._kinds, self._span, self._ran = settings, kinds, span, tuple(ran)
        self._client: Elasticsearch | None = None

    def process(
        self, element: tuple[int, pa.RecordBatch], every: Sequence[tuple[int, pa.RecordBatch]]
    ) -> Iterator[Any]:
        shard, findings = element
        settings, span = self._settings, self._span
        client = self._client = self._client or connect(settings, patience=settings.patience)
        seen = [batch for number, batch in every if shard in (number, _REST)]
        workloads = pa.concat_arrays([pa.array([], pa.binary(16)), *(one.column(WORKLOAD_DIGEST) for one in seen)])
        findings = findings.filter(pa.array(sound(findings, span)))
        of_days = shard == _REST
        stored = self._stored_of_days(client, workloads) if of_days else self._stored_on(client, seen, findings)
        settled = settle(stored, findings.column("finding.id"), workloads, pa.array(self._ran, pa.string()), span)
        goes = pa.array(settled.superseded)
        findings = self._to_write(findings, stored)
        writer = BulkWriter(client, prefix=settings.prefix, patience=settings.patience)
        written = writer.index(
            findings.column("finding.id"), index_names("findings", findings, prefix=settings.prefix),
            json_objects(findings),
        )  # fmt: skip
        yield from accounts_of("findings", written)
        taken = findings.filter(_others(findings, pa.array([dead.id for dead in written.dead], pa.string())))
        stays = stored.filter(pc.invert(goes))
        stays = stays.filter(_others(stays, taken.column("finding.id")))
        touched = pa.concat_arrays(
            [taken.column("incident.id"), stored.column("incident.id").filter(pa.array(settled.in_view))]
        ).unique()
        together = _slim([taken, stays])
        together = together.filter(pc.is_in(together.column("incident.id"), value_set=touched))
        incidents = group(together, self._kinds)
        names = index_names("incidents", incidents, prefix=settings.prefix)
        replaced = writer.replace(incidents.column("incident.id"), names, json_objects(incidents))
        yield from accounts_of("incidents", replaced)
        gone = stored.filter(goes)
        closed, successors = _successors(gone, incidents)
        yield from accounts_of("incidents", writer.supersede_incidents(closed, successors))
        how: dict[str, Any] = {"prefix": settings.prefix, "patience": settings.patience}
        for removed in replace_timelines(client, _NO_ENTRIES, _whose(gone, closed), **how):
            yield from accounts_of("timeline", removed)
        yield from accounts_of("findings", writer.supersede_findings(gone.column("finding.id")))
        # so that whoever looks when the run has ended sees them
        for kind in ("findings", "incidents"):
            refresh(client, kind, **how)

    def _to_write(self, findings: pa.RecordBatch, stored: pa.RecordBatch) -> pa.RecordBatch:
        """Return what the run has to tell, and what it can tell better; not what others saw more of."""
        ids = findings.column("finding.id")
        known = pc.is_in(ids, value_set=stored.column("finding.id"))
        last = numbers(stored.column("finding.last_seen").cast(pa.int64()))
        more = stored.column("finding.id").filter(pa.array(last >= self._span.until))
        wanted = pc.and_(pc.or_(pa.array(told(findings, self._span)), known), pc.invert(pc.is_in(ids, value_set=more)))
        return findings.filter(wanted)

    def _stored_on(
        self, client: Elasticsearch, seen: Sequence[pa.RecordBatch], findings: pa.RecordBatch
    ) -> pa.RecordBatch:
        """Return what is stored on the entities of a shard, and on their pods: each finding once."""
        entities = [hexadecimal(one.column(ENTITY_DIGEST)) for one in seen]
        incidents = pa.concat_arrays([findings.column("incident.id"), *entities]).unique()
        pods = pa.concat_arrays([pa.array([], pa.string()), *(one.column(POD_UID) for one in seen)])
        prefix, patience = self._settings.prefix, self._settings.patience
        uids = pods.drop_null().unique().to_pylist()
        pages = findings_of_pods(client, uids, prefix=prefix, patience=patience)
        of_pods = _slim(read_records(page, record("finding")) for page in pages)
        others = incidents.filter(pc.invert(pc.is_in(incidents, value_set=of_pods.column("incident.id"))))
        pages = stored_findings(client, others, prefix=prefix, patience=patience)
        return _slim([of_pods, *(read_records(page, record("finding")) for page in pages)])

    def _stored_of_days(self, client: Elasticsearch, seen: pa.Array) -> pa.RecordBatch:
        """Return what is stored on entities of the days that are looked at and have no events any more."""
        settings = self._settings
        pages = findings_of_days(client, self._span.first_day, prefix=settings.prefix, patience=settings.patience)
        stored = _slim(read_records(page, record("finding")) for page in pages)
        return stored.filter(pc.invert(pc.is_in(workload_digests(stored), value_set=seen)))


def _slim(batches: Any) -> pa.RecordBatch:
    """Return findings as one batch, without evidence."""
    of = record("finding")
    whole = [conform(pa.RecordBatch.from_arrays([], names=[]), of), *(conform(batch, of) for batch in batches)]
    return as_one_batch(pa.Table.from_batches([batch.drop_columns(["finding.evidence"]) for batch in whole]))


def _others(findings: pa.RecordBatch, ids: pa.Array) -> pa.Array:
    return pc.invert(pc.is_in(findings.column("finding.id"), value_set=ids))


def _successors(gone: pa.RecordBatch, incidents: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Return the incidents that nothing opens any more, and who takes the place of each.

    That is an incident of the same pod where there is one.  Else there is none, and an incident that somebody worked
    on names itself: what it said is no more.
    """
    ids, pods = incidents.column("incident.id").to_pylist(), incidents.column(POD_UID).to_pylist()
    of_pod = {pod: id_ for id_, pod in zip(reversed(ids), reversed(pods), strict=True) if pod is not None}
    closed = dict(zip(gone.column("incident.id").to_pylist(), gone.column(POD_UID).to_pylist(), strict=True))
    by = {id_: of_pod.get(pod, id_) for id_, pod in closed.items() if id_ not in set(ids)}
    return pa.array(list(by), pa.string()), pa.array(list(by.values()), pa.string())
