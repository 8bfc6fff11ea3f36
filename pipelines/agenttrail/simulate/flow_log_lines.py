"""Records of network interfaces as the clouds write them down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from agenttrail.simulate.clock import EPOCH
from agenttrail.simulate.flow import TCP, Fate

if TYPE_CHECKING:
    from agenttrail.simulate.fleet import Interface
    from agenttrail.simulate.interfaces import Record

FULL_HEADER = (
    "version account-id vpc-id subnet-id instance-id interface-id az-id region type flow-direction traffic-path "
    "srcaddr dstaddr srcport dstport protocol pkt-srcaddr pkt-dstaddr tcp-flags packets bytes start end action "
    "log-status"
)
DEFAULT_HEADER = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)

_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16


def flow_log_line(record: Record) -> str:
    """Return a record in the layout of its interface."""
    layout = record.interface.layout
    if layout == "alibaba":
        return _alibaba(record)
    return _aws_full(record) if layout == "aws-full" else _aws_default(record)


def gap_line(interface: Interface, start: int, end: int, status: str) -> str:
    """Return a line that nothing was recorded: ``status`` is NODATA or SKIPDATA, times are seconds of the day."""
    start, end = EPOCH + start, EPOCH + end
    if interface.layout == "alibaba":
        return _alibaba_json(interface, {"start": start, "end": end, "log-status": status})
    if interface.layout == "aws-default":
        return f"2 {interface.network.account} {interface.name} - - - - - - - {start} {end} - {status}"
    return f"{_aws_place(interface)} - - - - - - - - - - - - - {start} {end} - {status}"


def _action(record: Record) -> str:
    return "REJECT" if record.flow.fate is Fate.REJECTED else "ACCEPT"


def _aws_default(record: Record) -> str:
    interface = record.interface
    return (
        f"2 {interface.network.account} {interface.name} {record.source[0]} {record.destination[0]} {record.source[1]} "
        f"{record.destination[1]} {record.flow.protocol} {record.packets} {record.bytes} {EPOCH + record.start} "
        f"{EPOCH + record.end} {_action(record)} OK"
    )


def _aws_full(record: Record) -> str:
    interface = record.interface
    ipv6 = ":" in record.packet_source
    destination = record.destination[0]
    if not record.outward and not ipv6:
        destination = interface.address  # what comes in for a secondary address is written down under the primary one
    path = ("8" if not ipv6 else "7") if record.outward and not record.packet_destination.startswith("10.") else "-"
    return (
        f"{_aws_place(interface)} {'IPv6' if ipv6 else 'IPv4'} {'egress' if record.outward else 'ingress'} {path} "
        f"{record.source[0]} {destination} {record.source[1]} {record.destination[1]} {record.flow.protocol} "
        f"{record.packet_source} {record.packet_destination} {_aws_flags(record)} {record.packets} {record.bytes} "
        f"{EPOCH + record.start} {EPOCH + record.end} {_action(record)} OK"
    )


def _aws_place(interface: Interface) -> str:
    network = interface.network
    return (
        f"5 {network.account} {network.vpc} {interface.subnet} {interface.instance or '-'} {interface.name} "
        f"{interface.zone} {network.region}"
    )


def _aws_flags(record: Record) -> int:
    """Return what AWS notes: SYN of the client, SYN-ACK of the server, FIN and RST; ACK and PSH alone are not noted."""
    if record.flow.protocol != TCP:
        return 0
    opened = (_SYN if record.upward else _SYN | _ACK) if record.opening else 0
    ended = (_RST if record.flow.reset else _FIN) if record.closing and record.flow.fate is Fate.OPEN else 0
    return opened | ended


def _alibaba(record: Record) -> str:
    (source, source_port), (destination, destination_port) = record.source, record.destination
    fields = {
        "srcaddr": source, "srcport": source_port, "dstaddr": destination, "dstport": destination_port,
        "protocol": record.flow.protocol, "direction": "out" if record.outward else "in",
        "packets": record.packets, "bytes": record.bytes, "start": EPOCH + record.start, "end": EPOCH + record.end,
        "log-status": "OK", "action": _action(record), "tcp-flags": _alibaba_flags(record),
    }  # fmt: skip
    return _alibaba_json(record.interface, fields)


def _alibaba_flags(record: Record) -> int:
    """Return the flags of all packets together, so that after an answer both sides show SYN and ACK."""
    if record.flow.protocol != TCP:
        return 0
    if record.flow.fate is not Fate.OPEN:
        return _SYN
    opened = _SYN if record.opening else 0
    ended = (_RST if record.flow.reset else _FIN) if record.closing else 0
    spoken = 0 if record.flow.only_last_word else _PSH
    return opened | ended | spoken | _ACK


_ALIBABA_BLANK = dict.fromkeys(
    ("srcaddr", "srcport", "dstaddr", "dstport", "protocol", "direction", "packets", "bytes", "action", "tcp-flags"),
    "-",
)


def _alibaba_json(interface: Interface, fields: dict[str, object]) -> str:
    network = interface.network
    document = {
        "version": "1", "account-id": network.account, "region": network.region, "vpc-id": network.vpc,
        "vswitch-id": interface.subnet, "vm-id": interface.instance or "-", "eni-id": interface.name,
        **_ALIBABA_BLANK, **fields,
        "rafficPath" if interface.window == 600 else "traffic_path": "-",  # noqa: PLR2004 - some exporters lose the letter
    }  # fmt: skip
    if interface.window == 300:  # noqa: PLR2004 - and some write every number as text
        document = {key: str(value) for key, value in document.items()}
    return orjson.dumps(document).decode()
