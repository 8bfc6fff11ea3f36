"""What the tests of the Elasticsearch sink write, and how they look at what is stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from agenttrail.columns.ids import content_ids
from agenttrail.columns.json_text import json_objects
from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.sinks.elasticsearch import ElasticsearchSettings, connect, index_names

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

Document = dict[str, Any]
MEBI = 1 << 20
DAY = 1_772_323_200_000_000  # 2026-03-01T00:00:00Z in microseconds


def settings_of(server: Server, **others: Any) -> ElasticsearchSettings:
    """Return how to reach a server of the harness; its password is in TEST_PASSWORD."""
    who = {"username": "elastic", "password": "${TEST_PASSWORD}"} if server.password else {}
    trust = {"ca_certs": server.ca_certs} if server.ca_certs else {}
    return ElasticsearchSettings.from_environment(server.url, **{**who, **trust, **others})


def client_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> Elasticsearch:
    monkeypatch.setenv("TEST_PASSWORD", server.password or "none")
    return connect(settings_of(server))


def tidy(client: Elasticsearch, prefix: str) -> None:
    """Remove what a test left."""
    for index in client.indices.get(index=f"{prefix}-*", filter_path="*.aliases").body:
        client.indices.delete(index=index)
    quiet = client.options(ignore_status=404)
    for template in quiet.indices.get_index_template(name=f"{prefix}-*").body.get("index_templates", []):
        client.indices.delete_index_template(name=template["name"])
    for template in quiet.cluster.get_component_template(name=f"{prefix}*").body.get("component_templates", []):
        client.cluster.delete_component_template(name=template["name"])


def ids_of(count: int, what: str = "x") -> pa.Array:
    """Return that many ids."""
    return content_ids([what, pa.array(np.arange(count)).cast(pa.string())])


def batch_of(kind: str, count: int, **columns: pa.Array) -> pa.RecordBatch:
    """Return records with an id, a time, an anchor, and whatever else is given (``a__b`` stands for ``a.b``)."""
    times = pa.array(DAY + np.arange(count) * 1_000_001).view(TIMESTAMP)
    made = {
        f"{kind}.id": ids_of(count, kind),
        "@timestamp": times,
        f"{kind}.first_seen": times,
        f"{kind}.last_seen": times,
        "entity.type": pa.array(["sandbox"] * count),
        "entity.id": pa.array([f"pod-{row}" for row in range(count)]),
        "entity.anchor": pa.array(["2026-03-01"] * count),
    } | {name.replace("__", "."): column for name, column in columns.items()}
    return conform(pa.RecordBatch.from_arrays(list(made.values()), names=list(made)), record(kind))


def sent(kind: str, batch: pa.RecordBatch, prefix: str) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return what the writer is given for a batch."""
    return batch.column(f"{kind}.id"), index_names(f"{kind}s", batch, prefix=prefix), json_objects(batch)


def incidents_of(count: int, prefix: str, **columns: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    risk = pa.array(np.linspace(10.0, 90.0, count))
    rules = pa.array([["mining", "ssh"]] * count)
    return sent(
        "incident",
        batch_of("incident", count, **({"incident__risk_score": risk, "rule__name": rules} | columns)),
        prefix,
    )


def findings_of(count: int, prefix: str, **columns: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    counts = pa.array(np.arange(count) + 3_000_000_000)
    return sent("finding", batch_of("finding", count, **({"event__count": counts} | columns)), prefix)


def stored(client: Elasticsearch, index: str) -> dict[str, Document]:
    """Return all hits of a few documents by id, with version and sequence number."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, size=10_000, version=True, seq_no_primary_term=True).body["hits"]["hits"]
    return {hit["_id"]: hit for hit in hits}


def sources(client: Elasticsearch, index: str) -> dict[str, Document]:
    return {id_: hit["_source"] for id_, hit in stored(client, index).items()}


def count(client: Elasticsearch, index: str) -> int:
    client.indices.refresh(index=index)
    return int(client.count(index=index).body["count"])


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)
