"""Job files that name streams."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

from agenttrail.errors import DefinitionError
from agenttrail.job_files import Job, load_job
from agenttrail.sources.documents import RereadDocuments
from agenttrail.sources.growing import GrowingFiles
from agenttrail.sources.kafka import KafkaTopic

if TYPE_CHECKING:
    from pathlib import Path

JOB = """\
events:
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "localhost:9092,other:9092"}, scope: vpc-id}
  - {format: alibaba_vpc_flow, path: "logs/*.jsonl"}
leases:
  - {format: kubernetes_pods, path: pods.json}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a job, where its metadata is and its logs are not yet."""
    (tmp_path / "pods.json").write_text("[]")
    return tmp_path


def _load(folder: Path, text: str, **more: Any) -> Job:
    (folder / "job.yml").write_text(text)
    return load_job(folder / "job.yml", **{"streaming": True, **more})


def _problems(folder: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        _load(folder, text, **more)
    return [line.replace(f"{folder}/", "").removeprefix("job.yml:") for line in str(caught.value).splitlines()]


def test_what_each_source_is_read_from(folder: Path) -> None:
    """Files may come later."""
    job = _load(folder, JOB)
    assert job.streams == {
        0: KafkaTopic("flow", "localhost:9092,other:9092"),
        1: GrowingFiles(f"{folder}/logs/*.jsonl", str(folder)),
        2: RereadDocuments(f"{folder}/pods.json", str(folder)),
    }
    assert [source.name for source in job.sources] == [
        "aws_vpc_flow kafka flow",
        "alibaba_vpc_flow logs/*.jsonl",
        "kubernetes_pods pods.json",
    ]
    assert job.sources[0].scope_column == "cloud.vpc.id"
    assert [file.shown for file in job.files] == ["pods.json"]


def test_a_batch_run_cannot_read_a_topic(folder: Path) -> None:
    assert _problems(folder, JOB, streaming=False) == [
        "2: a topic of Kafka has no end, so that a batch run cannot read it: add --streaming, or name files by 'path'",
        "3: no file matches 'logs/*.jsonl'",
    ]


def test_every_mistake_is_told_at_once(folder: Path) -> None:
    text = """\
events:
  - {format: aws_vpc_flow, kafka: {topic: "a topic", bootstrap: localhost}}
  - {format: aws_vpc_flow, kafka: {topic: flow}}
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "b:1", passwort: x}}
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "b:1"}, path: "*.log"}
  - {format: aws_vpc_flow}
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "b:1", username: me, password: hunter2}}
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "b:1", username: me, password: "${NO_SUCH}"}}
  - {format: aws_vpc_flow, kafka: {topic: flow, bootstrap: "b:1", tls: true, ca_certs: ca.pem}}
  - {format: aws_vpc_flow, path: "gs://bucket/*.log"}
"""
    problems = _problems(folder, text)
    assert "hunter2" not in "".join(problems)
    told = [
        "2: events.0.kafka.bootstrap must be brokers, as host:port and commas",
        "2: events.0.kafka.topic must be letters, digits and . _ -, up to 249 of them",
        "3: 'bootstrap' is missing",
        "4: unknown key 'passwort'; did you mean password?",
        "5: a source has 'path' or 'kafka', not both",
        "6: 'path' or 'kafka' is missing",
        "7: password: secrets come from the environment only: write ${NAME} and set NAME",
        "8: the environment variable NO_SUCH is not set",
        "9: no such file: 'ca.pem'",
    ]
    assert [problem for problem in problems if not problem.startswith("10:")] == told
    assert any(problem.startswith("10: only files of this machine can be read") for problem in problems)


def test_secrets_do_not_travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of certificates lie beside the job file."""
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    (folder / "ca.pem").touch()
    text = JOB.replace(
        "other:9092",
        'other:9092", tls: true, ca_certs: ca.pem, username: me, mechanism: PLAIN, password: "${KAFKA_PASSWORD}',
    )
    job = _load(folder, text)
    topic = job.streams[0]
    assert isinstance(topic, KafkaTopic)
    assert topic.ca_certs == f"{folder}/ca.pem"
    assert b"hunter2" not in pickle.dumps(job)
    assert topic.settings()["sasl.password"] == "hunter2"
