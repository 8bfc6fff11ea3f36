"""The questions that analysts ask first, asked of a real Elasticsearch about a simulated day.

What a question should find is worked out here from the files of the same run, by plain Python and not by a query.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pytest
from tests.sinks.documents import client_of, tidy

from agenttrail import jobs
from agenttrail.incident_files import read_findings, read_incidents, read_timeline
from agenttrail.job_files import load_job
from agenttrail.questions import Question, questions
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import BulkWriter, setup, triage
from agenttrail.triage import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

pytestmark = pytest.mark.xdist_group("questions")  # one run for all of them
Document = dict[str, Any]
HIGH = ("high", "critical")
DONE = ("closed", "false_positive")


@dataclass(frozen=True)
class Day:
    """A day in Elasticsearch, and the same from its files with what analysts did to it.

    Attributes:
        client: of the Elasticsearch.
        prefix: of the indices.
        documents: by kind and id, with flat keys.
        values: something to ask about: by question and name.
    """

    client: Elasticsearch
    prefix: str
    documents: dict[str, dict[str, Document]]
    values: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def day(elasticsearch: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Run a simulated day, have analysts work on some of its incidents, and read its files."""
    directory, prefix = tmp_path_factory.mktemp("questions"), f"t{uuid4().hex[:12]}"
    simulate(directory / "day", agents=6, hours=2.5, seed=23)
    job = load_job(directory / "day" / "job.yml", output=str(directory / "out"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        client = client_of(elasticsearch, monkeypatch)
        setup(client, prefix=prefix)
        jobs.run(replace(job, elasticsearch={"url": elasticsearch.url, "prefix": prefix}))
        documents = _read(str(directory / "out"))
        _work(client, prefix, documents["incidents"])
        yield Day(client, prefix, documents, _values(documents))
        tidy(client, prefix)


def _read(out: str) -> dict[str, dict[str, Document]]:
    incidents = {one["incident.id"]: one for one in read_incidents(out)}
    findings = Path(out, "findings.ndjson").read_text(encoding="utf-8").splitlines()
    timeline = [entry for id_ in incidents for entry in read_timeline(out, id_)]
    assert all(read_findings(out, id_) for id_ in incidents)
    return {
        "incidents": incidents,
        "findings": {one["finding.id"]: one for one in map(json.loads, findings)},
        "timeline": {entry["timeline.id"]: entry for entry in timeline},
    }


def _work(client: Elasticsearch, prefix: str, incidents: dict[str, Document]) -> None:
    """Have two analysts work on incidents, and one of these superseded; the same in the documents."""
    by_risk = sorted(incidents.values(), key=lambda one: (-one["incident.risk_score"], one["incident.id"]))
    ids = [one["incident.id"] for one in by_risk]
    work: list[dict[str, str]] = [
        {"status": "open", "assignee": "mei"},
        {"status": "false_positive", "assignee": "mei", "note": "the red team was at it"},
        {"status": "in_progress", "assignee": "tom", "note": "a miner?"},
        {"status": "closed", "assignee": "mei"},
    ]
    assert len(ids) > len(work)
    for id_, what in zip(ids, work, strict=False):
        triage(client, id_, Change(by="mei", at="2026-03-03T09:00:00Z", **what), prefix=prefix)
        incidents[id_] |= {f"triage.{name}": value for name, value in what.items()}
    writer = BulkWriter(client, prefix=prefix)
    assert writer.supersede_incidents(pa.array([ids[2]]), pa.array([ids[4]])).updated == 1
    incidents[ids[2]]["incident.superseded_by"] = ids[4]
    client.indices.refresh(index=f"{prefix}-*")


def _values(documents: dict[str, dict[str, Document]]) -> dict[str, dict[str, str]]:
    """Return what to ask about: of somebody who did something at the end of a tool call."""
    findings = documents["findings"].values()
    worst = next(one for one in findings if one["finding.severity"] == "high" and "gen_ai.tool.call.gap" in one)
    live = [one for one in documents["incidents"].values() if "incident.superseded_by" not in one]
    incident = next(one for one in live if "gen_ai.agent.id" in one and "T1496.001" in one["threat.technique.id"])
    shared = next(peer for peer in _peers(findings) if len(_talked_to(findings, peer)) > 1)
    begin = datetime.fromisoformat(worst["finding.first_seen"])
    times = sorted(one["incident.first_seen"] for one in live)
    return {
        "assigned-to-me": {"me": "mei"},
        "by-agent": {"agent": incident["gen_ai.agent.id"]},
        "by-technique": {"technique": "T1496"},
        "by-job": {"job": incident["job.id"]},
        "by-host": {"host": incident["host.name"]},
        "new-since": {"since": times[1]},
        "from-this-sandbox": {"sandbox": worst["sandbox.id"]},
        "before-this-finding": {
            "sandbox": worst["sandbox.id"],
            "ten_minutes_before": _text(begin - timedelta(minutes=10)),
            "first_seen": _text(begin),
        },
        "who-else": {"peer": shared, "sandbox": min(_talked_to(findings, shared))},
        "same-title": {"title": "Blocked egress"},
        "findings-of-this-incident": {"incident": incident["incident.id"]},
    }


def _peers(findings: Any) -> list[str]:
    return sorted({peer for one in findings for peer in _of_finding(one)})


def _talked_to(findings: Any, peer: str) -> set[str]:
    return {one["sandbox.id"] for one in findings if peer in _of_finding(one) and "sandbox.id" in one}


def _of_finding(one: Document) -> list[str]:
    return [*([one["peer.ip"]] if "peer.ip" in one else []), *one.get("destination.ip", [])]


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(text: str) -> int:
    """Return a time as Elasticsearch keeps it."""
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


def _is_live(one: Document) -> bool:
    return "incident.superseded_by" not in one


def _is_of_technique(one: Document, technique: str) -> bool:
    return any(id_.split(".")[0] == technique for id_ in one["threat.technique.id"])


def _is_before(one: Document, value: dict[str, str]) -> bool:
    begin, end = (_milliseconds(value[name]) for name in ("ten_minutes_before", "first_seen"))
    return one.get("sandbox.id") == value["sandbox"] and begin <= _milliseconds(one["@timestamp"]) < end


ANSWERS: dict[str, Callable[[Document, dict[str, str]], bool]] = {
    "open-and-high": lambda one, _: (
        _is_live(one) and one["incident.severity"] in HIGH and one.get("triage.status") not in DONE
    ),
    "untriaged": lambda one, _: _is_live(one) and "triage.status" not in one,
    "assigned-to-me": lambda one, v: one.get("triage.assignee") == v["me"] and one["triage.status"] not in DONE,
    "by-agent": lambda one, v: _is_live(one) and one.get("gen_ai.agent.id") == v["agent"],
    "by-technique": lambda one, v: _is_live(one) and _is_of_technique(one, v["technique"]),
    "by-job": lambda one, v: _is_live(one) and one.get("job.id") == v["job"],
    "by-host": lambda one, v: _is_live(one) and one.get("host.name") == v["host"],
    "new-since": lambda one, v: (
        _is_live(one) and _milliseconds(one["incident.first_seen"]) >= _milliseconds(v["since"])
    ),
    "from-this-sandbox": lambda one, v: one.get("sandbox.id") == v["sandbox"],
    "before-this-finding": _is_before,
    "who-else": lambda one, v: v["peer"] in _of_finding(one) and one.get("sandbox.id") != v["sandbox"],
    "tool-call-before": lambda one, _: (
        one.get("gen_ai.tool.call.gap", 61) <= 60 and one["finding.severity"] in ("medium", *HIGH)
    ),
    "two-kinds-of-sources": lambda one, _: (
        _is_live(one) and any("independent sources agree" in text for text in one["incident.risk_factors"])
    ),
    "ambiguous": lambda one, _: _is_live(one) and one["attribution.status"] == "ambiguous",
    "superseded": lambda one, _: not _is_live(one),
    "same-title": lambda one, v: one["finding.title"] == v["title"],
    "findings-of-this-incident": lambda one, v: one.get("incident.id") == v["incident"],
    "got-through": lambda one, _: one["finding.severity"] in HIGH and "success" in one.get("event.outcome", []),
    "gaps": lambda one, _: one["timeline.kind"] == "gap",
    "false-positives": lambda one, _: one.get("triage.status") == "false_positive",
}


def test_there_are_twenty() -> None:
    assert len(questions()) == len({one.question for one in questions()}) == 20
    assert ANSWERS.keys() == {one.id for one in questions()}


@pytest.mark.parametrize("question", questions(), ids=lambda one: one.id)
def test_the_answer_is_what_the_files_say(day: Day, question: Question) -> None:
    """As saved, with its columns and in its order; and there is something to find, and something to leave out."""
    values = day.values.get(question.id, {})
    assert values.keys() == question.examples.keys()
    known = day.documents[question.of]
    hits = day.client.search(
        index=f"{day.prefix}-{question.of}", query={"kql": {"query": question.kql(values)}}, size=10_000,
        sort=[{name: direction} for name, direction in question.sort], source=False,
        fields=[{"field": name} for name in question.columns],
    ).body["hits"]["hits"]  # fmt: skip
    expected = {id_ for id_, one in known.items() if ANSWERS[question.id](one, values)}
    assert {hit["_id"] for hit in hits} == expected
    assert len(hits) == len(expected)
    assert 0 < len(expected) < len(known)
    assert all(hit["fields"].keys() & set(question.columns) for hit in hits)
    keys = [hit["sort"][0] for hit in hits]
    assert keys == sorted(keys, reverse=question.sort[0][1] == "desc")


@pytest.mark.parametrize("question", [one for one in questions() if one.examples], ids=lambda one: one.id)
def test_what_a_log_says_is_a_value_and_no_query(day: Day, question: Question) -> None:
    hostile = dict.fromkeys(question.examples, '" or not nothing : "*') | {
        name: value for name, value in question.examples.items() if name in ("technique", "since", "peer")
    }
    hostile |= {name: value for name, value in question.examples.items() if "first" in name or "before" in name}
    query = {"kql": {"query": question.kql(hostile)}}
    found = day.client.search(index=f"{day.prefix}-{question.of}", query=query, size=0)["hits"]["total"]["value"]
    assert found < len(day.documents[question.of])
    assert found == 0 or question.id in ("by-technique", "new-since")
