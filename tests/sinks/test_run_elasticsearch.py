"""Whole runs into a real Elasticsearch: what stands there afterwards is what the run found, whatever happened."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import apache_beam as beam
import pytest

from agenttrail import jobs
from agenttrail.cli import main
from agenttrail.job_files import Job, load_job
from agenttrail.jobs import RunOptions
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import ElasticsearchSettings, connect, setup
from agenttrail.sinks.elasticsearch_bulk import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

pytestmark = pytest.mark.xdist_group("run-elasticsearch")
Documents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small simulated day."""
    directory = tmp_path_factory.mktemp("day")
    simulate(directory, agents=6, hours=2.5, seed=23)
    return directory


@pytest.fixture
def prefix() -> str:
    """Give names that no other test uses."""
    return f"r{uuid4().hex[:12]}"


def _job(day: Path, output: Path, server: Server, prefix: str) -> Job:
    job = load_job(day / "job.yml", output=str(output))
    return replace(job, elasticsearch=_settings(server, prefix))


def _settings(server: Server, prefix: str) -> dict[str, Any]:
    who = {"username": "elastic", "password": "${TEST_PASSWORD}"} if server.password else {}
    return {"url": server.url, "prefix": prefix, **who}


def _ready(server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Elasticsearch:
    monkeypatch.setenv("TEST_PASSWORD", server.password or "none")
    client = connect(ElasticsearchSettings(**_settings(server, prefix)), patience=60.0)
    setup(client, prefix=prefix)
    return client


@pytest.fixture
def client(elasticsearch: Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elasticsearch]:
    """Give a client of a server that is set up for ``prefix``."""
    client = _ready(elasticsearch, prefix, monkeypatch)
    yield client
    for index in client.indices.get(index=f"{prefix}-*", filter_path="*.aliases").body:
        client.indices.delete(index=index)


def _stored(client: Elasticsearch, prefix: str, kind: str) -> Documents:
    client.indices.refresh(index=f"{prefix}-{kind}-*")
    hits = client.search(index=f"{prefix}-{kind}-*", size=10_000).body["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def _written(output: Path, kind: str) -> Documents:
    lines = (output / f"{kind}.ndjson").read_text(encoding="utf-8").splitlines()
    return {document[f"{kind.removesuffix('s')}.id"]: document for document in map(json.loads, lines)}


def test_documents_are_those_of_the_files(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    jobs.run(_job(day, tmp_path, elasticsearch, prefix))
    for kind in ("findings", "incidents"):
        documents = _written(tmp_path, kind)
        assert documents
        assert _stored(client, prefix, kind) == documents
    told = json.loads((tmp_path / "run.json").read_text())["elasticsearch"]
    assert told["findings"]["created"] == len(_written(tmp_path, "findings"))
    assert told["incidents"]["created"] == len(_written(tmp_path, "incidents"))


def test_a_second_run_changes_nothing_and_triage_stays(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    jobs.run(_job(day, tmp_path, elasticsearch, prefix))
    before = _stored(client, prefix, "incidents")
    touched = min(before)
    index = client.search(index=f"{prefix}-incidents-*", query={"ids": {"values": [touched]}}).body["hits"]["hits"][0]
    client.update(index=index["_index"], id=touched, doc={"triage.status": "open", "triage": {"note": "mine"}})
    jobs.run(_job(day, tmp_path, elasticsearch, prefix), RunOptions(shards=3, block_bytes=100_000))
    after = _stored(client, prefix, "incidents")
    assert after[touched] == before[touched] | {"triage.status": "open", "triage": {"note": "mine"}}
    assert after | {touched: before[touched]} == before
    told = json.loads((tmp_path / "run.json").read_text())["elasticsearch"]["incidents"]
    assert told == {"unchanged": len(before)}


def test_an_incident_is_made_of_the_findings_of_earlier_runs_too(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """The second run sees one rule only, and the incident still shows what the first had found."""
    job = _job(day, tmp_path, elasticsearch, prefix)
    jobs.run(job)
    before = _stored(client, prefix, "incidents")
    one = next(rule for rule in job.rules if rule.name.endswith("egress-outside-allow-list"))
    jobs.run(replace(job, rules=tuple(rule if rule == one else replace(rule, off="not now") for rule in job.rules)))
    assert (tmp_path / "incidents.ndjson").read_bytes() == b""
    assert _stored(client, prefix, "incidents") == before


@pytest.mark.parametrize(("how", "request_number"), [("stop", 4), ("kill", 8)])
def test_a_server_that_goes_away_in_the_middle_of_a_run_costs_nothing(
    how: str, request_number: int, day: Path, tmp_path: Path, elasticsearch_restartable: Server, prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    server = elasticsearch_restartable
    client = _ready(server, prefix, monkeypatch)
    requests = _interrupt(monkeypatch, request_number, getattr(server, how), server.start)
    jobs.run(_job(day, tmp_path, server, prefix))
    assert requests() > request_number  # it went away while there was more to write
    for kind in ("findings", "incidents"):
        assert _stored(client, prefix, kind) == _written(tmp_path, kind)
    assert "elasticsearch" not in (tmp_path / "dead_letters.ndjson").read_text(encoding="utf-8")


def _interrupt(
    monkeypatch: pytest.MonkeyPatch, number: int, stop: Callable[[], None], start: Callable[[], None]
) -> Callable[[], int]:
    """Stop the server right before bulk request ``number``, start it two seconds later; return what counts requests."""
    sent = 0
    send = Delivery._request  # noqa: SLF001 - the place between two requests

    def counted(self: Delivery, rows: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == number:
            stop()
            threading.Timer(2.0, start).start()
        return send(self, rows)

    monkeypatch.setattr(Delivery, "_request", counted)
    return lambda: sent


def test_a_document_that_is_refused_becomes_a_dead_letter_and_the_run_goes_on(
    day: Path, tmp_path: Path, elasticsearch: Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's own template says that ports are bytes: findings with a port above 127 do not fit."""
    client = _ready(elasticsearch, prefix, monkeypatch)
    client.cluster.put_component_template(
        name=f"{prefix}@custom", template={"mappings": {"properties": {"peer.port": {"type": "byte"}}}}
    )
    jobs.run(_job(day, tmp_path, elasticsearch, prefix))
    documents = _written(tmp_path, "findings")
    fit = {id_: one for id_, one in documents.items() if all(port < 128 for port in one.get("peer.port", []))}
    assert 0 < len(fit) < len(documents)
    assert _stored(client, prefix, "findings") == fit
    dead = [json.loads(line) for line in (tmp_path / "dead_letters.ndjson").read_text(encoding="utf-8").splitlines()]
    refused = [one for one in dead if one["error.stage"] == "elasticsearch" and one["event.dataset"] == "findings"]
    originals = {json.loads(one["event.original"])["finding.id"] for one in refused}
    assert originals == set(documents) - set(fit)
    assert all("peer.port" in one["error.message"] for one in refused)
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["elasticsearch"]["findings"] == {"created": len(fit), "refused": len(refused)}
    assert any("refused" in note for note in summary["notes"])


def test_without_setup_or_server_the_run_does_not_begin(
    day: Path, tmp_path: Path, elasticsearch: Server, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    job = tmp_path / "job.yml"
    text = (day / "job.yml").read_text(encoding="utf-8").replace('path: "', f'path: "{day}/')
    text = text.replace("path: k8s", f"path: {day}/k8s")
    for url, said in ((elasticsearch.url, "elasticsearch setup"), ("http://localhost:9", "check that it runs")):
        output = f"output: {{directory: {tmp_path}/out, elasticsearch: {{url: '{url}', prefix: {prefix}}}}}\n"
        job.write_text(text.replace("output: {directory: out}\n", output), encoding="utf-8")
        assert main(["run", str(job)]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["basic", "api_key", "tls"])
def test_credentials_come_from_the_environment_and_are_never_shown(
    way: str, day: Path, tmp_path: Path, elasticsearch_secured: Server, elasticsearch_tls: Server,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The commands of the README, as the administrator sets up and as a job writes."""
    server = elasticsearch_tls if way == "tls" else elasticsearch_secured
    secret = str(server.password)
    monkeypatch.setenv("ELASTICSEARCH_USERNAME", "elastic")
    monkeypatch.setenv("ELASTICSEARCH_PASSWORD", secret)
    if server.ca_certs:
        monkeypatch.setenv("ELASTICSEARCH_CA_CERTS", server.ca_certs)
    assert main(["elasticsearch", "setup", "--url", server.url]) == 0
    if way == "api_key":
        administrator = connect(ElasticsearchSettings.from_environment(server.url))
        rights = {"names": ["agenttrail-*"], "privileges": ["read", "write", "create_index", "maintenance"]}
        key = administrator.security.create_api_key(name="job", role_descriptors={"job": {"indices": [rights]}}).body
        secret = key["encoded"]
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", secret)
    output = str(tmp_path / "out")
    assert main(["run", str(day / "job.yml"), "--output", output, "--elasticsearch", server.url]) == 0
    assert main(["incidents", "list", "--from", server.url, "--json"]) == 0
    shown = capsys.readouterr()
    listed = [json.loads(line)["incident.id"] for line in shown.out.splitlines() if line.startswith("{")]
    assert set(_written(tmp_path / "out", "incidents")) <= set(listed)
    assert main(["incidents", "show", "--from", server.url, listed[0]]) == 0
    shown_one = capsys.readouterr()
    assert "sure because" in shown_one.out
    with beam.Pipeline(runner=_Unrun()) as pipeline:
        jobs.build(pipeline, load_job(day / "job.yml", output=output, elasticsearch=server.url), RunOptions())
        graph = pipeline.to_runner_api().SerializeToString()
    assert secret.encode() not in graph
    for text in (shown.out, shown.err, shown_one.out, (tmp_path / "out" / "run.json").read_text()):
        assert secret not in text


class _Unrun(beam.runners.PipelineRunner):  # type: ignore[misc, unused-ignore]
    """Takes a graph and does nothing with it."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: Any) -> Any:  # noqa: ARG002 - the runner's signature
        return beam.runners.runner.PipelineResult(beam.runners.runner.PipelineState.DONE)
