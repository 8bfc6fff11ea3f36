"""Conversations record by record: what converse() must agree with."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One log record about one entity."""

    entity: bytes
    dataset: str
    sensor: str | None
    source: str | None
    source_port: int | None
    destination: str | None
    destination_port: int | None
    protocol: int | None
    direction: str | None
    start: int
    end: int
    source_bytes: int | None
    destination_bytes: int | None
    outcome: str | None
    flags: int | None = None
    translated: bool = False


def conversations(records: list[Record], adjoining: int) -> tuple[list[dict[str, object]], list[int | None]]:
    """Return the conversations and, per record, which one it belongs to."""
    by_connection: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.source is not None and record.destination is not None:
            by_connection[_connection(record)].append(number)
    parts: list[_Part] = []
    for connection, numbers in by_connection.items():
        furthest, members = None, []
        for number in sorted(numbers, key=lambda n: (records[n].start, records[n].end)):
            if furthest is not None and records[number].start > furthest + adjoining:
                parts.append(_Part(connection, members, records))
                members, furthest = [], None
            members.append(number)
            furthest = max(furthest if furthest is not None else records[number].end, records[number].end)
        parts.append(_Part(connection, members, records))
    belongs: list[int | None] = [None] * len(records)
    found: list[dict[str, object]] = []
    direct = [part for part in parts if not part.leg]
    whole = {id(part): _of(part, direct, adjoining) for part in parts}
    for part in parts:
        if whole[id(part)] is part:
            legs = [one for one in parts if one is not part and whole[id(one)] is part]
            for number in [*part.members, *(n for one in legs for n in one.members)]:
                belongs[number] = len(found)
            seen_by_legs = [records[n] for one in legs for n in one.members]
            found.append(_one(part.connection, [records[n] for n in part.members], seen_by_legs, adjoining))
    return found, belongs


class _Part:
    """Records of one connection that overlap or adjoin; ``leg``: as seen behind address translation alone."""

    def __init__(self, connection: tuple[Any, ...], members: list[int], records: list[Record]) -> None:
        self.connection, self.members = connection, members
        mine = [records[n] for n in members]
        outward = [one for one in mine if one.direction != "ingress"]
        self.leg = any(one.translated for one in mine) and all(one.translated for one in outward)
        self.start, self.end = min(one.start for one in mine), max(one.end for one in mine)
        entity, (own, port), peer, protocol = connection
        self.port = -1 if port is None else port
        self.shared = entity, own, peer, protocol


def _of(part: _Part, direct: list[_Part], adjoining: int) -> _Part:
    """Return what a part belongs to: itself, or the nearer of two if it is a leg."""
    if not part.leg:
        return part

    def meets(one: _Part) -> bool:
        return one.start <= part.end + adjoining and one.end >= part.start - adjoining

    same = [one for one in direct if one.shared == part.shared]
    before = sorted((one for one in same if one.start <= part.start), key=lambda one: (one.start, one.end, one.port))
    after = [one for one in same if one.start > part.start]
    near = []
    if before:
        near.append(before[-1] if meets(before[-1]) else max(before, key=lambda one: (one.end, one.start, one.port)))
    if after:
        near.append(max(after, key=lambda one: (-one.start, one.end, one.port)))
    near = list(filter(meets, near))
    return min(near, key=lambda one: (abs(one.start - part.start), one.start > part.start), default=part)


def _connection(record: Record) -> tuple[Any, ...]:
    source, destination = (record.source, record.source_port), (record.destination, record.destination_port)
    own, peer = (destination, source) if record.direction == "ingress" else (source, destination)
    return record.entity, own, peer, record.protocol


def _one(connection: object, own: list[Record], of_legs: list[Record], adjoining: int) -> dict[str, object]:
    sent: dict[object, list[int]] = defaultdict(lambda: [0, 0])
    members = [*own, *of_legs]
    for record in members:
        out, back = record.source_bytes or 0, record.destination_bytes or 0
        if record.direction == "ingress":
            out, back = back, out
        port = record.destination_port if record.direction == "ingress" else record.source_port
        look = record.dataset, record.sensor, port, record.translated
        sent[look][0] += out
        sent[look][1] += back
    outcomes: dict[object, set[str]] = defaultdict(set)
    for record in members:
        if record.outcome:
            outcomes[record.dataset, record.sensor].add(record.outcome)
    denies = {sensor for sensor, told in outcomes.items() if "success" not in told}
    denied = [one.start for one in members if one.outcome and (one.dataset, one.sensor) in denies]
    came = [one.end for one in members if one.outcome == "success"]
    blocked = bool(denied) and not (came and min(came) < min(denied) - adjoining)
    return {
        "connection": connection,
        "start": min(record.start for record in own),
        "end": max(record.end for record in own),
        "out": max(totals[0] for totals in sent.values()),
        "back": max(totals[1] for totals in sent.values()),
        "outcome": None if not outcomes else "failure" if blocked else "success",
        "count": len(members),
        "opened": None if all(one.flags is None for one in members) else any((one.flags or 0) & 2 for one in members),
    }
