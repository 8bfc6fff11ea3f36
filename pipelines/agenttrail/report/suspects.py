"""Whom an incident leads to besides whom it names: its twins, and who may have done each of its acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.report.acts import MOST_ACTS, acts_of, candidates_of, named_together, twins_of
from agenttrail.report.names import agent_name, incident_file, several
from agenttrail.report.pages import short
from agenttrail.report.reading import runs_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenttrail.report.acts import Act
    from agenttrail.report.incident_page import Around
    from agenttrail.report.reading import Case, Told
    from agenttrail.report.same_act import Twin

Document = dict[str, Any]
_MOST_NAMES, _SHORT = 12, 8


def twin_label(twin: Twin, acts: Sequence[Act], same: bool) -> str:  # noqa: FBT001 - a label has no other way to be told
    """Return what another incident shares with this one, to be followed by its id."""
    names = dict.fromkeys(one.name for one in acts if twins_of(one, [twin]))
    what = f"the same {' and '.join(names) or 'act'}"
    if not twin.unsure:
        whose = f", of {agent_name(twin.agent)}" if twin.agent else ""
        return f"Probably {what}{whose}:"
    if same:
        return f"The same connections, logged a second time by {twin.seen_by}:"
    by = f" as seen by {twin.seen_by}{', which names no network' if twin.network else ''}" if twin.seen_by else ""
    return f"Probably {what}{by}:"


def probable(twins: Sequence[Twin], acts: Sequence[Act], around: Around) -> dict[str, Any]:
    """Return which agent it probably was, where all its acts are probably those of one; empty else."""
    known = [twin for twin in twins if twin.agent]
    with_peers = [one for one in acts if one.peers]
    if (
        len({twin.agent for twin in known}) != 1
        or not with_peers
        or not all(twins_of(one, known) for one in with_peers)
    ):
        return {}
    return {"agent": agent_name(known[0].agent), "see": [_see(twin, around) for twin in known[:MOST_ACTS]]}


def _see(twin: Twin, around: Around) -> tuple[str, str]:
    return short(twin.id[:_SHORT]), incident_file(twin.id) if twin.id in around.paged else ""


def whose_acts(acts: Sequence[Act], twins: Sequence[Twin], around: Around) -> list[dict[str, Any]]:
    """Return who may have done each act, as far as findings tell that."""
    told, out = around.told, []
    of_peers: dict[tuple[str, ...], list[Act]] = {}
    for one in [one for one in acts if one.candidates]:
        of_peers.setdefault(one.peers, []).append(one)
    for own in list(of_peers.values())[:MOST_ACTS]:
        every = [each for one in own for each in candidates_of(one, twins, told.leases, told.held)]
        fit = sorted({each.lease: each for each in every}.values(), key=lambda each: each.twin is None)
        known = [(names, _see(twin, around) if twin else None) for _, names, twin in fit[:_MOST_NAMES]]
        linked = max(sum(see is not None for _, see in known), 2)
        out.append({"what": ", ".join(named_together(own)), "first": known[:linked], "more": known[linked:]})
    return out


def also_runs(incident: Document, twins: Sequence[Twin], told: Told) -> str:
    """Return which other sandbox its agent, or the one that it probably was, runs when the logs end; "" for none."""
    agent = incident.get("gen_ai.agent.id") or next((twin.agent for twin in twins if twin.agent), "")
    but = {incident.get("sandbox.id", ""), *(twin.sandbox for twin in twins)}
    names = runs_now(told, agent, but) if agent else []
    return f"{agent_name(agent)} runs {several(names, 1)} now" if names else ""


def possible_agents(case: Case, around: Around) -> list[str]:
    """Return the agents that may have done an act of an ambiguous incident, as far as findings tell that."""
    incident, told = case.incident, around.told
    if incident["attribution.status"] != "ambiguous":
        return []
    twins = around.twins.get(incident["incident.id"], ())
    acts = [one for one in acts_of(incident, case.findings) if one.candidates]
    leases = [each.lease for one in acts for each in candidates_of(one, twins, told.leases, told.held)]
    names = [told.leases.get(id_, {}) for id_ in leases or incident.get("attribution.candidates", ())]
    return list(dict.fromkeys(str(one["gen_ai.agent.id"]) for one in names if one.get("gen_ai.agent.id")))
