"""UpsertIncidents: the findings of a run to Elasticsearch, and the incidents that all stored findings now make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.accounting import ACCOUNT, DEAD, Account
from agenttrail.columns.json_text import json_objects
from agenttrail.documents import read_records
from agenttrail.errors import SinkError
from agenttrail.incidents import group
from agenttrail.parsing import dead_letters
from agenttrail.schema import record
from agenttrail.sinks.elasticsearch import (
    BulkWriter,
    ElasticsearchSettings,
    connect,
    index_names,
    is_set_up,
    stored_findings,
)
from agenttrail.sinks.elasticsearch_connection import NotPermittedError
from agenttrail.sinks.elasticsearch_indices import refresh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from elasticsearch import Elasticsearch

    from agenttrail.sinks.elasticsearch import DeadDocument, Written

STAGE = "elasticsearch"


def check(settings: ElasticsearchSettings) -> None:
    """Find out before a run whether Elasticsearch can be used at all.

    Raises:
        SinkError: it cannot be reached, refuses the credentials, or is not set up.
    """
    client = connect(settings)
    try:
        ready = is_set_up(client, prefix=settings.prefix)
    except NotPermittedError:  # this key may not ask; what it may do will show
        return
    if not ready:
        msg = (
            "Elasticsearch is not set up for agenttrail: run 'agenttrail elasticsearch setup' once, as an administrator"
        )
        raise SinkError(msg)


class _Upsert(beam.DoFn):
    def __init__(self, settings: ElasticsearchSettings, kinds: Mapping[str, str]) -> None:
        self._settings, self._kinds = settings, kinds
        self._client: Elasticsearch | None = None

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
        _, findings = element
        settings = self._settings
        if self._client is None:
            self._client = connect(settings, patience=settings.patience)
        writer = BulkWriter(self._client, prefix=settings.prefix, patience=settings.patience)
        if not findings.num_rows:
            return
        names = index_names("findings", findings, prefix=settings.prefix)
        written = writer.index(findings.column("finding.id"), names, json_objects(findings))
        yield from accounts_of("findings", written)
        incidents = group(self._all_findings(self._client, findings, written), self._kinds)
        if not incidents.num_rows:
            return
        names = index_names("incidents", incidents, prefix=settings.prefix)
        yield from accounts_of(
            "incidents", writer.replace(incidents.column("incident.id"), names, json_objects(incidents))
        )
        # so that whoever looks when the run has ended sees them
        refresh(self._client, "incidents", prefix=settings.prefix, patience=settings.patience)

    def _all_findings(self, client: Elasticsearch, findings: pa.RecordBatch, written: Written) -> pa.RecordBatch:
        """Return the findings of this run that were taken, and those of earlier runs on the same entities."""
        refused = pa.array([dead.id for dead in written.dead], pa.string())
        own = findings.filter(pc.invert(pc.is_in(findings.column("finding.id"), value_set=refused)))
        touched = findings.column("incident.id").unique()
        pages = stored_findings(client, touched, prefix=self._settings.prefix, patience=self._settings.patience)
        others = []
        for page in pages:
            stored = read_records(page, record("finding"))
            known = pc.is_in(stored.column("finding.id"), value_set=own.column("finding.id"))
            others.append(stored.filter(pc.invert(known)))
        table = pa.Table.from_batches([own, *others]).combine_chunks()
        return table.to_batches()[0] if table.num_rows else own


def accounts_of(kind: str, written: Written) -> Iterator[Any]:
    """Yield the account of what was written, and what was refused as dead letters."""
    counts = {name: getattr(written, name) for name in ("created", "updated", "unchanged", "deleted")}
    account = Account()
    account.written.update({(kind, name): count for name, count in counts.items() if count})
    if written.dead:
        account.written[kind, "refused"] += len(written.dead)
        yield beam.pvalue.TaggedOutput(DEAD, _dead_letters(kind, written.dead))
    yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def _dead_letters(kind: str, dead: list[DeadDocument]) -> pa.RecordBatch:
    """Return refused documents as dead letters; their place is their index and id."""
    originals = pa.array([one.document.encode() for one in dead], pa.binary())
    reasons = pa.array([f"{one.action} {one.index}/{one.id}: {one.reason}" for one in dead])
    nowhere = pa.nulls(len(dead), pa.int64())
    return dead_letters(originals, dead[0].index, nowhere, kind, reasons, STAGE)


class UpsertIncidents(beam.PTransform):
    """(shard, findings) to Elasticsearch; gives dead letters and accounts.

    The findings are written first; then every incident that they touch is made anew from all findings stored on its
    entity, those of earlier runs included, and put in place of what has its id, but for what analysts wrote.
    """

    def __init__(self, settings: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
        """Write as a job's ``settings`` say, with the ``kinds`` of source of each dataset."""
        super().__init__()
        self._fn = _Upsert(ElasticsearchSettings(**settings), kinds)

    def expand(self, findings: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        return findings | beam.ParDo(self._fn).with_outputs(DEAD, ACCOUNT, main="none")
