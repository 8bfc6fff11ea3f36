"""Tool calls, GPUs, steps and the network of one morning on one axis: what joins, what is named, what stays silent."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.scenarios.days import lines_of

from agenttrail.cli import main
from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run

if TYPE_CHECKING:
    from pathlib import Path

_DAY = 1_772_409_600  # 2026-03-02T00:00:00Z
_JOB = """\
name: whole-story
events:
{events}
leases:
  - {{format: kubernetes_pods, path: pods.json}}
lists: {{egress_allow: [192.0.2.0/24]}}
output: {{events: true}}
"""
_EVENTS = {
    "flow": "  - {format: aws_vpc_flow, path: flow.log}",
    "spans": "  - {format: otlp_spans, path: spans.jsonl}",
    "gpus": "  - {format: dcgm_prometheus, path: gpus.prom}",
    "steps": "  - {format: training_progress, path: steps.jsonl}",
}
_UNSEEN = {
    "spans": "no source tells of tool calls: findings name none, and what rules ask of tool calls is not seen",
    "gpus": "no source tells of GPUs: their use is not seen",
    "steps": "no source tells of training progress: GPUs that are busy without a step are not seen",
}
_POOL, _SECRET = "198.51.100.7", "hunter2-is-no-password"


def _time(second: int) -> str:
    return f"2026-03-02T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def _pod(name: str, address: str, **labels: str) -> dict[str, Any]:
    """Return a pod that lived from 01:00 to 02:00."""
    return {
        "metadata": {
            "name": name, "namespace": "rl", "uid": f"uid-{name}",
            "labels": {"training.kubeflow.org/job-name": "job-1", **labels},
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Succeeded", "podIP": address, "startTime": _time(3_600),
            "containerStatuses": [{"state": {"terminated": {"finishedAt": _time(7_200)}}}],
        },
    }  # fmt: skip


def _span(name: str, pod: str, start: int, end: int, number: int, **attributes: str) -> bytes:
    said = [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in attributes.items()]
    one = {
        "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": name, "attributes": said,
        "startTimeUnixNano": str((_DAY + start) * 10**9), "endTimeUnixNano": str((_DAY + end) * 10**9),
    }  # fmt: skip
    resource = {"attributes": [{"key": "k8s.pod.name", "value": {"stringValue": pod}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [one]}]}]}).encode()


def _call(pod: str, start: int, number: int, command: str) -> bytes:
    arguments = json.dumps({"command": command})
    return _span(
        "execute_tool", pod, start, start + 1, number, gen_ai__operation__name="execute_tool",
        gen_ai__tool__name="shell", gen_ai__tool__call__id=f"call-{number}", gen_ai__tool__call__arguments=arguments,
    )  # fmt: skip


def _flow(address: str, peer: str, port: int, start: int, end: int, sent: int, received: int) -> list[bytes]:
    """Return both directions of one minute's record or more."""
    row = "2 1 eni-{a} {0} {1} {2} {3} 6 9 {4} {5} {6} ACCEPT OK"
    times, ends = (_DAY + start, _DAY + end), (address, peer, 40_000, port)
    return [
        row.format(*ends, sent, *times, a=address).encode(),
        row.format(ends[1], ends[0], ends[3], ends[2], received, *times, a=address).encode(),
    ]


@pytest.fixture
def morning(tmp_path: Path) -> Path:
    """A morning of four pods: one mines, one works, one evaluates, and one only speaks of mining."""
    pods = [
        _pod("miner", "10.0.0.1", **{"rl.example.com/episode": "t-mine"}), _pod("worker", "10.0.0.2"),
        _pod("evaluator", "10.0.0.3"), _pod("reader", "10.0.0.4"),
    ]  # fmt: skip
    (tmp_path / "pods.json").write_text(json.dumps({"items": pods}))
    flows = [row for at in range(3_900, 6_300, 60) for row in _flow("10.0.0.1", _POOL, 443, at, at + 60, 900, 1_500)]
    flows += _flow("10.0.0.2", "192.0.2.9", 443, 4_000, 4_060, 5_000, 90_000)
    flows += _flow("10.0.0.3", _POOL, 443, 4_000, 4_010, 700, 900)
    spans = [
        _call("miner", 3_700, 1, "make"), _call("miner", 3_890, 2, f"PASSWORD={_SECRET} ./run.sh"),
        _call("reader", 4_000, 3, "grep -rn stratum src/"), _call("reader", 4_010, 4, "cat ssh-notes.md"),
        _span("trajectory", "worker", 3_600, 7_200, 5, traj_id="t-work"),
    ]  # fmt: skip
    sample = 'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-{0}",pod="{0}",namespace="rl"}} {1} {2}'
    gpus = [
        sample.format(pod, use if pod != "miner" or 3_900 <= at < 6_300 else 5, (_DAY + at) * 1000).encode()
        for pod, use in (("miner", 97), ("worker", 95), ("evaluator", 96), ("reader", 3))
        for at in range(3_630, 7_190, 30)
    ]
    report = {"job_id": "job-1"}
    steps = [
        json.dumps(report | {"timestamp": _DAY + at, "pod": pod, "step": at // 60 if pod == "worker" else 7}).encode()
        for pod in ("miner", "worker", "evaluator", "reader")
        for at in range(3_600, 7_200, 60)
    ]
    for name, lines in (("flow.log", flows), ("spans.jsonl", spans), ("gpus.prom", gpus), ("steps.jsonl", steps)):
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
    return tmp_path


def _write_job(folder: Path, *kinds: str) -> None:
    (folder / "job.yml").write_text(_JOB.format(events="\n".join(_EVENTS[kind] for kind in kinds)))


def _run(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    _write_job(folder, *kinds)
    run(load_job(folder / "job.yml"))
    return lines_of(folder / "out" / "incidents.ndjson")


def test_hot_gpus_without_steps_and_a_long_thin_conversation_are_one_incident(morning: Path) -> None:
    """Neither the evaluation, nor the short conversation, nor the words, nor the work opens one."""
    (incident,) = _run(morning, *_EVENTS)
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
    assert thin["gen_ai.tool.call.start"] == _time(3_890)
    assert thin["network.conversations"] == 1
    # its GPUs were hot long before: what counts is when the conversation began
    assert incident["incident.first_seen"] == _time(3_900)
    assert (incident["gen_ai.tool.call.id"], incident["gen_ai.tool.call.gap"]) == ("call-2", 10.0)
    assert incident["destination.ip"] == [_POOL]


def _append(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(path.read_bytes() + b"\n".join(lines) + b"\n")


def test_a_finding_on_a_tool_call_names_that_call(morning: Path) -> None:
    """Also where others began at the same time."""
    commands = ["make", "./xmrig -o stratum+tcp://pool.example:3333"] * 4
    calls = [_call("worker", 5_000, number, command) for number, command in enumerate(commands, start=10)]
    _append(morning / "spans.jsonl", calls)
    incidents = {one["sandbox.id"]: one for one in _run(morning, *_EVENTS)}
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
    _append(morning / "spans.jsonl", [_call("worker", 5_000, 10, "./scan"), _call("worker", 5_008, 11, "ls")])
    row = "2 1 eni-w 10.0.0.2 198.51.100.{0} 40000 {0} 6 1 60 {1} {1} REJECT OK"
    _append(morning / "flow.log", [row.format(20 + n, _DAY + 5_003 + n).encode() for n in range(12)])
    incidents = {one["sandbox.id"]: one for one in _run(morning, *_EVENTS)}
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

    (incident,) = _run(morning, *_EVENTS)
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
    assert {one["gpu.utilization"] for one in by_kind["gpu"]} == {5.0, 97.0}
    assert {(one["peer.ip"], one["source.bytes"], one["destination.bytes"]) for one in by_kind["egress"]} == {
        (_POOL, 900, 1_500)
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
        for line in _flow("10.0.0.1", peer, 443, at, at + 9, sent, 11)
    ]
    other_sensor = [line.replace(b"eni-10.0.0.1", b"eni-nat") for line in listed[:3]]
    _append(morning / "flow.log", [*listed, *other_sensor])
    told = []
    for block_bytes in (1 << 20, 700):
        _write_job(morning, *_EVENTS)
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
    _run(morning, *_EVENTS)
    assert main(["incidents", "show", "--from", str(morning / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"10.0 s after tool call shell call-2 at {_time(3_890)}" in shown
    assert _SECRET not in shown


def test_people_are_told_the_story_in_a_few_lines(morning: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred and sixty minutes of GPUs, steps and egress are four lines."""
    _run(morning, *_EVENTS)
    assert main(["incidents", "show", "--from", str(morning / "out")]) == 0
    story = capsys.readouterr().out.partition("  2026-03-02\n")[2].partition("\n\n")[0]
    told = [line.strip() for line in story.splitlines() if not line.startswith(" " * 8)]
    assert [line for line in told if "HIGH" not in line and "LOW" not in line] == [
        "01:00:00     lease starts",
        "01:00-01:05  GPUs at 5 %, no step",
        '01:01:40     tool call shell call-1 {"command": "make"}',
        '01:04:50     tool call shell call-2 {"command": "PASSWORD=[REDACTED]',  # and goes on
        "01:05-01:45  GPUs at 97 %, no step",
        f"01:05-01:45  to {_POOL} port 443: 36.0 kB up, 60.0 kB down, allowed",
        "01:45-02:00  GPUs at 5 %, no step",
        "01:59:00     not seen: training progress silent, until 02:00:00",
        "02:00:00     lease ends",
    ]
    assert any("HIGH GPUs busy without a step" in line for line in told)
    assert main(["incidents", "show", "--from", str(morning / "out"), "--json"]) == 0
    (document,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(document["timeline"]) > 160
    assert all(one["incident.id"] == document["incident.id"] for one in document["timeline"])


def test_no_secret_of_a_tool_call_is_written(morning: Path) -> None:
    """Neither in evidence, nor in the events."""
    _run(morning, *_EVENTS)
    for path in (morning / "out").rglob("*"):
        if path.is_file():
            assert _SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("without", ["spans", "gpus", "steps"])
def test_what_is_missing_degrades_and_is_never_guessed(morning: Path, without: str) -> None:
    """Without one of the sources no incident appears that was not there with it."""
    whole = {one["incident.id"] for one in _run(morning, *_EVENTS)}
    left = _run(morning, *(kind for kind in _EVENTS if kind != without))
    assert {one["incident.id"] for one in left} <= whole
    assert bool(left) == (without == "spans")
    told = json.loads((morning / "out" / "run.json").read_bytes())["notes"]
    assert [note for note in told if note.startswith("no source tells of")] == [_UNSEEN[without]]


def test_a_run_says_of_how_many_workloads_something_is_missing(morning: Path) -> None:
    """Two have no spans, and of three the reports end before the samples do."""
    _run(morning, *_EVENTS)
    told = json.loads((morning / "out" / "run.json").read_bytes())
    assert told["coverage"] == {
        "sandboxes": 4, "sandboxes without a tool call": 2, "sandboxes with GPU samples": 4,
        "training progress silent": 3,
    }  # fmt: skip
    assert "2 of 4 sandboxes have no tool call in the spans" in told["notes"]


def test_spans_name_the_trajectory_of_a_pod_that_has_no_label(morning: Path) -> None:
    """Trajectory to sandbox to address: two hops, for what the network saw and for what the pod reported."""
    import pyarrow.parquet as pq

    _run(morning, *_EVENTS)
    events = pq.read_table(morning / "out" / "events").to_pylist()
    of_worker = [one for one in events if one["sandbox.id"] == "worker"]
    assert {one["event.dataset"] for one in of_worker} == {
        "aws_vpc_flow", "otlp_spans", "dcgm_prometheus", "training_progress",
    }  # fmt: skip
    assert {(one["trajectory.id"], one["attribution.level"]) for one in of_worker} == {("t-work", "trajectory")}


def test_the_order_of_lines_changes_nothing(morning: Path) -> None:
    """Shuffled, the same findings and incidents but for where their lines stand."""

    def told() -> list[Any]:
        _run(morning, *_EVENTS)
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
