"""Reading back what is stored: findings of earlier runs, and incidents for those who look at them."""

from __future__ import annotations

import contextlib
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from elasticsearch import NotFoundError

from agenttrail.incident_filters import ENTITY, NEW, IncidentFilters
from agenttrail.incidents.scoring import LEVELS
from agenttrail.metadata import parse_time
from agenttrail.sinks.elasticsearch_connection import PATIENCE, Failure, persist

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from elasticsearch import Elasticsearch

_KEPT = "2m"  # how long a view of the indices is held between two pages
_IDS = 1_000  # of one query
_FEW = 10  # documents of which one is wanted
_PAGE = 1_000  # documents
_PAGE_WITH_EVIDENCE = 200  # documents; one may hold 20 original lines
_EVIDENCE = "finding.evidence"
_ENTRIES = 5_000  # of a timeline, which are small
_IN_TIME = [("@timestamp", "asc", "date"), ("timeline.id", "asc", "keyword")]


def query_of(filters: IncidentFilters) -> dict[str, Any]:
    """Return filters as a query that passes at least what they pass: Elasticsearch knows times to the millisecond."""
    wanted: list[dict[str, Any]] = []
    if filters.severity:
        wanted.append({"terms": {"incident.severity": LEVELS[LEVELS.index(filters.severity) :]}})
    if filters.status:
        known = {"terms": {"triage.status": [filters.status, ""] if filters.status == NEW else [filters.status]}}
        wanted.append(_any(known, _none_of("triage.status")) if filters.status == NEW else known)
    if filters.entity:
        wanted.append(_any(*({"term": {name: filters.entity}} for name in ENTITY)))
    if filters.technique:
        name = "threat.technique.id"
        wanted.append(_any({"term": {name: filters.technique}}, {"prefix": {name: f"{filters.technique}."}}))
    peer = str(ip_network(filters.peer, strict=False)) if filters.peer else None
    plain = {**filters.exact(), "rule.name": filters.rule, "destination.ip": peer}
    wanted += [{"term": {name: value}} for name, value in plain.items() if value]
    if filters.since:
        wanted.append({"range": {"incident.last_seen": _times("gte", filters.since)}})
    if filters.until:
        wanted.append({"range": {"incident.first_seen": _times("lte", filters.until)}})
    return {"bool": {"filter": wanted, **_none_of("incident.superseded_by")["bool"]}}


def _times(bound: str, text: str) -> dict[str, Any]:
    return {bound: parse_time(text, "time") // 1_000, "format": "epoch_millis"}


def _any(*queries: Mapping[str, Any]) -> dict[str, Any]:
    return {"bool": {"should": list(queries), "minimum_should_match": 1}}


def _none_of(name: str) -> dict[str, Any]:
    return {"bool": {"must_not": [{"exists": {"field": name}}]}}


def search_incidents(
    client: Elasticsearch,
    filters: IncidentFilters | None = None,
    *,
    prefix: str = "agenttrail",
    patience: float = 0.0,
) -> list[dict[str, Any]]:
    """Return incidents, the riskiest first, as flat documents; without those in whose place others stand.

    Raises:
        SinkError: Elasticsearch cannot be read.
    """
    filters = filters or IncidentFilters()
    order = [
        ("incident.risk_score", "desc", "double"),
        ("incident.first_seen", "asc", "date"),
        ("incident.id", "asc", "keyword"),
    ]
    pages = _pages(client, f"{prefix}-incidents-*", query_of(filters), order, page=_PAGE, patience=patience)
    found = (_flat(hit["_source"]) for page in pages for hit in page)
    return [incident for incident in found if filters.passes(incident)]


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with flat keys: analysts' tools write ``triage`` as an object."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def stored_findings(
    client: Elasticsearch,
    incidents: pa.Array | Sequence[str],
    *,
    evidence: bool = False,
    just_written: bool = True,
    prefix: str = "agenttrail",
    patience: float = PATIENCE,
) -> Iterator[pa.Array]:
    """Yield all findings that are stored on some entities, as pages of JSON text.

    Args:
        client: from :func:`connect`.
        incidents: ``incident.id`` of the entities; findings carry it whether or not there is such an incident.
        evidence: whether to fetch ``finding.evidence``, most of the bytes.
        just_written: whether those that no search sees yet are to be among them; needs the privilege ``maintenance``.
        prefix: what the names of all indices begin with.
        patience: seconds to keep trying when Elasticsearch is away.

    Raises:
        SinkError: Elasticsearch cannot be read; never a part of the findings for the whole.
    """
    wanted = incidents.to_pylist() if isinstance(incidents, pa.Array) else list(incidents)
    queries = [{"terms": {"incident.id": wanted[first : first + _IDS]}} for first in range(0, len(wanted), _IDS)]
    yield from _findings(client, queries, prefix, patience, evidence=evidence, just_written=just_written)


def finding_of_lease(
    client: Elasticsearch, lease: str, *, prefix: str = "agenttrail", patience: float = 0.0
) -> dict[str, Any] | None:
    """Return a finding that a lease alone proves, without its evidence; None where it proves none of the first ones.

    Raises:
        SinkError: Elasticsearch cannot be read.
    """
    order = [("finding.id", "asc", "keyword")]
    pages = _pages(
        client, f"{prefix}-findings-*", {"term": {"attribution.lease_id": lease}}, order, page=_FEW,
        patience=patience, without=_EVIDENCE,
    )  # fmt: skip
    with contextlib.closing(pages):
        found = [hit["_source"] for hit in next(pages, [])]
    return next((one for one in found if one.get("attribution.lease_id") == [lease]), None)


def findings_of_pods(client: Elasticsearch, pods: Sequence[str], *, prefix: str, patience: float) -> Iterator[pa.Array]:
    """Yield all findings that are stored on pods, by their uids, as :func:`stored_findings` does without evidence.

    Raises:
        SinkError: Elasticsearch cannot be read; never a part of the findings for the whole.
    """
    queries = [{"terms": {"k8s.pod.uid": list(pods[first : first + _IDS])}} for first in range(0, len(pods), _IDS)]
    yield from _findings(client, queries, prefix, patience, evidence=False)


def findings_of_days(client: Elasticsearch, since: int, *, prefix: str, patience: float) -> Iterator[pa.Array]:
    """Yield all findings on what has no occupancy that are stored for the days from one on, and perhaps others.

    Args:
        client: from :func:`connect`.
        since: start of that day in microseconds.
        prefix: what the names of all indices begin with.
        patience: seconds to keep trying when Elasticsearch is away.

    Raises:
        SinkError: Elasticsearch cannot be read; never a part of the findings for the whole.
    """
    recent = {"range": {"finding.last_seen": {"gte": max(since, 0) // 1_000, "format": "epoch_millis"}}}
    unoccupied = _any(
        {"terms": {"entity.type": ["job", "host", "address"]}},
        {"bool": {"must_not": [{"exists": {"field": name}} for name in ("k8s.pod.uid", "attribution.lease_start")]}},
    )
    yield from _findings(client, [{"bool": {"filter": [recent, unoccupied]}}], prefix, patience, evidence=False)


def _findings(
    client: Elasticsearch,
    queries: Sequence[Mapping[str, Any]],
    prefix: str,
    patience: float,
    *,
    evidence: bool,
    just_written: bool = True,
) -> Iterator[pa.Array]:
    """Yield the findings that match each of some queries."""
    if not queries:
        return
    index = f"{prefix}-findings-*"
    if just_written:
        persist(client, lambda: client.indices.refresh(index=index), patience)
    page_size = _PAGE_WITH_EVIDENCE if evidence else _PAGE
    order = [("finding.id", "asc", "keyword")]
    for query in queries:
        for page in _pages(
            client, index, query, order, page=page_size, patience=patience, without=None if evidence else _EVIDENCE
        ):
            yield pa.array([orjson.dumps(hit["_source"]) for hit in page], pa.binary()).cast(pa.string())


def places(
    client: Elasticsearch, kind: str, ids: pa.Array, *, prefix: str, patience: float
) -> tuple[pa.Array, pa.Array]:
    """Return which of ``ids`` are stored, and in which index.

    Raises:
        SinkError: Elasticsearch cannot be read.
    """
    index, wanted = f"{prefix}-{kind}-*", ids.to_pylist()
    if not wanted:
        return ids, ids
    persist(client, lambda: client.indices.refresh(index=index), patience)
    order = [({"incidents": "incident.id", "findings": "finding.id"}[kind], "asc", "keyword")]
    found = [
        (hit["_id"], hit["_index"])
        for first in range(0, len(wanted), _IDS)
        for page in _pages(
            client,
            index,
            {"ids": {"values": wanted[first : first + _IDS]}},
            order,
            page=_PAGE,
            patience=patience,
            without="*",
        )
        for hit in page
    ]
    return pa.array([id_ for id_, _ in found], pa.string()), pa.array([index for _, index in found], pa.string())


def timeline_places(
    client: Elasticsearch, incidents: pa.Array, *, prefix: str, patience: float
) -> tuple[pa.Array, pa.Array]:
    """Return the ids of all timeline entries that are stored of some incidents, and the index of each.

    Raises:
        SinkError: Elasticsearch cannot be read.
    """
    index, wanted = f"{prefix}-timeline-*", incidents.to_pylist()
    persist(client, lambda: client.indices.refresh(index=index), patience)
    found = [
        (hit["_id"], hit["_index"])
        for first in range(0, len(wanted), _IDS)
        for page in _pages(
            client, index, {"terms": {"incident.id": wanted[first : first + _IDS]}}, _IN_TIME, page=_ENTRIES,
            patience=patience, without="*",
        )
        for hit in page
    ]  # fmt: skip
    return pa.array([id_ for id_, _ in found], pa.string()), pa.array([index for _, index in found], pa.string())


def stored_timeline(
    client: Elasticsearch, incident: str, *, prefix: str = "agenttrail", patience: float = 0.0
) -> list[dict[str, Any]]:
    """Return the timeline of an incident as flat documents, by time and id.

    Raises:
        SinkError: Elasticsearch cannot be read.
    """
    query = {"term": {"incident.id": incident}}
    pages = _pages(client, f"{prefix}-timeline-*", query, _IN_TIME, page=_ENTRIES, patience=patience)
    entries = [hit["_source"] for page in pages for hit in page]
    # Elasticsearch knows times to the millisecond
    return sorted(entries, key=lambda one: (_moment(one.get("@timestamp")), str(one.get("timeline.id"))))


def _moment(text: object) -> int:
    """Return a time for sorting; what is none, which somebody else wrote, comes first."""
    try:
        return parse_time(str(text), "time")
    except ValueError:
        return 0


def _pages(
    client: Elasticsearch,
    index: str,
    query: Mapping[str, Any],
    order: Sequence[tuple[str, str, str]],
    *,
    page: int,
    patience: float,
    without: str | None = None,
) -> Generator[list[dict[str, Any]]]:
    """Yield all documents that match, a page at a time, from one view of the indices.

    The last field of ``order`` is unique.  So when the server forgets the view, because it was started again, a new
    one goes on after the document that was last seen.
    """
    sort = [{name: {"order": direction, "unmapped_type": type_}} for name, direction, type_ in order]
    view = _View(client, index)
    after: list[Any] | None = None
    try:
        while True:
            search = partial(
                view.search, query=query, sort=sort, size=page, search_after=after, source_excludes=without
            )
            answer = persist(client, search, patience)
            hits = answer["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < page:
                return
            after = hits[-1]["sort"][: len(order)]
    finally:
        view.close()


class _View:
    """A point in time of some indices, opened when needed."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client, self._index, self._id = client, index, ""

    def search(self, **request: Any) -> dict[str, Any]:
        """Return a page of this view, or of a new one where the server has forgotten it."""
        remembered = bool(self._id)
        if not remembered:
            opened = self._client.open_point_in_time(
                index=self._index, keep_alive=_KEPT, allow_partial_search_results=False
            )
            self._id = opened["id"]
        try:
            answer = self._client.search(
                pit={"id": self._id, "keep_alive": _KEPT},
                allow_partial_search_results=False,
                track_total_hits=False,
                **request,
            )
        except NotFoundError:
            self._id = ""
            if remembered:
                return self.search(**request)
            raise
        self._id = answer["pit_id"]
        return dict(answer.body)

    def close(self) -> None:
        """Let the server forget it."""
        if self._id:
            with contextlib.suppress(*Failure):
                self._client.close_point_in_time(id=self._id)
