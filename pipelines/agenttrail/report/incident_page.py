"""What stands on the page of one incident: who and what, why it is sure, what to do; then how it is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.errors import shortened
from agenttrail.incident_shapes import ended
from agenttrail.report.acts import acts_of
from agenttrail.report.advice import authors, steps
from agenttrail.report.amounts import grouped_numbers
from agenttrail.report.calls import LONGEST, Call, call_before, call_of
from agenttrail.report.commands import command
from agenttrail.report.conditions import Condition, values
from agenttrail.report.drawing import Bar, draw
from agenttrail.report.evidence import Budget, lines
from agenttrail.report.fired import TEXT, because, folded, matched_parts
from agenttrail.report.first_screen import lead_of, over, reasons, unfolded
from agenttrail.report.meanings import why
from agenttrail.report.names import (
    OPENING,
    TECHNIQUES,
    agent_file,
    ends,
    incident_file,
    peer_of,
    several,
    whom_of,
)
from agenttrail.report.pages import Rows, micros, moment, render, short, when
from agenttrail.report.proof import proof
from agenttrail.report.same_act import agree
from agenttrail.report.standing import decided_on, disputes, standing, told_by_all, verdict
from agenttrail.report.suspects import also_runs, probable, twin_label, whose_acts
from agenttrail.timeline_story import REST, Moment, story_of, told_moments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.report.reading import Case, Told
    from agenttrail.report.same_act import Twin

Document = dict[str, Any]
_MOST_EVIDENCE, _MOST_CONTEXT = 6, 2
"""Original lines of a finding that opened the incident, and of one that is context."""
_EVIDENCE_BUDGET = 60_000
"""Characters of original lines on one page."""
_MOST_MOMENTS, _MOST_LINES, _MOST_ENTRIES, _MOST_NAMES = 30, 250, 400, 12
_SECOND = 1_000_000
_MOST_FIRED, _MOST_LINES_FIRED = 3, 5
"""Rules whose values stand on the first screen, and lines on them: one for each peer."""
_OVERLAP = "connection.gpu_overlap="
_MOST_TALKS = 8
"""Lines on conversations among what a reader needs first."""
_ID = 32
_KEY_KINDS = ("lease_start", "lease_end", "gap")
_IDENTITY = (
    ("Agent", "gen_ai.agent.id"), ("Trajectory", "trajectory.id"), ("Sandbox", "sandbox.id"), ("Job", "job.id"),
    ("Host", "host.name"),
)  # fmt: skip
_FURTHER = (("Namespace", "k8s.namespace.name"), ("Pod uid", "k8s.pod.uid"))
"""Names that are folded."""
_OBSERVED = pa.array(["tool_call", "egress", "gpu", "step", "finding"])
"""Entries of a timeline that come from logs."""
_FEW = 3
"""Candidates that stand unfolded."""
_BESIDE = ("Job", "Host")
"""Names that the lead does not have."""


@dataclass(frozen=True)
class Around:
    """What a page tells of what lies around its incident.

    Attributes:
        told: whose leases are.
        notes: what the run says could not be seen.
        readers: formats that the run read leases from.
        sources: formats of the logs that the run read.
        twins: by id, the incidents that are probably the same act.
        paged: ids of the incidents that have a page.
        source: where incidents were read from, as a command names it; "" where that is not known.
        ends: when the logs of the run end; "" where that is not known.
    """

    told: Told
    notes: Sequence[str] = ()
    readers: Sequence[str] = ()
    sources: AbstractSet[str] = frozenset()
    twins: Mapping[str, Sequence[Twin]] = field(default_factory=dict)
    paged: AbstractSet[str] = frozenset()
    source: str = ""
    ends: str = ""


def incident_page(case: Case, rules: Mapping[str, Condition], around: Around) -> bytes:
    """Return the page of an incident.

    Args:
        case: the incident, its findings and its timeline.
        rules: what rules ask for, by their ids.
        around: what lies around it.

    Raises:
        ValueError: its timeline is none.
    """
    incident = case.incident
    first, last = micros(incident["incident.first_seen"]), micros(ended(incident, "incident"))
    bars = [
        Bar(
            micros(finding["finding.first_seen"]), micros(ended(finding, "finding")), finding["finding.title"],
            finding["finding.severity"], f"finding-{number}", peer_of(finding),
        )
        for number, finding in enumerate(case.findings, start=1)
    ]  # fmt: skip
    disputed = [(one.peer, one.first, one.last) for one in disputes(case.findings)]
    drawing = draw(case.timeline, bars, (first, last), incident.get("destination.ip", []), disputed)
    # a story is told by when all of a line had begun; beside the drawing, by the times that stand in it
    moments = sorted(told_by_all(story_of(case.timeline), case.findings), key=lambda told: told.start)
    key, talks = _key_moments(moments, incident.get("destination.ip", []))
    one_day = moment(drawing.start).date() == moment(drawing.stop).date()
    budget = Budget(_EVIDENCE_BUDGET)
    findings = [
        _finding(number, one, budget) | _condition(one, rules) for number, one in enumerate(case.findings, start=1)
    ]
    _say_once(findings)
    fired, screen = _fired(findings), _first_screen(case, around)
    screen["call"] = _with_what_tells(screen["call"], findings)
    brief = unfolded(_always(screen), reasons(fired, screen["lead"].what), fired, screen["steps"])
    agent = incident.get("gen_ai.agent.id")
    return render(
        "incident.html.j2", "timeline.js",
        incident=incident, **screen, fired=fired,
        brief=brief,
        others=_others(case, {one["title"] for one in fired}, screen["lead"].what), severe=_severe(case),
        agent_page=agent_file(agent) if agent else "", drawing=drawing, one_day=one_day,
        story=_rows(key, _MOST_MOMENTS, dated=not one_day), talks=talks,
        whole=_rows(moments, _MOST_LINES, dated=not one_day), moments=len(moments),
        entries=_entries(case.timeline.slice(0, _MOST_ENTRIES)), counted=case.timeline.num_rows,
        opened=[one for one in findings if one["severity"] in OPENING],
        context=[one for one in findings if one["severity"] not in OPENING], kinds=_kinds(findings),
        findings=case.counted, shown=len(findings),
        unseen=_unseen(incident, moments, case.timeline, dated=not one_day), notes=_notes(incident, around),
        techniques=[(one, TECHNIQUES.get(one, "")) for one in incident.get("threat.technique.id", [])[:_MOST_NAMES]],
    )  # fmt: skip


# -- the first screen


def _first_screen(case: Case, around: Around) -> dict[str, Any]:
    """Return what is to be known within a minute."""
    incident = case.incident
    twins = around.twins.get(incident["incident.id"], ())
    said, stopped = _said(incident, case.timeline)
    id_, acts = short(incident["incident.id"], _ID), acts_of(incident, case.findings)
    likely = probable(twins, acts, around)
    decided = around.told.outcomes.get(incident["incident.id"]) or decided_on(case.findings)
    todo = steps(incident, case.findings, twins, around.paged, decided, around.source)
    return {
        "identity": _identity(incident),
        "beside": [
            pair
            for pair in _identity(incident)
            if pair[0] in _BESIDE or (pair[0] == "Agent" and not incident.get("gen_ai.agent.id"))
        ],
        "further": [(label, str(incident[name])) for label, name in _FURTHER if incident.get(name)],
        "lead": lead_of(incident, case.findings, decided),
        "over": over(incident, _until(case.timeline), around.ends),
        "state": standing(incident).state,
        "also_runs": also_runs(incident, twins if likely else (), around.told),
        "show": command("show", around.source, id_),
        "show_all": command("show", around.source, "--all", id_),
        "show_json": command("show", around.source, "--json", id_),
        "call": call_of(incident, case.findings, said, stopped),
        "no_call": _no_call(incident, case.timeline),
        "twins": [
            (
                twin_label(twin, acts, agree(around.told.acts, incident["incident.id"], twin.id)),
                twin,
                incident_file(twin.id) if twin.id in around.paged else "",
                agree(around.told.acts, incident["incident.id"], twin.id),
            )
            for twin in twins
        ],
        "probable": likely,
        "whose_acts": whose_acts(acts, twins, around) if incident["attribution.status"] == "ambiguous" else [],
        "proof": proof(incident, case.findings, around.told.leases, around.readers, twins),
        "steps": todo,
        "authors": authors(incident, case.findings),
    }


def _always(screen: Mapping[str, Any]) -> list[str]:
    """Return the texts of the first screen that are never folded."""
    lead, proven, call = screen["lead"], screen["proof"], screen["call"]
    who = [lead.who, *lead.names, lead.did, lead.whom, lead.named, lead.carried, lead.verdict, lead.since, lead.span]
    if lead.acts:
        who = [lead.who, *lead.names, lead.verdict, f"{lead.since[:10]} UTC"]
        who += [f"{one.did} {one.whom} {one.named} {one.carried} {one.span}" for one in lead.acts]
    probable = screen["probable"]
    who += [f"probably {probable['agent']} see {' '.join(id_ for id_, _ in probable['see'])}"] if probable else []
    twins = [f"{label} {twin.id} Why" for label, twin, *_ in screen["twins"][:1]]
    twins += ["7 more that may be the same act" for _ in screen["twins"][1:2]]
    twins = (
        ["Incidents that are probably the same acts" for _ in twins[:1]] if probable or screen["whose_acts"] else twins
    )
    sure = [
        proven.owned or proven.verdict,
        proven.meaning,
        *(
            [
                f"{one['what']} {' or '.join(f'{names} {see}' for names, see in one['first'])}"
                for one in screen["whose_acts"]
            ]
            or [f"{id_} {names}" for id_, names in proven.candidates[:_FEW]]
        ),
    ]
    beside = [f"{label} {value}" for label, value in screen["beside"]]
    return [
        lead.what,
        *who,
        *screen["over"],
        screen["also_runs"],
        *(call or [screen["no_call"]])[:3],
        *beside,
        *sure,
        *twins,
    ]


def _with_what_tells(call: Call | None, findings: Sequence[dict[str, Any]]) -> Call | None:
    """Return a call whose text tells by itself with the part of the text that does, where all of it is too long."""
    # all of it where it fits
    part = next((term.value for one in findings for term in one["terms"] if term.label == TEXT), "").strip("“”")
    if call is None or not part or not call.itself or part in call.text:
        return call
    return call._replace(text=f"… {shortened(part, LONGEST)} …")


def _identity(incident: Document) -> list[tuple[str, str]]:
    named = [(label, str(incident[name])) for label, name in _IDENTITY if incident.get(name)]
    if "gen_ai.agent.id" in incident:
        return named
    status = incident["attribution.status"]
    candidates = len(incident.get("attribution.candidates", []))
    unknown = f"{short(status)}: one of {candidates} candidates" if candidates else f"not known ({short(status)})"
    return [("Agent", unknown), (incident["entity.type"].capitalize(), str(incident["entity.id"])), *named]


def observed(timeline: pa.RecordBatch) -> tuple[int, int] | None:
    """Return from when to when logs tell something, in microseconds since 1970; None where they tell nothing.

    Leases are none of it: metadata may know ends that no log reaches to.
    """
    logged = pc.is_in(timeline.column("timeline.kind").cast(pa.string()), _OBSERVED)
    seen = timeline.select(["@timestamp", "event.end"]).filter(logged)
    if not seen.num_rows:
        return None
    times = [pc.min_max(column.cast(pa.int64())).as_py() for column in seen.columns]
    return times[0]["min"], max(one["max"] for one in times if one["max"] is not None)


def _until(timeline: pa.RecordBatch) -> str:
    times = observed(timeline)
    return "" if times is None else when(times[1])


def _notes(incident: Document, around: Around) -> list[str]:
    """Return the notes of a run but those on sources that show nothing of the incident."""
    others = {name for name in around.sources if name not in incident.get("event.dataset", ())}
    return [note for note in around.notes if note.partition(" ")[0] not in others]


def _no_call(incident: Document, timeline: pa.RecordBatch) -> str:
    if incident["attribution.status"] != "attributed" or not timeline.num_rows:
        return ""
    if pc.any(pc.equal(timeline.column("timeline.kind"), "tool_call")).as_py():
        return ""
    return "No tool call of it is in the spans: what its agent did before is not known."


def _severe(case: Case) -> str:
    """Return why its severity is what it is."""
    severity = case.incident["incident.severity"]
    worst = next((one["finding.severity"] for one in case.findings), severity)
    if worst == severity:
        return f"{severity}, as its worst finding" + ("" if severity == "critical" else f"; {_would_raise(case)}")
    factors = (text.partition(" ")[2] for text in case.incident["incident.risk_factors"])
    agree = next((text for text in factors if text.startswith("independent sources agree")), "")
    return f"{severity}, as its worst finding is {worst}" + (f", one step up because {agree}" if agree else "")


def _would_raise(case: Case) -> str:
    """Return what would raise its severity, and why other logs that it was seen in did not."""
    opened = {log for one in case.findings if one["finding.severity"] in OPENING for log in one["event.dataset"]}
    others = [log for log in case.incident.get("event.dataset", ()) if log not in opened]
    if opened and others:
        return (
            f"{several(others)} saw it, too, but has no finding of medium or above, and only such a one from a second "
            f"kind of source raises it one step"
        )
    return "a finding of medium or above from a second kind of source would raise it one step"


def _said(incident: Document, timeline: pa.RecordBatch) -> tuple[str, int | None]:
    """Return the arguments of that call, "" where none are known, and when it was over, None where that is not."""
    call, at = incident.get("gen_ai.tool.call.id"), incident.get("gen_ai.tool.call.start")
    if not at:
        return "", None
    its_own = pc.equal(timeline.column("gen_ai.tool.call.id"), call) if call else _at(timeline, at)
    its_own = pc.and_kleene(pc.equal(timeline.column("timeline.kind"), "tool_call"), its_own)
    chosen = pc.fill_null(its_own, fill_value=False)
    said = timeline.column("gen_ai.tool.call.arguments").filter(chosen)
    if not len(said):
        return "", None
    ended = timeline.column("event.end").cast(pa.int64()).filter(chosen)[0].as_py()
    return str(said[0].as_py() or ""), ended


def _at(timeline: pa.RecordBatch, time: str) -> pa.Array:
    return pc.equal(timeline.column("@timestamp").cast(pa.int64()), micros(time))


def _others(case: Case, said: AbstractSet[str], title: str) -> list[str]:
    """Return the titles of what opened the incident that neither its headline says nor ``said`` holds."""
    opened = [one["finding.title"] for one in case.findings if one["finding.severity"] in OPENING]
    return [one for one in dict.fromkeys(opened) if one not in said and not title.startswith(one)][:6]


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
        pc.binary_join_element_wise(f", {name} ", _values(name, column), "")
        for name, column in zip(entries.schema.names, entries.columns, strict=True)
        if name not in _SAID_ELSEWHERE and column.null_count < entries.num_rows
    ]
    texts = pc.binary_join_element_wise(
        pa.array([""] * entries.num_rows, pa.string()), *said, "", null_handling="replace", null_replacement=""
    )
    times = pc.strftime(entries.column("@timestamp").cast(pa.timestamp("s"), safe=False), "%Y-%m-%d %H:%M:%S")
    columns = times, entries.column("timeline.kind").cast(pa.string()), pc.utf8_slice_codeunits(texts, len(", "))
    return Rows.of(*(column.to_pylist() for column in columns))


def _values(name: str, column: pa.Array) -> pa.Array:
    """Return values as text: amounts with their thousands apart, long ones with their middle left out."""
    if pa.types.is_integer(column.type):
        return grouped_numbers(name, column)
    texts = column.cast(pa.string())
    if not pa.types.is_string(column.type) or (pc.max(pc.utf8_length(texts)).as_py() or 0) <= _VALUE:
        return texts
    return pa.array([None if text is None else shortened(text, _VALUE) for text in texts.to_pylist()], pa.string())


# -- findings and their evidence


def _finding(number: int, finding: Document, budget: Budget) -> dict[str, Any]:
    severity = finding["finding.severity"]
    seen = lines(finding, _MOST_EVIDENCE if severity in OPENING else _MOST_CONTEXT, budget)
    return {
        "id": f"finding-{number}",
        "severity": severity,
        "title": finding["finding.title"],
        "rule": finding["rule.name"],
        "peer": peer_of(finding),
        "whom": ends(whom_of(finding)),
        "overlap": _overlap(finding),
        "first": finding["finding.first_seen"],
        "last": ended(finding, "finding"),
        "events": finding["event.count"],
        "datasets": several(finding["event.dataset"]),
        "verdict": verdict(decided_on([finding | {"finding.severity": OPENING[0]}])),
        "conversations": finding.get("network.conversations", 0),
        "sent": finding.get("source.bytes", 0),
        "received": finding.get("destination.bytes", 0),
        "call": call_before(finding, "its first event"),
        "lines": seen,
        "benign": finding.get("falsepositives", [])[:_MOST_NAMES],
    }


def _condition(finding: Document, rules: Mapping[str, Condition]) -> dict[str, Any]:
    """Return what a finding's rule asked for, and with what values that held."""
    condition = rules.get(finding.get("rule.id", ""))
    meant = why(str(finding.get("rule.name", "")), condition)
    if condition is None or finding["finding.severity"] not in OPENING:
        return {"why": meant, "condition": condition, "values": [], "terms": [], "above": "", "asks": []}
    known = values(condition, finding)
    return {
        "why": meant,
        "condition": condition,
        "values": known,
        "terms": because(
            condition,
            known,
            matched_parts(condition, finding),
            {name: finding.get(name, 0) for name in ("source.bytes", "destination.bytes")},
        ),
        "asks": [(part.rule, folded(part)) for part in condition.parts],
        "above": "",
    }


def _say_once(findings: Sequence[dict[str, Any]]) -> None:
    """Let a rule that fired more than once say only once what it asks for."""
    said: dict[str, str] = {}
    for one in findings:
        if one["condition"] is not None:
            one["above"] = said.get(one["rule"], "")
            said.setdefault(one["rule"], one["id"])


def _fired(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings whose values are told on the first screen: of each rule the worst, and of its other peers.

    What fired on several peers need not be right on all: what coincides most with busy GPUs comes first.
    """
    opened = [one for one in findings if one["severity"] in OPENING]
    firsts = list({one["rule"]: one for one in reversed(opened)}.values())[::-1][:_MOST_FIRED]
    rules = [one["rule"] for one in firsts]
    of_peers = {(one["rule"], one["whom"]): one for one in reversed(opened) if one["rule"] in rules}.values()
    ordered = sorted(
        of_peers, key=lambda one: (rules.index(one["rule"]), -one["overlap"], int(one["id"].rpartition("-")[2]))
    )
    spare = _MOST_LINES_FIRED - len(firsts)
    further = [one for one in ordered if one not in firsts][:spare]
    return [one for one in ordered if one in firsts or one in further]


def _overlap(finding: Document) -> float:
    """Return the share of a conversation that coincides with busy GPUs; 0 where its rule did not look at that."""
    kept = [str(text) for text in finding.get("finding.values", ()) if str(text).startswith(_OVERLAP)]
    try:
        return float(kept[0].removeprefix(_OVERLAP)) if kept else 0.0
    except ValueError:
        return 0.0


def _kinds(findings: Sequence[dict[str, Any]]) -> str:
    """Return what context there is, with counts."""
    counted = Counter(one["title"] for one in findings if one["severity"] not in OPENING)
    return "; ".join(
        f"{short(title, 80)}{f' ({count:,})' if count > 1 else ''}" for title, count in counted.most_common(4)
    )


# -- what could not be seen


def _unseen(incident: Document, moments: Sequence[Moment], timeline: pa.RecordBatch, *, dated: bool) -> list[str]:
    gaps = [told for told in moments if told.kind == "gap"]
    said = [f"{_span(told, dated=dated)}: {told.text.removeprefix('not seen: ')}" for told in gaps[:_MOST_NAMES]]
    if len(gaps) > _MOST_NAMES:
        said.append(f"and {len(gaps) - _MOST_NAMES:,} more such times")
    kinds = set(pc.unique(timeline.column("timeline.kind")).to_pylist())
    if not kinds:
        return ["No timeline is stored of it: the run was one of an older agenttrail, or its timelines were removed."]
    on_gpus = any("gpu" in str(name) for name in incident.get("rule.name", ()))
    for kind, words, known in (
        ("tool_call", "No tool calls of it were in the spans.", True),
        ("gpu", "No GPU counters of it were read.", on_gpus),  # else nothing says that it has any
        ("step", "Its timeline has GPU counters, but no training steps.", "gpu" in kinds),
        ("egress", "No network traffic of it was seen.", True),
    ):
        if known and kind not in kinds:
            said.append(words)
    if "lease_end" not in kinds and incident["attribution.status"] == "attributed":
        said.append("No end of its lease was read: it was still running as far as leases tell.")
    return said
