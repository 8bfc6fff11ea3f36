"""Whether the sandbox of an incident still ran, and whether its connections were let through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agenttrail.incident_shapes import ended
from agenttrail.report.names import OPENING, several
from agenttrail.report.pages import micros, short, when
from agenttrail.timeline_story import size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.timeline_story import Moment

_BLOCKED = ", blocked"
"""How a line of a story on a peer ends of which all was blocked."""
_ONE_OCCUPANCY = ("trajectory", "sandbox")
"""Entities of which an incident is on one sandbox: hosts and addresses change hands within their day."""


@dataclass(frozen=True)
class Standing:
    """Whether a sandbox still ran at the end of what the run read.

    Attributes:
        state: "running", "ended" or "not known".
        until: its end, RFC 3339; "" unless it ended.
        text: the same for people.
    """

    state: str
    until: str
    text: str


def standing(incident: Mapping[str, Any]) -> Standing:
    """Return what the lease of an incident tells of its sandbox."""
    if incident["attribution.status"] != "attributed" or "attribution.lease_start" not in incident:
        return Standing("not known", "", "not known: no one lease proves whose it was")
    if incident["entity.type"] not in _ONE_OCCUPANCY:
        return Standing("not known", "", f"not known: a {incident['entity.type']} may have had several sandboxes")
    end = incident.get("attribution.lease_end")
    if end and incident["entity.type"] == "trajectory":  # of which the lease is: what it opened may outlive it
        return Standing("ended", str(end), f"rollout ended {when(end)}")
    if end:
        return Standing("ended", str(end), f"ended {when(end)}")
    return Standing("running", "", "still running as far as leases tell")


def outcomes(finding: Mapping[str, Any]) -> set[str]:
    """Return what sensors decided on connections of a finding that opens incidents; empty for any other finding.

    Of a finding on a tool call alone the outcome is that of the call.
    """
    network = finding.get("peer.ip") or finding.get("destination.ip")
    return set(finding.get("event.outcome", ())) if network and finding["finding.severity"] in OPENING else set()


def accepted_elsewhere(finding: Mapping[str, Any], peers: Collection[str]) -> bool:
    """Tell whether a finding that is context shows a connection to one of some peers as accepted."""
    context = finding["finding.severity"] not in OPENING
    return context and finding.get("peer.ip") in peers and "success" in finding.get("event.outcome", ())


def verdict(decided: AbstractSet[str]) -> str:
    """Return what was decided in a word or two."""
    if {"success", "failure"} <= decided:
        return "partly blocked"
    return "allowed" if "success" in decided else "blocked" if "failure" in decided else "not known"


def decided_on(findings: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return what sensors decided on the connections of some findings."""
    return set().union(*map(outcomes, findings))


def let_through(findings: Sequence[Mapping[str, Any]], decided: AbstractSet[str]) -> str:
    """Return one verdict on the connections of an incident, for its lead.

    Args:
        findings: the heaviest of the incident.
        decided: what sensors decided on the connections of all its findings.
    """
    was = verdict(decided)
    if was != "blocked":
        return {"allowed": "let through", "not known": "no log says whether it was let through"}.get(was, was)
    opened = [one for one in findings if outcomes(one)]
    logs = dict.fromkeys(str(log) for one in opened for log in one.get("event.dataset", ()))
    against = _accepted(opened, findings, logs.keys())
    if not against:
        return f"blocked by {_sensors(logs)}" if logs else "blocked"
    others, passed = next(iter(against.items()))
    counted = max(one.get("network.conversations", 0) for one in opened)
    alike = "them" if counted and counted == passed else f"{passed:,}" if passed else "some"
    # a flow log that is written before the firewall accepts what the firewall drops later
    before = " (it may stand before the firewall)" if "firewall" in _sensors(logs) and "flow" in others else ""
    dropped = f"all {counted:,}" if counted > 1 else "it" if counted else "them"
    alike = "it" if alike == "them" and counted == 1 else alike
    return f"disputed: {_sensors(logs)} blocked {dropped}, {_sensor(others)} accepted {alike}{before}"


def _sensors(logs: Iterable[str]) -> str:
    return several([_sensor(log) for log in logs], 2)


def _sensor(log: str) -> str:
    """Return what kind of sensor a log is of, where its name says so; else its name."""
    kind = next((kind for mark, kind in (("firewall", "firewall"), ("flow", "flow log")) if mark in log), "")
    return f"the {kind}" if kind else short(log)


@dataclass(frozen=True)
class Block:
    """What is known of connections that were blocked, by the kind of log that says it.

    Attributes:
        by: logs that say so, and of how many conversations.
        against: what speaks against it; "" where nothing does.
    """

    by: str
    against: str


def block_of(findings: Sequence[Mapping[str, Any]], decided: AbstractSet[str]) -> Block | None:
    """Return who says that connections of some findings were blocked, and what does not agree; None unless all were.

    Args:
        findings: the heaviest of an incident.
        decided: what sensors decided on the connections of all its findings.
    """
    opened = [one for one in findings if outcomes(one)]
    if verdict(decided) != "blocked" or not opened:
        return None
    logs = dict.fromkeys(str(log) for one in opened for log in one.get("event.dataset", ()))
    counted = max(one.get("network.conversations", 0) for one in opened)
    by = several(list(logs)) + (f" ({counted:,} conversation{'' if counted == 1 else 's'})" if counted else "")
    against = [
        f"{others} shows {f'{count:,} conversation' if count else 'connection'}{'' if count == 1 else 's'} to the same "
        f"peer as accepted"
        for others, count in list(_accepted(opened, findings, logs.keys()).items())[:2]
    ]
    back = max(one.get("destination.bytes", 0) for one in opened)
    if back:  # counted by the log that says "blocked"
        against.append(f"{size(back)} came back")
    return Block(by, "; ".join(against))


def _accepted(
    opened: Sequence[Mapping[str, Any]], findings: Iterable[Mapping[str, Any]], logs: AbstractSet[str]
) -> dict[str, int]:
    """Return which other logs show connections to the same peers as accepted, and of how many conversations."""
    peers = {peer for one in opened for peer in (one.get("peer.ip"), *one.get("destination.ip", ())) if peer}
    counted: dict[str, int] = {}
    for one in findings:
        others = _others(one, logs)
        if others and accepted_elsewhere(one, peers):
            counted[others] = max(counted.get(others, 0), one.get("network.conversations", 0))
    return counted


def _others(finding: Mapping[str, Any], logs: AbstractSet[str]) -> str:
    """Return the logs that a finding rests on; "" where one of them is one of some logs."""
    own = [str(log) for log in finding.get("event.dataset", ())]
    return "" if logs & set(own) else several(own)


def told_by_all(moments: Iterable[Moment], findings: Sequence[Mapping[str, Any]]) -> list[Moment]:
    """Return a story in which what one log calls blocked and another accepted is told so.

    Where a firewall and a flow log tell of one connection, its minutes in the timeline have what the firewall says.

    Args:
        moments: the story.
        findings: those of its incident.
    """
    known = disputes(findings)
    return [
        replace(told, text=_by_all(told, known)) if told.kind == "egress" and told.text.endswith(_BLOCKED) else told
        for told in moments
    ]


@dataclass(frozen=True)
class Dispute:
    """Two kinds of log that do not agree on a peer, from when to when, in microseconds since 1970."""

    peer: str
    text: str
    first: int
    last: int


def disputes(findings: Sequence[Mapping[str, Any]]) -> list[Dispute]:
    """Return on which peers of some findings a log says "blocked" and another one "accepted"."""
    blocked: dict[str, dict[str, None]] = {}
    for one in findings:
        if outcomes(one) == {"failure"} and one.get("peer.ip"):
            blocked.setdefault(one["peer.ip"], {}).update(dict.fromkeys(map(str, one.get("event.dataset", ()))))
    told = []
    for one in findings:
        logs = blocked.get(one.get("peer.ip", ""), {})
        others = _others(one, logs.keys())
        if logs and others and accepted_elsewhere(one, [one["peer.ip"]]):
            peer, text = one["peer.ip"], f"blocked by {several(list(logs))}, accepted by {others}"
            span = micros(one["finding.first_seen"]), micros(ended(one, "finding"))
            told.append(Dispute(peer, text, *span))
    return told


def _by_all(told: Moment, known: Iterable[Dispute]) -> str:
    for one in known:
        whom = f"to {one.peer} port ", f"to {one.peer}: "
        meet = told.start <= one.last and one.first <= told.end
        if meet and told.text.startswith(whom):
            return f"{told.text.removesuffix(_BLOCKED)}, {one.text}"
    return told.text
