"""Sessions as Alibaba's Cloud Firewall writes them down: at the edge, at the NAT gateway, between networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from agenttrail.simulate import outside
from agenttrail.simulate.clock import EPOCH
from agenttrail.simulate.flow import ICMP, TCP, Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Network
    from agenttrail.simulate.flow import Flow

_REPORTED_EVERY = 600  # seconds after which a session that goes on is reported
_NO_RULE = "00000000-0000-0000-0000-000000000000"
_PROTOCOLS = {ICMP: "ICMP", TCP: "TCP"}
_OLDER_WORDS = 0.15  # share of what was dropped that an older engine reports in its own word


class Session(NamedTuple):
    """One line of the firewall.

    Attributes:
        flow: the connection that it is about.
        scope: the network that it names, or "".
        source: address of the opener as far as the line tells, and ``destination`` of the other end.
        start: start of the session in seconds since the start of the day, and ``end`` its end.
        text: the line.
    """

    flow: Flow
    scope: str
    source: str
    destination: str
    start: int
    end: int
    text: str


class _Cut(NamedTuple):
    """The part of a session that one report is about."""

    start: float
    end: float
    share: float
    first: bool


def sessions(dice: Dice, network: Network, flow: Flow, horizon: int) -> Iterator[Session]:
    """Yield the firewall's lines about ``flow``, if it sees it.

    Args:
        dice: what decides.
        network: the network that the firewall guards.
        flow: a connection with at least one end in it.
        horizon: end of the day in seconds.
    """
    inbound = flow.client.party is None
    kinds = _inbound_kinds(flow) if inbound else _outbound_kinds(flow)
    if flow.only_last_word or (flow.fate is Fate.REJECTED and not inbound):
        return  # it never came as far as the firewall
    for cut in _cuts(flow, horizon) if kinds else ():
        for kind in kinds:
            yield from _reports(dice, network, flow, cut, kind)


def _outbound_kinds(flow: Flow) -> tuple[str, ...]:
    """Return which of the firewalls see a connection that was opened inside."""
    server = flow.server.address
    if flow.server.party is not None or server.startswith(("10.", "100.", "169.254.", "fd")):
        return ()
    if server in outside.SHARED_SERVICES:
        return ("vpc_firewall_log",)
    return ("ipv6_firewall_log",) if ":" in server else ("internet_log", "nat_firewall_log")


def _inbound_kinds(flow: Flow) -> tuple[str, ...]:
    return ("internet_log",) if flow.server.public else ()


def _cuts(flow: Flow, horizon: int) -> Iterator[_Cut]:
    """Cut what is long into the stretches that are reported one by one."""
    at, finish = max(flow.start, 0.0), min(flow.end, horizon - 0.01)
    length = max(flow.end - flow.start, 0.001)
    while at <= finish:
        end = min(at + _REPORTED_EVERY, finish)
        yield _Cut(at, end, max(end - at, 0.001) / length, at == flow.start)
        at = end + 0.001


def _reports(dice: Dice, network: Network, flow: Flow, cut: _Cut, kind: str) -> Iterator[Session]:
    """Yield the access line of one stretch, and the line of the intrusion prevention if it has something to say."""
    at_gateway = kind == "nat_firewall_log"
    inbound = flow.client.party is None
    source = flow.client.address
    destination = flow.server.public if inbound else flow.server.address
    common = _common(network, flow, cut, kind) | {"dst_ip": destination}
    common |= (
        {"src_ip": flow.client.public, "src_private_ip": source}
        if kind == "internet_log" and not inbound
        else {"src_ip": source}
    )
    if at_gateway:
        common |= {
            "cloud_instance_id": f"ngw-{network.vpc[4:]}",
            "src_region": network.region,
            "src_vpc_id": network.vpc,
        }
    access = common | _access(dice, flow, cut) | {"__topic__": "cloudfirewall_access_log"}
    scope = network.vpc if at_gateway else ""
    place = (flow, scope, source, destination, int(cut.start), int(cut.end))
    yield Session(*place, _line(dice, access))
    if flow.threat and not flow.threat.named and cut.first:
        prevention = {
            "__topic__": "cloudfirewall_ips_log", "attack_type": flow.threat.number, "vul_level": flow.threat.level,
            "rule_result": flow.threat.verdict,
        }  # fmt: skip
        yield Session(*place, _line(dice, common | prevention))


def _common(network: Network, flow: Flow, cut: _Cut, kind: str) -> dict[str, Any]:
    inbound = flow.client.party is None
    start, end = EPOCH + int(cut.start), EPOCH + int(cut.end)
    fields: dict[str, Any] = {
        "__time__": end + 1, "log_type": kind, "aliuid": network.account, "region_id": network.region,
        "direction": "in" if inbound else "out", "ip_protocol": _PROTOCOLS.get(flow.protocol, "UDP"),
        "src_port": flow.client.port, "dst_port": flow.server.port, "start_time": start, "end_time": end,
    }  # fmt: skip
    if kind == "vpc_firewall_log":
        fields |= {"firewall_id": f"vfw-{network.vpc[-12:]}", "dst_region": network.region}
        fields["dst_network_instance_id"] = f"vpc-bp1shared{network.vpc[-8:]}"
    return fields


def _access(dice: Dice, flow: Flow, cut: _Cut) -> dict[str, Any]:
    """Return what the access log adds: how much it was, what it was, and what became of it."""
    (up_packets, up), (down_packets, down) = flow.traffic(upward=True), flow.traffic(upward=False)
    answered = flow.fate is Fate.OPEN
    ways = ("out", "in") if flow.client.party else ("in", "out")
    sent = max(1, round(up_packets * cut.share)), max(40, round(up * cut.share))
    got = (max(1, round(down_packets * cut.share)), max(40, round(down * cut.share))) if answered else (0, 0)
    fields: dict[str, Any] = {}
    for way, (packets, size) in zip(ways, (sent, got), strict=True):
        fields |= {f"{way}_packet_count": packets, f"{way}_packet_bytes": size}
    fields |= {
        "total_packet_count": sent[0] + got[0], "total_packet_bytes": sent[1] + got[1], "new_conn": int(cut.first),
        "app_name": flow.application, "app_dpi_state": "known" if flow.application != "Unknown" else "unknown",
        "domain": flow.domain, "url": "", **_verdict(dice, flow),
    }  # fmt: skip
    return fields


def _verdict(dice: Dice, flow: Flow) -> dict[str, Any]:
    """Return the words of access control and, if it is to be named here, of the intrusion prevention."""
    dropped = "discard" if dice.happens(_OLDER_WORDS) else "drop"
    fields: dict[str, Any] = {
        "rule_result": dropped if flow.fate is Fate.DROPPED else "pass",
        "acl_rule_id": dice.uuid() if flow.fate is Fate.DROPPED else _NO_RULE,
        "ips_rule_id": _NO_RULE, "ips_rule_name_en": "", "attack_type_name_en": "", "vul_level": 0,
        "rule_source": 1 if flow.fate is Fate.DROPPED else 0,
    }  # fmt: skip
    threat = flow.threat
    if threat is not None and threat.verdict == "drop":
        fields |= {"rule_result": dropped, "rule_source": 3}
    elif threat is not None and threat.named:
        fields["rule_result"] = threat.verdict
    if threat is not None and threat.named:
        fields |= {
            "ips_rule_id": threat.rule, "ips_rule_name_en": threat.signature, "attack_type_name_en": threat.kind,
            "vul_level": threat.level,
        }  # fmt: skip
    return fields


def _line(dice: Dice, fields: dict[str, Any]) -> str:
    """Return a line; in some records all numbers are text, as exporters of different age have it."""
    if dice.happens(0.4):
        fields = {key: str(value) for key, value in fields.items()}
    return orjson.dumps(fields).decode()
