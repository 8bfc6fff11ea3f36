"""How a stream ends: with its error, when it is told to, and what may stand where it writes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from tests.streams.arrivals import last_versions
from tests.streams.kills import Day, Stage, below, day_of

from agenttrail.incident_files import read_findings, read_incidents, read_timeline

if TYPE_CHECKING:
    import subprocess

    from tests.services.beam_servers import BeamServer
    from tests.services.kafka import Kafka


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return day_of(tmp_path_factory.mktemp("day"), 12)


@pytest.fixture
def stage(day: Day, tmp_path: Path, kafka: Kafka, prism: Path) -> Stage:  # noqa: ARG001 - it must be there
    return Stage(day, tmp_path, kafka, None, "stage")


@pytest.fixture
def name() -> str:
    return f"ends-{uuid4().hex}"


@pytest.fixture
def on_flink(day: Day, tmp_path: Path, kafka: Kafka, flink: BeamServer, name: str) -> Stage:
    return Stage(day, tmp_path, kafka, None, "stage", flink.stream_options(name))


def _until(there: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not there.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_step_that_fails_ends_the_run_with_a_sentence(stage: Stage) -> None:
    """And nothing of it is left behind."""
    assert [pid for pid in _fails(stage) if _lives(pid)] == []


def test_a_step_that_fails_ends_the_run_on_flink_with_a_sentence(on_flink: Stage, flink: BeamServer, name: str) -> None:
    """And its job does not go on."""
    _fails(on_flink)
    deadline = time.monotonic() + 30
    while (states := flink.states(name)) not in (["FAILED"], ["CANCELLED"]):
        assert time.monotonic() < deadline, states
        time.sleep(0.2)


def _fails(stage: Stage) -> list[int]:
    """Let a step of a stream fail; return the processes that it had."""
    out = stage.folder / "out"
    with stage.start() as process:
        _until(out / "dead_letters.ndjson", process)  # the last that it puts in order when it begins
        (out / "timeline").rmdir()
        (out / "timeline").touch()
        stage.wait_until_said(process, out / "safe_point.json")
        runner = list(below(process.pid))
        _, told = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in told
    *_, last = told.splitlines()
    assert last.startswith("agenttrail: ")
    assert "cannot be written" in last
    return runner


def test_a_runner_that_is_killed_ends_the_run_with_a_sentence(stage: Stage) -> None:
    with stage.start() as process:
        stage.wait_until_said(process)
        for pid in below(process.pid):
            os.kill(pid, signal.SIGKILL)
        _, told = process.communicate(timeout=180)
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert "the runner of the stream was ended" in told


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGHUP])
def test_one_that_is_told_to_end_writes_what_came(stage: Stage, asked: signal.Signals) -> None:
    _drains(stage, asked)


def test_one_that_is_told_to_end_goes_on_another_time(stage: Stage) -> None:
    _drains(stage, signal.SIGTERM)
    _goes_on(stage)


def test_one_that_is_told_to_end_on_flink_goes_on_another_time(on_flink: Stage, flink: BeamServer, name: str) -> None:
    _drains(on_flink, signal.SIGTERM)
    _goes_on(on_flink)
    assert flink.states(name) == ["DONE", "DONE"]


def test_a_job_server_that_is_not_there_is_told(day: Day, tmp_path: Path, kafka: Kafka) -> None:
    stage = Stage(day, tmp_path, kafka, None, "stage", ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:9"])
    with stage.start() as process:
        _, told = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "no job server answers there" in told
    assert "Traceback" not in told


def _drains(stage: Stage, asked: signal.Signals) -> None:
    """Tell a stream to end; see that it leaves a directory as a batch run does."""
    out = stage.folder / "out"
    with stage.start() as process:
        stage.wait_until_said(process, out / "incidents.ndjson")
        seen = read_incidents(str(out))
        os.killpg(process.pid, asked)  # as a terminal does
        _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    for kind in ("finding", "incident"):
        lines = [json.loads(line) for line in (out / f"{kind}s.ndjson").read_text().splitlines()]
        ids = [one[f"{kind}.id"] for one in lines]
        assert ids == sorted(set(ids))
        assert not any("superseded" in one for one in lines)
    assert json.loads((out / "run.json").read_text())["total"]["lines"] > 0
    (timeline,) = (out / "timeline").iterdir()
    incidents = read_incidents(str(out))
    assert set(pq.read_table(timeline).column("incident.id").to_pylist()) == {one["incident.id"] for one in incidents}
    assert seen


def _goes_on(stage: Stage) -> None:
    """Start a stream again; see that nothing was lost by its end."""
    out = stage.folder / "out"
    stage.finish()
    assert stage.unlike() == []
    for incident in read_incidents(str(out)):
        assert read_timeline(str(out), incident["incident.id"])
        found = {one["finding.id"] for one in read_findings(str(out), incident["incident.id"])}
        assert found == set(incident["finding.id"])


def test_batch_runs_and_streams_do_not_share_a_directory(stage: Stage, day: Day) -> None:
    stage.finish()
    done = stage.run_batch(day.folder / "batch" / "job.yml", stage.folder / "out")
    assert done.returncode == 1
    assert "a stream writes there" in done.stderr
    (stage.folder / "out" / "safe_point.json").unlink()
    with stage.start("--end-of-input") as process:
        _, told = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "holds findings.ndjson of a batch run" in told


def _ids(out: Path) -> dict[str, set[str]]:
    return {kind: set(last_versions(out, kind)) for kind in ("finding", "incident")}


def test_what_retention_has_deleted_holds_nobody_up(stage: Stage, kafka: Kafka) -> None:
    """What had been said of it stands."""
    with stage.start() as process:
        stage.wait_until_said(process)
        time.sleep(1)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=180)
    out = stage.folder / "out"
    before = _ids(out)
    for topic, partition, end in stage.ends():
        kafka.drop_before(topic, partition, end)
    assert all(before.values())
    for _ in range(2):  # also when it is gone on with after that
        stage.finish()
        now = _ids(out)
        assert {kind: ids - now[kind] for kind, ids in before.items()} == {"finding": set(), "incident": set()}
    told = json.loads((out / "safe_point.json").read_text())
    for topic, partition, end in stage.ends():
        assert any(parts.get(f"{topic}/{partition}", {}).get("at") == end for parts in told["read"].values())
