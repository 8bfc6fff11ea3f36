"""Egress to listed peers per minute, event by event: what roll_up(), Wanted and egress_by_list() must agree with."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.oracles.findings import KEY, entity

from agenttrail.columns.ids import content_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

Row = dict[str, Any]


def incident_of(event: Row) -> str:
    """Return the id of the incident that an attributed event would belong to."""
    whom = entity(event)
    return content_id("incident", *(whom[name] for name in KEY))


def egress_by_list(
    events: Iterable[Row], lists: Mapping[str, str], incidents: set[str]
) -> dict[tuple[str, datetime, str], tuple[int, int, int]]:
    """Return bytes sent and received, and records, by incident, minute and list.

    Args:
        events: attributed; those with ``apart`` set go on by themselves.
        lists: a network by the name of its list; the first that holds the peer counts.
        incidents: ids of those that there are.
    """
    sent: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for event in events:
        occupied = event["attribution.level"] in ("trajectory", "sandbox")
        if event["apart"] or not occupied or event["attribution.status"] != "attributed":
            continue
        listed = [name for name, network in lists.items() if _inside(event["peer.ip"], network)]
        if not listed or incident_of(event) not in incidents:
            continue
        key = incident_of(event), event["event.start"].replace(second=0, microsecond=0), listed[0]
        side = "source" if event["network.direction"] == "egress" else "destination"
        translated = event.get(f"{side}.nat.ip") is not None
        cell = sent[key][event["event.dataset"], event["observer.name"], translated]
        ends = ("source.bytes", "destination.bytes")
        for place, name in enumerate(ends if event["network.direction"] == "egress" else reversed(ends)):
            cell[place] += event.get(name) or 0
        cell[2] += 1
    return {key: _most(list(sensors.values())) for key, sensors in sent.items()}


def _inside(peer: str | None, network: str) -> bool:
    return peer is not None and ipaddress.ip_address(peer) in ipaddress.ip_network(network)


def _most(sensors: list[list[int]]) -> tuple[int, int, int]:
    return max(one[0] for one in sensors), max(one[1] for one in sensors), sum(one[2] for one in sensors)
