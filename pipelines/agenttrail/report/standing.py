"""Whether the sandbox of an incident still ran, and whether its connections were let through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.report.names import OPENING
from agenttrail.report.pages import when

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

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
    if end:
        return Standing("ended", str(end), f"ended {when(end)}")
    return Standing("running", "", "still running at the end of the logs")


def outcomes(finding: Mapping[str, Any]) -> set[str]:
    """Return what sensors decided on connections of a finding that opens incidents; empty for any other finding.

    Of a finding on a tool call alone the outcome is that of the call.
    """
    network = finding.get("peer.ip") or finding.get("destination.ip")
    return set(finding.get("event.outcome", ())) if network and finding["finding.severity"] in OPENING else set()


def verdict(decided: AbstractSet[str]) -> str:
    """Return what was decided in a word or two."""
    if {"success", "failure"} <= decided:
        return "partly blocked"
    return "allowed" if "success" in decided else "blocked" if "failure" in decided else "not known"


def verdict_of(findings: Iterable[Mapping[str, Any]]) -> str:
    """Return what sensors decided on the connections of some findings."""
    return verdict(set().union(*map(outcomes, findings)))
