"""Reads what others made of the samples, as values of our event fields."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import Any

import orjson

from agenttrail.schema import record

BY_DESIGN = ("@timestamp", "event.dataset", "network.direction")
"""Differ by design: ours are the start, the format id, and the way of the bytes as the workload sees it."""
CORE = (
    "source.ip", "source.port", "source.bytes", "source.packets", "source.nat.ip",
    "destination.ip", "destination.port", "destination.bytes", "destination.packets", "destination.nat.ip",
    "network.transport", "network.bytes", "network.packets",
    "event.start", "event.end", "event.action", "event.outcome", "rule.id", "rule.name",
)  # fmt: skip
"""Where an expected result that tells all it knows leaves one of these out, ours must be empty."""
_FIELDS = record("event").fields
_NUMBERS = ("port", "long", "integer")


def elastic_events(content: bytes) -> list[dict[str, Any]]:
    """Return the events of a Filebeat test's ``-expected.json``: every field that our schema has, and all of `CORE`.

    An event of which Elastic's pipeline read nothing comes out empty.
    """
    out = []
    for event in orjson.loads(content):
        shared = {name: value for name, value in event.items() if name in _FIELDS and name not in BY_DESIGN}
        read = any(name in event for name in CORE)
        out.append(_typed(dict.fromkeys(CORE) | shared) if read else {})
    return out


def ocsf_activity(content: bytes) -> list[dict[str, Any]]:
    """Return the one event of an OCSF Network Activity that its authors mapped from an AWS flow record.

    Source: OCSF 1.0 to 1.5, class 4001; the endpoint with an interface is the one that reported.
    """
    activity = orjson.loads(content)
    source, destination = activity["src_endpoint"], activity["dst_endpoint"]
    connection, cloud, rest = activity["connection_info"], activity["cloud"], activity["unmapped"]
    reporting = source if "interface_uid" in source else destination
    allowed = {"Allowed": True, "Blocked": False}[activity["disposition"]]
    event = {
        "source.ip": source["ip"],
        "source.port": source["port"],
        "source.nat.ip": (source.get("intermediate_ips") or [None])[0],
        "destination.ip": destination["ip"],
        "destination.port": destination["port"],
        "destination.nat.ip": (destination.get("intermediate_ips") or [None])[0],
        "network.iana_number": connection["protocol_num"],
        "network.transport": {6: "tcp"}[connection["protocol_num"]],
        "network.tcp_flags": connection["tcp_flags"],
        "network.bytes": activity["traffic"]["bytes"],
        "network.packets": activity["traffic"]["packets"],
        "event.start": activity.get("start_time_dt") or activity["start_time"],
        "event.end": activity.get("end_time_dt") or activity["end_time"],
        "event.outcome": "success" if allowed else "failure",
        "event.action": "accept" if allowed else "reject",
        "observer.side": {1: "destination", 2: "source"}[connection["direction_id"]],
        "observer.name": reporting["interface_uid"],
        "cloud.vpc.id": reporting["vpc_uid"],
        "cloud.subnet.id": reporting["subnet_uid"],
        "cloud.instance.id": reporting["instance_uid"],
        "cloud.region": cloud["region"],
        "cloud.availability_zone": cloud["zone"],
        "cloud.account.id": cloud.get("account_uid") or cloud["account"]["uid"],
        "event.reason": rest.get("reject_reason"),
        "orchestrator.cluster.name": rest.get("ecs_cluster_name"),
        "orchestrator.resource.id": rest.get("ecs_task_id"),
        "container.id": rest.get("ecs_container_id"),
        "service.name": rest.get("ecs_service_name"),
        "rule.id": None,
        "rule.name": None,
    }
    return [_typed({name: None if value == "-" else value for name, value in event.items()})]


def documented_session(content: bytes) -> list[dict[str, Any]]:
    """Return the one event of Cloud Firewall's documented example, by the meaning that the documentation gives fields.

    The session was opened from outside (direction ``in``), so what came in is the source's.  Addresses are left out
    but for the one that is printed whole.
    """
    session = orjson.loads(content)
    assert session["direction"] == "in"
    assert session["rule_result"] == "pass"
    return [
        _typed(
            {
                "source.ip": session["src_private_ip"],
                "source.port": session["src_port"],
                "source.bytes": session["in_packet_bytes"],
                "source.packets": session["in_packet_count"],
                "destination.port": session["dst_port"],
                "destination.bytes": session["out_packet_bytes"],
                "destination.packets": session["out_packet_count"],
                "destination.domain": session["domain"],
                "network.bytes": session["total_packet_bytes"],
                "network.packets": session["total_packet_count"],
                "network.transport": session["ip_protocol"].lower(),
                "network.application": session["app_name"].lower(),
                "event.start": 1000 * int(session["start_time"]),
                "event.end": 1000 * int(session["end_time"]),
                "event.action": session["rule_result"],
                "event.outcome": "success",
                "event.severity": session["vul_level"],
                "event.provider": session["log_type"],
                "observer.side": "destination",
                "client.side": "source",
                "rule.id": session["ips_rule_id"],
                "rule.name": session["ips_rule_name_en"],
                "rule.category": session["attack_type_name_en"],
                "url.full": session["url"],
                "cloud.account.id": session["aliuid"],
                "cloud.region": session["region_id"],
            }
        )
    ]


def _typed(event: dict[str, Any]) -> dict[str, Any]:
    """Return values in the types of our schema: an address in canonical text, a number, a time."""
    return {name: None if value is None else _as(_FIELDS[name].type, value) for name, value in event.items()}


def _as(kind: str, value: Any) -> Any:
    if kind == "ip":
        return str(ipaddress.ip_address(value))
    if kind in _NUMBERS:
        return int(value)
    if kind == "timestamp":
        moment = datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)
    return str(value)
