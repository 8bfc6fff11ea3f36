"""What stands on the page of one incident: who and what, why it is sure, what to do; then how it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.ids import content_id
from agenttrail.columns.json_text import json_objects
from agenttrail.errors import shortened
from agenttrail.report.conditions import Condition, not_kept, values
from agenttrail.report.drawing import Bar, draw
from agenttrail.report.pages import lasting, micros, moment, render, short, when
from agenttrail.timeline_story import Moment, story, told_moments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from agenttrail.report.reading import Case, Told

Document = dict[str, Any]
OPENING = ("medium", "high", "critical")
_MOST_EVIDENCE, _MOST_CONTEXT = 8, 2
"""Original lines of a finding that opened the incident, and of one that is context."""
_EVIDENCE_BUDGET = 60_000
"""Characters of original lines on one page."""
_LINE = 1_200
"""Characters of one original line."""
_MOST_MOMENTS, _MOST_ENTRIES, _MOST_NAMES = 40, 500, 12
_IDENTITY = (
    ("Agent", "gen_ai.agent.id"), ("Trajectory", "trajectory.id"), ("Sandbox", "sandbox.id"), ("Job", "job.id"),
    ("Host", "host.name"), ("Namespace", "k8s.namespace.name"), ("Pod uid", "k8s.pod.uid"),
)  # fmt: skip


def incident_file(incident: str) -> str:
    """Return the name of the page of an incident; what stands in an id never becomes a path."""
    plain = incident.isascii() and incident.isalnum() and incident.islower() and len(incident) == 32  # noqa: PLR2004
    return f"incident-{incident if plain else content_id(incident)}.html"


def agent_file(agent: str) -> str:
    """Return the name of the page of an agent."""
    return f"agent-{content_id(agent)}.html"


@dataclass(frozen=True)
class Line:
    """One original line of the evidence."""

    time: str
    dataset: str
    place: str
    text: str


@dataclass(frozen=True)
class Row:
    """One line of a timeline in words: when, what, and whether it opened the incident."""

    time: str
    text: str
    heavy: bool


def incident_page(case: Case, rules: Mapping[str, Condition], told: Told, notes: Sequence[str]) -> bytes:
    """Return the page of an incident.

    Args:
        case: the incident, its findings and its timeline.
        rules: what rules ask for, by their ids.
        told: whose leases are.
        notes: what the run says could not be seen.

    Raises:
        ValueError: its timeline is none.
    """
    incident = case.incident
    first, last = micros(incident["incident.first_seen"]), micros(incident["incident.last_seen"])
    bars = [
        Bar(
            micros(finding["finding.first_seen"]), micros(finding["finding.last_seen"]), finding["finding.title"],
            finding["finding.severity"], f"finding-{number}",
        )
        for number, finding in enumerate(case.findings, start=1)
    ]  # fmt: skip
    drawing = draw(case.timeline, bars, (first, last), incident.get("destination.ip", []))
    entries = [orjson.loads(text) for text in json_objects(case.timeline).to_pylist()]
    moments = story(entries)
    budget = _Budget(_EVIDENCE_BUDGET)
    findings = [_finding(number, one, rules, budget) for number, one in enumerate(case.findings, start=1)]
    agent = incident.get("gen_ai.agent.id")
    return render(
        "incident.html.j2", "timeline.js",
        incident=incident, identity=_identity(incident), lead=_lead(incident), call=_call(incident),
        proof=_proof(incident, told), dos=incident.get("recommendation", [])[:_MOST_NAMES],
        agent_page=agent_file(agent) if agent else "", drawing=drawing, story=_rows(moments),
        entries=[_entry(entry) for entry in entries[:_MOST_ENTRIES]], counted=len(entries),
        opened=[one for one in findings if one["severity"] in OPENING],
        context=[one for one in findings if one["severity"] not in OPENING], findings=case.counted,
        shown=len(findings), unseen=_unseen(incident, moments, case.timeline), notes=notes,
        span=lasting(last - first), first=first, last=last,
    )  # fmt: skip


# -- the first screen


def _identity(incident: Document) -> list[tuple[str, str]]:
    named = [(label, str(incident[name])) for label, name in _IDENTITY if incident.get(name)]
    return named or [(incident["entity.type"].capitalize(), incident["entity.id"])]


def _lead(incident: Document) -> dict[str, str]:
    """Return the parts of the sentence that says what happened."""
    agent = incident.get("gen_ai.agent.id")
    who = f"Agent {short(agent)}" if agent else f"{incident['entity.type'].capitalize()} {short(incident['entity.id'])}"
    what = short(str(incident["incident.title"]).partition(" by ")[0])
    peers, ports = incident.get("destination.ip", []), incident.get("destination.port", [])
    first, last = incident["incident.first_seen"], incident["incident.last_seen"]
    until = when(last) if moment(first).date() != moment(last).date() else f"{moment(last):%H:%M:%S}"
    return {
        "who": who,
        "what": what,
        "whom": _several(peers) + (f" port {_several(ports)}" if ports else "") if peers else "",
        "from": when(first),
        "until": until,
    }


def _several(some: Sequence[Any], most: int = 3) -> str:
    more = len(some) - most
    return ", ".join(short(one) for one in some[:most]) + (f" and {more} more" if more > 0 else "")


def _call(incident: Document) -> str:
    """Return the tool call before it, in words; "" where none is known."""
    if not {"gen_ai.tool.call.start", "gen_ai.tool.call.gap"} <= incident.keys():
        return ""
    names = [short(incident[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if incident.get(name)]
    gap = incident["gen_ai.tool.call.gap"]
    how = f"{gap:,.1f} s after" if gap else "with"
    return f"It began {how} tool call {' '.join(names)} at {short(incident['gen_ai.tool.call.start'])}."


_STATUS = {
    "attributed": "Sure: one lease fits.",
    "ambiguous": "Not sure: several leases fit, and any of them may have been it.",
    "unattributed": "Not known: no lease fits.",
}


def _proof(incident: Document, told: Told) -> dict[str, Any]:
    status = incident["attribution.status"]
    start, stop = incident.get("attribution.lease_start"), incident.get("attribution.lease_end")
    return {
        "status": status,
        "verdict": _STATUS.get(status, f"Status: {short(status)}."),
        "level": incident["attribution.level"],
        "start": start,
        "stop": stop,
        "leases": incident.get("attribution.lease_id", [])[:_MOST_NAMES],
        "candidates": [
            (lease, [short(value) for value in told.leases.get(lease, {}).values()])
            for lease in incident.get("attribution.candidates", [])[:_MOST_NAMES]
        ],
        "counted": len(incident.get("attribution.candidates", [])),
        "reasons": incident.get("attribution.reason", [])[:_MOST_NAMES],
        "scope": incident.get("attribution.scope", [])[:_MOST_NAMES],
    }


# -- the timeline in words


def _rows(moments: Sequence[Moment]) -> list[Row]:
    """Return what happened, in words; of a long story the middle is left out, but for what weighs most."""
    out = []
    for told in told_moments(moments, _MOST_MOMENTS):
        if isinstance(told, int):
            out.append(Row("…", f"{told:,} more left out here", heavy=False))
        else:
            out.append(Row(_span(told), told.text, heavy=told.weight == 0))
    return out


def _span(told: Moment) -> str:
    style = "%H:%M:%S" if told.exact else "%H:%M"
    start, end = moment(told.start), moment(told.end)
    day = f"{start:%m-%d} "
    return f"{day}{start:{style}}" + (f" to {end:{style}}" if f"{end:{style}}" != f"{start:{style}}" else "")


def _entry(entry: Document) -> dict[str, str]:
    skipped = {
        "timeline.id", "incident.id", "@timestamp", "event.end", "timeline.kind", "entity.type", "entity.id", "finding.id",
        "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id",
    }  # fmt: skip
    said = ", ".join(f"{name} {shortened(str(value), 200)}" for name, value in entry.items() if name not in skipped)
    return {"time": entry["@timestamp"], "kind": entry["timeline.kind"], "text": said}


# -- findings and their evidence


class _Budget:
    """Characters that may still be spent."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, text: str) -> bool:
        self.left -= len(text)
        return self.left >= 0


def _finding(number: int, finding: Document, rules: Mapping[str, Condition], budget: _Budget) -> dict[str, Any]:
    severity = finding["finding.severity"]
    condition = rules.get(finding.get("rule.id", ""))
    known = values(condition, finding) if condition else []
    lines = _lines(finding, _MOST_EVIDENCE if severity in OPENING else _MOST_CONTEXT, budget)
    return {
        "id": f"finding-{number}",
        "severity": severity,
        "title": finding["finding.title"],
        "rule": finding["rule.name"],
        "peer": _peer(finding),
        "first": finding["finding.first_seen"],
        "last": finding["finding.last_seen"],
        "events": finding["event.count"],
        "datasets": _several(finding["event.dataset"]),
        "outcomes": _several(finding.get("event.outcome", [])),
        "conversations": finding.get("network.conversations", 0),
        "sent": finding.get("source.bytes", 0),
        "received": finding.get("destination.bytes", 0),
        "call": _call(finding).replace("It began ", "First event ", 1),
        "condition": condition,
        "values": known,
        "missing": not_kept(condition, known) if condition else [],
        "lines": lines,
        "benign": finding.get("falsepositives", [])[:_MOST_NAMES],
        "do": finding.get("recommendation", [])[:_MOST_NAMES],
    }


def _peer(finding: Document) -> str:
    peers = [finding["peer.ip"]] if finding.get("peer.ip") else finding.get("destination.ip", [])
    ports = finding.get("peer.port", [])
    return (_several(peers) + (f" port {_several(ports)}" if ports else "")) if peers else ""


def _lines(finding: Document, most: int, budget: _Budget) -> list[Line]:
    lines = []
    for event in finding.get("finding.evidence", [])[:most]:
        text = shortened(str(event.get("event.original", "")), _LINE)
        if not budget.take(text):
            break
        place = str(event.get("log.file.path", ""))
        offset = event.get("log.offset")
        place += f" byte {offset:,}" if isinstance(offset, int) and place else ""
        lines.append(Line(str(event["event.start"]), str(event.get("event.dataset", "")), place, text))
    return lines


# -- what could not be seen


def _unseen(incident: Document, moments: Sequence[Moment], timeline: pa.RecordBatch) -> list[str]:
    gaps = [told for told in moments if told.kind == "gap"]
    said = [f"{_span(told)}: {told.text.removeprefix('not seen: ')}" for told in gaps[:_MOST_NAMES]]
    if len(gaps) > _MOST_NAMES:
        said.append(f"and {len(gaps) - _MOST_NAMES} more such times")
    kinds = set(timeline.column("timeline.kind").to_pylist())
    if not kinds:
        return ["No timeline is stored of it: the run was one of an older agenttrail, or its timelines were removed."]
    for kind, words in (
        ("tool_call", "No tool calls of it were in the spans."), ("gpu", "No GPU counters of it were read."),
        ("step", "No training steps of its job were reported."), ("egress", "No network traffic of it was seen."),
    ):  # fmt: skip
        if kind not in kinds:
            said.append(words)
    if "lease_end" not in kinds and incident["attribution.status"] == "attributed":
        said.append("No end of its lease is known: it may still run.")
    return said
