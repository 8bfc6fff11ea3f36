"""What stands on the first page, and on the page of an agent."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from agenttrail.incidents.scoring import LEVELS
from agenttrail.report.incident_page import agent_file, headline, incident_file
from agenttrail.report.pages import micros, render, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.report.reading import Sandbox, Told

Document = dict[str, Any]
MOST_LISTED = 2_000
"""Incidents that the first page lists."""
MOST_AGENTS = 200
"""Agents with a page of their own."""
_MOST_WORDS = 8


def row(incident: Document, paged: AbstractSet[str]) -> dict[str, Any]:
    """Return what a table of incidents shows of one; ``paged`` are the ids of those that have a page."""
    peers, calls = incident.get("destination.ip", []), incident.get("gen_ai.tool.name")
    return {
        "id": incident["incident.id"],
        "page": incident_file(incident["incident.id"]) if incident["incident.id"] in paged else "",
        "severity": incident["incident.severity"],
        "rank": LEVELS.index(incident["incident.severity"]),
        "risk": incident["incident.risk_score"],
        "first": incident["incident.first_seen"],
        "from": micros(incident["incident.first_seen"]) // 1_000_000,
        "until": micros(incident["incident.last_seen"]) // 1_000_000,
        "agent": short(incident.get("gen_ai.agent.id", "")),
        "entity": short(f"{incident['entity.type']} {incident['entity.id']}"),
        "what": headline(incident),
        "whom": ", ".join(short(peer) for peer in peers[:2]) + (f" +{len(peers) - 2}" if len(peers) > 2 else ""),  # noqa: PLR2004
        "techniques": [short(one, 40) for one in incident.get("threat.technique.id", [])[:_MOST_WORDS]],
        "status": incident["attribution.status"],
        "after": short(calls) if calls else "",
    }


def index_page(
    incidents: Sequence[Document], paged: AbstractSet[str], agents: Mapping[str, str], run: Document, filtered: str
) -> bytes:
    """Return the first page.

    Args:
        incidents: the riskiest first.
        paged: ids of those that have a page.
        agents: page of each agent that has one.
        run: ``run.json``; empty where there is none.
        filtered: which incidents were asked for, "" for all.
    """
    rows = [row(incident, paged) for incident in incidents[:MOST_LISTED]]
    severities = Counter(incident["incident.severity"] for incident in incidents)
    return render(
        "index.html.j2", "index.js",
        rows=rows, counted=len(incidents), paged=len(paged), filtered=filtered, agents=_agents(incidents, agents),
        severities=[(name, severities[name]) for name in reversed(LEVELS) if severities[name]],
        levels=[(name, LEVELS.index(name)) for name in reversed(LEVELS) if severities[name]],
        names=sorted({one["agent"] for one in rows} - {""}),
        techniques=sorted({technique for one in rows for technique in one["techniques"]}),
        job=run.get("job", ""), covered=_covered(run), notes=notes_of(run),
    )  # fmt: skip


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
        (short(span[0] or "the first log", 40), short(span[1] or "the last one", 40))
        for span in spans[:3]
        if isinstance(span, list) and len(span) == 2  # noqa: PLR2004
    ]


def notes_of(run: Document) -> list[str]:
    """Return what a run says was off and could not be seen."""
    notes = run.get("notes")
    return [str(note) for note in notes[:40]] if isinstance(notes, list) else []


def agent_page(agent: str, incidents: Sequence[Document], paged: AbstractSet[str], told: Told) -> bytes:
    """Return the page of an agent: its incidents, and its sandboxes as far as findings tell of them."""
    known = {incident["incident.id"] for incident in incidents}
    sandboxes = sorted(told.sandboxes.get(agent, {}).values(), key=lambda one: (one.start, sorted(one.whom.items())))
    return render(
        "agent.html.j2", "index.js",
        agent=agent, rows=[row(incident, paged) for incident in incidents[:MOST_LISTED]], counted=len(incidents),
        sandboxes=[_sandbox(one, known, paged) for one in sandboxes], whole=told.whole,
    )  # fmt: skip


def _sandbox(sandbox: Sandbox, known: AbstractSet[str], paged: AbstractSet[str]) -> dict[str, Any]:
    return {
        "name": sandbox.whom.get("sandbox.id", ""),
        "trajectory": sandbox.whom.get("trajectory.id", ""),
        "job": sandbox.whom.get("job.id", ""),
        "host": sandbox.whom.get("host.name", ""),
        "start": sandbox.start,
        "stop": sandbox.stop,
        "findings": sandbox.findings,
        "incidents": [
            (id_[:8], incident_file(id_) if id_ in paged else "")
            for id_ in sorted(sandbox.incidents & known)[:_MOST_WORDS]
        ],
    }


def agent_pages(incidents: Sequence[Document]) -> dict[str, str]:
    """Return the page of each agent with an incident, those with the riskiest ones first."""
    agents = dict.fromkeys(str(one["gen_ai.agent.id"]) for one in incidents if one.get("gen_ai.agent.id"))
    return {agent: agent_file(agent) for agent in list(agents)[:MOST_AGENTS]}
