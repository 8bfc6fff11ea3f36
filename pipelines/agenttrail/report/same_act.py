"""Incidents that are probably one act, seen by a sensor that tells whose it was and by one that does not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.incident_shapes import ended
from agenttrail.report.names import agent_name, headline, several
from agenttrail.report.pages import between, micros, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

Document = dict[str, Any]
MOST = 5
"""Incidents that one of them leads to."""


@dataclass(frozen=True)
class Twin:
    """An incident that is probably the same act as another.

    Attributes:
        id: of the incident.
        title: what it is about and on whom.
        agent: its agent; "" where that is ambiguous.
        why: what both have in common.
        peers: the peers that both have.
        first: from when on both last, in microseconds since 1970.
        last: until when.
        leases: of the one that is attributed.
        sandbox: its sandbox.
        unsure: whether this one is the ambiguous one.
        seen_by: the logs that show the ambiguous one.
        network: that they name no network, where that is why it is ambiguous; "" where it is not.
    """

    id: str
    title: str
    agent: str
    why: str
    peers: tuple[str, ...] = ()
    first: int = 0
    last: int = 0
    leases: tuple[str, ...] = ()
    sandbox: str = ""
    unsure: bool = False
    seen_by: str = ""
    network: str = ""


def same_acts(incidents: Iterable[Document]) -> dict[str, list[Twin]]:
    """Return, by id, the other incidents that are probably the same act.

    Two are where one is attributed by a lease that is among the candidates of the other, which is ambiguous; a peer and
    a port are the same, and their times overlap.
    """
    by_lease: dict[str, list[Document]] = defaultdict(list)
    ambiguous = []
    for incident in incidents:
        if incident["attribution.status"] == "ambiguous":
            ambiguous.append(incident)
        elif incident["attribution.status"] == "attributed":
            for lease in incident.get("attribution.lease_id", ()):
                by_lease[lease].append(incident)
    found: dict[str, list[Twin]] = defaultdict(list)
    for unsure in ambiguous:
        holders = {
            one["incident.id"]: one
            for lease in unsure.get("attribution.candidates", ())
            for one in by_lease.get(lease, ())
        }
        for sure in holders.values():
            why = _in_common(sure, unsure)
            for one, other in ((sure, unsure), (unsure, sure)) if why else ():
                if len(found[one["incident.id"]]) < MOST:
                    found[one["incident.id"]].append(_twin(sure, unsure, why, unsure_=other is unsure))
    return found


def _in_common(sure: Mapping[str, Any], unsure: Mapping[str, Any]) -> str:
    """Return what makes them one act in words, "" where they are two."""
    peers, ports = (_shared(sure, unsure, f"destination.{name}") for name in ("ip", "port"))
    portless = not (sure.get("destination.port") or unsure.get("destination.port"))
    first, last = _both(sure, unsure)
    if not peers or not (ports or portless) or first > last:
        return ""
    whose = short(sure.get("sandbox.id") or sure["entity.id"])
    port = f" port {several(ports)}" if ports else ""
    same = "same peer" if len(peers) == 1 else f"the same {len(peers)} peers:"
    candidates = len(unsure["attribution.candidates"])
    network = ", which names no network" if _nameless(sure, unsure) else ""
    return (
        f"{same} {several(peers)}{port}, at the same time ({between(first, last)}), and {whose} is one of "
        f"the {candidates} candidates of the ambiguous one{network}"
    )


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, int]:
    """Return from when to when two incidents last both."""
    first = max(micros(each["incident.first_seen"]) for each in (one, other))
    return first, min(micros(ended(each, "incident")) for each in (one, other))


def _nameless(sure: Mapping[str, Any], unsure: Mapping[str, Any]) -> bool:
    """Tell whether an incident is ambiguous as its logs do not say in which network it was."""
    return bool(sure.get("attribution.scope") and not unsure.get("attribution.scope"))


def _shared(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> Sequence[Any]:
    theirs = set(other.get(name, ()))
    return [value for value in one.get(name, ()) if value in theirs]


def agree(acts: Mapping[str, AbstractSet[tuple[Any, ...]]], one: str, other: str) -> bool:
    """Tell whether all that opened one incident opened the other, too: the same counts, bytes and times."""
    first, second = acts.get(one, set()), acts.get(other, set())
    return bool(first) and first == second


def _twin(sure: Mapping[str, Any], unsure: Mapping[str, Any], why: str, *, unsure_: bool) -> Twin:
    incident = unsure if unsure_ else sure
    agent = short(incident.get("gen_ai.agent.id") or "")
    whose = agent_name(agent) if agent else f"{incident['entity.type']} {short(incident['entity.id'])}"
    status = incident["attribution.status"]
    first, last = _both(sure, unsure)
    logs = [short(log) for log in unsure.get("event.dataset", ())]
    seen_by = several(logs)
    nameless = bool(logs) and _nameless(sure, unsure)
    return Twin(
        incident["incident.id"], f"{headline(incident)}, {whose} ({status})", agent, why,
        peers=tuple(map(str, _shared(sure, unsure, "destination.ip"))), first=first, last=last,
        leases=tuple(map(str, sure.get("attribution.lease_id", ()))), sandbox=short(sure.get("sandbox.id") or ""),
        unsure=unsure_, seen_by=seen_by,
        network=f"{seen_by} name{'s' if len(logs) == 1 else ''} no network" if nameless else "",
    )  # fmt: skip
