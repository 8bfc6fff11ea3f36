"""Why an incident is said to be on one agent: who held the address, from when to when, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.incident_shapes import ended
from agenttrail.report.acts import whose
from agenttrail.report.evidence import own_addresses
from agenttrail.report.names import OPENING, several
from agenttrail.report.pages import between, clock, micros, short, when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.report.same_act import Twin

Document = dict[str, Any]
_MOST_NAMES = 12
LEVELS = {
    "trajectory": "the rollout, not which process in it",
    "sandbox": "the sandbox, not which rollout of the agent",
    "job": "the training job, not which of its sandboxes",
    "host": "the machine, not which sandbox on it",
    "address": "the address alone, not who held it",
}
"""What is proven where an incident is proven down to a level, and what is not."""
_INSIDE = "the act lies inside"
_NAMED = ("the pod that the record names", "named by the record itself")
"""How reasons begin that rest on a name in the record and not on an address."""


@dataclass(frozen=True)
class Proof:
    """What is known of who it was.

    Attributes:
        status: of attribution.
        verdict: how sure it is, in a sentence.
        held: who held which address when, in a sentence or two; "" where no lease says.
        owned: the same in short, beside the names and the date.
        start: start of the lease; "" where none is known.
        stop: its end; "" where none was read.
        level: narrowest rung that is proven.
        meaning: what that means; "" where it is none of ours.
        reasons: how the decision came about.
        seen_by: logs that show it.
        leases: ids of the leases.
        candidates: short id of each lease that fits, and whose it is as far as findings tell.
        counted: how many candidates there are.
        scope: networks in which addresses are unique.
        readers: where leases were read from; "" where that is not known.
    """

    status: str
    verdict: str
    held: str
    owned: str
    start: str
    stop: str
    level: str
    meaning: str
    reasons: Sequence[str]
    seen_by: str
    leases: Sequence[str]
    candidates: Sequence[tuple[str, str]]
    counted: int
    scope: Sequence[str]
    readers: str


def proof(
    incident: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    holders: Mapping[str, Mapping[str, str]],
    readers: Sequence[str] = (),
    twins: Sequence[Twin] = (),
) -> Proof:
    """Return why an incident is on whom it is on.

    Args:
        incident: the incident.
        findings: its heaviest findings, with their evidence.
        holders: whose leases are, by their ids, as far as it is known.
        readers: formats that leases were read from.
        twins: incidents that are probably the same act.
    """
    status, level = incident["attribution.status"], incident["attribution.level"]
    opened = [one for one in findings if one["finding.severity"] in OPENING]
    addresses = [incident["entity.id"]] if incident["entity.type"] == "address" else own_addresses(opened)
    candidates = incident.get("attribution.candidates", [])
    return Proof(
        status=status,
        verdict=_verdict(incident, addresses, next((one.network for one in twins if one.network), "")),
        held=_held(incident, addresses) if incident.get("attribution.lease_start") else "",
        owned=_owned(incident, addresses) if incident.get("attribution.lease_start") else "",
        start=incident.get("attribution.lease_start", ""),
        stop=incident.get("attribution.lease_end", ""),
        level=level,
        meaning=LEVELS.get(level, ""),
        reasons=incident.get("attribution.reason", [])[:_MOST_NAMES],
        seen_by=several(incident.get("event.dataset", []), _MOST_NAMES),
        leases=incident.get("attribution.lease_id", [])[:_MOST_NAMES],
        candidates=[(lease[:12], whose(lease, holders.get(lease, {}))) for lease in candidates[:_MOST_NAMES]],
        counted=len(candidates),
        scope=incident.get("attribution.scope", [])[:_MOST_NAMES],
        readers=several(sorted(set(readers)), _MOST_NAMES),
    )


def lease_text(document: Mapping[str, Any]) -> str:
    """Return who held the leases of an incident or a finding, and from when to when; "" where nothing names that.

    Args:
        document: what those leases alone prove.
    """
    who = _holder(document)
    start, stop = document.get("attribution.lease_start"), document.get("attribution.lease_end")
    if not who or not start:
        return who
    return f"{who}, {between(start, stop)}" if stop else f"{who}, from {when(start)} on; no end of it was read"


def _holder(document: Mapping[str, Any]) -> str:
    """Return the sandbox that held a lease, or what else is known, and whose that is."""
    rungs = ((label, document.get(f"{label}.id")) for label in ("sandbox", "trajectory", "job"))
    named = [(label, value) for label, value in (*rungs, ("host", document.get("host.name"))) if value]
    if not named:
        return ""
    (label, value), agent, job = named[0], document.get("gen_ai.agent.id"), document.get("job.id")
    whose = f" of agent {short(agent)}" if agent else ""
    return f"{label} {short(value)}{whose}" + (f" in job {short(job)}" if job and label != "job" else "")


def _verdict(incident: Mapping[str, Any], addresses: Sequence[str], network: str) -> str:
    status = incident["attribution.status"]
    what = several(addresses) or "what was seen"
    if status == "attributed":
        by_name_alone = "attribution.lease_start" not in incident
        return "Attributed: the record itself names it; no lease proves it." if by_name_alone else "Attributed: sure."
    if status == "ambiguous":
        counted = len(incident.get("attribution.candidates", []))
        if network:
            return f"Ambiguous: {network}, so {counted} holders fit {what} over its time."
        return f"Ambiguous: {counted} leases fit {what}, and any one of them may have been it."
    if status == "unattributed":
        return f"Unattributed: no lease fits {what} at {when(incident['incident.first_seen'])}."
    return f"Status: {short(status)}."


def _held(incident: Mapping[str, Any], addresses: Sequence[str]) -> str:
    """Return who held the address, and how the act lies to that time."""
    who = next((short(incident[name]) for name in ("sandbox.id", "trajectory.id") if incident.get(name)), "")
    who = f"sandbox {who}" if incident.get("sandbox.id") else who or short(incident["entity.id"])
    start, stop = incident["attribution.lease_start"], incident.get("attribution.lease_end")
    during = f"from {between(start, stop)}" if stop else f"from {when(start)} on; no end of it was read"
    named = any(reason.startswith(_NAMED) for reason in incident.get("attribution.reason", ()))
    if named and not addresses:
        return f"{who} ran {during}; {_lies(incident, start, stop)}, and the record itself names it."
    what = several(addresses) or "its address"
    also = "  Records that name the sandbox themselves agree." if named else ""
    held = f"{what} {'were' if len(addresses) > 1 else 'was'} held by {who} {during}"
    networks = incident.get("attribution.scope", ())
    where = f"In network {several(networks)} no" if networks else "No"  # in another one the address may be another's
    return f"{held}; {_lies(incident, start, stop)}.  {where} other holder fits.{also}"


def _owned(incident: Mapping[str, Any], addresses: Sequence[str]) -> str:
    """Return who held the address beside a line that names it and says when it ended."""
    since = clock(incident["attribution.lease_start"], incident["incident.first_seen"])
    what = "rollout" if incident["entity.type"] == "trajectory" else "lease"
    until = f"until its {what} ended" if incident.get("attribution.lease_end") else "on; no end of it was read"
    during = f"from {since} {until}"
    lies = _lies(incident, incident["attribution.lease_start"], incident.get("attribution.lease_end"))
    inside = "" if lies == _INSIDE else f"; {lies}"
    if not addresses and any(one.startswith(_NAMED) for one in incident.get("attribution.reason", ())):
        return f"It ran {during}{inside}; the record itself names it."
    several_ = len(addresses) > 1
    own = f"{several(addresses) or 'The address'} {'were its addresses' if several_ else 'was its address'}"
    networks = incident.get("attribution.scope", ())  # in another one the address may be another's
    fits = f"{'in its network ' if networks else ''}no other holder fits"
    return f"{own} {during}{inside}; {fits}.  {_basis(incident)}"


def _basis(incident: Mapping[str, Any]) -> str:
    """Return on what it rests: on a lease alone, or on names in records, too."""
    named = any(one.startswith(_NAMED) for one in incident.get("attribution.reason", ()))
    return "By a lease, and records name the sandbox." if named else "By a lease alone."


def _lies(incident: Mapping[str, Any], start: str, stop: str | None) -> str:
    first, last = incident["incident.first_seen"], ended(incident, "incident")
    try:
        begin, end = micros(start), None if stop is None else micros(stop)
    except ValueError:  # only times of an incident and its findings are known to be some
        return "the act cannot be compared with that"
    if micros(first) < begin or (end is not None and micros(first) >= end):
        return "the act began outside it, within the tolerance for clocks"
    return _INSIDE if end is None or micros(last) < end else "the act began inside and outlasted it"
