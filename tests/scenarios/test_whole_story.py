"""Tool calls, GPUs, steps and the network of one morning on one axis: what joins, what is named, what stays silent."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.scenarios.days import lines_of
from tests.scenarios.mornings import DAY, EVENTS, JOB, POOL, SECRET, call_of, flow_of, span_of, time_of, write_morning

from agenttrail.cli import main
from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run

if TYPE_CHECKING:
    from pathlib import Path

_UNSEEN = {
    "spans": "no source tells of tool calls: findings name none, and what rules ask of tool calls is not seen",
    "gpus": "no source tells of GPUs: their use is not seen",
    "steps": "no source tells of training progress: GPUs that are busy without a step are not seen",
}


@pytest.fixture
def morning(tmp_path: Path) -> Path:
    """Return a folder with the morning."""
    return write_morning(tmp_path)


def _write_job(folder: Path, *kinds: str) -> None:
    (folder / "job.yml").write_text(JOB.format(events="\n".join(EVENTS[kind] for kind in kinds)))


def _run(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    _write_job(folder, *kinds)
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
    assert "temporal=2" in diversion["finding.values"]
    kept = [name for name, _, _ in (value.partition("=") for value in diversion["finding.values"])]
    assert {"gpu.utilization", "gpu.busy_duration", "connection.gpu_overlap", "connection.duration"} <= set(kept)
    thin = findings["impact/long-thin-conversation"]
    assert f"peer.ip={POOL}" in thin["finding.values"]
    assert any(value.startswith("connection.duration=") for value in thin["finding.values"])
    assert (thin["gen_ai.tool.call.id"], thin["gen_ai.tool.call.gap"]) == ("call-2", 10.0)
    assert thin["gen_ai.tool.call.start"] == time_of(3_890)
    assert thin["network.conversations"] == 1
    assert incident["incident.first_seen"] == time_of(3_900)
    assert (incident["gen_ai.tool.call.id"], incident["gen_ai.tool.call.gap"]) == ("call-2", 10.0)
    assert incident["destination.ip"] == [POOL]


def test_short_episodes_hide_nothing_that_lasts(morning: Path) -> None:
    """Fifteen trajectories of four minutes in one pod: what the pod does is found, and those that ran are named."""
    pods = json.loads((morning / "pods.json").read_text())
    pods["items"][0]["metadata"]["labels"].pop("rl.example.com/episode")
    (morning / "pods.json").write_text(json.dumps(pods))
    episodes = [
        span_of("trajectory", "miner", at, at + 240, 100 + number, traj_id=f"t-{number:02}")
        for number, at in enumerate(range(3_600, 7_200, 240))
    ]
    _append(morning / "spans.jsonl", episodes)
    incidents = _run(morning, *EVENTS)
    assert {one["sandbox.id"] for one in incidents} == {"miner"}
    assert all("impact/gpu-diversion" in one["rule.name"] for one in incidents)
    assert [one["trajectory.id"] for one in sorted(incidents, key=lambda one: str(one["trajectory.id"]))] == [
        f"t-{number:02}" for number in range(1, 12)
    ]


def _append(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(path.read_bytes() + b"\n".join(lines) + b"\n")


def test_a_finding_on_a_tool_call_names_that_call(morning: Path) -> None:
    """Also where others began at the same time."""
    commands = ["make", "./xmrig -o stratum+tcp://pool.example:3333"] * 4
    calls = [call_of("worker", 5_000, number, command) for number, command in enumerate(commands, start=10)]
    _append(morning / "spans.jsonl", calls)
    incidents = {one["sandbox.id"]: one for one in _run(morning, *EVENTS)}
    (finding,) = (
        one
        for one in lines_of(morning / "out" / "findings.ndjson")
        if one["rule.name"] == "impact/stratum-in-tool-call"
    )
    first = finding["finding.evidence"][0]["gen_ai.tool.call.id"]
    assert (finding["gen_ai.tool.call.id"], finding["gen_ai.tool.call.gap"]) == (first, 0.0)
    assert incidents["worker"]["gen_ai.tool.call.id"] == first
    assert f"at tool call shell {first}; " in incidents["worker"]["incident.summary"]


def test_a_finding_of_a_correlation_names_the_call_before_its_first_event(morning: Path) -> None:
    """Not the one that came while the burst went on."""
    _append(morning / "spans.jsonl", [call_of("worker", 5_000, 10, "./scan"), call_of("worker", 5_008, 11, "ls")])
    row = "2 1 eni-w 10.0.0.2 198.51.100.{0} 40000 {0} 6 1 60 {1} {1} REJECT OK"
    _append(morning / "flow.log", [row.format(20 + n, DAY + 5_003 + n).encode() for n in range(12)])
    incidents = {one["sandbox.id"]: one for one in _run(morning, *EVENTS)}
    (burst,) = (
        one
        for one in lines_of(morning / "out" / "findings.ndjson")
        if one["rule.name"] == "policy/burst-of-blocked-connections"
    )
    assert (burst["gen_ai.tool.call.id"], burst["gen_ai.tool.call.gap"]) == ("call-10", 3.0)
    told = incidents["worker"]
    assert (told["gen_ai.tool.call.id"], told["gen_ai.tool.call.gap"]) == ("call-10", 3.0)


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
    assert [one["gpu.utilization"] for one in by_kind["gpu"]] == [2.0] * 5 + [97.0] * 40 + [2.0] * 15
    assert {(one["peer.ip"], one["source.bytes"], one["destination.bytes"]) for one in by_kind["egress"]} == {
        (POOL, 900, 1_500)
    }
    assert "impact/gpu-diversion" in {one["rule.name"] for one in by_kind["finding"]}
    times = [one["@timestamp"] for one in entries]
    assert times == sorted(times)
    assert len({one["timeline.id"] for one in entries}) == len(entries)


def test_egress_to_listed_peers_is_told_per_minute_and_list(morning: Path) -> None:
    """Of two sensors the one that saw more counts; whatever the blocks, and only where there is an incident."""
    import pyarrow.parquet as pq

    listed = [
        line
        for peer, sent in (("192.0.2.9", 300), ("192.0.2.8", 40), ("10.0.0.3", 7))
        for at in (4_020, 4_050, 4_080)
        for line in flow_of("10.0.0.1", peer, 443, at, at + 9, sent, 11)
    ]
    other_sensor = [line.replace(b"eni-10.0.0.1", b"eni-nat") for line in listed[:3]]
    _append(morning / "flow.log", [*listed, *other_sensor])
    told = []
    for block_bytes in (1 << 20, 700):
        _write_job(morning, *EVENTS)
        run(load_job(morning / "job.yml"), RunOptions(block_bytes=block_bytes, shards=3))
        entries = pq.read_table(morning / "out" / "timeline").to_pylist()
        told.append(entries)
    assert told[0] == told[1]
    found = {
        (f"{one['@timestamp']:%H:%M}", one["peer.list"]): (
            one["source.bytes"], one["destination.bytes"], one["event.count"]
        )
        for one in told[0]
        if one["timeline.kind"] == "egress" and one["peer.ip"] is None
    }  # fmt: skip
    assert found == {
        ("01:07", "allowed"): (4 * 170, 4 * 11, 11), ("01:07", "internal"): (14, 22, 4),
        ("01:08", "allowed"): (340, 22, 4), ("01:08", "internal"): (7, 11, 2),
    }  # fmt: skip
    assert {one["sandbox.id"] for one in told[0]} == {"miner"}


def test_people_are_shown_the_tool_call_before(morning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its name, its id and the seconds between, and without what it said."""
    _run(morning, *EVENTS)
    assert main(["incidents", "show", "--from", str(morning / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"last tool call before it: shell call-2 at {time_of(3_890)}, 10.0 s earlier" in shown
    assert SECRET not in shown


def test_people_are_told_the_story_in_a_few_lines(morning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred and sixty minutes of GPUs, steps and egress are five lines."""
    _run(morning, *EVENTS)
    assert main(["incidents", "show", "--from", str(morning / "out")]) == 0
    story = capsys.readouterr().out.partition("  2026-03-02\n")[2].partition("\n\n")[0]
    told = [line.strip() for line in story.splitlines() if not line.startswith(" " * 8)]
    assert [line for line in told if "HIGH" not in line and "LOW" not in line] == [
        "01:00:00     lease starts",
        "01:00-01:05  GPUs at 2 %, no step",
        '01:01:40     tool call shell call-1 {"command": "make"}',
        '01:04:50     tool call shell call-2 {"command": "PASSWORD=[REDACTED]',  # and goes on
        "01:05-01:45  GPUs at 97 %, no step",
        f"01:05-01:45  to {POOL} port 443: 36.0 kB up, 60.0 kB down, allowed",
        "01:45-02:00  GPUs at 2 %, no step, progress not reported in 1 of 15 minutes",
        "01:59:00     not seen: training progress silent, until 02:00:00",
        "02:00:00     lease ends",
    ]
    assert any("HIGH Likely mining: GPUs busy without a step" in line for line in told)
    assert main(["incidents", "show", "--from", str(morning / "out"), "--json"]) == 0
    (document,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(document["timeline"]) > 160
    assert all(one["incident.id"] == document["incident.id"] for one in document["timeline"])


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
    assert bool(left) == (without == "spans")
    told = json.loads((morning / "out" / "run.json").read_bytes())["notes"]
    assert [note for note in told if note.startswith("no source tells of")] == [_UNSEEN[without]]


def test_a_run_says_of_how_many_workloads_something_is_missing(morning: Path) -> None:
    """Two have no spans, and of three the reports end before the samples do."""
    _run(morning, *EVENTS)
    told = json.loads((morning / "out" / "run.json").read_bytes())
    assert told["coverage"] == {
        "sandboxes": 4, "sandboxes without a tool call": 2, "sandboxes with GPU samples": 4,
        "training progress silent": 3,
    }  # fmt: skip
    assert "2 of 4 sandboxes have no tool call in the spans" in told["notes"]


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
