"""What stands on the page of one incident: who and what, why it is sure, what to do; then how it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.ids import content_id
from agenttrail.errors import shortened
from agenttrail.report.conditions import Condition, values
from agenttrail.report.drawing import Bar, draw
from agenttrail.report.pages import Rows, lasting, micros, moment, render, short, when
from agenttrail.timeline_story import REST, Moment, story_of, told_moments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.report.reading import Case, Told

Document = dict[str, Any]
OPENING = ("medium", "high", "critical")
_MOST_EVIDENCE, _MOST_CONTEXT = 6, 2
"""Original lines of a finding that opened the incident, and of one that is context."""
_EVIDENCE_BUDGET = 60_000
"""Characters of original lines on one page."""
_LINE = 1_200
"""Characters of one original line."""
_MOST_MOMENTS, _MOST_LINES, _MOST_ENTRIES, _MOST_NAMES = 30, 250, 400, 12
_MOST_TALKS = 8
"""Lines on conversations among what a reader needs first."""
_KEY_KINDS = ("lease_start", "lease_end", "gap")
_IDENTITY = (
    ("Agent", "gen_ai.agent.id"), ("Trajectory", "trajectory.id"), ("Sandbox", "sandbox.id"), ("Job", "job.id"),
    ("Host", "host.name"), ("Namespace", "k8s.namespace.name"), ("Pod uid", "k8s.pod.uid"),
)  # fmt: skip


def incident_file(incident: str) -> str:
    """Return the name of the page of an incident; what stands in an id never becomes a path."""
    plain = incident.isascii() and incident.isalnum() and incident == incident.lower() and len(incident) == 32  # noqa: PLR2004
    return f"incident-{incident if plain else content_id(incident)}.html"


def agent_file(agent: str) -> str:
    """Return the name of the page of an agent."""
    return f"agent-{content_id(agent)}.html"


def headline(incident: Document) -> str:
    """Return what an incident is about, without who it was: that stands beside it."""
    what = str(incident["incident.title"]).partition(" by ")[0]
    head, more, count = what.rpartition(" (+")
    return short(head + f", and {count.rstrip(')')} more" if more and count.rstrip(")").isdecimal() else what)


Line = tuple[str, str, str, str]
"""One original line of the evidence: its time, its log, its place there, and its text."""


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
            finding["finding.severity"], f"finding-{number}", _peer(finding),
        )
        for number, finding in enumerate(case.findings, start=1)
    ]  # fmt: skip
    drawing = draw(case.timeline, bars, (first, last), incident.get("destination.ip", []))
    moments = story_of(case.timeline)
    key, talks = _key_moments(moments, incident.get("destination.ip", []))
    one_day = moment(drawing.start).date() == moment(drawing.stop).date()
    budget = _Budget(_EVIDENCE_BUDGET)
    findings = [
        _finding(number, one, budget) | _condition(one, rules) for number, one in enumerate(case.findings, start=1)
    ]
    _say_once(findings)
    agent = incident.get("gen_ai.agent.id")
    return render(
        "incident.html.j2", "timeline.js",
        incident=incident, identity=_identity(incident), lead=_lead(incident), call=_call(incident),
        said=_said(incident, case.timeline), others=_others(case), proof=_proof(incident, told), dos=_dos(case),
        agent_page=agent_file(agent) if agent else "", drawing=drawing, one_day=one_day,
        story=_rows(key, _MOST_MOMENTS, dated=not one_day), talks=talks,
        whole=_rows(moments, _MOST_LINES, dated=not one_day), moments=len(moments),
        entries=_entries(case.timeline.slice(0, _MOST_ENTRIES)), counted=case.timeline.num_rows,
        opened=[one for one in findings if one["severity"] in OPENING],
        context=[one for one in findings if one["severity"] not in OPENING], findings=case.counted,
        shown=len(findings), unseen=_unseen(incident, moments, case.timeline, dated=not one_day), notes=notes,
        span=lasting(last - first), first=first, last=last,
    )  # fmt: skip


# -- the first screen


def _identity(incident: Document) -> list[tuple[str, str]]:
    named = [(label, str(incident[name])) for label, name in _IDENTITY if incident.get(name)]
    if "gen_ai.agent.id" in incident:
        return named
    candidates = len(incident.get("attribution.candidates", []))
    unknown = f"not known: one of {candidates} candidates" if candidates else "not known"
    return [("Agent", unknown), (incident["entity.type"].capitalize(), str(incident["entity.id"])), *named]


def _lead(incident: Document) -> dict[str, str]:
    """Return the parts of the sentence that says what happened."""
    agent = incident.get("gen_ai.agent.id")
    who = f"Agent {short(agent)}" if agent else f"{incident['entity.type'].capitalize()} {short(incident['entity.id'])}"
    what = headline(incident)
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
    return f"It began {how} tool call {' '.join(names)} at {when(incident['gen_ai.tool.call.start'])}."


def _said(incident: Document, timeline: pa.RecordBatch) -> str:
    """Return the arguments of that call; "" where none are known."""
    call, at = incident.get("gen_ai.tool.call.id"), incident.get("gen_ai.tool.call.start")
    if not at:
        return ""
    its_own = pc.equal(timeline.column("gen_ai.tool.call.id"), call) if call else _at(timeline, at)
    its_own = pc.and_kleene(pc.equal(timeline.column("timeline.kind"), "tool_call"), its_own)
    said = timeline.column("gen_ai.tool.call.arguments").filter(pc.fill_null(its_own, fill_value=False))
    return shortened(str(said[0].as_py() or ""), 400) if len(said) else ""


def _at(timeline: pa.RecordBatch, time: str) -> pa.Array:
    return pc.equal(timeline.column("@timestamp").cast(pa.int64()), micros(time))


def _others(case: Case) -> list[str]:
    """Return the titles of what opened the incident that its headline does not say."""
    opened = [one["finding.title"] for one in case.findings if one["finding.severity"] in OPENING]
    title = str(case.incident["incident.title"])
    return [one for one in dict.fromkeys(opened) if not title.startswith(one)][:6]


def _dos(case: Case) -> list[str]:
    """Return what to do, what the worst finding's author says first."""
    opened = [one for one in case.findings if one["finding.severity"] in OPENING]
    wanted = case.incident.get("recommendation", [])
    ordered = dict.fromkeys([text for one in opened for text in one.get("recommendation", [])])
    first = [_FIRST[case.incident["attribution.status"]]] if case.incident["attribution.status"] in _FIRST else []
    return list(dict.fromkeys([*first, *(text for text in ordered if text in wanted), *wanted]))[:_MOST_NAMES]


_FIRST = {
    "ambiguous": "Find out which of the candidates it was before you stop one: their hosts know their connections.",
    "unattributed": "Find out who held this address then: the metadata that was read does not say.",
}


_STATUS = {
    "attributed": "Sure: its lease covers what happened, and nobody else's fits.",
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
            (lease, [short(value) for value in list(told.leases.get(lease, {}).values())[:3]])
            for lease in incident.get("attribution.candidates", [])[:_MOST_NAMES]
        ],
        "counted": len(incident.get("attribution.candidates", [])),
        "reasons": incident.get("attribution.reason", [])[:_MOST_NAMES],
        "seen_by": _several(incident.get("event.dataset", []), _MOST_NAMES),
        "scope": incident.get("attribution.scope", [])[:_MOST_NAMES],
    }


# -- the timeline in words


def _key_moments(moments: Sequence[Moment], peers: Sequence[str]) -> tuple[list[Moment], int]:
    """Return the moments that a reader needs first, and how many lines on further peers are not among them."""
    talks = [told for told in moments if told.kind == "egress" and told.weight < REST]
    whom = tuple(f"to {peer}{mark}" for peer in peers for mark in " :")
    first = sorted(talks, key=lambda told: not told.text.startswith(whom))
    kept = {id(told) for told in first[:_MOST_TALKS]}
    key = [
        told
        for told in moments
        if id(told) in kept or (told.kind != "egress" and (told.weight < REST or told.kind in _KEY_KINDS))
    ]
    return key, max(len(talks) - _MOST_TALKS, 0)


def _rows(moments: Sequence[Moment], most: int, *, dated: bool) -> Rows:
    """Return what happened, in words; of a long story the middle is left out, but for what weighs most."""
    rows = [
        ("…", f"{told:,} more left out here", False)
        if isinstance(told, int)
        else (_span(told, dated=dated), told.text, told.weight == 0)
        for told in told_moments(moments, most)
    ]
    times, texts, heavy = zip(*rows, strict=True) if rows else ((), (), ())
    return Rows.of(times, texts, heavy=heavy)


def _span(told: Moment, *, dated: bool) -> str:
    style = "%H:%M:%S" if told.exact else "%H:%M"
    start, end = f"{moment(told.start):{style}}", f"{moment(told.end):{style}}"
    day = f"{moment(told.start):%m-%d} " if dated else ""
    return f"{day}{start}" + (f" to {end}" if start != end else "")


_SAID_ELSEWHERE = {
    "timeline.id", "incident.id", "@timestamp", "event.end", "timeline.kind", "entity.type", "entity.id", "finding.id",
    "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id",
}  # fmt: skip
_VALUE = 200
"""Characters of one value of an entry."""


def _entries(entries: pa.RecordBatch) -> Rows:
    """Return time, kind and values of entries, in words."""
    said = [
        pc.binary_join_element_wise(f", {name} ", _values(column), "")
        for name, column in zip(entries.schema.names, entries.columns, strict=True)
        if name not in _SAID_ELSEWHERE and column.null_count < entries.num_rows
    ]
    texts = pc.binary_join_element_wise(
        pa.array([""] * entries.num_rows, pa.string()), *said, "", null_handling="replace", null_replacement=""
    )
    times = pc.strftime(entries.column("@timestamp").cast(pa.timestamp("s"), safe=False), "%Y-%m-%d %H:%M:%S")
    columns = times, entries.column("timeline.kind").cast(pa.string()), pc.utf8_slice_codeunits(texts, len(", "))
    return Rows.of(*(column.to_pylist() for column in columns))


def _values(column: pa.Array) -> pa.Array:
    """Return values as text, long ones with their middle left out."""
    texts = column.cast(pa.string())
    if not pa.types.is_string(column.type) or (pc.max(pc.utf8_length(texts)).as_py() or 0) <= _VALUE:
        return texts
    return pa.array([None if text is None else shortened(text, _VALUE) for text in texts.to_pylist()], pa.string())


# -- findings and their evidence


class _Budget:
    """Characters that may still be spent."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, text: str) -> bool:
        self.left -= len(text)
        return self.left >= 0


def _finding(number: int, finding: Document, budget: _Budget) -> dict[str, Any]:
    severity = finding["finding.severity"]
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
        "lines": lines,
        "benign": finding.get("falsepositives", [])[:_MOST_NAMES],
        "do": finding.get("recommendation", [])[:_MOST_NAMES],
    }


def _condition(finding: Document, rules: Mapping[str, Condition]) -> dict[str, Any]:
    """Return what a finding's rule asked for, and with what values that held."""
    condition = rules.get(finding.get("rule.id", ""))
    known = values(condition, finding) if condition else []
    return {"condition": condition, "values": known, "above": ""}


def _say_once(findings: Sequence[dict[str, Any]]) -> None:
    """Let a rule that fired more than once say only once what it asks for."""
    said: dict[str, str] = {}
    for one in findings:
        if one["condition"] is not None:
            one["above"] = said.get(one["rule"], "")
            said.setdefault(one["rule"], one["id"])


def _peer(finding: Document) -> str:
    peers = [finding["peer.ip"]] if finding.get("peer.ip") else finding.get("destination.ip", [])
    ports = finding.get("peer.port", [])
    return (_several(peers) + (f" port {_several(ports)}" if ports else "")) if peers else ""


def _lines(finding: Document, most: int, budget: _Budget) -> list[Line]:
    """Return original lines of every log that shows it, by time."""
    evidence = finding.get("finding.evidence", [])
    place_in_log: dict[str, int] = {}
    order = []
    for number, event in enumerate(evidence):
        log = str(event.get("event.dataset", ""))
        place_in_log[log] = place_in_log.get(log, 0) + 1
        order.append((place_in_log[log], number))
    lines: list[Line] = []
    for event in [evidence[number] for number in sorted(number for _, number in sorted(order)[:most])]:
        text = shortened(str(event.get("event.original", "")), _LINE)
        if not budget.take(text):
            break
        place = str(event.get("log.file.path", ""))
        offset = event.get("log.offset")
        place += f" byte {offset:,}" if isinstance(offset, int) and place else ""
        lines.append((str(event["event.start"]), str(event.get("event.dataset", "")), place, text))
    return lines


# -- what could not be seen


def _unseen(incident: Document, moments: Sequence[Moment], timeline: pa.RecordBatch, *, dated: bool) -> list[str]:
    gaps = [told for told in moments if told.kind == "gap"]
    said = [f"{_span(told, dated=dated)}: {told.text.removeprefix('not seen: ')}" for told in gaps[:_MOST_NAMES]]
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
