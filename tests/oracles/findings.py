"""Findings event by event: what select(), detect(), merged() and gather() together must agree with."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.oracles.conversations import Record, conversations
from tests.oracles.rules import holds

from agenttrail.columns.ids import content_id
from agenttrail.columns.secrets import scrub_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.detect.rules import Rule

Row = dict[str, Any]
KEY = ("entity.type", "entity.id", "job.id", "entity.anchor")
NAMES = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "host.name", "k8s.namespace.name", "k8s.pod.uid")
STATE = ("attribution.status", "attribution.level", "attribution.lease_start", "attribution.lease_end")
SHOWN = ("event.dataset", "event.start", "source.ip", "destination.port", "log.file.path", "log.offset")
EVIDENCE = 20
MOST = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def entity(row: Row) -> Row:
    """Return whom an attributed event is about, and which of its occupancies."""
    level = row["attribution.level"]
    day = f"{row['event.start']:%Y-%m-%d}"
    own = row["destination.ip"] if row["network.direction"] == "ingress" else row["source.ip"]
    if level == "address":
        scope = row.get("attribution.scope")
        name = "/".join(part for part in (scope, own or "unknown") if part is not None)
    else:
        name = row[{"host": "host.name"}.get(level, f"{level}.id")]
    since = row["attribution.lease_start"]
    occupancy = row["k8s.pod.uid"] or (since and f"{since:%Y-%m-%dT%H:%M:%S.%fZ}") or day
    return {
        "entity.type": level, "entity.id": name, "job.id": row["job.id"],
        "entity.anchor": occupancy if level in ("trajectory", "sandbox") else day,
    }  # fmt: skip


def event_id(row: Row) -> str:
    """Return the id of an event: of the record as stored, wherever that is."""
    return _id(row["event.dataset"], row.get("attribution.scope"), original(row), "0")


_id = cache(content_id)


def original(row: Row) -> str:
    """Return the line as it may be shown."""
    return _scrubbed(row["event.original"].decode().removesuffix("\n").removesuffix("\r"))


@cache
def _scrubbed(text: str) -> str:
    return scrub_text(text)


def peer(row: Row) -> tuple[str | None, int | None]:
    """Return the end that is not the workload's."""
    side = "source" if row["network.direction"] == "ingress" else "destination"
    return row[f"{side}.ip"], row[f"{side}.port"]


def findings(rows: Sequence[Row], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]]) -> dict[Any, Row]:
    """Return all findings on attributed events, by rule, entity and peer."""
    matter = [row for row in rows if _hits(row, rules, lists) or _matters(row, lists)]
    distinct: dict[str, Row] = {}
    for row in sorted(matter, key=lambda row: (row["log.file.path"], row["log.offset"])):
        distinct.setdefault(event_id(row), row)
    together: dict[Any, list[Row]] = defaultdict(list)
    of_event = {}
    kept = list(distinct.values())
    records = [_record(row) for row in kept]
    talks, belongs = conversations(records, 1_000_000)
    for row, talk in zip(kept, belongs, strict=True):
        of_event[event_id(row)] = talk
        for rule in _hits(row, rules, lists):
            together[rule.id, *entity(row).values(), peer(row)[0]].append(row)
    by_id = {rule.id: rule for rule in rules}
    return {
        key: _one(by_id[key[0]], members, talks, {of_event[event_id(row)] for row in members} - {None})
        for key, members in together.items()
    }


def _hits(row: Row, rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]]) -> list[Rule]:
    seeing = [rule for rule in rules if row["event.dataset"] in rule.datasets and not rule.off]
    return [rule for rule in seeing if holds(rule.condition, row, lists)]


def _matters(row: Row, lists: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether an event is blocked or its peer is on no list."""
    if row["event.outcome"] == "failure":
        return True
    listed = [ipaddress.ip_network(entry) for name in ("internal", "egress_allow") for entry in lists[name]]
    if not lists["egress_allow"] or row["peer.ip"] is None:
        return False
    return not any(ipaddress.ip_address(row["peer.ip"]) in network for network in listed)


def _record(row: Row) -> Record:
    start, end = ((row[f"event.{name}"] - _EPOCH) // timedelta(microseconds=1) for name in ("start", "end"))
    return Record(
        repr(tuple(entity(row).values())).encode(), row["event.dataset"], row["observer.name"],
        row["source.ip"], row["source.port"], row["destination.ip"], row["destination.port"],
        row["network.iana_number"], row["network.direction"], start, end, row["source.bytes"], row["destination.bytes"],
        row["event.outcome"],
    )  # fmt: skip


def _one(rule: Rule, members: list[Row], talks: list[dict[str, Any]], own: set[Any]) -> Row:
    ordered = sorted(members, key=lambda row: (row["event.start"], event_id(row)))
    first = members[0]
    finding: Row = {
        "rule.id": rule.id, "rule.name": rule.name, "finding.title": rule.title, "finding.severity": rule.severity,
        "threat.technique.id": list(rule.techniques), "threat.tactic.name": list(rule.tactics),
        "recommendation": list(rule.recommendation), "falsepositives": list(rule.falsepositives),
        "rule.reference": sorted(rule.references),
        **entity(first), "peer.ip": peer(first)[0], "destination.ip": [],
        "event.count": len(members),
        "finding.first_seen": ordered[0]["event.start"], "finding.last_seen": ordered[-1]["event.start"],
        "@timestamp": ordered[0]["event.start"],
        "peer.port": several(peer(row)[1] for row in members),
        "network.conversations": len(own),
        "source.bytes": sum(talks[talk]["out"] for talk in own),
        "destination.bytes": sum(talks[talk]["back"] for talk in own),
        "attribution.candidates": several(one for row in members for one in row["attribution.candidates"] or ()),
    }  # fmt: skip
    for name in NAMES:
        finding[name] = agreed([row[name] for row in members])
    for name in STATE:
        finding[name] = min((row[name] for row in members if row[name] is not None), default=None)
    for name in (
        "network.transport", "network.direction", "event.dataset", "event.outcome", "attribution.reason",
        "attribution.scope", "attribution.lease_id",
    ):  # fmt: skip
        finding[name] = several(row.get(name) for row in members)
    finding["finding.evidence"] = [
        {"event.id": event_id(row), "event.original": original(row)} | {name: row[name] for name in SHOWN}
        for row in ordered[:EVIDENCE]
    ]
    return finding


def several(values: Any) -> list[Any]:
    """Return the distinct known values in order, as many as a document lists."""
    return sorted({value for value in values if value is not None})[:MOST]


def agreed(values: list[Any]) -> Any:
    """Return the value that all share; one that is missing disagrees."""
    return values[0] if len(set(values)) == 1 else None
