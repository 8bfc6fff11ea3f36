"""Bulk writing, against a real Elasticsearch: nothing here stands in for one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from elasticsearch import ConflictError, Elasticsearch
from tests.sinks.documents import MEBI, count, findings_of, ids_of, incidents_of, sources, stored

from agenttrail.errors import SinkError
from agenttrail.sinks.elasticsearch import BulkWriter, search_incidents
from agenttrail.sinks.elasticsearch_bulk import cut

_TICK = """
if (ctx._source.triage == null) { ctx._source.triage = [:] }
ctx._source.triage[params.key] = params.value;
ctx._source.triage.remove(params.gone)
"""


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
    assert {dead.id: dead.document for dead in written.dead} == dict(
        zip(ids.to_pylist()[7:11], texts[7:11], strict=True)
    )
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


def test_a_document_that_is_too_large_for_the_server_costs_no_other(secured: Elasticsearch, prefix: str) -> None:
    """One above http.max_content_length; one below, but above what a node takes at a time: 429 for ever."""
    texts = [["small"]] * 6
    texts[2], texts[4] = ["x" * 17 * MEBI], ["x" * 15 * MEBI]
    ids, indices, documents = findings_of(6, prefix, falsepositives=pa.array(texts))
    written = BulkWriter(secured, most_bytes=64 * MEBI).index(ids, indices, documents)
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
