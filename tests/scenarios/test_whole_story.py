"""Tool calls, GPUs, steps and the network of one morning on one axis: what joins, what is named, what stays silent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.scenarios.days import lines_of
from tests.scenarios.mornings import EVENTS, JOB, POOL, SECRET, time_of, write_morning

from agenttrail.cli import main
from agenttrail.job_files import load_job
from agenttrail.jobs import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def morning(tmp_path: Path) -> Path:
    """Return a folder with the morning."""
    return write_morning(tmp_path)


def _run(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    (folder / "job.yml").write_text(JOB.format(events="\n".join(EVENTS[kind] for kind in kinds)))
    run(load_job(folder / "job.yml"))
    return lines_of(folder / "out" / "incidents.ndjson")


def test_hot_gpus_without_steps_and_a_long_thin_conversation_are_one_incident(morning: Path) -> None:
    """Neither the evaluation, nor the short conversation, nor the words, nor the work opens one."""
    (incident,) = _run(morning, *EVENTS)
    assert incident["sandbox.id"] == "miner"
    assert incident["incident.severity"] in ("high", "critical")
    assert "T1496.001" in incident["threat.technique.id"]
    assert "impact/gpu-diversion" in incident["rule.name"]
    findings = {one["rule.name"]: one for one in lines_of(morning / "out" / "findings.ndjson")
                if one["sandbox.id"] == "miner"}  # fmt: skip
    diversion = findings["impact/gpu-diversion"]
    assert {"aws_vpc_flow", "dcgm_prometheus"} == set(diversion["event.dataset"])
    assert diversion["incident.id"] == incident["incident.id"]
    assert len(diversion["finding.evidence"]) == 20
    thin = findings["impact/long-thin-conversation"]
    assert (thin["gen_ai.tool.call.id"], thin["gen_ai.tool.call.gap"]) == ("call-2", 10.0)
    assert thin["gen_ai.tool.call.start"] == time_of(3_890)
    assert thin["network.conversations"] == 1


def test_the_timeline_tells_the_story_of_the_entity_with_an_incident(morning: Path) -> None:
    """Its lease, its tool calls, its GPUs and its traffic by the minute, and what was found - and nobody else's."""
    import pyarrow.parquet as pq

    (incident,) = _run(morning, *EVENTS)
    entries = pq.read_table(morning / "out" / "timeline").to_pylist()
    assert {one["incident.id"] for one in entries} == {incident["incident.id"]}
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        by_kind.setdefault(one["timeline.kind"], []).append(one)
    assert {kind: len(some) for kind, some in by_kind.items() if kind != "finding"} == {
        "lease_start": 1, "lease_end": 1, "tool_call": 2, "gpu": 60, "step": 60, "egress": 40,
        "gap": 1,
    }  # fmt: skip
    assert by_kind["gap"][0]["event.reason"] == "training progress silent"  # after the last report
    assert [one["gen_ai.tool.call.id"] for one in by_kind["tool_call"]] == ["call-1", "call-2"]
    assert {one["gpu.utilization"] for one in by_kind["gpu"]} == {97.0}
    assert {(one["peer.ip"], one["source.bytes"], one["destination.bytes"]) for one in by_kind["egress"]} == {
        (POOL, 900, 1_500)
    }
    assert "impact/gpu-diversion" in {one["rule.name"] for one in by_kind["finding"]}
    times = [one["@timestamp"] for one in entries]
    assert times == sorted(times)
    assert len({one["timeline.id"] for one in entries}) == len(entries)


def test_people_are_shown_the_tool_call_before(morning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its name, its id and the seconds between, and without what it said."""
    _run(morning, *EVENTS)
    assert main(["incidents", "show", "--from", str(morning / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"10.0 s after tool call shell call-2 at {time_of(3_890)}" in shown
    assert SECRET not in shown


def test_no_secret_of_a_tool_call_is_written(morning: Path) -> None:
    """Neither in evidence, nor in the events."""
    _run(morning, *EVENTS)
    for path in (morning / "out").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("without", ["spans", "gpus", "steps"])
def test_what_is_missing_degrades_and_is_never_guessed(morning: Path, without: str) -> None:
    """Without one of the sources no incident appears that was not there with it."""
    whole = {one["incident.id"] for one in _run(morning, *EVENTS)}
    left = _run(morning, *(kind for kind in EVENTS if kind != without))
    assert {one["incident.id"] for one in left} <= whole
    if without == "spans":
        assert [one["incident.severity"] for one in left] != []


def test_spans_name_the_trajectory_of_a_pod_that_has_no_label(morning: Path) -> None:
    """Trajectory to sandbox to address: two hops, for what the network saw and for what the pod reported."""
    import pyarrow.parquet as pq

    _run(morning, *EVENTS)
    events = pq.read_table(morning / "out" / "events").to_pylist()
    of_worker = [one for one in events if one["sandbox.id"] == "worker"]
    assert {one["event.dataset"] for one in of_worker} == {
        "aws_vpc_flow", "otlp_spans", "dcgm_prometheus", "training_progress",
    }  # fmt: skip
    assert {(one["trajectory.id"], one["attribution.level"]) for one in of_worker} == {("t-work", "trajectory")}


def test_the_order_of_lines_changes_nothing(morning: Path) -> None:
    """Shuffled, the same findings and incidents but for where their lines stand."""

    def told() -> list[Any]:
        _run(morning, *EVENTS)
        found = [lines_of(morning / "out" / f"{name}.ndjson") for name in ("findings", "incidents")]
        for one in found[0]:
            one["finding.evidence"] = [
                {key: value for key, value in event.items() if not key.startswith("log.")}
                for event in one["finding.evidence"]
            ]
        return found

    before = told()
    for name in ("flow.log", "spans.jsonl", "gpus.prom", "steps.jsonl"):
        lines = (morning / name).read_bytes().splitlines()
        random.Random(7).shuffle(lines)
        (morning / name).write_bytes(b"\n".join(lines) + b"\n")
    assert told() == before
