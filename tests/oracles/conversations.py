"""Conversations record by record: what converse() must agree with."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


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


def conversations(records: list[Record], adjoining: int) -> tuple[list[dict[str, object]], list[int | None]]:
    """Return the conversations and, per record, which one it belongs to."""
    by_connection: dict[object, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        if record.source is not None and record.destination is not None:
            by_connection[_connection(record)].append(number)
    found: list[dict[str, object]] = []
    belongs: list[int | None] = [None] * len(records)
    for connection, numbers in by_connection.items():
        furthest, members = None, []
        for number in sorted(numbers, key=lambda n: (records[n].start, records[n].end)):
            if furthest is not None and records[number].start > furthest + adjoining:
                found.append(_one(connection, [records[n] for n in members], adjoining))
                members, furthest = [], None
            members.append(number)
            belongs[number] = len(found)
            furthest = max(furthest if furthest is not None else records[number].end, records[number].end)
        found.append(_one(connection, [records[n] for n in members], adjoining))
    return found, belongs


def _connection(record: Record) -> tuple[object, ...]:
    source, destination = (record.source, record.source_port), (record.destination, record.destination_port)
    own, peer = (destination, source) if record.direction == "ingress" else (source, destination)
    return record.entity, own, peer, record.protocol


def _one(connection: object, members: list[Record], adjoining: int) -> dict[str, object]:
    sent: dict[object, list[int]] = defaultdict(lambda: [0, 0])
    for record in members:
        out, back = record.source_bytes or 0, record.destination_bytes or 0
        if record.direction == "ingress":
            out, back = back, out
        sent[record.dataset, record.sensor][0] += out
        sent[record.dataset, record.sensor][1] += back
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
        "start": min(record.start for record in members),
        "end": max(record.end for record in members),
        "out": max(totals[0] for totals in sent.values()),
        "back": max(totals[1] for totals in sent.values()),
        "outcome": None if not outcomes else "failure" if blocked else "success",
        "count": len(members),
        "opened": None if all(one.flags is None for one in members) else any((one.flags or 0) & 2 for one in members),
    }
