"""Input of `make bench`: a day of flow logs of a training cluster, its leases, its job; the same for the same seed.

Rows come from a table of kinds of traffic (KINDS), so that what the log holds can be read off one screen.  Pods reuse
addresses within seconds.  Who talks to unlisted peers, and who does what a rule looks for, are few sandboxes with few
peers each, whatever the number of lines: more lines are more of the same, not more findings.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

HERE = Path(__file__).resolve().parent
DAY = 86_400
MIDNIGHT = int(datetime(2025, 6, 2, tzinfo=UTC).timestamp())
TCP, UDP = 6, 17
PODS, PODS_PER_NODE, LEASES_PER_POD, GROUP = 4_000, 80, 5, 8
NODES = PODS // PODS_PER_NODE
FLOWS_PER_CHUNK, FLOWS_PER_TURN = 125_000, 500
LINES_PER_FILE = 4_000_000
BROKEN_EVERY = 5_000
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Kind:
    """One kind of traffic: a client sends to a server, and the reply is a record of its own.

    Attributes:
        share: per cent of all records.
        peers: pool that the other end is drawn from; "group" stands for the pods of the same job.
        ports: of the server; two of them with ``span`` are the ends of a range.
        sent: median bytes of a client's record.
        received: median bytes of a reply.
        least: no client's record is smaller,
        most: and none is larger.
        who: pool of the pods (or nodes) that take part; "few" are 24 of the talkers, others for each kind.
        habit: number of peers that one sandbox has; 0: any.
        inbound: whether the peer is the client.
        refused: share of flows that are rejected; they get no reply but are tried again.
        span: whether ``ports`` are the ends of a range.
    """

    share: float
    peers: str
    ports: tuple[int, ...]
    sent: int = 1_500
    received: int = 9_000
    protocol: int = TCP
    who: str = "pods"
    habit: int = 0
    inbound: bool = False
    refused: float = 0.012
    least: int = 40
    most: int = 40_000_000
    span: bool = False


KINDS = {
    # -- what a cluster does all day
    "names": Kind(14.0, "resolvers", (53,), 80, 220, UDP),
    "services": Kind(21.64, "services", (443, 8080, 8265, 9000, 5000), 2_500, 12_000),
    "storage": Kind(8.0, "storage", (2049, 988), 30_000, 300_000),
    "group": Kind(13.0, "group", (8471, 29500, 6379, 10001), 40_000, 40_000),
    "collective": Kind(1.0, "group", (33_000, 60_999), 900_000, 900_000, span=True),
    "grpc": Kind(2.0, "services", (50_051,), 3_000, 3_000),
    "listed": Kind(22.96, "allowed", (443, 80), 1_800, 60_000),
    "objects": Kind(4.41, "objects", (443,), 400_000, 900_000),
    "health": Kind(3.0, "nodes", (8080,), 400, 600, inbound=True),
    "node": Kind(3.0, "services", (443, 9100), 900, 4_000, who="nodes"),
    # -- unlisted peers
    "unlisted": Kind(3.992, "unlisted", (443, 80, 8443), 1_500, 8_000, who="talkers", habit=2, refused=0.08),
    "knocking": Kind(0.3, "unlisted", (22, 2222, 8443), 60, 40, who="few", habit=1, inbound=True, refused=0.9),
    "ssh-refused": Kind(0.06, "unlisted", (22,), 60, 60, who="few", habit=1, refused=1.0),
    "vpn": Kind(0.08, "unlisted", (51_820, 1194, 500), 9_000, 9_000, UDP, who="few", habit=1),
    "irc": Kind(0.06, "unlisted", (6667, 6697), 300, 900, who="few", habit=1),
    "proxy": Kind(0.1, "unlisted", (1080, 3128, 8118), 2_000, 9_000, who="few", habit=1, refused=0.3),
    "public-names": Kind(0.1, "public_resolvers", (53,), 90, 300, UDP, who="few", habit=1),
    "names-over-tls": Kind(0.06, "unlisted", (853,), 300, 900, who="few", habit=1),
    "desktop-outside": Kind(0.06, "unlisted", (3389, 5900, 5901), 900, 9_000, who="few", habit=1, refused=0.5),
    "bitcoin": Kind(0.08, "unlisted", (8333, 30_303), 2_000, 4_000, who="few", habit=1),
    "mail": Kind(0.06, "unlisted", (25, 465, 587), 4_000, 600, who="few", habit=1, refused=0.5),
    "plain-login": Kind(0.04, "unlisted", (21, 23), 90, 200, who="few", habit=1, refused=0.5),
    # -- what opens an incident
    "ssh-out": Kind(0.002, "unlisted", (22,), 6_000, 9_000, who="culprits", habit=1, refused=0),
    "reverse-shell": Kind(0.001, "unlisted", (4444, 1337), 900, 900, who="culprits", habit=1, refused=0),
    "tor": Kind(0.001, "unlisted", (9001, 9030), 9_000, 20_000, who="culprits", habit=1, refused=0),
    "mining": Kind(0.0015, "unlisted", (3333, 14_444, 45_700), 700, 900, who="culprits", habit=1, refused=0.3),
    "known-pool": Kind(0.001, "pools", (443,), 700, 900, who="culprits", habit=1, refused=0),
    "exfiltration": Kind(
        0.0005, "unlisted", (443,), 400_000_000, 9_000, who="culprits", habit=1, refused=0, least=210_000_000,
        most=900_000_000,
    ),
    "metadata": Kind(0.001, "metadata", (80,), 200, 900, who="culprits", habit=1, refused=0.2),
    # -- inside, but where a rule looks
    "directory": Kind(0.06, "servers", (88, 389, 636), 400, 900, who="few", habit=1),
    "cluster-api": Kind(0.15, "api", (6443,), 9_000, 20_000, who="talkers"),
    "smb": Kind(0.06, "servers", (139, 445), 900, 900, who="few", habit=1),
    "desktop": Kind(0.06, "servers", (3389, 5900), 900, 900, who="few", habit=1),
    "winrm": Kind(0.04, "servers", (5985, 5986), 900, 900, who="few", habit=1),
    "docker": Kind(0.04, "nodes", (2375, 2376), 500, 2_000, who="few", habit=1),
    "kubelet": Kind(0.1, "nodes", (10_250, 10_255), 500, 2_000, who="few", habit=1),
    "ssh-inside": Kind(0.1, "servers", (22,), 4_000, 4_000, who="few", habit=1),
    "etcd": Kind(0.1, "services", (2379,), 900, 900, who="few", habit=1),
    "snmp": Kind(0.05, "servers", (161, 69), 200, 200, UDP, who="few", habit=1),
    "database-refused": Kind(0.08, "servers", (5432, 3306, 27_017), 60, 60, who="few", habit=1, refused=0.9),
    "upload": Kind(
        0.05, "allowed", (443,), 80_000_000, 4_000, who="few", habit=1, least=55_000_000, most=190_000_000
    ),
    # -- look-alikes that must hit nothing
    "git": Kind(0.35, "git", (22,), 6_000, 40_000),
    "odd-port-listed": Kind(0.3, "allowed", (3333, 8333, 1080, 9001, 853, 4444), 1_500, 9_000),
    "checkpoint": Kind(0.15, "objects", (443,), 90_000_000, 4_000, least=55_000_000, most=900_000_000),
    "database": Kind(0.3, "servers", (5432, 3306), 2_000, 9_000, refused=0),
}  # fmt: skip


def _addresses() -> dict[str, list[str]]:
    """Return all addresses by pool; the order is that of the numbers they get."""
    return {
        "pods": [f"10.64.{pod // PODS_PER_NODE}.{10 + pod % PODS_PER_NODE}" for pod in range(PODS)],
        "nodes": [f"10.8.0.{10 + node}" for node in range(NODES)],
        "resolvers": ["10.96.0.10", "10.96.0.11"],
        "api": ["10.96.0.1"],
        "services": [f"10.96.4.{1 + service}" for service in range(60)],
        "storage": [f"172.16.5.{1 + server}" for server in range(12)],
        "servers": [f"10.20.0.{1 + server}" for server in range(30)],
        "metadata": ["169.254.169.254"],
        "allowed": [f"198.18.{net}.{1 + 11 * host}" for net in range(36) for host in range(20)],
        "objects": [f"198.18.200.{1 + host}" for host in range(12)],
        "git": [f"198.18.210.{1 + host}" for host in range(4)],
        "unlisted": [f"198.19.{net}.{7 + 40 * host}" for net in range(200) for host in range(6)],
        "public_resolvers": [f"198.19.250.{53 + host}" for host in range(6)],
        "pools": [f"203.0.113.{20 + host}" for host in range(8)],
    }


LISTS = {
    "internal": ["10.0.0.0/8", "172.16.0.0/12", "169.254.0.0/16"],
    "egress_allow": [*(f"198.18.{net}.0/24" for net in range(36)), "198.18.200.0/28", "198.18.210.0/29"],
    "object_stores": ["198.18.200.0/28"],
    "resolvers": ["10.96.0.10", "10.96.0.11"],
    "public_resolvers": ["198.19.250.53", "198.19.250.54/31", "198.19.250.56/30"],
    "mining_pools": ["203.0.113.20/30", "203.0.113.24/30"],
}


@dataclass(frozen=True)
class World:
    """Who is there.

    Attributes:
        texts: every address.
        pools: numbers of the addresses of each pool.
        starts: start of each lease of each pod address, seconds of the day, (PODS, LEASES_PER_POD).
        ends: its end (exclusive).
        interfaces: network interface of each node.
    """

    texts: pa.Array
    pools: dict[str, Numbers]
    starts: Numbers
    ends: Numbers
    interfaces: list[str]


def make_world(seed: int) -> World:
    """Return the cluster of ``seed``: each address is held five times a day, 1 to 20 s apart."""
    rng = np.random.default_rng([seed, 0])
    by_pool = _addresses()
    bounds = np.cumsum([0, *map(len, by_pool.values())])
    pools = {name: np.arange(*ends) for name, ends in zip(by_pool, pairwise(bounds), strict=True)}
    shuffled = rng.permutation(PODS)
    pools |= {"talkers": np.sort(shuffled[:300]), "culprits": np.sort(shuffled[300:332])}
    cuts = np.arange(LEASES_PER_POD) * (DAY // LEASES_PER_POD) + rng.integers(-4_000, 4_000, (PODS, LEASES_PER_POD))
    cuts[:, 0] = 0
    gaps = rng.integers(1, 21, (PODS, LEASES_PER_POD))
    ends = np.column_stack([cuts[:, 1:] - gaps[:, 1:], np.full(PODS, DAY)])
    words = rng.integers(0, 1 << 60, NODES)
    interfaces = [f"eni-{node:02x}{word:015x}" for node, word in enumerate(words.tolist())]
    return World(pa.array([text for pool in by_pool.values() for text in pool]), pools, cuts, ends, interfaces)


class Dice:
    """KINDS as arrays, so that every draw is a look-up."""

    def __init__(self, world: World) -> None:
        """Lay the table of kinds out for ``world``."""
        kinds = list(KINDS.values())
        steps = np.round(np.cumsum([0.0, *(kind.share for kind in kinds)]) * (1 << 20) / 100).astype(np.int64)
        self.faces = np.repeat(np.arange(len(kinds), dtype=np.uint8), np.diff(steps))
        members, self.first_member = _laid_out([_members(world, kind, place) for place, kind in enumerate(kinds)])
        peers, self.first_peer = _laid_out([world.pools.get(kind.peers, np.zeros(1, np.int64)) for kind in kinds])
        ports, self.first_port = _laid_out([_ports(kind) for kind in kinds])
        self.members, self.peers, self.ports = members, peers, ports
        self.sizes = {
            name: np.array([getattr(kind, name) for kind in kinds])
            for name in ("protocol", "habit", "inbound", "refused", "least", "most")
        }
        self.medians = np.log(np.array([[kind.sent, kind.received] for kind in kinds], dtype=np.float32))
        self.grouped = np.array([kind.peers == "group" for kind in kinds])


def _members(world: World, kind: Kind, place: int) -> Numbers:
    """Return who takes part in a kind of traffic; "few" are some of the talkers, others for each kind."""
    if kind.who != "few":
        return world.pools[kind.who]
    talkers = world.pools["talkers"]
    return talkers[(np.arange(24) + 24 * place) % len(talkers)]


def _ports(kind: Kind) -> Numbers:
    return np.arange(kind.ports[0], kind.ports[1]) if kind.span else np.array(kind.ports)


def _laid_out(pools: list[Numbers]) -> tuple[Numbers, Numbers]:
    return np.concatenate(pools), np.cumsum([0, *map(len, pools)])


@dataclass(frozen=True)
class Records:
    """Columns of consecutive records; addresses are numbers of ``World.texts``, times seconds of the day."""

    node: Numbers
    source: Numbers
    destination: Numbers
    source_port: Numbers
    destination_port: Numbers
    protocol: Numbers
    packets: Numbers
    bytes: Numbers
    start: Numbers
    end: Numbers
    refused: NDArray[np.bool_]
    outward: NDArray[np.bool_]


def make_records(world: World, dice: Dice, seed: int, chunk: int, a_day: int) -> Records:
    """Return chunk number ``chunk`` of a log that has ``a_day`` lines a day."""
    rng = np.random.default_rng([seed, a_day, chunk])
    count = FLOWS_PER_CHUNK
    kind = dice.faces[rng.integers(0, 1 << 20, count)].astype(np.int64)
    flow = chunk * count + np.arange(count)
    start = np.clip(flow * 2 * DAY // a_day + rng.integers(-30, 31, count), 0, DAY - 1)
    pod = _pick(dice.members, dice.first_member, kind, rng.random(count) ** 2)
    lease = _leases_at(world, pod, start)
    peer = _peers(dice, kind, pod, lease, rng.random(count))
    server_port = _pick(dice.ports, dice.first_port, kind, rng.random(count))
    client_port = rng.integers(32_768, 60_999, count)
    refused = rng.random(count) < dice.sizes["refused"][kind]
    inbound = dice.sizes["inbound"][kind]
    client, server = np.where(inbound, peer, pod), np.where(inbound, pod, peer)
    ends = client, server, client_port, server_port
    source, destination, source_port, destination_port = _both_ways(ends, refused)
    reply = _twice(np.zeros(count, bool), ~refused)
    size = _sizes(dice, rng, _twice(kind, kind), reply)
    holder = _twice(pod, pod)
    begin = _twice(start, start)
    return Records(
        node=np.where(holder < PODS, holder // PODS_PER_NODE, holder - PODS),
        source=source, destination=destination, source_port=source_port, destination_port=destination_port,
        protocol=_twice(dice.sizes["protocol"][kind], dice.sizes["protocol"][kind]),
        packets=size // 1_200 + 1, bytes=size, start=begin, end=begin + rng.integers(1, 61, 2 * count),
        refused=_twice(refused, refused), outward=source == holder,
    )  # fmt: skip


def _pick(values: Numbers, first: Numbers, kind: Numbers, chance: NDArray[np.float64]) -> Numbers:
    """Return per row one of the values of its kind."""
    low = first[kind]
    picked: Numbers = values[low + (chance * (first[1:][kind] - low)).astype(np.int64)]
    return picked


def _leases_at(world: World, pod: Numbers, time: Numbers) -> Numbers:
    """Return the lease, or the last before a gap, of each (pod, time); nodes get numbers beyond."""
    starts = world.starts[np.minimum(pod, PODS - 1)]
    lease: Numbers = pod * LEASES_PER_POD + (starts <= time[:, None]).sum(axis=1) - 1
    return lease


def _peers(dice: Dice, kind: Numbers, pod: Numbers, lease: Numbers, chance: NDArray[np.float64]) -> Numbers:
    """Return each flow's peer: any of its pool, one of the few that the sandbox has, or a pod of the same job."""
    peer = _pick(dice.peers, dice.first_peer, kind, chance)
    habit = dice.sizes["habit"][kind]
    rows = np.flatnonzero(habit)
    low = dice.first_peer[kind[rows]]
    slot = (chance[rows] * habit[rows]).astype(np.int64)
    place = lease[rows] * 7_919 + kind[rows] * 104_729 + slot * 15_485_863
    peer[rows] = dice.peers[low + place % (dice.first_peer[1:][kind[rows]] - low)]
    rows = np.flatnonzero(dice.grouped[kind])
    own = pod[rows]
    peer[rows] = own - own % GROUP + (own % GROUP + 1 + (chance[rows] * (GROUP - 1)).astype(np.int64)) % GROUP
    return peer


def _both_ways(ends: tuple[Numbers, ...], refused: NDArray[np.bool_]) -> tuple[Numbers, ...]:
    """Return source, destination and their ports: first as the client sends, then as the server replies if it may."""
    client, server, client_port, server_port = ends
    return (
        _twice(client, np.where(refused, client, server)),
        _twice(server, np.where(refused, server, client)),
        _twice(client_port, np.where(refused, client_port, server_port)),
        _twice(server_port, np.where(refused, server_port, client_port)),
    )


def _twice(first: NDArray[_Scalar], second: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return two records per flow, the second a little after the first."""
    turns = (-1, 1, FLOWS_PER_TURN)
    both: NDArray[_Scalar] = np.concatenate([first.reshape(turns), second.reshape(turns)], axis=1).ravel()
    return both


def _sizes(dice: Dice, rng: np.random.Generator, kind: Numbers, reply: NDArray[np.bool_]) -> Numbers:
    spread = rng.standard_normal(len(kind), dtype=np.float32) * np.float32(0.8)
    size = np.exp(dice.medians[kind, reply.astype(np.int8)] + spread).astype(np.int64)
    clipped: Numbers = np.clip(size, np.where(reply, 40, dice.sizes["least"][kind]), dice.sizes["most"][kind])
    return clipped


class Texts:
    """Columns of records as text, by look-up where there are few values."""

    def __init__(self, world: World) -> None:
        """Write out every value that is looked up."""
        self._addresses = world.texts
        self._small = pa.array([str(number) for number in range(1 << 16)])
        self._times = pa.array([str(MIDNIGHT + second) for second in range(DAY + 61)])
        self.interfaces = pa.array(world.interfaces)

    def columns(self, rows: Records) -> dict[str, pa.Array]:
        """Return the columns that both formats have, by AWS's names."""
        return {
            "interface": self.interfaces.take(pa.array(rows.node)),
            "srcaddr": self._addresses.take(pa.array(rows.source)),
            "dstaddr": self._addresses.take(pa.array(rows.destination)),
            "srcport": self._small.take(pa.array(rows.source_port)),
            "dstport": self._small.take(pa.array(rows.destination_port)),
            "protocol": self._small.take(pa.array(rows.protocol)),
            "packets": pa.array(rows.packets).cast(pa.string()),
            "bytes": pa.array(rows.bytes).cast(pa.string()),
            "start": self._times.take(pa.array(rows.start)),
            "end": self._times.take(pa.array(rows.end)),
            "action": pa.array(["ACCEPT", "REJECT"]).take(pa.array(rows.refused.astype(np.int8))),
        }


def aws_lines(texts: Texts, rows: Records, _: np.random.Generator) -> pa.Array:
    """Return records as lines of a version 2 flow log."""
    columns = texts.columns(rows)
    columns["interface"] = pa.array([f"2 123456789012 {word}" for word in texts.interfaces.to_pylist()]).take(
        pa.array(rows.node)
    )
    columns["action"] = pa.array(["ACCEPT OK\n", "REJECT OK\n"]).take(pa.array(rows.refused.astype(np.int8)))
    return pc.binary_join_element_wise(*columns.values(), " ")


AWS_HEADER = (
    b"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes "
    b"start end action log-status\n"
)
_ALIBABA_LINE = (
    '{"__time__":<time>,"__topic__":"vpc_flow_log","__source__":"log_service","__tag__:__receive_time__":"<time>",'
    '"version":<version>,"vswitch-id":"vsw-bp1x2p3q4r5s6t7u8v9w0","vm-id":"<instance>",'
    '"vpc-id":"vpc-bp1a2b3c4d5e6f7g8h9i0","account-id":"1234567890123456","eni-id":"<interface>",'
    '"region":"cn-hangzhou","srcaddr":"<srcaddr>","srcport":<srcport>,"dstaddr":"<dstaddr>","dstport":<dstport>,'
    '"protocol":<protocol>,"direction":"<direction>","packets":<packets>,"bytes":<bytes>,"start":<start>,"end":<end>,'
    '"log-status":"OK","action":"<action>","tcp-flags":<tcp-flags>,"traffic_path":"-","srctype":"vm","dsttype":"-",'
    '"src-region-id":"cn-hangzhou","dst-region-id":"-","ecs-name":"gpu-training-node"}\n'
)
_ALIBABA = tuple(re.split("[<>]", _ALIBABA_LINE))
"""Text and the names of columns in turn."""


def _alibaba_lines(texts: Texts, rows: Records, quoted: dict[str, NDArray[np.bool_]]) -> pa.Array:
    """Return records as JSON lines; where ``quoted`` says so an integer stands in quotes."""
    count = len(rows.bytes)
    columns = texts.columns(rows)
    columns["time"] = columns["end"]
    columns["instance"] = pc.replace_substring(texts.interfaces, "eni-", "i-").take(pa.array(rows.node))
    columns["version"] = pa.array(["1"]).take(pa.array(np.zeros(count, np.int8)))
    columns["tcp-flags"] = pa.array(["0", "27"]).take(pa.array((rows.protocol == TCP).astype(np.int8)))
    columns["direction"] = pa.array(["in", "out"]).take(pa.array(rows.outward.astype(np.int8)))
    for name, mask in quoted.items():
        marks = pa.array(["", '"']).take(pa.array(mask.astype(np.int8)))
        columns[name] = pc.binary_join_element_wise(marks, columns[name], marks, "")
    return pc.binary_join_element_wise(*(columns.get(part, part) for part in _ALIBABA), "")


def alibaba_lines(texts: Texts, rows: Records, _: np.random.Generator) -> pa.Array:
    """Return records as Log Service exports them."""
    return _alibaba_lines(texts, rows, {})


def mixed_alibaba_lines(texts: Texts, rows: Records, rng: np.random.Generator) -> pa.Array:
    """Return the same with numbers as text at random, field by field, and one line in 5,000 cut off."""
    count = len(rows.bytes)
    names = ("version", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "tcp-flags")
    lines = _alibaba_lines(texts, rows, {name: rng.random(count) < 0.5 for name in names})
    broken = np.arange(count) % BROKEN_EVERY == BROKEN_EVERY - 1
    stumps = pc.binary_join_element_wise(pc.utf8_slice_codeunits(lines.filter(pa.array(broken)), 0, 333), "\n", "")
    return pc.replace_with_mask(lines, pa.array(broken), stumps)


FORMATS = {
    "aws": ("aws_vpc_flow", "log", AWS_HEADER, aws_lines),
    "alibaba": ("alibaba_vpc_flow", "jsonl", b"", alibaba_lines),
    "alibaba-mixed": ("alibaba_vpc_flow", "jsonl", b"", mixed_alibaba_lines),
}


def write_logs(folder: Path, log: str, lines: int, a_day: int, seed: int) -> None:
    """Write the first ``lines`` lines of a log that has ``a_day`` lines a day, in files of at most 4 M lines."""
    format_, ending, header, to_lines = FORMATS[log]
    world = make_world(seed)
    dice, texts = Dice(world), Texts(world)
    per_chunk = 2 * FLOWS_PER_CHUNK
    for number in range(-(-lines // LINES_PER_FILE)):
        with (folder / f"{format_}-{number:03}.{ending}").open("wb") as file:
            file.write(header)
            first, past = number * LINES_PER_FILE, min((number + 1) * LINES_PER_FILE, lines)
            for start in range(first, past, per_chunk):
                chunk = start // per_chunk
                made = to_lines(
                    texts, make_records(world, dice, seed, chunk, a_day), np.random.default_rng([seed, 1, chunk])
                )
                file.write(_bytes_of(made[: past - start]))


def _bytes_of(lines: pa.Array) -> memoryview:
    """Return the text of consecutive lines, without a copy."""
    offsets = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def make_leases(seed: int) -> Iterator[dict[str, Any]]:
    """Yield all leases in plain values: address, start and end in seconds (None: open), and the names of the holder."""
    world = make_world(seed)
    families = ("web", "swe", "math", "game")
    for pod in range(PODS):
        group, node = pod // GROUP, pod // PODS_PER_NODE
        family = families[group % len(families)]
        job = f"{'infra' if group % 20 == 7 else 'netops' if group % 20 == 11 else 'grpo'}-{family}-{group % 40:02}"
        for nth in range(LEASES_PER_POD):
            end = int(world.ends[pod, nth])
            number = pod * LEASES_PER_POD + nth
            yield {
                "address": world.texts[pod].as_py(),
                "start": MIDNIGHT + int(world.starts[pod, nth]),
                "end": None if end == DAY and pod % 10 == 0 else MIDNIGHT + end,
                "gen_ai.agent.id": f"coder-{number % 7}",
                "trajectory.id": f"ep-{number:06}",
                "sandbox.id": f"rollout-{family}-{number:05}",
                "job.id": job,
                "host.name": f"{'control' if node < 2 else 'gpu'}-{node:02}",
            }


def _rfc3339(second: int | None) -> str:
    return "" if second is None else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_leases(path: Path, seed: int) -> None:
    """Write the leases as CSV, which loads in half the CPU time of the same pods as a PodList (0.24 against 0.50 s)."""
    rows = [{**lease, "start": _rfc3339(lease["start"]), "end": _rfc3339(lease["end"])} for lease in make_leases(seed)]
    text = "".join(",".join(row) + "\n" for row in (rows[0], *(row.values() for row in rows)))
    path.write_text(text, encoding="utf-8")


def write_pods(path: Path, seed: int) -> None:
    """Write the leases as a PodList, to compare how fast the two load."""
    items = [_pod(lease) for lease in make_leases(seed)]
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "PodList", "items": items}), encoding="utf-8")


def _pod(lease: dict[str, Any]) -> dict[str, Any]:
    labels = {"rl.example.com/agent": lease["gen_ai.agent.id"], "rl.example.com/episode": lease["trajectory.id"]}
    metadata = {
        "name": lease["sandbox.id"], "namespace": "training", "uid": f"uid-{lease['trajectory.id']}",
        "labels": {**labels, "training.kubeflow.org/job-name": lease["job.id"]},
    }  # fmt: skip
    ended = {"terminated": {"finishedAt": _rfc3339(lease["end"])}} if lease["end"] else {"running": {}}
    status = {
        "phase": "Succeeded" if lease["end"] else "Running",
        "podIP": lease["address"], "podIPs": [{"ip": lease["address"]}],
        "startTime": _rfc3339(lease["start"]), "containerStatuses": [{"state": ended}],
    }  # fmt: skip
    return {"metadata": metadata, "spec": {"nodeName": lease["host.name"]}, "status": status}


def write_job(folder: Path, log: str) -> None:
    """Write the job file, and the rules beside it."""
    format_, ending, *_ = FORMATS[log]
    shutil.rmtree(folder / "rules", ignore_errors=True)
    shutil.copytree(HERE / "rules", folder / "rules")
    job = {
        "name": f"bench-{log}",
        "events": [{"format": format_, "path": f"{format_}-*.{ending}"}],
        "leases": [{"format": "address_leases", "path": "leases.csv"}],
        "rules": ["./rules"],
        "lists": LISTS,
        "attribution": {"tolerance": "0s"},
        "output": {"directory": "out"},
    }
    (folder / "job.yml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")


def generate(folder: Path, log: str, lines: int, a_day: int, seed: int) -> None:
    """Write a log of ``lines`` lines, its leases, rules and job file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_logs(folder, log, lines, a_day, seed)
    write_leases(folder / "leases.csv", seed)
    write_job(folder, log)


def main() -> None:
    """Generate one input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", choices=FORMATS, default="aws")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument(
        "--a-day", type=int, help="lines of the whole day, of which --lines are the first (default: all)"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pods", action="store_true", help="write the leases as a PodList, too")
    given = parser.parse_args()
    generate(given.folder, given.log, given.lines, given.a_day or given.lines, given.seed)
    if given.pods:
        write_pods(given.folder / "pods.json", given.seed)


if __name__ == "__main__":
    main()
