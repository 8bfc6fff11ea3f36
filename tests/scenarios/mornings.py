"""A morning made by hand, second by second: pods, tool calls, GPUs, steps and the network of some workloads."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DAY = 1_772_409_600  # 2026-03-02T00:00:00Z
JOB = """\
name: whole-story
events:
{events}
leases:
  - {{format: kubernetes_pods, path: pods.json}}
lists: {{egress_allow: [192.0.2.0/24]}}
output: {{events: true}}
"""
EVENTS = {
    "flow": "  - {format: aws_vpc_flow, path: flow.log}",
    "spans": "  - {format: otlp_spans, path: spans.jsonl}",
    "gpus": "  - {format: dcgm_prometheus, path: gpus.prom}",
    "steps": "  - {format: training_progress, path: steps.jsonl}",
}
POOL, SECRET = "198.51.100.7", "hunter2-is-no-password"


def time_of(second: int) -> str:
    """Return a second of the morning as text."""
    return f"2026-03-02T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def pod_of(name: str, address: str, **labels: str) -> dict[str, Any]:
    """Return a pod that lived from 01:00 to 02:00."""
    return {
        "metadata": {
            "name": name, "namespace": "rl", "uid": f"uid-{name}",
            "labels": {"training.kubeflow.org/job-name": "job-1", **labels},
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Succeeded", "podIP": address, "startTime": time_of(3_600),
            "containerStatuses": [{"state": {"terminated": {"finishedAt": time_of(7_200)}}}],
        },
    }  # fmt: skip


def span_of(name: str, pod: str, start: int, end: int, number: int, **attributes: str) -> bytes:
    """Return a span; double underscores in the names of attributes stand for dots."""
    said = [{"key": key.replace("__", "."), "value": {"stringValue": value}} for key, value in attributes.items()]
    one = {
        "traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": name, "attributes": said,
        "startTimeUnixNano": str((DAY + start) * 10**9), "endTimeUnixNano": str((DAY + end) * 10**9),
    }  # fmt: skip
    resource = {"attributes": [{"key": "k8s.pod.name", "value": {"stringValue": pod}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [one]}]}]}).encode()


def call_of(pod: str, start: int, number: int, command: str) -> bytes:
    """Return a tool call of one second."""
    arguments = json.dumps({"command": command})
    return span_of(
        "execute_tool", pod, start, start + 1, number, gen_ai__operation__name="execute_tool",
        gen_ai__tool__name="shell", gen_ai__tool__call__id=f"call-{number}", gen_ai__tool__call__arguments=arguments,
    )  # fmt: skip


def flow_of(address: str, peer: str, port: int, start: int, end: int, sent: int, received: int) -> list[bytes]:
    """Return both directions of one minute's record or more."""
    row = "2 1 eni-{a} {0} {1} {2} {3} 6 9 {4} {5} {6} ACCEPT OK"
    times, ends = (DAY + start, DAY + end), (address, peer, 40_000, port)
    return [
        row.format(*ends, sent, *times, a=address).encode(),
        row.format(ends[1], ends[0], ends[3], ends[2], received, *times, a=address).encode(),
    ]


def from_port(port: int, rows: list[bytes]) -> list[bytes]:
    """Return records as they are if the workload had another port."""
    return [row.replace(b" 40000 ", f" {port} ".encode()) for row in rows]


def write_morning(folder: Path) -> Path:
    """Write a morning of four pods: one mines, one works, one evaluates, and one only speaks of mining."""
    pods = [
        pod_of("miner", "10.0.0.1", **{"rl.example.com/episode": "t-mine"}), pod_of("worker", "10.0.0.2"),
        pod_of("evaluator", "10.0.0.3"), pod_of("reader", "10.0.0.4"),
    ]  # fmt: skip
    (folder / "pods.json").write_text(json.dumps({"items": pods}))
    flows = [row for at in range(3_900, 6_300, 60) for row in flow_of("10.0.0.1", POOL, 443, at, at + 60, 900, 1_500)]
    flows += flow_of("10.0.0.2", "192.0.2.9", 443, 4_000, 4_060, 5_000, 90_000)
    flows += flow_of("10.0.0.3", POOL, 443, 4_000, 4_010, 700, 900)
    spans = [
        call_of("miner", 3_700, 1, "make"), call_of("miner", 3_890, 2, f"PASSWORD={SECRET} ./run.sh"),
        call_of("reader", 4_000, 3, "grep -rn stratum src/"), call_of("reader", 4_010, 4, "cat ssh-notes.md"),
        span_of("trajectory", "worker", 3_600, 7_200, 5, traj_id="t-work"),
    ]  # fmt: skip
    sample = 'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-{0}",pod="{0}",namespace="rl"}} {1} {2}'
    gpus = [
        sample.format(pod, use if begin <= at <= end else 2, (DAY + at) * 1000).encode()
        for pod, use, begin, end in (
            ("miner", 97, 3_900, 6_299),
            ("worker", 95, 0, 7_200),
            ("evaluator", 96, 0, 7_200),
            ("reader", 3, 0, 0),
        )
        for at in range(3_630, 7_190, 30)
    ]
    report = {"job_id": "job-1"}
    steps = [
        json.dumps(report | {"timestamp": DAY + at, "pod": pod, "step": at // 60 if pod == "worker" else 7}).encode()
        for pod in ("miner", "worker", "evaluator", "reader")
        for at in range(3_600, 7_200, 60)
    ]
    for name, lines in (("flow.log", flows), ("spans.jsonl", spans), ("gpus.prom", gpus), ("steps.jsonl", steps)):
        (folder / name).write_bytes(b"\n".join(lines) + b"\n")
    return folder


THIRDS = [0, 4_830, 6_000, 9_000]
"""Seconds of the morning: one seam lies within a minute, at an event; one between two minutes."""


def write_longer_morning(folder: Path) -> Path:
    """Write the morning with a beacon that turns out to be none, and an address that nobody leased; return its job."""
    write_morning(folder)
    pods = json.loads((folder / "pods.json").read_text())
    fickle, late = pod_of("fickle", "10.0.0.5"), pod_of("late", "10.0.0.6")
    fickle["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = time_of(5_400)
    late["status"]["startTime"] = time_of(6_500)
    pods["items"] += [fickle, late]
    (folder / "pods.json").write_text(json.dumps(pods))
    dice = random.Random(5)
    flows = [
        row
        for at in range(3_600, 4_800, 48)
        for row in from_port(40_000 + at, flow_of("10.0.0.5", POOL, 8443, at, at + 2, 400, 500))
    ]
    for at in sorted(dice.sample(range(4_840, 5_390), 80)):
        rows = flow_of("10.0.0.5", POOL, 8443, at, at + 1, dice.randrange(100, 9_000), 80)
        flows += from_port(40_000 + at, rows)
    for at in (-4_000, 600, THIRDS[1] - 1, THIRDS[1], THIRDS[2], 8_000):
        flows += flow_of("10.0.0.9", POOL, 22, at, at + 1, 50_000, 600)
    flows += flow_of("10.0.0.6", POOL, 22, 6_600, 6_900, 90_000, 600)
    with (folder / "flow.log").open("ab") as file:
        file.write(b"\n".join([*flows, b"no flow", b"\xff no text"]) + b"\n")
    with (folder / "spans.jsonl").open("ab") as file:
        file.write(call_of("late", 6_590, 90, "ssh -R 8022:localhost:22 198.51.100.7") + b"\n")
        file.write(call_of("miner", 7_100, 91, "rm run.sh") + b"\n")
    (folder / "job.yml").write_text(JOB.format(events="\n".join(EVENTS.values())))
    return folder / "job.yml"
