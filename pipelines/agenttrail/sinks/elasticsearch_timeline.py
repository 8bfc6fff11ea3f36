"""UpsertTimeline: the timelines of a run to Elasticsearch, each in place of what is stored of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.accounting import ACCOUNT, DEAD
from agenttrail.columns.json_text import json_objects
from agenttrail.sinks.elasticsearch import BulkWriter, ElasticsearchSettings, connect, index_names
from agenttrail.sinks.elasticsearch_books import told
from agenttrail.sinks.elasticsearch_indices import refresh
from agenttrail.sinks.elasticsearch_queries import timeline_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from elasticsearch import Elasticsearch

    from agenttrail.sinks.elasticsearch import Written

KIND = "timeline"


def replace_timelines(
    client: Elasticsearch,
    entries: pa.RecordBatch,
    incidents: pa.RecordBatch,
    *,
    prefix: str = "agenttrail",
    patience: float = 0.0,
) -> list[Written]:
    """Write timelines, and delete what is stored of the same incidents and is not in them.

    Args:
        client: from :func:`agenttrail.sinks.elasticsearch.connect`.
        entries: whole timelines, in the shape of the timeline record, all of ``incidents``; those of an incident that
            has none, such as one that is superseded, are deleted.
        incidents: ``incident.id``, and what tells the month: ``entity.anchor``, ``attribution.lease_start`` and
            ``@timestamp``.
        prefix: what the names of all indices begin with.
        patience: seconds to keep trying when nothing can be written.

    Returns:
        What became of the documents.

    Raises:
        SinkError: Elasticsearch cannot be read or written.
    """
    writer = BulkWriter(client, prefix=prefix, patience=patience)
    ids = incidents.column("incident.id")
    month = pc.index_in(entries.column("incident.id"), value_set=ids)
    indices = index_names(KIND, incidents, prefix=prefix).take(month)
    stored, where = timeline_places(client, ids, prefix=prefix, patience=patience)
    own = _keys(indices, entries.column("timeline.id"))
    stale = pc.invert(pc.is_in(_keys(where, stored), value_set=own))
    written = [writer.index(entries.column("timeline.id"), indices, json_objects(entries))]
    if pc.any(stale).as_py():
        written.append(writer.delete(stored.filter(stale), where.filter(stale)))
    return written


def _keys(indices: pa.Array, ids: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(indices, ids, "/")


class _Upsert(beam.DoFn):
    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._settings = settings
        self._client: Elasticsearch | None = None

    def process(
        self, element: tuple[int, pa.RecordBatch], incidents: Sequence[tuple[int, pa.RecordBatch]]
    ) -> Iterator[Any]:
        shard, entries = element
        settings = self._settings
        if self._client is None:
            self._client = connect(settings, patience=settings.patience)
        how: dict[str, Any] = {"prefix": settings.prefix, "patience": settings.patience}
        mine = [batch for number, batch in incidents if number == shard and batch.num_rows]
        if not mine:  # entries of entities without an incident, which are for files
            return
        whose = pa.Table.from_batches(mine).combine_chunks().to_batches()[0]
        entries = entries.filter(pc.is_in(entries.column("incident.id"), value_set=whose.column("incident.id")))
        for written in replace_timelines(self._client, entries, whose, **how):
            yield from told(KIND, written)
        # so that whoever looks when the run has ended sees them
        refresh(self._client, KIND, **how)


class UpsertTimeline(beam.PTransform):
    """(shard, timeline) to Elasticsearch; gives dead letters and accounts.

    An incident's entries take the place of all that are stored of it, as its fields do: what is told of an entity is
    told as a whole, so any number of re-runs leaves the same documents.
    """

    def __init__(self, settings: Mapping[str, Any], incidents: beam.PCollection[tuple[int, pa.RecordBatch]]) -> None:
        """Write as a job's ``settings`` say; ``incidents`` are those of the timelines, on the same shards."""
        super().__init__()
        self._fn, self._incidents = _Upsert(ElasticsearchSettings(**settings)), incidents

    def expand(self, timelines: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the outputs by tag."""
        upserts = beam.ParDo(self._fn, beam.pvalue.AsList(self._incidents))
        return timelines | upserts.with_outputs(DEAD, ACCOUNT, main="none")
