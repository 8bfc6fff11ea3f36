"""Reading findings and incidents back from a real Elasticsearch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from tests.sinks.documents import batch_of, findings_of, ids_of, incidents_of

from agenttrail.incident_filters import IncidentFilters
from agenttrail.schema import conform, record
from agenttrail.sinks.elasticsearch import BulkWriter, finding_of_lease, search_incidents, stored_findings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


def test_more_findings_than_one_search_returns_are_all_read_once(client: Elasticsearch, prefix: str) -> None:
    total = 12_345
    incidents = ids_of(7, "incident")
    evidence = conform(batch_of("finding", 1), record("finding")).schema.field("finding.evidence").type
    columns = {
        "incident__id": incidents.take(pa.array(np.arange(total) % 7)),
        "finding__evidence": pa.array([[{"event.id": "e"}]] * total, evidence),
    }
    ids, indices, documents = findings_of(total, prefix, **columns)
    BulkWriter(client, prefix=prefix).index(ids, indices, documents)
    pages = list(stored_findings(client, incidents[:6], prefix=prefix))
    read = {document["finding.id"]: document for page in pages for document in map(json.loads, page.to_pylist())}
    expected = {id_ for row, id_ in enumerate(ids.to_pylist()) if row % 7 < 6}
    assert len(pages) > 10
    assert sum(map(len, pages)) == len(expected)
    assert set(read) == expected
    assert not any("finding.evidence" in document for document in read.values())
    (whole, *_) = stored_findings(client, incidents[:1], evidence=True, prefix=prefix)
    assert json.loads(whole[0].as_py())["finding.evidence"] == [{"event.id": "e"}]


def test_whose_a_lease_is_tells_a_finding_that_it_alone_proves(client: Elasticsearch, prefix: str) -> None:
    leases = pa.array([["both", "one"], ["one"], ["both", "other"]], pa.list_(pa.string()))
    columns = {"sandbox__id": pa.array(["s1", "s2", "s3"]), "attribution__lease_id": leases}
    ids, indices, documents = findings_of(3, prefix, **columns)
    BulkWriter(client, prefix=prefix).index(ids, indices, documents)
    client.indices.refresh(index=f"{prefix}-findings-*")
    found = {lease: finding_of_lease(client, lease, prefix=prefix) for lease in ("one", "both", "none")}
    assert {lease: one and one["sandbox.id"] for lease, one in found.items()} == {
        "one": "s2",
        "both": None,
        "none": None,
    }


def test_findings_of_no_index_or_no_entity_are_none(client: Elasticsearch, prefix: str) -> None:
    assert list(stored_findings(client, ids_of(2), prefix=prefix)) == []
    assert list(stored_findings(client, [], prefix=prefix)) == []


def test_incidents_are_found_by_what_is_asked_for(client: Elasticsearch, prefix: str) -> None:
    techniques = [["T1496.001"], ["T1572", "T1021.004"], ["T1046"], ["T14960"]]
    columns = {
        "incident__severity": pa.array(["critical", "high", "medium", "low"]),
        "incident__risk_score": pa.array([95.0, 70.0, 70.0, 10.0]),
        "gen_ai__agent__id": pa.array(["coder", "coder", "planner", None]),
        "sandbox__id": pa.array(["s0", "s1", "s2", "s3"]),
        "threat__technique__id": pa.array(techniques),
        "rule__name": pa.array([["mining"], ["ssh"], ["scan"], ["ssh"]]),
        "destination__ip": pa.array(
            [[bytes(10) + b"\xff\xff" + bytes([203, 0, 113, host])] for host in (1, 2, 130, 4)], pa.list_(pa.binary(16))
        ),
        "entity__anchor": pa.array(["2026-01-31", "2026-03-01", "2026-03-01", "2026-03-02"]),
    }
    ids, indices, documents = incidents_of(4, prefix, **columns)
    BulkWriter(client, prefix=prefix).replace(ids, indices, documents)
    client.update(
        index=indices[1].as_py(),
        id=ids[1].as_py(),
        doc={"triage": {"status": "closed", "by": {"who": "mei"}}},
        refresh=True,
    )
    client.update(index=indices[2].as_py(), id=ids[2].as_py(), doc={"triage.status": "new"}, refresh=True)
    client.indices.refresh(index=f"{prefix}-incidents")
    place = {id_: row for row, id_ in enumerate(ids.to_pylist())}

    def found(**filters: str) -> list[int]:
        return [
            place[incident["incident.id"]]
            for incident in search_incidents(client, IncidentFilters(**filters), prefix=prefix)
        ]

    assert found() == [0, 1, 2, 3]
    assert found(severity="high") == [0, 1]
    assert found(agent="coder") == [0, 1]
    assert found(entity="s2") == found(entity="pod-2") == [2]
    assert found(technique="T1496") == found(technique="T1496.001") == [0]
    assert found(technique="T1021") == [1]
    assert found(rule="ssh") == [1, 3]
    assert found(peer="203.0.113.2") == [1]
    assert found(peer="203.0.113.0/25") == [0, 1, 3]
    assert found(status="closed") == [1]
    assert found(status="new") == [0, 2, 3]
    assert found(since="2026-03-01T00:00:02Z") == [2, 3]
    assert found(until="2026-03-01T01:00:01+01:00") == [0]
    assert found(severity="medium", agent="planner", status="new") == [2]
    triaged = search_incidents(client, IncidentFilters(status="closed"), prefix=prefix)[0]
    assert (triaged["triage.status"], triaged["triage.by.who"]) == ("closed", "mei")
    assert triaged["destination.ip"] == ["203.0.113.2"]
