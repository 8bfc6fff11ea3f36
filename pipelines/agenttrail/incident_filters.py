"""Which incidents are wanted, and which first: one meaning for output directories and for Elasticsearch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from agenttrail.errors import DefinitionError, Problem
from agenttrail.incidents.scoring import LEVELS
from agenttrail.metadata import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ENTITY = ("entity.id", "trajectory.id", "sandbox.id", "job.id", "host.name")
"""Fields in which an entity is looked for."""
NEW = "new"
"""The triage status of what nobody has looked at."""


@dataclass(frozen=True)
class IncidentFilters:
    """Which incidents are wanted; what is not set lets all pass.  Superseded ones never do.

    Attributes:
        severity: this or worse.
        status: ``triage.status``; "new" for none.
        assignee: ``triage.assignee``.
        agent: ``gen_ai.agent.id``.
        entity: trajectory, sandbox, job, host or address.
        sandbox: ``sandbox.id``.
        job: ``job.id``.
        host: ``host.name``.
        technique: with its sub-techniques.
        rule: ``rule.name``.
        peer: address, or network such as 203.0.113.0/24.
        since: last seen at or after this time (RFC 3339).
        until: first seen before this time (RFC 3339).
    """

    severity: str | None = None
    status: str | None = None
    assignee: str | None = None
    agent: str | None = None
    entity: str | None = None
    sandbox: str | None = None
    job: str | None = None
    host: str | None = None
    technique: str | None = None
    rule: str | None = None
    peer: str | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DefinitionError: with everything that is none of what it should be.
        """
        problems = []
        if self.severity is not None and self.severity not in LEVELS:
            problems.append(f"--severity is none of {', '.join(LEVELS)}")
        if self.peer:
            try:
                ip_network(self.peer, strict=False)
            except ValueError:
                problems.append("--peer is neither an address nor a network")
        for name in ("since", "until"):
            if text := getattr(self, name):
                try:
                    parse_time(text, f"--{name}")
                except ValueError as error:
                    problems.append(str(error))
        if problems:
            raise DefinitionError([Problem("command line", 0, what) for what in problems])

    def exact(self) -> dict[str, str | None]:
        """Return what fields must say word by word."""
        return {
            "triage.assignee": self.assignee,
            "gen_ai.agent.id": self.agent,
            "sandbox.id": self.sandbox,
            "job.id": self.job,
            "host.name": self.host,
        }

    def passes(self, incident: Mapping[str, Any]) -> bool:
        """Tell whether an incident, a document with flat keys, is wanted."""
        techniques = incident.get("threat.technique.id", [])
        seen = {name: incident[f"incident.{name}_seen"] for name in ("first", "last")}
        tests: list[tuple[Any, Callable[[Any], bool]]] = [
            (self.severity, lambda it: LEVELS.index(incident["incident.severity"]) >= LEVELS.index(it)),
            (self.status, partial(_is_one_of, incident.get("triage.status") or NEW)),
            *((wanted, partial(_is_one_of, incident.get(name))) for name, wanted in self.exact().items()),
            (self.entity, lambda it: it in [incident.get(name) for name in ENTITY]),
            (self.technique, lambda it: any(id_ == it or id_.startswith(f"{it}.") for id_ in techniques)),
            (self.rule, lambda it: it in incident.get("rule.name", [])),
            (self.peer, lambda it: _any_within(incident.get("destination.ip", []), it)),
            (self.since, lambda it: parse_time(seen["last"], "last seen") >= parse_time(it, "since")),
            (self.until, lambda it: parse_time(seen["first"], "first seen") < parse_time(it, "until")),
        ]
        return "incident.superseded_by" not in incident and all(test(wanted) for wanted, test in tests if wanted)


def _is_one_of(value: object, wanted: str) -> bool:
    """Tell whether a field is, or holds, what is wanted, as a term query does."""
    return value == wanted or (isinstance(value, list) and wanted in value)


def _any_within(addresses: list[str], network: str) -> bool:
    within = ip_network(network, strict=False)
    return any(_is_within(address, within) for address in addresses)


def _is_within(text: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(text) in network
    except ValueError:  # what is no address is in no network
        return False


def riskiest_first(incidents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return incidents in the order in which somebody should look at them."""

    def key(incident: Mapping[str, Any]) -> tuple[Any, ...]:
        return -incident["incident.risk_score"], incident["incident.first_seen"], incident["incident.id"]

    return sorted(incidents, key=key)
