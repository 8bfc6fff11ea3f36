"""Analysts write on incidents of a real Elasticsearch while runs write on them, too; nothing of either is lost."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pytest
from elastic_transport import ConnectionTimeout
from tests.sinks.documents import count, ids_of, incidents_of, sources, stored

from agenttrail import jobs
from agenttrail.errors import InputError, SinkError
from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import BulkWriter, TriageConflictError, Triaged, setup, triage
from agenttrail.triage import Change, history

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

    from agenttrail.job_files import Job

AT = "2026-03-02T12:00:00Z"


def _mei(**what: str) -> Change:
    return Change(by="mei", at=AT, **what)


@pytest.fixture
def incident(client: Elasticsearch, prefix: str) -> str:
    """Return the id of the second of three stored incidents."""
    ids, indices, documents = incidents_of(3, prefix)
    BulkWriter(client).replace(ids, indices, documents)
    client.indices.refresh(index=f"{prefix}-incidents")
    return str(ids[1].as_py())


def test_status_and_assignee_are_set_and_notes_are_added(client: Elasticsearch, prefix: str, incident: str) -> None:
    before = sources(client, f"{prefix}-incidents")
    changes = [
        _mei(status="open", assignee="mei", note="a miner?"),
        Change(by="tom", at="2026-03-02T12:05:00Z", note="yes: {{7*7}} ${x} '); ctx._source.clear(); //"),
        Change(by="tom", at="2026-03-02T12:06:00Z", status="closed"),
    ]
    for change in changes:
        done = triage(client, incident[:20], change, prefix=prefix)
        assert (done.incident, done.conflicts) == (incident, 0)
    after = sources(client, f"{prefix}-incidents")
    told = after[incident].pop("triage")
    assert told == done.triage
    assert told == {
        "status": "closed",
        "assignee": "mei",
        "history": [
            {"at": AT, "by": "mei", "status": "open", "assignee": "mei", "note": "a miner?"},
            {"at": changes[1].at, "by": "tom", "note": changes[1].note},
            {"at": changes[2].at, "by": "tom", "status": "closed"},
        ],
    }
    assert after == before
    assert client.count(index=f"{prefix}-incidents", query={"match": {"triage.history.note": "miner"}})["count"] == 1


def test_what_other_tools_wrote_stays(client: Elasticsearch, prefix: str, incident: str) -> None:
    """Whether as an object or as dotted names; and becomes one object, so that no field says two things."""
    index = f"{prefix}-incidents-2026.03"
    before = sources(client, index)[incident]
    client.update(index=index, id=incident, doc={"triage.status": "new", "triage": {"ticket": 7, "note": "look"}})
    triage(client, incident, _mei(status="open"), prefix=prefix)
    after = sources(client, index)[incident]
    entry = {"at": AT, "by": "mei", "status": "open"}
    assert after == before | {"triage": {"status": "open", "ticket": 7, "note": "look", "history": [entry]}}


def test_it_stays_when_the_pipeline_writes_again_and_keeps_the_incident(
    client: Elasticsearch, prefix: str, incident: str
) -> None:
    triage(client, incident, _mei(note="mine"), prefix=prefix)
    writer = BulkWriter(client, prefix=prefix)
    writer.replace(*incidents_of(3, prefix, event__count=pa.array([5, 5, 5])))
    found = sources(client, f"{prefix}-incidents")[incident]
    assert (found["event.count"], found["triage"]["history"][0]["note"]) == (5, "mine")
    writer.supersede_incidents(pa.array([incident]), ids_of(1, "successor"))
    superseded = sources(client, f"{prefix}-incidents")[incident]
    assert "incident.superseded_by" in superseded
    assert len(history(triage(client, incident, _mei(status="closed"), prefix=prefix).triage)) == 2


def test_what_is_no_incident_is_told(client: Elasticsearch, prefix: str, incident: str) -> None:
    with pytest.raises(InputError, match="no incident 'zzz'"):
        triage(client, "zzz", _mei(note="x"), prefix=prefix)
    with pytest.raises(InputError, match="is the start of 3 incidents: write more of it"):
        triage(client, "", _mei(note="x"), prefix=prefix)
    assert incident in sources(client, f"{prefix}-incidents")


def test_indices_of_an_older_version_are_not_written_with_guessed_types(
    client: Elasticsearch, prefix: str, incident: str
) -> None:
    """Else setup could never mend them."""
    old = f"{prefix}-incidents-2025.01"
    component = client.cluster.get_component_template(name=f"{prefix}-incidents").body["component_templates"][0]
    template = component["component_template"]["template"]
    template["mappings"]["properties"]["triage"]["properties"].pop("history")
    client.cluster.put_component_template(name=f"{prefix}-incidents", template=template)
    client.index(index=old, id="ab" * 16, document={"incident.id": "ab" * 16}, refresh=True)
    with pytest.raises(SinkError, match="run 'agenttrail elasticsearch setup' once more"):
        triage(client, "abab", _mei(note="x"), prefix=prefix)
    setup(client, prefix=prefix)
    triage(client, "abab", _mei(note="x"), prefix=prefix)
    assert incident != "ab" * 16
    assert client.count(index=old, query={"range": {"triage.history.at": {"gte": AT}}}).body["count"] == 1


# -- somebody else writes in between


def _before_the_write(monkeypatch: pytest.MonkeyPatch, client: Elasticsearch, act: Callable[[], object]) -> None:
    """Have something done between the reading and the first writing of a triage, against the real server."""
    real, acted = client.update, threading.Event()

    def update(**request: Any) -> Any:
        if "if_seq_no" in request and not acted.is_set():
            acted.set()
            act()
        return real(**request)

    monkeypatch.setattr(client, "update", update)


def test_a_write_of_the_pipeline_in_between_is_no_reason_to_refuse(
    client: Elasticsearch, prefix: str, incident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = incidents_of(3, prefix, event__count=pa.array([9, 9, 9]))
    _before_the_write(monkeypatch, client, lambda: BulkWriter(client).replace(*again))
    done = triage(client, incident, _mei(status="open"), prefix=prefix)
    found = sources(client, f"{prefix}-incidents")[incident]
    assert done.conflicts == 1
    assert (found["event.count"], found["triage"]) == (9, done.triage)


def test_another_analyst_in_between_is(
    client: Elasticsearch, prefix: str, incident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tom = Change(by="tom", at="2026-03-02T12:00:01Z", status="closed", note="a test of mine")
    _before_the_write(monkeypatch, client, lambda: triage(client, incident, tom, prefix=prefix))
    with pytest.raises(TriageConflictError, match=r"tom: status closed, note: a test of mine.*nothing was written"):
        triage(client, incident, _mei(status="in_progress", note="digging"), prefix=prefix)
    found = sources(client, f"{prefix}-incidents")[incident]["triage"]
    assert found == {"status": "closed", "history": [tom.entry()]}


def test_other_tools_in_between_are_too(
    client: Elasticsearch, prefix: str, incident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = f"{prefix}-incidents-2026.03"
    doc = {"triage": {"ticket": "INC-7"}}
    _before_the_write(monkeypatch, client, lambda: client.index(index=index, id=incident, document=_with(doc)))

    def _with(more: dict[str, Any]) -> dict[str, Any]:
        return {**sources(client, index)[incident], **more}

    with pytest.raises(TriageConflictError, match="INC-7"):
        triage(client, incident, _mei(note="x"), prefix=prefix)
    assert sources(client, index)[incident]["triage"] == doc["triage"]


def test_an_incident_that_goes_in_between_is_not_written_back(
    client: Elasticsearch, prefix: str, incident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BulkWriter(client, prefix=prefix)
    gone = pa.array([incident])
    _before_the_write(monkeypatch, client, lambda: writer.supersede_incidents(gone, ids_of(1, "successor")))
    with pytest.raises(InputError, match="is no longer there"):
        triage(client, incident, _mei(note="x"), prefix=prefix)
    assert count(client, f"{prefix}-incidents") == 2


def test_a_lost_answer_writes_nothing_twice(
    client: Elasticsearch, prefix: str, incident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did what it was asked; the connection ended before it said so."""
    real, lost = client.update, threading.Event()

    def update(**request: Any) -> Any:
        done = real(**request)
        if not lost.is_set():
            lost.set()
            told = "timed out"
            raise ConnectionTimeout(told)
        return done

    monkeypatch.setattr(client, "update", update)
    triage(client, incident, _mei(note="once"), prefix=prefix, patience=30.0)
    assert sources(client, f"{prefix}-incidents")[incident]["triage"]["history"] == [_mei(note="once").entry()]


# -- two analysts and a pipeline at once


class Work(NamedTuple):
    """What an analyst did: notes by incident, and how often somebody else was first."""

    notes: dict[str, list[str]]
    refused: int
    conflicts: int


def _analyst(name: str, client: Elasticsearch, prefix: str, ids: list[str], goes_on: Callable[[int], bool]) -> Work:
    """Write on one incident after the other, round after round; when refused, look and try again."""
    notes: dict[str, list[str]] = {id_: [] for id_ in ids}
    turn = refused = conflicts = 0
    while goes_on(turn):
        for id_ in ids:
            note = f"{name}'s note {turn} on {id_}"
            status = ("open", "in_progress")[turn % 2]
            done: Triaged | None = None
            while done is None:
                change = Change(by=name, at=datetime.now(UTC).isoformat(), status=status, assignee=name, note=note)
                try:
                    done = triage(client, id_, change, prefix=prefix)
                except TriageConflictError:
                    refused += 1
            conflicts += done.conflicts
            notes[id_].append(note)
        turn += 1
    return Work(notes, refused, conflicts)


def _assert_nothing_is_lost(found: dict[str, dict[str, Any]], work: dict[str, Work]) -> None:
    """Every note of everybody is there, once, in the order in which each wrote them."""
    for id_, document in found.items():
        entries = document["triage"]["history"]
        for name, done in work.items():
            assert [entry["note"] for entry in entries if entry["by"] == name] == done.notes[id_]
        assert len(entries) == sum(len(done.notes[id_]) for done in work.values())
        assert document["triage"]["assignee"] == entries[-1]["by"]
        assert document["triage"]["status"] == entries[-1]["status"]


def test_two_analysts_and_a_hundred_writes_of_the_pipeline(client: Elasticsearch, prefix: str) -> None:
    """As fast as they can, on the same few incidents: everybody is in everybody's way."""
    writer = BulkWriter(client)
    ids, indices, documents = incidents_of(3, prefix)
    writer.replace(ids, indices, documents)
    client.indices.refresh(index=f"{prefix}-incidents")
    stop = threading.Event()

    def pipeline() -> int:
        turn = 0
        while not stop.is_set() or turn < 100:
            turn += 1
            written = writer.replace(*incidents_of(3, prefix, event__count=pa.array([turn] * 3)))
            assert (written.updated, written.dead) == (3, [])
        return turn

    with ThreadPoolExecutor(3) as pool:
        turns = pool.submit(pipeline)
        started = {
            name: pool.submit(_analyst, name, client, prefix, ids.to_pylist(), lambda turn: turn < 20)
            for name in ("mei", "tom")
        }
        try:
            work = {name: future.result() for name, future in started.items()}
        finally:
            stop.set()
    found = sources(client, f"{prefix}-incidents")
    _assert_nothing_is_lost(found, work)
    plain = dict(zip(ids.to_pylist(), map(json.loads, documents.to_pylist()), strict=True))
    for id_, document in found.items():
        document.pop("triage")
        assert document == plain[id_] | {"event.count": turns.result()}
    assert sum(done.conflicts for done in work.values()) > 0, "the pipeline was never in the way"
    assert sum(done.refused for done in work.values()) > 0, "the analysts were never in each other's way"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small simulated day."""
    directory = tmp_path_factory.mktemp("triage-day")
    simulate(directory, agents=3, hours=1.0, seed=5)
    return directory


def _with_other_advice(job: Job) -> Job:
    """Return a job that writes every incident differently: its rules recommend something else."""
    return replace(job, rules=tuple(replace(rule, recommendation=("Ask somebody else.",)) for rule in job.rules))


def test_two_analysts_triage_a_day_while_its_job_runs_again(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """All notes are there in the end, and the rest is what an undisturbed run leaves."""
    job = replace(
        load_job(day / "job.yml", output=str(tmp_path)), elasticsearch={"url": elasticsearch.url, "prefix": prefix}
    )
    other = _with_other_advice(job)
    jobs.run(job)
    first = {id_: hit["_version"] for id_, hit in stored(client, f"{prefix}-incidents").items()}
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        started = {
            name: pool.submit(_analyst, name, client, prefix, sorted(first), lambda _: not stop.is_set())
            for name in ("mei", "tom")
        }
        try:
            for each in (other, job):
                jobs.run(each, RunOptions(shards=3))
        finally:
            stop.set()
        work = {name: future.result() for name, future in started.items()}
    lines = (tmp_path / "incidents.ndjson").read_text(encoding="utf-8").splitlines()
    undisturbed = {one["incident.id"]: one for one in map(json.loads, lines)}
    found = sources(client, f"{prefix}-incidents")
    _assert_nothing_is_lost(found, work)
    assert {id_: {k: v for k, v in one.items() if k != "triage"} for id_, one in found.items()} == undisturbed
    assert all(one["recommendation"] != ["Ask somebody else."] for one in found.values())
    assert min(len(notes) for done in work.values() for notes in done.notes.values()) >= 3
