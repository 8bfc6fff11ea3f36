"""The sink against a real Elasticsearch: nothing here stands in for one."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from elasticsearch import ConflictError, Elasticsearch

from agenttrail.columns.ids import content_ids
from agenttrail.columns.json_text import json_objects
from agenttrail.errors import SinkError
from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.sinks.elasticsearch import (
    BulkWriter,
    ElasticsearchSettings,
    IncidentFilters,
    connect,
    index_names,
    is_set_up,
    search_incidents,
    setup,
    stored_findings,
)
from agenttrail.sinks.elasticsearch_bulk import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.elasticsearch import Elasticsearch as Server

Document = dict[str, Any]
MEBI = 1 << 20
DAY = 1_772_323_200_000_000  # 2026-03-01T00:00:00Z in microseconds

_TICK = """
if (ctx._source.triage == null) { ctx._source.triage = [:] }
ctx._source.triage[params.key] = params.value;
ctx._source.triage.remove(params.gone)
"""


def settings_of(server: Server, **others: Any) -> ElasticsearchSettings:
    """Return how to reach a server of the harness; its password is in TEST_PASSWORD."""
    who = {"username": "elastic", "password": "${TEST_PASSWORD}"} if server.password else {}
    trust = {"ca_certs": server.ca_certs} if server.ca_certs else {}
    return ElasticsearchSettings.from_environment(server.url, **{**who, **trust, **others})


def client_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> Elasticsearch:
    monkeypatch.setenv("TEST_PASSWORD", server.password or "none")
    return connect(settings_of(server))


@pytest.fixture
def prefix() -> str:
    """Give names that no other test uses."""
    return f"t{uuid4().hex[:12]}"


def tidy(client: Elasticsearch, prefix: str) -> None:
    """Remove what a test left."""
    for index in client.indices.get(index=f"{prefix}-*", filter_path="*.aliases").body:
        client.indices.delete(index=index)
    quiet = client.options(ignore_status=404)
    for template in quiet.indices.get_index_template(name=f"{prefix}-*").body.get("index_templates", []):
        client.indices.delete_index_template(name=template["name"])
    for template in quiet.cluster.get_component_template(name=f"{prefix}*").body.get("component_templates", []):
        client.cluster.delete_component_template(name=template["name"])


@pytest.fixture
def client(elasticsearch: Server, monkeypatch: pytest.MonkeyPatch, prefix: str) -> Iterator[Elasticsearch]:
    """Give a client of a server that is set up for ``prefix``."""
    client = client_of(elasticsearch, monkeypatch)
    setup(client, prefix=prefix)
    yield client
    tidy(client, prefix)


@pytest.fixture
def restartable(
    elasticsearch_restartable: Server, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> Iterator[Elasticsearch]:
    """Give a client, by API key, of a server that the test may stop."""
    owner = client_of(elasticsearch_restartable, monkeypatch)
    monkeypatch.setenv("TEST_KEY", owner.security.create_api_key(name=prefix).body["encoded"])
    client = connect(ElasticsearchSettings(elasticsearch_restartable.url, api_key="${TEST_KEY}"))
    setup(client, prefix=prefix)
    yield client
    if not elasticsearch_restartable.runs():
        elasticsearch_restartable.start()
    tidy(client, prefix)


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


# -- indices


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


# -- writing


def test_what_is_written_again_leaves_the_same_documents(client: Elasticsearch, prefix: str) -> None:
    writer = BulkWriter(client, most_actions=70)
    first = writer.index(*findings_of(500, prefix))
    once = sources(client, f"{prefix}-findings")
    second = writer.index(*findings_of(500, prefix))
    assert (first.created, first.updated, second.created, second.updated) == (500, 0, 0, 500)
    assert sources(client, f"{prefix}-findings") == once
    assert len(once) == 500


def test_an_incident_that_does_not_change_is_not_written_again(client: Elasticsearch, prefix: str) -> None:
    writer = BulkWriter(client)
    counts = pa.array([3_000_000_000, 5, 0])
    first = writer.replace(*incidents_of(3, prefix, event__count=counts))
    once = stored(client, f"{prefix}-incidents")
    second = writer.replace(*incidents_of(3, prefix, event__count=counts))
    assert (first.created, second.unchanged, second.updated) == (3, 3, 0)
    assert stored(client, f"{prefix}-incidents") == once
    assert {hit["_version"] for hit in once.values()} == {1}


def test_triage_is_the_analysts_and_fields_that_vanish_vanish(client: Elasticsearch, prefix: str) -> None:
    writer, alias = BulkWriter(client), f"{prefix}-incidents"
    ids, indices, documents = incidents_of(3, prefix)
    writer.replace(ids, indices, documents)
    nested, dotted, untouched = ids.to_pylist()
    triage = {"status": "closed", "assignee": "mei", "ticket": {"id": 7, "due": "2026-04-01"}}
    client.update(index=indices[0].as_py(), id=nested, doc={"triage": triage})
    client.update(index=indices[0].as_py(), id=dotted, doc={"triage.status": "open", "triage.note": "a miner?"})
    written = writer.replace(*incidents_of(3, prefix, rule__name=pa.nulls(3, pa.list_(pa.string()))))
    assert written.updated == 3
    found = sources(client, alias)
    assert found[nested]["triage"] == triage
    assert (found[dotted]["triage.status"], found[dotted]["triage.note"]) == ("open", "a miner?")
    assert not any("rule.name" in document or "triage" in document for document in (found[untouched], found[dotted]))
    assert all(document["incident.risk_score"] >= 10 and "rule.name" not in document for document in found.values())
    assert client.count(index=alias, query={"match": {"triage.note": "miner"}}).body["count"] == 1
    assert client.count(index=alias, query={"term": {"triage.status": "closed"}}).body["count"] == 1


def test_notes_of_analysts_of_any_kind_are_taken(client: Elasticsearch, prefix: str) -> None:
    ids, indices, documents = incidents_of(2, prefix)
    BulkWriter(client).replace(ids, indices, documents)
    for id_, due in zip(ids.to_pylist(), ["2026-04-01", "soon"], strict=True):
        client.update(index=indices[0].as_py(), id=id_, doc={"triage": {"due": due}})
    assert BulkWriter(client).replace(ids, indices, documents).unchanged == 2


def test_a_document_that_is_refused_costs_no_other(client: Elasticsearch, prefix: str) -> None:
    ids, indices, documents = findings_of(200, prefix)
    texts = documents.to_pylist()
    texts[7] = '{"event.count": "many"}'
    texts[8] = '{"finding.id": '
    texts[9] = '{"finding.id": "a"}\n{"delete":{"_id":"b"}}'
    texts[10] = None
    written = BulkWriter(client, most_actions=50).index(ids, indices, pa.array(texts, pa.string()))
    assert written.created == 196
    assert [dead.document for dead in sorted(written.dead, key=lambda dead: texts.index(dead.document))] == [
        texts[7],
        texts[8],
        texts[9],
        texts[10],
    ] or {dead.id for dead in written.dead} == set(ids.to_pylist()[7:11])
    dead = next(dead for dead in written.dead if dead.document == texts[7])
    assert (dead.action, dead.id, dead.index) == ("index", ids[7].as_py(), indices[7].as_py())
    assert "event.count" in dead.reason
    assert count(client, f"{prefix}-findings") == 196


def test_an_incident_that_is_refused_costs_no_other(client: Elasticsearch, prefix: str) -> None:
    ids, indices, documents = incidents_of(50, prefix)
    texts = documents.to_pylist()
    texts[3] = '{"incident.id":"a"}}},"script":{"source":"ctx.op=\'delete\'"}}'
    texts[4] = '{"event.count": "many"}'
    texts[5] = '{"incident.title":' + '{"a":' * 1_100 + "1" + "}" * 1_101
    texts[6] = "[1]"
    written = BulkWriter(client).replace(ids, indices, pa.array(texts))
    assert written.created == 46
    assert {dead.id for dead in written.dead} == set(ids.to_pylist()[3:7])
    assert count(client, f"{prefix}-incidents") == 46


def test_text_from_logs_stays_text(client: Elasticsearch, prefix: str) -> None:
    hostile = [
        '"}}\n{"delete":{"_index":"x","_id":"y"}}\n',
        "\\",
        "\u2028\x00\x7f",
        "{{mustache}}",
        "ünï 💥",
        "ctx.op='delete'",
    ]
    titles = pa.array(hostile)
    assert BulkWriter(client).index(*findings_of(len(hostile), prefix, finding__title=titles)).created == len(hostile)
    assert BulkWriter(client).replace(*incidents_of(len(hostile), prefix, incident__title=titles)).created == len(
        hostile
    )
    assert {document["finding.title"] for document in sources(client, f"{prefix}-findings").values()} == set(hostile)
    assert {document["incident.title"] for document in sources(client, f"{prefix}-incidents").values()} == set(hostile)


def test_ids_and_names_of_indices_are_checked(client: Elasticsearch, prefix: str) -> None:
    writer, (ids, indices, documents) = BulkWriter(client), findings_of(1, prefix)
    with pytest.raises(ValueError, match="expected"):
        writer.index(pa.array(['a","_index":"b']), indices, documents)
    with pytest.raises(ValueError, match="expected"):
        writer.index(ids, pa.array(["Findings"]), documents)
    with pytest.raises(ValueError, match="expected"):
        writer.index(pa.array([None], pa.string()), indices, documents)


def test_nothing_to_write_is_no_request(prefix: str) -> None:
    nowhere = Elasticsearch("http://127.0.0.1:9")
    empty = pa.array([], pa.string())
    assert BulkWriter(nowhere, prefix=prefix).index(empty, empty, empty).created == 0
    assert BulkWriter(nowhere, prefix=prefix).replace(empty, empty, empty).created == 0
    assert BulkWriter(nowhere, prefix=prefix).supersede_findings(empty).deleted == 0


def test_requests_are_cut_by_bytes_and_by_actions() -> None:
    sizes = np.array([3, 3, 3, 20, 1, 1, 1, 1, 1, 10])
    assert [chunk.tolist() for chunk in cut(np.arange(10), sizes, 10, 4)] == [[0, 1, 2], [3], [4, 5, 6, 7], [8], [9]]
    assert cut(np.arange(0), sizes[:0], 10, 4) == []


def test_a_document_above_the_size_of_a_request_goes_alone(client: Elasticsearch, prefix: str) -> None:
    titles = pa.array(["small", "x " * (9 * MEBI // 2), "small"])
    written = BulkWriter(client).index(
        *findings_of(3, prefix, falsepositives=pa.array([[title] for title in titles.to_pylist()]))
    )
    assert (written.created, written.dead) == (3, [])


def test_a_document_that_is_too_large_for_the_server_costs_no_other(restartable: Elasticsearch, prefix: str) -> None:
    """One above http.max_content_length; one below, but above what a node takes at a time: 429 for ever."""
    texts = [["small"]] * 6
    texts[2], texts[4] = ["x" * 17 * MEBI], ["x" * 15 * MEBI]
    ids, indices, documents = findings_of(6, prefix, falsepositives=pa.array(texts))
    written = BulkWriter(restartable, most_bytes=64 * MEBI).index(ids, indices, documents)
    assert written.created == 4
    assert {dead.id for dead in written.dead} == {ids[2].as_py(), ids[4].as_py()}
    reasons = {dead.id: dead.reason for dead in written.dead}
    assert "http.max_content_length" in reasons[ids[2].as_py()]
    assert "es_rejected_execution_exception" in reasons[ids[4].as_py()]


def test_a_cluster_that_takes_nothing_is_an_error_and_no_dead_letters(client: Elasticsearch, prefix: str) -> None:
    writer = BulkWriter(client)
    writer.index(*findings_of(1, prefix))
    client.indices.put_settings(index=f"{prefix}-findings", settings={"index.blocks.write": True})
    with pytest.raises(SinkError, match=r"lets nothing be written .* cluster_block_exception"):
        writer.index(*findings_of(2, prefix))
    client.indices.close(index=f"{prefix}-findings")
    with pytest.raises(SinkError, match="index_closed_exception"):
        writer.index(*findings_of(2, prefix))


def test_analysts_and_the_pipeline_write_at_the_same_time_and_nothing_is_lost(
    client: Elasticsearch, prefix: str
) -> None:
    ids, indices, documents = incidents_of(4, prefix)
    index = indices[0].as_py()
    BulkWriter(client).replace(ids, indices, documents)
    stop = threading.Event()

    def analyst(name: str) -> int:
        """Tick off one thing after the other on every incident, and take another off again."""
        done = 0
        while not stop.is_set():
            for id_ in ids.to_pylist():
                script = {"source": _TICK, "params": {"key": name, "value": done, "gone": f"{name}-gone"}}
                try:
                    client.update(index=index, id=id_, script=script, retry_on_conflict=50)
                except ConflictError:
                    continue
            done += 1
        return done

    with ThreadPoolExecutor(3) as pool:
        analysts = [pool.submit(analyst, name) for name in ("mei", "tom")]
        rounds = 40
        writer = BulkWriter(client)
        for turn in range(1, rounds + 1):
            written = writer.replace(*incidents_of(4, prefix, event__count=pa.array([turn] * 4)))
            assert (written.updated, written.dead) == (4, [])
        stop.set()
        ticked = {name: future.result() for name, future in zip(("mei", "tom"), analysts, strict=True)}
    for document in sources(client, f"{prefix}-incidents").values():
        assert document["event.count"] == rounds
        assert document["triage"] == {name: done - 1 for name, done in ticked.items()}


def test_superseded_findings_go_and_superseded_incidents_stay_where_someone_has_worked_on_them(
    client: Elasticsearch, prefix: str
) -> None:
    writer = BulkWriter(client, prefix=prefix)
    months = pa.array(["2026-03-01", "2026-04-01", "2026-05-01", "2026-05-02"])
    finding_ids, *finding_rest = findings_of(4, prefix, entity__anchor=months)
    incident_ids, indices, documents = incidents_of(4, prefix, entity__anchor=months)
    writer.index(finding_ids, *finding_rest)
    writer.replace(incident_ids, indices, documents)
    plain, nested, dotted, empty = incident_ids.to_pylist()
    client.update(index=indices[1].as_py(), id=nested, doc={"triage": {"status": "closed"}})
    client.update(index=indices[2].as_py(), id=dotted, doc={"triage.status": "open"})
    client.update(index=indices[3].as_py(), id=empty, doc={"triage": {}})
    unknown = ids_of(1, "unknown")
    gone = writer.supersede_findings(pa.concat_arrays([finding_ids[:2], unknown]))
    assert (gone.deleted, sorted(sources(client, f"{prefix}-findings"))) == (2, sorted(finding_ids.to_pylist()[2:]))
    successors = ids_of(5, "successor")
    for expected in ({"deleted": 2, "updated": 2}, {"deleted": 0, "updated": 0}):
        written = writer.supersede_incidents(pa.concat_arrays([incident_ids, unknown]), successors)
        assert {name: getattr(written, name) for name in expected} == expected
        assert written.dead == []
    left = sources(client, f"{prefix}-incidents")
    assert {id_: document["incident.superseded_by"] for id_, document in left.items()} == {
        nested: successors[1].as_py(),
        dotted: successors[2].as_py(),
    }
    assert (left[nested]["triage"], left[dotted]["triage.status"]) == ({"status": "closed"}, "open")
    assert search_incidents(client, prefix=prefix) == []
    writer.replace(incident_ids, indices, documents)
    assert "incident.superseded_by" not in sources(client, f"{prefix}-incidents")[nested]
    assert plain in sources(client, f"{prefix}-incidents")


# -- a server that goes away


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_server_that_goes_away_and_comes_back_loses_and_doubles_nothing(
    restartable: Elasticsearch,
    elasticsearch_restartable: Server,
    prefix: str,
    way: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It goes in the middle of many requests, and stays away for ten seconds; findings and incidents, twice over."""
    total, away = 60_000, 10.0
    batch = findings_of(total, prefix, falsepositives=pa.array([["lorem ipsum dolor " * 20]] * total))
    writer = BulkWriter(restartable, prefix=prefix, most_actions=500)
    other = connect(settings_of(elasticsearch_restartable))
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.index, *batch)
        until(
            lambda: (
                bool(other.indices.exists(index=f"{prefix}-findings"))
                and count(other, f"{prefix}-findings") > total // 10
            )
        )
        getattr(elasticsearch_restartable, way)()
        gone = time.monotonic()
        assert not writing.done()
        until(lambda: time.monotonic() - gone > away)
        elasticsearch_restartable.start()
        written = writing.result(300)
    assert written.dead == []
    assert written.created + written.updated == total
    assert count(restartable, f"{prefix}-findings") == total
    assert "trying again" in caplog.text
    incidents = incidents_of(100, prefix)
    assert writer.replace(*incidents).created == 100
    elasticsearch_restartable.kill()
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(writer.replace, *incidents)
        elasticsearch_restartable.start()
        assert again.result(120).unchanged == 100


def test_patience_has_an_end_and_says_so(
    restartable: Elasticsearch, elasticsearch_restartable: Server, prefix: str
) -> None:
    elasticsearch_restartable.kill()
    with pytest.raises(
        SinkError, match=r"cannot be used after \d+ tries in 1 s: no connection .*check that it runs"
    ) as raised:
        BulkWriter(restartable, patience=1.0).index(*findings_of(1, prefix))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301 - made here
    with pytest.raises(SinkError, match="cannot be used: no connection"):
        connect(settings_of(elasticsearch_restartable))


def test_connecting_waits_for_a_server_that_is_being_started(
    elasticsearch_restartable: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_restartable.password)
    elasticsearch_restartable.stop()
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, settings_of(elasticsearch_restartable), patience=120.0)
        elasticsearch_restartable.start()
        assert connecting.result(120).info().body["tagline"]


# -- who may, and whom to trust


def test_secrets_are_held_by_name_only(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    secret = elasticsearch_secured.password
    monkeypatch.setenv("TEST_PASSWORD", secret)
    settings = settings_of(elasticsearch_secured)
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - made here
    with caplog.at_level(logging.DEBUG):
        client = connect(settings)
        BulkWriter(client, prefix=prefix).index(*findings_of(1, prefix))
    header = client._headers["authorization"].partition(" ")[2]  # noqa: SLF001 - what must not be seen
    for seen in (repr(settings), str(settings), pickle.dumps(settings).decode("latin-1"), caplog.text, repr(client)):
        assert secret not in seen
        assert header not in seen
    tidy(client, prefix)


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": "hunter2hunter2"},
        {"username": "elastic", "password": "hunter2hunter2"},
        {"username": "elastic", "password": "${A}hunter2hunter2"},
        {"url": "https://elastic:hunter2hunter2@localhost:9200"},
    ],
)
def test_secrets_in_clear_are_refused_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\$\{NAME\}") as raised:
        ElasticsearchSettings(**({"url": "https://localhost:9200"} | wrong))
    assert "hunter2" not in str(raised.value)


def test_credentials_are_of_one_kind() -> None:
    cases: list[dict[str, Any]] = [
        {"username": "elastic"},
        {"password": "${A}"},
        {"api_key": "${A}", "username": "b", "password": "${C}"},
    ]
    for wrong in cases:
        with pytest.raises(ValueError, match="either api_key, or username and password"):
            ElasticsearchSettings("https://localhost:9200", **wrong)


def test_an_address_in_the_environment_may_hold_credentials(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = elasticsearch_secured.url.replace("://", f"://elastic:{elasticsearch_secured.password}@")
    monkeypatch.setenv("TEST_URL", url)
    client = connect(ElasticsearchSettings("${TEST_URL}"))
    assert client.security.authenticate().body["username"] == "elastic"
    monkeypatch.setenv("TEST_URL", url.replace("elastic:", "elastic:x"))
    with pytest.raises(SinkError, match="refuses the credentials") as raised:
        connect(ElasticsearchSettings("${TEST_URL}"))
    assert elasticsearch_secured.password not in str(raised.value)


def test_credentials_that_are_wrong_or_missing_say_what_to_do(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", "wrong")
    for settings in (
        settings_of(elasticsearch_secured),
        ElasticsearchSettings(elasticsearch_secured.url),
        ElasticsearchSettings(elasticsearch_secured.url, api_key="${TEST_PASSWORD}"),
    ):
        with pytest.raises(SinkError, match=r"refuses the credentials .401: .*check the API key"):
            connect(settings, patience=60.0)
    monkeypatch.delenv("TEST_PASSWORD")
    with pytest.raises(SinkError, match="environment variable TEST_PASSWORD is not set here"):
        connect(settings_of(elasticsearch_secured))


def test_an_api_key_needs_few_privileges(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Those that the README names: without any on the cluster, and on our indices only."""
    owner = client_of(elasticsearch_secured, monkeypatch)
    setup(owner, prefix=prefix)
    privileges = ["read", "write", "create_index", "maintenance"]
    role = {"agenttrail": {"indices": [{"names": [f"{prefix}-*"], "privileges": privileges}]}}
    key = owner.security.create_api_key(name=prefix, role_descriptors=role).body
    monkeypatch.setenv("TEST_KEY", f"{key['id']}:{key['api_key']}")
    client = connect(ElasticsearchSettings(elasticsearch_secured.url, api_key="${TEST_KEY}"))
    writer = BulkWriter(client, prefix=prefix)
    findings = findings_of(5, prefix, incident__id=ids_of(5, "incident"))
    assert writer.index(*findings).created == 5
    assert writer.replace(*incidents_of(5, prefix)).created == 5
    assert writer.supersede_findings(findings[0][:1]).deleted == 1
    assert sum(map(len, stored_findings(client, ids_of(5, "incident"), prefix=prefix))) == 4
    owner.indices.refresh(index=f"{prefix}-*")
    assert len(search_incidents(client, prefix=prefix)) == 5
    with pytest.raises(SinkError, match=r"does not permit this .403"):
        setup(client, prefix=prefix)
    with pytest.raises(SinkError, match=r"lets nothing be written to other-findings-2026.03 .403: security_exception"):
        BulkWriter(client, prefix="other").index(*findings_of(1, "other"))
    owner.security.invalidate_api_key(name=prefix)
    with pytest.raises(SinkError, match="refuses the credentials"):
        writer.index(*findings)
    tidy(owner, prefix)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    elasticsearch_tls: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_tls.password)
    with pytest.raises(
        SinkError, match=r"is not trusted \(.*certificate.*name the file of the authority that signed it as ca_certs"
    ):
        connect(settings_of(elasticsearch_tls, ca_certs=None), patience=60.0)


def test_a_certificate_of_a_given_authority_is_trusted(
    elasticsearch_tls: Server, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    client = client_of(elasticsearch_tls, monkeypatch)
    setup(client, prefix=prefix)
    assert BulkWriter(client, prefix=prefix).index(*findings_of(10, prefix)).created == 10
    tidy(client, prefix)


def test_trust_can_be_waived_but_is_warned_of(elasticsearch_tls: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_tls.password)
    with pytest.warns(Warning, match="insecure"):
        connect(settings_of(elasticsearch_tls, ca_certs=None, verify=False))


def test_the_authorities_file_must_be_there(elasticsearch_tls: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_tls.password)
    with pytest.raises(SinkError, match=r"there is no file /nowhere/ca.pem here"):
        connect(settings_of(elasticsearch_tls, ca_certs="/nowhere/ca.pem"))


def test_http_and_https_taken_for_each_other_say_so(elasticsearch: Server, elasticsearch_tls: Server) -> None:
    with pytest.raises(SinkError, match=r"does not speak TLS .*: write http://"):
        connect(ElasticsearchSettings(elasticsearch.url.replace("http:", "https:")), patience=60.0)
    with pytest.raises(SinkError, match="https"):
        connect(ElasticsearchSettings(elasticsearch_tls.url.replace("https:", "http:")))


def test_what_is_no_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("localhost:9200", "ftp://localhost:9200", "http://:9200", "http://localhost:port"):
        with pytest.raises(SinkError, match="not an address like https://host:9200"):
            connect(ElasticsearchSettings(url))
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(SinkError, match="NO_SUCH_URL is not set"):
        connect(ElasticsearchSettings("${NO_SUCH_URL}"))


class _Other(BaseHTTPRequestHandler):
    """A web server that is something else."""

    def do_GET(self) -> None:
        body = b'{"version": {"number": "9.1.0"}}' if self.path == "/" else b"not here"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "application/json" if self.path == "/" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
        """Say nothing."""


def test_another_kind_of_server_is_not_taken_for_elasticsearch() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(SinkError, match="is not Elasticsearch: check the address"):
            connect(ElasticsearchSettings(url), patience=60.0)
        with pytest.raises(SinkError, match=r"404.*check the address"):
            connect(ElasticsearchSettings(f"{url}/elsewhere"), patience=60.0)
        server.shutdown()


# -- reading


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


def test_findings_of_no_index_or_no_entity_are_none(client: Elasticsearch, prefix: str) -> None:
    assert list(stored_findings(client, ids_of(2), prefix=prefix)) == []
    assert list(stored_findings(client, [], prefix=prefix)) == []


def test_reading_goes_on_where_it_was_when_the_server_is_started_again(
    restartable: Elasticsearch, elasticsearch_restartable: Server, prefix: str
) -> None:
    total = 3_500
    ids, indices, documents = findings_of(total, prefix, incident__id=ids_of(1, "incident").take(pa.array([0] * total)))
    BulkWriter(restartable, prefix=prefix).index(ids, indices, documents)
    pages = stored_findings(restartable, ids_of(1, "incident"), prefix=prefix)
    read = [next(pages)]
    elasticsearch_restartable.kill()
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, pages)
        elasticsearch_restartable.start()
        read += rest.result(120)
    found = [json.loads(text)["finding.id"] for page in read for text in page.to_pylist()]
    assert found == sorted(ids.to_pylist())


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
    names = ("gen_ai__agent__id",)
    assert names
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
