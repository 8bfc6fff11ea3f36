"""What a stream says to Elasticsearch, in place of what it said before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.columns.json_text import json_objects
from agenttrail.sinks.elasticsearch import BulkWriter, ElasticsearchSettings, connect, index_names
from agenttrail.sinks.elasticsearch_queries import timeline_places
from agenttrail.sinks.elasticsearch_timeline import replace_timelines

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from agenttrail.casebook.ledger import Changes
    from agenttrail.sinks.elasticsearch import Written


class ChangesWriter:
    """Writes changes; what is written again leaves the same documents."""

    def __init__(self, settings: ElasticsearchSettings) -> None:
        """Write as a job's ``settings`` say; rides out a server that is away for as long as their patience."""
        self._settings = settings
        self._client: Elasticsearch | None = None

    def write(self, changes: Changes) -> list[tuple[str, Written]]:
        """Write findings, then incidents and their timelines, then take back what does not hold any more.

        Returns:
            Kind of documents, and what became of them.

        Raises:
            SinkError: Elasticsearch cannot be written.
        """
        settings = self._settings
        client = self._client = self._client or connect(settings, patience=settings.patience)
        how: dict[str, Any] = {"prefix": settings.prefix, "patience": settings.patience}
        writer = BulkWriter(client, **how)
        written = []
        findings, incidents = changes.findings, changes.incidents
        if findings.num_rows:
            names = index_names("findings", findings, prefix=settings.prefix)
            told = writer.index(findings.column("finding.id"), names, json_objects(findings))
            written.append(("findings", told))
        if incidents.num_rows:
            names = index_names("incidents", incidents, prefix=settings.prefix)
            replaced = writer.replace(incidents.column("incident.id"), names, json_objects(incidents))
            written.append(("incidents", replaced))
        if incidents.num_rows and changes.stories:
            written += [("timeline", one) for one in replace_timelines(client, changes.timeline, incidents, **how)]
        if len(changes.gone_incidents):
            stored, where = timeline_places(client, changes.gone_incidents, **how)
            if len(stored):
                written.append(("timeline", writer.delete(stored, where)))
            written.append(("incidents", writer.supersede_incidents(changes.gone_incidents, changes.successors)))
        if len(changes.gone_findings):
            written.append(("findings", writer.supersede_findings(changes.gone_findings)))
        return written
