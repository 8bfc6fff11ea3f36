"""What stands on the first page, and on the page of an agent."""

from __future__ import annotations

from collections import Counter, defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agenttrail.incident_shapes import SHORT_ID, ended
from agenttrail.incidents.scoring import LEVELS
from agenttrail.report.commands import command
from agenttrail.report.names import TECHNIQUES, agent_file, agent_name, headline, incident_file, several
from agenttrail.report.pages import micros, render, short, when
from agenttrail.report.reading import runs_now
from agenttrail.report.same_act import agree
from agenttrail.report.standing import standing, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.report.incident_page import Around
    from agenttrail.report.reading import Sandbox
    from agenttrail.report.standing import Standing

Document = dict[str, Any]
MOST_LISTED = 2_000
"""Incidents that the first page lists."""
MOST_AGENTS = 200
"""Agents with a page of their own."""
_MOST_WORDS = 8
_ID, _SHOWN = 32, 8
_MOST_FOUND = 2
"""Titles of findings that are told of a sandbox."""
_FEW = 8
"""Incidents from which on filters stand open."""


def row(incident: Document, around: Around, agents: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return what a table of incidents shows of one.

    Args:
        incident: the incident.
        around: what lies around it.
        agents: page of each agent that has one.
    """
    peers, ports = incident.get("destination.ip", []), incident.get("destination.port", [])
    paged, now = around.paged, standing(incident)
    decided = around.told.outcomes.get(incident["incident.id"])  # None: nobody looked, as it has no page
    twins = around.twins.get(incident["incident.id"], ())
    return {
        "id": incident["incident.id"],
        "on_demand": command("report", around.source, short(incident["incident.id"], _ID)),
        "short": short(incident["incident.id"][:SHORT_ID]),
        "page": incident_file(incident["incident.id"]) if incident["incident.id"] in paged else "",
        "severity": incident["incident.severity"],
        "rank": LEVELS.index(incident["incident.severity"]),
        "risk": incident["incident.risk_score"],
        "first": incident["incident.first_seen"],
        "from": micros(incident["incident.first_seen"]) // 1_000_000,
        "until": micros(ended(incident, "incident")) // 1_000_000,
        "agent": short(incident.get("gen_ai.agent.id", "")),
        "possible": [short(one) for one in around.told.possible.get(incident["incident.id"], ())],
        "agent_id": incident.get("gen_ai.agent.id", ""),
        "agent_page": agents.get(incident.get("gen_ai.agent.id", ""), ""),
        "entity": short(f"{incident['entity.type']} {incident['entity.id']}"),
        "what": headline(incident),
        "named": around.told.names.get(incident["incident.id"], ""),
        "job": short(incident.get("job.id", "")),
        "disputed": incident["incident.id"] in around.told.disputed,
        "whom": ", ".join(short(peer) for peer in peers[:2]) + (f" +{len(peers) - 2}" if len(peers) > 2 else ""),  # noqa: PLR2004
        "ports": several(ports, 2),
        "verdict": verdict(decided) if peers and decided is not None else "",
        "sandbox": short(incident.get("sandbox.id", "")),
        "state": now.state,
        "standing": _standing(incident, around, now),
        "techniques": [short(one, 40) for one in incident.get("threat.technique.id", [])[:_MOST_WORDS]],
        "called": [TECHNIQUES.get(one, "") for one in incident.get("threat.technique.id", [])[:_MOST_WORDS]],
        "status": incident["attribution.status"],
        "twins": [
            (
                twin,
                incident_file(twin.id) if twin.id in paged else "",
                agree(around.told.acts, incident["incident.id"], twin.id),
            )
            for twin in twins
        ],
    }


def _standing(incident: Document, around: Around, now: Standing) -> str:
    """Return whether its sandbox runs; of one that does, the last time that its timeline knows."""
    latest = around.told.latest.get(incident["incident.id"])
    if now.state == "running" and latest is not None:
        return f"{now.text}; last seen {when(latest)}"
    return now.text if now.state != "not known" else "not known whether it runs"


def index_page(
    incidents: Sequence[Document], around: Around, agents: Mapping[str, str], run: Document, filtered: str
) -> bytes:
    """Return the first page.

    Args:
        incidents: the riskiest first.
        around: what lies around them.
        agents: page of each agent that has one.
        run: ``run.json``; empty where there is none.
        filtered: which incidents were asked for, "" for all.
    """
    rows = [row(incident, around, agents) for incident in incidents[:MOST_LISTED]]
    severities = Counter(incident["incident.severity"] for incident in incidents)
    return render(
        "index.html.j2", "index.js",
        rows=rows, counted=len(incidents), paged=len(around.paged), few=len(incidents) < _FEW,
        filtered=filtered, agents=_agents(incidents, agents),
        severities=[(name, severities[name], LEVELS.index(name)) for name in reversed(LEVELS) if severities[name]],
        levels=[(name, LEVELS.index(name)) for name in reversed(LEVELS) if severities[name]],
        names=sorted({name for one in rows for name in (one["agent"], *one["possible"])} - {""}),
        techniques=[
            (one, TECHNIQUES.get(one, "")) for one in sorted({each for one in rows for each in one["techniques"]})
        ],
        job=run.get("job", ""), covered=_covered(run), seen=_seen(incidents), notes=around.notes,
        again=_again(incidents, around), elsewhere=_elsewhere(rows, around),
        running=_running(rows), seen_from=min(around.told.earliest.values(), default=None),
        seen_until=max(around.told.latest.values(), default=None),
    )  # fmt: skip


def _elsewhere(rows: Sequence[dict[str, Any]], around: Around) -> list[dict[str, Any]]:
    """Return the agents with an incident that run other sandboxes when the logs end, and which."""
    with_incident = {one["sandbox"] for one in rows}
    agents = {one["agent_id"]: one for one in reversed(rows) if one["agent_id"]}
    now = {agent: runs_now(around.told, agent, with_incident) for agent in reversed(agents)}
    return [
        {"agent": agents[agent]["agent"], "page": agents[agent]["agent_page"], "runs": several(names, 2)}
        for agent, names in now.items()
        if names
    ]


def _again(incidents: Sequence[Document], around: Around) -> list[tuple[tuple[str, str], list[tuple[str, str]], str]]:
    """Return the ambiguous incidents that probably repeat others, with those; each with its page, "" without one."""

    def linked(id_: str) -> tuple[str, str]:
        return short(id_[:_SHOWN]), incident_file(id_) if id_ in around.paged else ""

    doubtful = [one["incident.id"] for one in incidents if one["attribution.status"] == "ambiguous"]
    return [
        (linked(id_), [linked(twin.id) for twin in around.twins[id_]], id_) for id_ in doubtful if id_ in around.twins
    ]


def _running(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each sandbox that still ran at the end of the logs, of the first of its incidents."""
    return list({one["sandbox"]: one for one in reversed(rows) if one["state"] == "running"}.values())[::-1]


def _agents(incidents: Sequence[Document], pages: Mapping[str, str]) -> list[dict[str, Any]]:
    of_agent: dict[str, list[Document]] = defaultdict(list)
    for incident in incidents:
        of_agent[incident.get("gen_ai.agent.id") or ""].append(incident)
    ordered = sorted(of_agent, key=lambda agent: (not agent, -len(of_agent[agent]), agent))
    return [
        {"name": short(agent), "page": pages.get(agent, ""), "incidents": len(of_agent[agent])}
        for agent in ordered[: MOST_AGENTS + 1]
    ]


def _covered(run: Document) -> list[tuple[str, str]]:
    spans = run.get("covered")
    if not isinstance(spans, list):
        return []
    return [
        (when(span[0]) if span[0] else "", when(span[1]) if span[1] else "")
        for span in spans[:3]
        if isinstance(span, list) and len(span) == 2 and any(span)  # noqa: PLR2004 - a run without bounds says nothing
    ]


def ends_of(run: Document) -> str:
    """Return when the logs of a run end, as far as it was bounded; "" where it was not."""
    stops = [stop for _, stop in _covered(run)]
    return max(stops) if stops and all(stops) else ""


def _seen(incidents: Sequence[Document]) -> str:
    """Return from when to when all incidents lie; "" without any."""
    if not incidents:
        return ""
    first = min(micros(one["incident.first_seen"]) for one in incidents)
    return f"{when(first)} to {when(max(micros(ended(one, 'incident')) for one in incidents))}"


def readers_of(run: Document) -> list[str]:
    """Return the formats that a run read leases from."""
    sources = run.get("sources")
    known = [one for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    return [str(one.get("format", "")) for one in known if one.get("leases")]


def sources_of(run: Document) -> frozenset[str]:
    """Return the formats of the logs that a run read."""
    sources = run.get("sources")
    known = [one for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    return frozenset(str(one.get("format", "")) for one in known)


def notes_of(run: Document) -> list[str]:
    """Return what a run says was off and could not be seen."""
    notes = run.get("notes")
    return [str(note) for note in notes[:40]] if isinstance(notes, list) else []


def agent_page(agent: str, incidents: Sequence[Document], perhaps: Sequence[Document], around: Around) -> bytes:
    """Return the page of an agent: its incidents, and its sandboxes as far as findings tell of them.

    Args:
        agent: its name.
        incidents: those that are attributed to it.
        perhaps: ambiguous ones in which it is a candidate.
        around: what lies around them.
    """
    known = {incident["incident.id"] for incident in incidents}
    told, paged = around.told, around.paged
    sandboxes = sorted(told.sandboxes.get(agent, {}).values(), key=lambda one: (one.start, sorted(one.whom.items())))
    return render(
        "agent.html.j2", "index.js",
        agent=agent, called=agent_name(agent).replace("agent ", "Agent ", 1),
        runs=several(runs_now(around.told, agent), 3),
        rows=[row(incident, around) for incident in [*incidents, *perhaps][:MOST_LISTED]],
        counted=len(incidents), perhaps=len(perhaps),
        sandboxes=[_sandbox(one, known, paged) for one in sandboxes], whole=told.whole,
    )  # fmt: skip


def _sandbox(sandbox: Sandbox, known: AbstractSet[str], paged: AbstractSet[str]) -> dict[str, Any]:
    found = [short(title) for title in sorted(sandbox.found, key=lambda title: (-sandbox.found[title], title))]
    return {
        "name": sandbox.whom.get("sandbox.id", ""),
        "trajectory": sandbox.whom.get("trajectory.id", ""),
        "job": sandbox.whom.get("job.id", ""),
        "host": sandbox.whom.get("host.name", ""),
        "start": sandbox.start,
        "stop": sandbox.stop,
        "findings": sandbox.findings,
        "found": found[:_MOST_FOUND],
        "further": max(len(found) - _MOST_FOUND, 0),
        "incidents": [
            (id_[:SHORT_ID], incident_file(id_) if id_ in paged else "")
            for id_ in sorted(sandbox.incidents & known)[:_MOST_WORDS]
        ],
    }


def agent_pages(incidents: Sequence[Document]) -> dict[str, str]:
    """Return the page of each agent with an incident, those with the riskiest ones first."""
    agents = dict.fromkeys(str(one["gen_ai.agent.id"]) for one in incidents if one.get("gen_ai.agent.id"))
    return {agent: agent_file(agent) for agent in list(agents)[:MOST_AGENTS]}
