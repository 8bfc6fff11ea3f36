"""A simulated day without one of its sources: the run says so, nothing is guessed, and nobody is accused anew."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
from tests.scenarios.days import OPENING, lines_of

from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from pathlib import Path

_SEED = int.from_bytes(hashlib.sha256(b"agenttrail, a day with gaps").digest()[:4])
_NOTES = {
    "otlp_spans": "no source tells of tool calls: findings name none, and what rules ask of tool calls is not seen",
    "dcgm_prometheus": "no source tells of GPUs: their use is not seen",
    "training_progress": "no source tells of training progress: GPUs that are busy without a step are not seen",
}
pytestmark = pytest.mark.xdist_group("a day with gaps")


class Said:
    """What a job said."""

    def __init__(self, out: Path) -> None:
        """Read its output."""
        self.incidents = lines_of(out / "incidents.ndjson")
        self.findings = lines_of(out / "findings.ndjson")
        self.notes: list[str] = orjson.loads((out / "run.json").read_bytes())["notes"]

    @property
    def accused(self) -> set[str]:
        """Pods that have an incident of medium severity or above."""
        return {one["k8s.pod.uid"] for one in self.incidents if one.get("k8s.pod.uid")}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated day."""
    directory = tmp_path_factory.mktemp("day")
    simulate(directory, agents=12, hours=4.0, seed=_SEED)
    return directory


@pytest.fixture(scope="module")
def whole(day: Path) -> Said:
    """Return what is said with all sources."""
    return _run(day, "whole", (day / "job.yml").read_text())


def _run(day: Path, name: str, text: str) -> Said:
    (day / f"{name}.yml").write_text(text)
    run(load_job(day / f"{name}.yml", output=str(day / f"out-{name}")), RunOptions())
    return Said(day / f"out-{name}")


@pytest.mark.parametrize("without", _NOTES)
def test_without_telemetry_no_incident_appears_that_was_not_there_with_it(day: Path, whole: Said, without: str) -> None:
    """The run says what it cannot see, and names nothing that only that source could tell."""
    text = (day / "job.yml").read_text()
    lines = [line for line in text.splitlines(keepends=True) if f"format: {without}," not in line]
    assert len(lines) == len(text.splitlines()) - 2
    said = _run(day, without, "".join(lines))
    assert said.accused <= whole.accused
    assert len(said.accused) >= len(whole.accused) / 2
    assert _NOTES[without] in said.notes
    assert _NOTES[without] not in whole.notes
    if without == "otlp_spans":
        assert not any("gen_ai.tool.call.id" in one for one in [*said.findings, *said.incidents])
        assert any("gen_ai.tool.call.id" in one for one in whole.incidents)
        spanned = {one["k8s.pod.uid"] for one in whole.incidents if one["entity.type"] == "trajectory"}
        assert {one["entity.type"] for one in said.incidents if one.get("k8s.pod.uid") in spanned} == {
            "trajectory", "sandbox",
        }  # fmt: skip
    else:
        assert not any(without in one["event.dataset"] for one in said.findings)
        assert "impact/gpu-diversion" not in {one["rule.name"] for one in said.findings}
        assert "impact/gpu-diversion" in {one["rule.name"] for one in whole.findings}


def test_without_pods_the_level_degrades_and_nobody_is_named(day: Path, whole: Said) -> None:
    """What is left is said of addresses, and of what spans say of themselves; each incident stands on a behaviour."""
    text = (day / "job.yml").read_text()
    head, tail = text.index("leases:\n"), text.index("lists:\n")
    said = _run(day, "pods", text[:head] + text[tail:])
    assert "the job names no leases: nothing can be attributed to a workload" in said.notes
    assert any("trajectory spans name no pod with a lease" in note for note in said.notes)
    assert not any("trajectory spans name no pod with a lease" in note for note in whole.notes)
    assert said.incidents
    truth = {(row["log.file.path"], row["log.offset"]): row for row in _records(day)}
    for incident in said.incidents:
        assert "attribution.lease_start" not in incident
        assert not incident.get("attribution.lease_id")
        if incident["attribution.level"] == "address":
            assert incident["attribution.status"] == "unattributed"
        else:  # said by the agent's side alone, and told as that
            assert incident["attribution.reason"] == ["named by the record itself: no lease proves it"]
            assert set(incident["event.dataset"]) <= {"otlp_spans", "dcgm_prometheus"}
    for finding in said.findings:
        if finding["finding.severity"] in OPENING:
            rows = [truth[event["log.file.path"], event["log.offset"]] for event in finding["finding.evidence"]]
            assert any(_guilty(row, whole) for row in rows), (finding["rule.name"], rows[:2])


def _guilty(row: dict[str, Any], whole: Said) -> bool:
    return bool(row["behaviour"]) or row["k8s.pod.uid"] in whole.accused


def _records(day: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(day / "truth" / "records.parquet").to_pylist()
    return rows
