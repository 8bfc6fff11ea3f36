"""What incidents and agents are called on pages and in links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.columns.ids import content_id
from agenttrail.incidents import wording
from agenttrail.report.pages import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]
_MOST_NAMES = 2
_MOST_ENDS = 3
_LISTED = 100
"""Peers that a finding or an incident lists."""
_NAME = 64
"""Characters of the name of a peer."""
_PEER = "peer.ip="
"""How a value begins that a rule looked at and that is a peer."""
OPENING = ("medium", "high", "critical")
"""Severities of the findings that open an incident; the others are context."""
TECHNIQUES = {
    "AML.T0025": "Exfiltration via Cyber Means",
    "AML.T0072": "Reverse Shell",
    "AML.T0086": "Exfiltration via AI Agent Tool Invocation",
    "T1021": "Remote Services",
    "T1021.004": "Remote Services: SSH",
    "T1041": "Exfiltration Over C2 Channel",
    "T1046": "Network Service Discovery",
    "T1048": "Exfiltration Over Alternative Protocol",
    "T1059": "Command and Scripting Interpreter",
    "T1059.004": "Command and Scripting Interpreter: Unix Shell",
    "T1071": "Application Layer Protocol",
    "T1071.001": "Application Layer Protocol: Web Protocols",
    "T1496": "Resource Hijacking",
    "T1496.001": "Resource Hijacking: Compute Hijacking",
    "T1552": "Unsecured Credentials",
    "T1552.005": "Unsecured Credentials: Cloud Instance Metadata API",
    "T1571": "Non-Standard Port",
    "T1572": "Protocol Tunneling",
}
"""ATT&CK and ATLAS techniques that the rules which ship with the program name; those of other rules are shown by id."""


def incident_file(incident: str) -> str:
    """Return the name of the page of an incident; what stands in an id never becomes a path."""
    plain = incident.isascii() and incident.isalnum() and incident == incident.lower() and len(incident) == 32  # noqa: PLR2004
    return f"incident-{incident if plain else content_id(incident)}.html"


def agent_file(agent: str) -> str:
    """Return the name of the page of an agent."""
    return f"agent-{content_id(agent)}.html"


def agent_name(agent: str) -> str:
    """Return what an agent is called in a sentence: without the word where its name begins with it."""
    name = short(agent)
    return name if name.lower().startswith("agent") else f"agent {name}"


def headline(incident: Mapping[str, Any]) -> str:
    """Return what an incident is about, without who it was: that stands beside it."""
    return short(wording.headline(incident))


def is_of_a_call(finding: Mapping[str, Any]) -> bool:
    """Tell whether what a finding rests on is a tool call itself, not what came after one."""
    return any(event.get("gen_ai.operation.name") == "execute_tool" for event in finding.get("finding.evidence", ()))


def peer_names(incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    """Return what logs call the peers of an incident, at most two names; "" where none does."""
    peers = incident.get("destination.ip", ())
    names = dict.fromkeys(
        str(event["destination.domain"])
        for finding in findings
        for event in finding.get("finding.evidence", ())
        if event.get("destination.domain") and event.get("destination.ip") in peers
    )
    told = [short(name, _NAME) for name in list(names)[:_MOST_NAMES]]
    return ", ".join(told) + (f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else "")


def several(some: Sequence[Any], most: int = 3) -> str:
    """Return some values in a line, and how many more there are."""
    more = len(some) - most
    return ", ".join(short(one) for one in some[:most]) + (f" and {more:,} more" if more > 0 else "")


def ends(peers: Sequence[Any]) -> str:
    """Return peers in a line: of many how many they are, and the first; "" without any."""
    if len(peers) <= _MOST_ENDS:
        return several(peers, _MOST_ENDS)
    if len(peers) >= _LISTED:  # there may be more than a document lists
        return f"{len(peers)} addresses or more ({several(peers[:_MOST_ENDS])} and others)"
    return f"{len(peers)} addresses ({several(peers, _MOST_ENDS)})"


def whom_of(finding: Mapping[str, Any]) -> list[str]:
    """Return the peers of a finding: its own, those that it lists, or those that its rule looked at."""
    own = [finding["peer.ip"]] if finding.get("peer.ip") else finding.get("destination.ip", [])
    kept = [str(text) for text in finding.get("finding.values", ())]
    return list(own) or [text.removeprefix(_PEER) for text in kept if text.startswith(_PEER)]


def peer_of(document: Mapping[str, Any]) -> str:
    """Return the peers of an incident or a finding with their ports; "" where it has none."""
    peers = [document["peer.ip"]] if document.get("peer.ip") else document.get("destination.ip", [])
    ports = document.get("peer.port") or document.get("destination.port", [])
    return (ends(peers) + (f" port {several(ports)}" if ports else "")) if peers else ""
