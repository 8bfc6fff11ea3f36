"""``agenttrail elasticsearch``: prepare an Elasticsearch and its Kibana, and read incidents from one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agenttrail.errors import DefinitionError, Problem
from agenttrail.incident_shapes import checked

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from agenttrail.incident_filters import IncidentFilters
    from agenttrail.sinks.elasticsearch import ElasticsearchSettings

Document = dict[str, Any]
_URL = "ELASTICSEARCH_URL"


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = subparsers.add_parser("elasticsearch", help="prepare an Elasticsearch for incidents")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    preparing = actions.add_parser(
        "setup",
        help="make or renew the templates of the indices; any number of times",
        description="Credentials come from ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and "
        "ELASTICSEARCH_PASSWORD; the authorities to trust from the file ELASTICSEARCH_CA_CERTS.",
    )
    preparing.add_argument("--url", metavar="URL", help=f"address (default: what {_URL} says)")
    preparing.add_argument(
        "--prefix", metavar="NAME", default="agenttrail", help="what the names of all indices begin with"
    )
    preparing.set_defaults(command=_setup)
    saved = actions.add_parser(
        "kibana",
        help="print data views, saved queries and searches and a dashboard for Kibana",
        description="Import what this prints in Kibana 9 or later: Stack Management, Saved Objects, Import.",
    )
    saved.add_argument(
        "--prefix", metavar="NAME", default="agenttrail", help="what the names of all indices begin with"
    )
    saved.set_defaults(command=_kibana)


def _setup(arguments: argparse.Namespace) -> int:
    from agenttrail.sinks.elasticsearch import connect, setup

    url = arguments.url or os.environ.get(_URL)
    if not url:
        raise DefinitionError([Problem("command line", 0, f"no address: give --url, or set {_URL}")])
    client = connect(settings_of(url))
    for alias in setup(client, prefix=arguments.prefix):
        sys.stdout.write(f"ready: {alias}\n")
    return 0


def _kibana(arguments: argparse.Namespace) -> int:
    from agenttrail.saved_objects import ndjson

    sys.stdout.write(ndjson(arguments.prefix))
    return 0


def settings_of(url: str) -> ElasticsearchSettings:
    """Return the settings for an address on the command line; credentials are those in the environment.

    Raises:
        DefinitionError: the address is none, or holds credentials.
    """
    from agenttrail.sinks.elasticsearch import ElasticsearchSettings

    try:
        return ElasticsearchSettings.from_environment(url)
    except ValueError as error:
        raise DefinitionError([Problem("command line", 0, str(error))]) from error


@dataclass(frozen=True)
class ElasticsearchStore:
    """Incidents, findings and timelines in an Elasticsearch."""

    url: str

    @cached_property
    def _client(self) -> Any:
        from agenttrail.sinks.elasticsearch import connect

        return connect(settings_of(self.url))

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""
        from agenttrail.sinks.elasticsearch import search_incidents

        return [checked(found, "incident", self.url) for found in search_incidents(self._client, filters)]

    def findings(self, incident: str) -> list[Document]:
        """Return the findings of one incident."""
        import orjson

        from agenttrail.sinks.elasticsearch import stored_findings

        pages = stored_findings(self._client, [incident], evidence=True, just_written=False, patience=0.0)
        found = (orjson.loads(document) for page in pages for document in page.to_pylist())
        return [checked(finding, "finding", self.url) for finding in found]

    def holders(self, leases: Collection[str]) -> dict[str, Document]:
        """Return of each of some leases a finding that it alone proves."""
        from agenttrail.sinks.elasticsearch import finding_of_lease

        found = ((lease, finding_of_lease(self._client, lease)) for lease in leases)
        return {lease: checked(finding, "finding", self.url) for lease, finding in found if finding is not None}

    def timeline(self, incident: str) -> list[Document]:
        """Return the timeline of one incident."""
        from agenttrail.sinks.elasticsearch import stored_timeline

        return [checked(entry, "timeline", self.url) for entry in stored_timeline(self._client, incident)]
