"""Alibaba Cloud Firewall logs, as JSON lines exported from Log Service: one record per session.

Source: the field table of Cloud Firewall's log fields for the Internet, NAT, VPC, IPv6 and DNS firewalls, and the
intrusion prevention topic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.json_lines import Fields, JsonLinesReader
from agenttrail.columns.text import constant
from agenttrail.flows import LARGEST_PORT, FlowColumns
from agenttrail.parsing import Block, Format, Lines, Parsed, event_batch, read_objects, sift

if TYPE_CHECKING:
    from collections.abc import Mapping

DATASET = "alibaba_cloud_firewall"
_NO_RULE = "00000000-0000-0000-0000-000000000000"
_VERDICTS = {"pass": "success", "alert": "success", "drop": "failure", "discard": "failure", "": None}
_ATTACK_TYPES = {"12": "Mining Behavior", "13": "Reverse Shell"}
"""Attack types of the intrusion prevention topic that come as numbers only."""
_TEXT = {
    "aliuid": "cloud.account.id",
    "src_vpc_id": "cloud.vpc.id",
    "domain": "destination.domain",
    "url": "url.full",
}
_FIELDS = Fields(
    text=(
        *_TEXT, "log_type", "src_ip", "dst_ip", "src_private_ip", "ip_protocol", "direction", "app_name", "rule_result",
        "acl_rule_id", "ips_rule_id", "ips_rule_name", "ips_rule_name_en", "attack_type", "attack_type_name",
        "attack_type_name_en", "region_id", "src_region", "firewall_id", "cloud_instance_id", "rule_source",
        "__topic__",
    ),
    integers=(
        "src_port", "dst_port", "start_time", "end_time", "__time__", "in_packet_bytes", "in_packet_count",
        "out_packet_bytes",
        "out_packet_count", "total_packet_bytes", "total_packet_count", "vul_level",
    ),
)  # fmt: skip


class Parser:
    """Parses block after block of one source."""

    def __init__(self) -> None:
        """Prepare the reader."""
        self._reader = JsonLinesReader(_FIELDS)

    def __call__(self, block: Block) -> Parsed:
        """Turn a block of JSON lines into events.

        A record is a session: its source opened it, and it counts the bytes of both directions.  Times are whole
        seconds. ``src_private_ip`` is the source before translation; the address seen outside becomes
        ``source.nat.ip``.
        """
        lines = Lines(block.data)
        rows, kept = sift(lines, block.data)
        native = read_objects(self._reader, lines, rows, kept, lenient=("__time__",))
        flows = FlowColumns(lines, rows)
        _flow_columns(flows, native)
        flows.columns |= _verdict_columns(native)
        events = event_batch(lines, block, DATASET, rows, flows.columns)
        return Parsed(events, lines.dead_letters(block, DATASET), len(lines), lines.skipped)


def _flow_columns(flows: FlowColumns, native: Mapping[str, pa.Array]) -> None:
    flows.outcome(native["rule_result"], "rule_result", _VERDICTS)
    starts = pc.coalesce(native["start_time"], native["end_time"], native["__time__"])
    flows.interval(starts, native["end_time"], ("start_time", "end_time"))
    flows.end("source", native["src_ip"], native["src_private_ip"], ("src_ip", "src_private_ip"))
    flows.end("destination", native["dst_ip"], names=("dst_ip", ""))
    flows.need_an_end()
    flows.number("source.port", native["src_port"], "src_port", LARGEST_PORT)
    flows.number("destination.port", native["dst_port"], "dst_port", LARGEST_PORT)
    flows.transport_names(native["ip_protocol"])
    for unit, short in (("bytes", "bytes"), ("packets", "count")):
        _count(flows, native, unit, short)
    count = len(native["src_ip"])
    flows.columns["client.side"] = constant("source", count)
    # a VPC firewall always says "out": there it tells nothing
    between_networks = pc.equal(native["log_type"], "vpc_firewall_log")
    direction = pc.if_else(
        pc.fill_null(between_networks, fill_value=False), pa.scalar(None, pa.string()), native["direction"]
    )
    flows.side("observer.side", direction, {"out": "source", "in": "destination"})
    flows.number("event.severity", native["vul_level"], "vul_level", 100)


def _count(flows: FlowColumns, native: Mapping[str, pa.Array], unit: str, short: str) -> None:
    """Build source, destination and network counts; "in" is towards the protected side, whoever opened the session."""
    inward, outward = native[f"in_packet_{short}"], native[f"out_packet_{short}"]
    opened_from_outside = pc.fill_null(pc.equal(pc.utf8_lower(native["direction"]), "in"), fill_value=False)
    flows.number(f"source.{unit}", pc.if_else(opened_from_outside, inward, outward), f"packet_{short}")
    flows.number(f"destination.{unit}", pc.if_else(opened_from_outside, outward, inward), f"packet_{short}")
    known = pc.or_(pc.is_valid(inward), pc.is_valid(outward))
    both = pc.add(pc.fill_null(inward, 0), pc.fill_null(outward, 0))
    total = pc.coalesce(native[f"total_packet_{short}"], pc.if_else(known, both, pa.scalar(None, pa.int64())))
    flows.number(f"network.{unit}", total, f"total_packet_{short}")


def _verdict_columns(native: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Build what the firewall says of the session: the rule that matched, the kind of attack, the engine."""
    prevention, access = _rule_id(native["ips_rule_id"]), _rule_id(native["acl_rule_id"])
    name = pc.coalesce(native["ips_rule_name_en"], native["ips_rule_name"])
    topic = pc.fill_null(pc.equal(native["__topic__"], "cloudfirewall_ips_log"), fill_value=False)
    prevented = pc.or_(pc.or_(pc.is_valid(prevention), pc.is_valid(name)), topic)
    numbered = _attack_names(native["attack_type"])
    engine = pc.if_else(
        prevented,
        "intrusion prevention",
        pc.if_else(pc.is_valid(access), "access control", pa.scalar(None, pa.string())),
    )
    application = pc.utf8_lower(native["app_name"])
    return {
        "event.provider": native["log_type"],
        "rule.id": pc.coalesce(prevention, access),
        "rule.name": name,
        "rule.category": pc.coalesce(native["attack_type_name_en"], native["attack_type_name"], numbered),
        "rule.ruleset": pc.coalesce(engine, native["rule_source"]),
        "network.application": pc.if_else(pc.equal(application, "unknown"), pa.scalar(None, pa.string()), application),
        "observer.name": pc.coalesce(native["firewall_id"], native["cloud_instance_id"], native["log_type"]),
        "cloud.region": pc.coalesce(native["region_id"], native["src_region"]),
        **{name: native[key] for key, name in _TEXT.items()},
    }


def _rule_id(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(column, _NO_RULE), pa.scalar(None, pa.string()), column)


def _attack_names(codes: pa.Array) -> pa.Array:
    """Name the attack types that are known by number; others stand for themselves, 0 for none."""
    encoded = codes.dictionary_encode()
    words = [None if code == "0" else _ATTACK_TYPES.get(code, code) for code in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.string()).take(encoded.indices)


FORMAT = Format(
    name=DATASET,
    gives="events",
    parser=lambda _settings: Parser(),
    scopes={"src_vpc_id": "cloud.vpc.id", "region_id": "cloud.region", "aliuid": "cloud.account.id"},
    kind="firewall",
)
