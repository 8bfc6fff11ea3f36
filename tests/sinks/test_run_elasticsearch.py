"""Whole runs into a real Elasticsearch: what stands there afterwards is what the run found, whatever happened."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest
import yaml
from tests.sinks.documents import tidy

from agenttrail import jobs
from agenttrail.cli import main
from agenttrail.job_files import Job, load_job
from agenttrail.jobs import RunOptions
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import ElasticsearchSettings, connect
from agenttrail.sinks.elasticsearch_bulk import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

Documents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small simulated day."""
    directory = tmp_path_factory.mktemp("day")
    simulate(directory, agents=6, hours=2.5, seed=23)
    return directory


def _job(day: Path, output: Path, server: Server, prefix: str, **settings: Any) -> Job:
    """Return the day's job with an Elasticsearch of the harness; its password is in TEST_PASSWORD."""
    who = {"username": "elastic", "password": "${TEST_PASSWORD}"} if server.password else {}
    trust = {"ca_certs": server.ca_certs} if server.ca_certs else {}
    job = load_job(day / "job.yml", output=str(output))
    return replace(job, elasticsearch={"url": server.url, "prefix": prefix, **who, **trust, **settings})


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


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_goes_away_in_the_middle_of_a_run_costs_nothing(
    how: str, day: Path, tmp_path: Path, secured: Elasticsearch, elasticsearch_secured: Server, prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    server, request_number = elasticsearch_secured, {"stop": 4, "kill": 7}[how]  # incidents, findings

    def outage() -> None:
        getattr(server, how)()
        threading.Timer(2.0, server.start).start()

    requests = _interrupt(monkeypatch, request_number, outage)
    jobs.run(_job(day, tmp_path, server, prefix))
    assert requests() > request_number + 2  # there was more to write when it went away
    for kind in ("findings", "incidents"):
        assert _stored(secured, prefix, kind) == _written(tmp_path, kind)
        told = json.loads((tmp_path / "run.json").read_text())["elasticsearch"][kind]
        # what was written without an answer is found there when it is written again
        assert sum(told.values()) == len(_written(tmp_path, kind))
        assert set(told) <= {"created", "updated", "unchanged"}
    assert '"elasticsearch"' not in (tmp_path / "dead_letters.ndjson").read_text(encoding="utf-8")


def test_a_server_that_stays_away_ends_the_run_with_a_sentence(
    day: Path, tmp_path: Path, secured: Elasticsearch, elasticsearch_secured: Server, prefix: str,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """And with status 1; what an earlier run left in the directory is as it was, and the next run mends all."""
    job = _job(day, tmp_path, elasticsearch_secured, prefix, patience=1.0)
    jobs.run(job)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ndjson")}
    stored = _stored(secured, prefix, "incidents")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("agenttrail.job_files.load_job", lambda *_, **__: job)
        requests = _interrupt(monkeypatch, 3, elasticsearch_secured.kill)
        assert main(["run", "job.yml"]) == 1
        assert requests() > 3
        *_, said = capsys.readouterr().err.splitlines()  # a run of more than ten seconds told how far it was
        assert said.startswith("agenttrail: Elasticsearch at ")
        assert said.endswith("check that it runs and can be reached from here")
        assert "in 1 s: no connection" in said
        assert "trying again for 1 s" in caplog.text
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ndjson")} == before
        elasticsearch_secured.start()
        assert main(["run", "job.yml"]) == 0
    assert _stored(secured, prefix, "incidents") == stored


def _interrupt(monkeypatch: pytest.MonkeyPatch, number: int, outage: Callable[[], None]) -> Callable[[], int]:
    """Let something happen right before bulk request ``number``; return what counts requests."""
    sent = 0
    send = Delivery._request  # noqa: SLF001 - the place between two requests

    def counted(self: Delivery, rows: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == number:
            outage()
        return send(self, rows)

    monkeypatch.setattr(Delivery, "_request", counted)
    return lambda: sent


def test_a_document_that_is_refused_becomes_a_dead_letter_and_the_run_goes_on(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """Somebody's own template says that ports are bytes: findings with a port above 127 do not fit."""
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


def test_a_finding_that_is_refused_keeps_its_place_where_an_earlier_run_has_written_it(
    day: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """Somebody's own pipeline breaks on every finding, for now: incidents are what all stored findings make."""
    jobs.run(_job(day, tmp_path, elasticsearch, prefix))
    before = {kind: _stored(client, prefix, kind) for kind in ("findings", "incidents")}
    client.ingest.put_pipeline(id=prefix, processors=[{"convert": {"field": "no.such", "type": "integer"}}])
    client.indices.put_settings(index=f"{prefix}-findings-*", settings={"index.final_pipeline": prefix})
    jobs.run(_job(day, tmp_path, elasticsearch, prefix))
    told = json.loads((tmp_path / "run.json").read_text())["elasticsearch"]
    assert told["findings"] == {"refused": len(before["findings"])}
    assert told["incidents"] == {"unchanged": len(before["incidents"])}
    assert {kind: _stored(client, prefix, kind) for kind in before} == before
    client.indices.put_settings(index=f"{prefix}-findings-*", settings={"index.final_pipeline": "_none"})
    client.ingest.delete_pipeline(id=prefix)


def test_without_setup_or_server_the_run_does_not_begin(
    day: Path, tmp_path: Path, elasticsearch: Server, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    for url, said in ((elasticsearch.url, "elasticsearch setup"), ("http://localhost:9", "check that it runs")):
        job = _job_file(day, tmp_path, elasticsearch={"url": url, "prefix": prefix})
        assert main(["run", str(job)]) == 1
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", ["basic", "api_key", "job_file"])
def test_credentials_come_from_the_environment_and_are_never_shown(
    way: str, day: Path, tmp_path: Path, elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The commands of the README, over TLS, as the administrator sets up and as a job writes."""
    server, secret, output = elasticsearch_secured, elasticsearch_secured.password, tmp_path / "out"
    administrator = _administrator(server, monkeypatch)
    tidy(administrator, "agenttrail")
    assert main(["elasticsearch", "setup", "--url", server.url]) == 0
    command = ["run", str(day / "job.yml"), "--output", str(output), "--elasticsearch", server.url]
    if way != "basic":
        key = administrator.security.create_api_key(name="job", role_descriptors={"job": {"indices": [_RIGHTS]}}).body
        secret = key["encoded"]
        for name in ("USERNAME", "PASSWORD"):
            monkeypatch.delenv(f"ELASTICSEARCH_{name}")
    if way == "api_key":
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", secret)
    if way == "job_file":
        monkeypatch.setenv("KEY_OF_JOB", secret)
        monkeypatch.setenv("WHERE", server.url)
        section = {"url": "${WHERE}", "api_key": "${KEY_OF_JOB}", "ca_certs": server.ca_certs}
        command = ["run", str(_job_file(day, tmp_path, elasticsearch=section))]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "ready: agenttrail-incidents" in shown.out
    for kind in ("findings", "incidents"):
        assert _stored(administrator, "agenttrail", kind) == _written(output, kind) != {}
    job = load_job(command[1], output=str(output), elasticsearch=None if way == "job_file" else server.url)
    assert job.elasticsearch
    with beam.Pipeline(runner=_Unrun()) as pipeline:
        jobs.build(pipeline, job, RunOptions())
        graph = pipeline.to_runner_api().SerializeToString()
    assert secret.encode() not in graph
    assert secret not in repr(job)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(secret in text for text in (shown.out, shown.err))
    assert not any(secret.encode() in path.read_bytes() for path in files)
    tidy(administrator, "agenttrail")


_RIGHTS = {"names": ["agenttrail-*"], "privileges": ["read", "write", "create_index", "maintenance"]}


def _administrator(server: Server, monkeypatch: pytest.MonkeyPatch) -> Elasticsearch:
    """Put into the environment what the README names, and return a client that uses it."""
    for name, value in {"USERNAME": "elastic", "PASSWORD": server.password, "CA_CERTS": server.ca_certs}.items():
        monkeypatch.setenv(f"ELASTICSEARCH_{name}", value)
    return connect(ElasticsearchSettings.from_environment(server.url))


def _job_file(day: Path, directory: Path, elasticsearch: dict[str, Any]) -> Path:
    """Write the day's job with an output directory ``out`` and this Elasticsearch."""
    job = yaml.safe_load((day / "job.yml").read_text(encoding="utf-8"))
    for source in (*job["events"], *job["leases"]):
        source["path"] = str(day / source["path"])
    path = directory / "job.yml"
    job["output"] = {"directory": "out", "elasticsearch": elasticsearch}
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return path


def test_incidents_are_listed_and_shown_as_from_the_directory(
    day: Path, tmp_path: Path, elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server, output = elasticsearch_secured, str(tmp_path / "out")
    administrator = _administrator(server, monkeypatch)
    tidy(administrator, "agenttrail")
    assert main(["elasticsearch", "setup", "--url", server.url]) == 0
    assert main(["run", str(day / "job.yml"), "--output", output, "--elasticsearch", server.url]) == 0

    def told(*command: str) -> list[Any]:
        """Return the lines or documents that a command says of both, which are the same."""
        capsys.readouterr()
        said = []
        for place in (output, server.url):
            assert main(["incidents", *command, "--from", place]) == 0
            lines = capsys.readouterr().out.replace(place, "PLACE").splitlines()  # which commands name
            said.append([json.loads(line) for line in lines] if "--json" in command else lines)
        assert said[0] == said[1]
        return said[0]

    incidents = told("list", "--json")
    assert len(incidents) > 4
    riskiest, *_ = incidents
    first_seen = sorted(incident["incident.first_seen"] for incident in incidents)
    filters = {
        "--severity": "high",
        "--agent": riskiest["gen_ai.agent.id"],
        "--entity": riskiest["trajectory.id"],
        "--sandbox": riskiest["sandbox.id"],
        "--job": riskiest["job.id"],
        "--host": riskiest["host.name"],
        "--technique": riskiest["threat.technique.id"][0].partition(".")[0],
        "--rule": riskiest["rule.name"][0],
        "--peer": ".".join(riskiest["destination.ip"][0].split(".")[:3]) + ".0/24",
        "--since": first_seen[-1],
        "--until": first_seen[-1],
    }
    for option, value in filters.items():
        passing = told("list", option, value, "--json")
        assert 0 < len(passing) < len(incidents), option
        (shown,) = told("show", option, value, "--json")
        assert shown["incident.id"] == passing[0]["incident.id"], option
    assert len(told("list", "--status", "new")) == len(told("list"))
    for nothing in (("--status", "closed"), ("--assignee", "mei"), ("--sandbox", riskiest["job.id"])):
        assert told("list", *nothing) == told("show", *nothing) == ["no incidents"]
    assert riskiest in told("list", "--agent", filters["--agent"], "--severity", "high", "--json")
    for incident in incidents[:3]:
        assert any("sure because" in line for line in told("show", incident["incident.id"][:12]))
        assert told("show", incident["incident.id"], "--json")[0]["findings"]
    assert main(["incidents", "show", "--from", server.url, "0000000000000000"]) == 1
    assert "no incident" in capsys.readouterr().err
    tidy(administrator, "agenttrail")


def test_a_key_that_may_not_ask_for_the_setup_finds_out_that_it_is_missing(
    day: Path, tmp_path: Path, elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It made an index with guessed types on its way, which setup will not take for its own."""
    server = elasticsearch_secured
    administrator = _administrator(server, monkeypatch)
    tidy(administrator, "agenttrail")
    command = ["run", str(day / "job.yml"), "--output", str(tmp_path / "out"), "--elasticsearch", server.url]
    may_ask = {"cluster": ["monitor"], "indices": [_RIGHTS]}
    for rights, said in ((may_ask, "is not set up"), ({"indices": [_RIGHTS]}, "'agenttrail elasticsearch setup'")):
        key = administrator.security.create_api_key(name="job", role_descriptors={"job": rights}).body
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", key["encoded"])
        assert main(command) == 1
        assert said in capsys.readouterr().err
    monkeypatch.delenv("ELASTICSEARCH_API_KEY")
    assert main(["elasticsearch", "setup", "--url", server.url]) == 1
    assert "delete them, or reindex them" in capsys.readouterr().err
    tidy(administrator, "agenttrail")
    assert main(["elasticsearch", "setup", "--url", server.url]) == 0
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", key["encoded"])
    assert main(command) == 0
    tidy(administrator, "agenttrail")


class _Unrun(beam.runners.PipelineRunner):  # type: ignore[misc, unused-ignore]
    """Takes a graph and does nothing with it."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: Any) -> Any:  # noqa: ARG002 - the runner's signature
        return beam.runners.runner.PipelineResult(beam.runners.runner.PipelineState.DONE)
