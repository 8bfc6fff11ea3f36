"""Templates and months, against a real Elasticsearch: nothing here stands in for one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from tests.sinks.documents import DAY, batch_of, client_of, count, findings_of, sources, tidy

from agenttrail.errors import SinkError
from agenttrail.schema import TIMESTAMP
from agenttrail.sinks.elasticsearch import BulkWriter, index_names, is_set_up, setup

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server


def test_setup_can_be_run_any_number_of_times(client: Elasticsearch, prefix: str) -> None:
    templates = client.indices.get_index_template(name=f"{prefix}-*").body
    BulkWriter(client, prefix=prefix).index(*findings_of(3, prefix))
    aliases = setup(client, prefix=prefix)
    assert {f"{prefix}-incidents", f"{prefix}-findings"} <= set(aliases)
    assert client.indices.get_index_template(name=f"{prefix}-*").body == templates
    assert count(client, f"{prefix}-findings") == 3
    assert is_set_up(client, prefix=prefix)
    assert not is_set_up(client, prefix=f"{prefix}z")


def test_setup_gives_new_fields_to_the_months_that_an_earlier_version_began(client: Elasticsearch, prefix: str) -> None:
    index = f"{prefix}-findings-2026.03"
    component = client.cluster.get_component_template(name=f"{prefix}-findings").body["component_templates"][0]
    template = component["component_template"]["template"]
    for gone in ("incident.id", "recommendation"):
        template["mappings"]["properties"].pop(gone)
    client.cluster.put_component_template(name=f"{prefix}-findings", template=template)
    client.indices.create(index=index)
    document = {"finding.id": "a", "recommendation": ["stop it"]}
    before = BulkWriter(client).index(pa.array(["a"]), pa.array([index]), pa.array([json.dumps(document)]))
    setup(client, prefix=prefix)
    after = BulkWriter(client).index(pa.array(["a"]), pa.array([index]), pa.array([json.dumps(document)]))
    assert len(before.dead) == 1
    assert (after.created, after.dead) == (1, [])


def test_setup_says_what_is_in_the_way(elasticsearch: Server, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    client = client_of(elasticsearch, monkeypatch)
    client.indices.create(index=f"{prefix}-incidents")
    with pytest.raises(SinkError, match="delete it, or reindex it"):
        setup(client, prefix=prefix)
    tidy(client, prefix)


def test_settings_of_the_users_own_go_above_ours(client: Elasticsearch, prefix: str) -> None:
    client.cluster.put_component_template(name=f"{prefix}@custom", template={"settings": {"number_of_shards": 2}})
    setup(client, prefix=prefix)
    BulkWriter(client).index(*findings_of(1, prefix))
    (index,) = client.indices.get_settings(index=f"{prefix}-findings").body.values()
    assert index["settings"]["index"]["number_of_shards"] == "2"
    assert index["settings"]["index"]["auto_expand_replicas"] == "0-1"


def test_documents_stand_in_the_month_of_their_anchor(prefix: str) -> None:
    anchors = pa.array(
        [
            "2026-01-31",
            "2025-12-31T23:59:59Z",
            "7d3c2c1e-0000-4000-8000-000000000000",
            "0f3c2c1e-0000-4000-8000-000000000001",
        ]
    )
    begun = pa.array([None, None, DAY - 1, None], pa.int64()).view(TIMESTAMP)
    batch = batch_of("finding", 4, entity__anchor=anchors, attribution__lease_start=begun)
    months = [
        name.removeprefix(f"{prefix}-findings-") for name in index_names("findings", batch, prefix=prefix).to_pylist()
    ]
    assert months == ["2026.01", "2025.12", "2026.02", "2026.03"]


def test_only_what_the_schema_names_is_taken_and_evidence_is_kept_as_it_is(client: Elasticsearch, prefix: str) -> None:
    evidence = [{"event.original": "x" * 40_000, "source.ip": "no address"}, {"event.original": {"any": ["shape"]}}]
    documents: list[dict[str, Any]] = [
        {"finding.id": "a0", "finding.evidence": evidence, "peer.ip": "2001:db8::1", "peer.port": [22, 443]},
        {"finding.id": "a1", "finding.colour": "red"},
        {"finding.id": "a2", "entity.id": "y" * 40_000},
    ]
    ids = pa.array([document["finding.id"] for document in documents])
    texts = pa.array([json.dumps(document) for document in documents])
    written = BulkWriter(client).index(ids, pa.array([f"{prefix}-findings-2026.03"] * 3), texts)
    assert [dead.id for dead in written.dead] == ["a1"]
    assert "strict" in written.dead[0].reason
    assert sources(client, f"{prefix}-findings")["a0"] == documents[0]
    network = {"term": {"peer.ip": "2001:db8::/32"}}
    assert client.search(index=f"{prefix}-findings", query=network).body["hits"]["hits"][0]["_id"] == "a0"
