"""Findings to incidents, one by one: what group() must agree with."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.oracles.findings import KEY, MOST, NAMES, STATE, agreed, several

from agenttrail.columns.addresses import address
from agenttrail.columns.ids import content_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]
LEVELS = ("informational", "low", "medium", "high", "critical")
CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.start", "gen_ai.tool.call.gap")
_BASE = {"medium": 40, "high": 65, "critical": 85}


def incidents(findings: Sequence[Row], kinds: Mapping[str, str]) -> dict[str, Row]:
    """Return the incidents that findings make, by id."""
    together: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for finding in findings:
        together[tuple(finding[name] for name in KEY)].append(finding)
    opened = {key: members for key, members in together.items() if any(map(_opens, members))}
    return {content_id("incident", *key): _one(key, members, kinds) for key, members in opened.items()}


def _opens(finding: Row) -> bool:
    return finding["finding.severity"] in LEVELS[2:]


def _level(finding: Row) -> int:
    return LEVELS.index(finding["finding.severity"])


def _peers(opening: list[Row]) -> list[str]:
    """Return the peers that are listed: those that a finding is on alone come before those of several."""
    alone = {one["peer.ip"] for one in opening} - {None}
    others = {peer for one in opening for peer in one["destination.ip"]} - alone
    listed = [*sorted(alone, key=address), *sorted(others, key=address)][:MOST]
    return sorted(listed, key=address)


def _one(key: tuple[Any, ...], members: list[Row], kinds: Mapping[str, str]) -> Row:
    opening = [finding for finding in members if _opens(finding)]
    worst = max(map(_level, members))
    sources = sorted({kinds.get(dataset, dataset) for one in opening for dataset in one["event.dataset"]})
    listed = sorted(members, key=lambda one: (-_level(one), one["finding.id"]))[:MOST]
    first = min(one["finding.first_seen"] for one in opening)
    incident = {
        **dict(zip(KEY, key, strict=True)),
        "incident.severity": LEVELS[min(worst + (len(sources) > 1), 4)],
        "incident.first_seen": first, "@timestamp": first,
        "incident.last_seen": max(one["finding.last_seen"] for one in opening),
        "destination.ip": _peers(opening),
        "destination.port": several(port for one in opening for port in one["peer.port"]),
        "finding.id": sorted(one["finding.id"] for one in listed),
        "finding.count": len(members),
        "event.count": sum(one["event.count"] for one in members),
        "rule.id": several(one["rule.id"] for one in members),
        "rule.name": several(one["rule.name"] for one in members),
        "event.dataset": several(dataset for one in members for dataset in one["event.dataset"]),
        **{name: agreed([one[name] for one in opening]) for name in NAMES},
        **{name: min((one[name] for one in opening if one[name] is not None), default=None) for name in STATE},
    }  # fmt: skip
    for name in (
        "attribution.scope", "attribution.lease_id", "attribution.candidates", "attribution.reason",
        "threat.technique.id", "threat.tactic.name", "recommendation",
    ):  # fmt: skip
        incident[name] = several(value for one in opening for value in one[name])
    called = [one for one in opening if one["gen_ai.tool.call.start"] is not None]
    earliest = min(called, key=lambda one: (one["finding.first_seen"], one["finding.id"]), default={})
    incident |= {name: earliest.get(name) for name in CALL}
    terms = [_BASE[LEVELS[worst]]]
    terms += [min(5 * (len({one["rule.id"] for one in opening}) - 1), 10)]
    terms += [10 * (len(sources) > 1), -15 * (incident["attribution.status"] != "attributed")]
    incident["incident.risk_score"] = float(max(0, min(100, sum(terms))))
    incident["terms"] = [term for term in terms if term]
    return incident
