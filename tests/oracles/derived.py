"""What every derived event says of its conversations, one by one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conversation:
    """One conversation of a workload; times in microseconds."""

    entity: int
    start: int
    end: int
    source: str = "10.0.0.1"
    source_port: int | None = 40_000
    peer: str = "198.51.100.7"
    port: int | None = 443
    protocol: int | None = 6
    sent: int = 0
    received: int = 0
    outcome: str | None = "success"
    lease_start: int | None = None
    lease_end: int | None = None
    outward: bool = True
    unlisted: bool = True
    call: int | None = None
    opened: bool | None = None


def only(values: list[object]) -> object:
    """Return the value that all share, else nothing."""
    return values[0] if len(set(values)) == 1 else None


def described(members: list[Conversation]) -> dict[str, object]:
    """Return the columns that all analytics over conversations have."""
    told = [member.outcome for member in members if member.outcome]
    return {
        "entity": members[0].entity,
        "event.start": min(member.start for member in members),
        "event.end": max(member.end for member in members),
        "event.outcome": None if not told else "success" if "success" in told else "failure",
        "source.ip": only([member.source for member in members]),
        "peer.ip": only([member.peer for member in members]),
        "peer.port": only([member.port for member in members]),
        "destination.ip": only([member.peer for member in members]),
        "destination.port": only([member.port for member in members]),
        "network.iana_number": only([member.protocol for member in members]),
        "network.initiator": None if any(member.outward for member in members) else "peer",
        "source.bytes": sum(member.sent for member in members),
        "destination.bytes": sum(member.received for member in members),
        "connection.count": len(members),
    }


def by_peer(conversations: list[Conversation]) -> list[list[Conversation]]:
    """Return the conversations of each workload with each peer's end, ascending in time."""
    found: dict[object, list[Conversation]] = {}
    for one in sorted(conversations, key=lambda one: (one.start, one.end)):
        found.setdefault((one.entity, one.peer, one.port, one.protocol), []).append(one)
    return list(found.values())
