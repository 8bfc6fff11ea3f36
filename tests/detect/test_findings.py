"""From attributed events to findings: whatever the batches and shards, what one would gather by hand."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.pipeline import found_in, rows_of
from tests.oracles import findings as oracle

from agenttrail.attribute import LeaseTable, attribute
from agenttrail.columns.addresses import address, parse_addresses
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.text import constant
from agenttrail.detect.expressions import And, Match, Not, Op, Or
from agenttrail.detect.finding_sums import added, as_known
from agenttrail.detect.rules import Rule
from agenttrail.entities import name_holders
from agenttrail.leases import resolve
from agenttrail.metadata import lease_batch
from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.transforms import detecting
from agenttrail.transforms.detecting import _Detect
from agenttrail.transforms.parsing import Source, with_scope

if TYPE_CHECKING:
    from random import Random

_FEWER = settings(max_examples=settings().max_examples // 3)
"""Each example is a log of its own."""
BASE = 1_772_409_600_000_000  # 2026-03-02 in microseconds
SECOND = 1_000_000
DAY = 86_400
LISTS = {"internal": ("10.0.0.0/8",), "egress_allow": ("203.0.113.0/24",), "words": ("mining",)}
INTERNAL = NetworkLists.compile([[parse_network(entry) for entry in LISTS["internal"]]])
SOURCES = (
    Source("flows", "aws_vpc_flow", {}, scope="vpc-b"),
    Source("others", "aws_vpc_flow", {}, scope="vpc-a"),
    Source("firewall", "alibaba_cloud_firewall", {}),
)


def _rule(number: int, level: str, condition: Any, datasets: tuple[str, ...] = ("aws_vpc_flow",), **more: Any) -> Rule:
    return Rule(
        f"{number:08d}-0000-4000-8000-000000000000", f"r/{number}", f"Rule {number}", level, condition, datasets, **more
    )


_BOTH = ("aws_vpc_flow", "alibaba_cloud_firewall")
_UNLISTED = Not(Or((Match("peer.ip", Op.LIST, "egress_allow"), Match("peer.ip", Op.LIST, "internal"))))
RULES = (
    _rule(1, "high", And((Match("peer.port", Op.EQUALS, 22), _UNLISTED)), _BOTH, techniques=("T1572", "T1021.004"),
          tactics=("lateral-movement",), recommendation=("Block it.",), references=("b", "a")),
    _rule(2, "low", Match("event.outcome", Op.EQUALS, "failure"), _BOTH, falsepositives=("A missing rule.",)),
    _rule(3, "medium", Match("peer.port", Op.EQUALS, 3333), _BOTH, building_block=True),
    _rule(4, "medium", Match("rule.name", Op.LIST, "words"), ("alibaba_cloud_firewall",)),
    _rule(5, "critical", Match("event.start", Op.EXISTS, value=True), _BOTH, off="its list is empty"),
    _rule(6, "informational", Match("network.direction", Op.EQUALS, "egress")),
    _rule(7, "high", Match("", Op.CONTAINS, "tunnel"), _BOTH),
    _rule(8, "low", Match("peer.ip", Op.EXISTS, value=False), _BOTH),
)  # fmt: skip


def _pod(name: str, ip: str, start: int, end: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "lease.address": address(ip), "lease.start": BASE + start * SECOND,
        "lease.end": None if end is None else BASE + end * SECOND, "sandbox.id": name, "lease.scope": "vpc-b", **more,
    }  # fmt: skip


def _uid(name: str, **more: Any) -> dict[str, Any]:
    return {"k8s.pod.uid": f"uid-{name}", "host.name": "n1", **more}


LEASES = [
    _pod("one", "10.0.0.1", 0, 100, **_uid("one", **{"trajectory.id": "t1", "gen_ai.agent.id": "a1", "job.id": "j1"})),
    _pod("two", "10.0.0.1", 100, **_uid("two", **{"job.id": "j1", "gen_ai.agent.id": "a2"})),
    _pod("bare", "10.0.0.2", 0),
    _pod("bare", "10.0.0.2", DAY),
    *(_pod(name, "10.0.0.3", 0, **_uid(name, **{"trajectory.id": "t9", "job.id": "j2"})) for name in ("x", "y")),
    *(
        _pod(name, "10.0.0.4", 0, **_uid(name, **{"job.id": "j3", "gen_ai.agent.id": f"a-{name}"}))
        for name in ("x", "y")
    ),
    {**_pod("", "10.0.0.5", 0), "sandbox.id": None, "host.name": "n2"},
    _pod("public", "198.51.100.7", 0, **_uid("public")),
    _pod("inside", "10.0.0.1", 0, **{"lease.scope": "vpc-a", **_uid("inside")}),
]
TABLE = LeaseTable.build(resolve([lease_batch(LEASES, "leases")]), 0)


@dataclass(frozen=True)
class Event:
    """One record of a log; ``end`` is what its line ends with."""

    source: int
    second: int
    ends: tuple[str | None, int | None, str | None, int | None]
    protocol: int | None
    outcome: str | None
    sent: tuple[int | None, int | None]
    observer: str | None
    verdict: str | None
    note: str = ""
    end: bytes = b"\n"

    def line(self) -> bytes:
        """Return the record as stored."""
        parts = (
            self.second,
            *self.ends,
            self.protocol,
            self.outcome,
            *self.sent,
            self.observer,
            self.verdict,
            self.note,
        )
        return ",".join(map(str, parts)).encode() + self.end


_OWN = st.sampled_from(["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.9", None])
_PEER = st.sampled_from(["192.0.2.7", "192.0.2.8", "203.0.113.9", "198.51.100.7", "10.0.0.2", None])
_PORT = st.sampled_from([None, 22, 443, 3333, 40_000, 50_000])
_ENDS = st.tuples(_OWN, _PORT, _PEER, _PORT).flatmap(
    lambda ends: st.sampled_from([ends, (ends[2], ends[3], ends[0], ends[1])])
)
_EVENT = st.builds(
    Event,
    source=st.integers(0, len(SOURCES) - 1),
    second=st.sampled_from([0, 1, 2, 50, 99, 100, 101, DAY - 1, DAY, DAY + 5]),
    ends=_ENDS,
    protocol=st.sampled_from([None, 6, 17]),
    outcome=st.sampled_from([None, "success", "failure"]),
    sent=st.tuples(st.sampled_from([None, 0, 40, 5_000]), st.sampled_from([None, 7])),
    observer=st.sampled_from([None, "eni-1", "fw"]),
    verdict=st.sampled_from([None, "Mining", "web"]),
    note=st.sampled_from(["", "a tunnel", "password=hunter2hunter2", "ü"]),
    end=st.sampled_from([b"\n", b"\r\n", b""]),
)


@st.composite
def _logs(draw: st.DrawFn) -> list[Event]:
    """Some events, some of them again, and a burst of events that differ a little from one of them."""
    events = draw(st.lists(_EVENT, min_size=1, max_size=14))
    for _ in range(draw(st.integers(0, 4))):
        events.append(replace(draw(st.sampled_from(events)), end=draw(st.sampled_from([b"\n", b""]))))
    one = draw(st.sampled_from(events))
    burst = draw(st.sampled_from([0, 0, 0, 5, 19, 20, 21, 45]))
    events += [replace(one, sent=(number % 40, one.sent[1]), second=one.second + number % 3) for number in range(burst)]
    return draw(st.permutations(events))


def _batch(events: list[Event], places: list[tuple[str, int]], source: Source) -> pa.RecordBatch:
    """Return attributed events of one source."""
    times = pa.array([BASE + event.second * SECOND for event in events], TIMESTAMP)
    words = {
        "event.outcome": [event.outcome for event in events],
        "network.transport": [{6: "tcp", 17: "udp", None: None}[event.protocol] for event in events],
        "observer.name": [event.observer for event in events],
        "rule.name": [event.verdict for event in events],
        "log.file.path": [path for path, _ in places],
    }
    columns = {
        "event.dataset": constant(source.format, len(events)),
        "event.start": times,
        "event.end": times,
        **{name: pa.array(values, pa.string()).dictionary_encode() for name, values in words.items()},
        "network.iana_number": pa.array([event.protocol for event in events], pa.int32()),
        "event.original": pa.array([event.line() for event in events], pa.binary()),
        "log.offset": pa.array([offset for _, offset in places], pa.int64()),
    }
    for side, place in (("source", 0), ("destination", 2)):
        columns[f"{side}.ip"] = parse_addresses(pa.array([event.ends[place] for event in events], pa.string()))[0]
        columns[f"{side}.port"] = pa.array([event.ends[place + 1] for event in events], pa.int32())
        columns[f"{side}.bytes"] = pa.array([event.sent[place // 2] for event in events], pa.int64())
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return attribute(with_scope(batch, source), TABLE, INTERNAL)


def _batches(events: list[Event], size: int) -> list[tuple[int, pa.RecordBatch]]:
    """Return events by source in batches of at most ``size``; each keeps the place of its rank among all events."""
    places = [(f"file-{number % 3}", number) for number in range(len(events))]
    batches = []
    for source in range(len(SOURCES)):
        own = [number for number, event in enumerate(events) if event.source == source]
        for first in range(0, len(own), size):
            some = own[first : first + size]
            batches.append((source, _batch([events[n] for n in some], [places[n] for n in some], SOURCES[source])))
    return batches


def _rows(batches: list[tuple[int, pa.RecordBatch]]) -> list[dict[str, Any]]:
    return [row for _, batch in batches for row in rows_of(batch)]


def _key(finding: dict[str, Any]) -> tuple[Any, ...]:
    return finding["rule.id"], *(finding[name] for name in oracle.KEY), finding["peer.ip"]


def _shown(finding: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Return of a finding what the oracle speaks of."""
    out = {name: finding[name] for name in expected}
    out["finding.evidence"] = [
        {name: event[name] for name in ("event.id", "event.original", *oracle.SHOWN)}
        for event in finding["finding.evidence"]
    ]
    return out


@_FEWER
@given(_logs(), st.sampled_from([2, 5, 20, 70]), st.integers(1, 5), st.integers(1, 9))
def test_findings_are_those_that_the_oracle_gathers(events: list[Event], size: int, shards: int, bundle: int) -> None:
    batches = _batches(events, size)
    expected = oracle.findings(_rows(batches), RULES, LISTS)
    found = {_key(finding): finding for finding in rows_of(found_in(batches, SOURCES, RULES, LISTS, shards, bundle)[0])}
    assert found.keys() == expected.keys()
    for key, finding in expected.items():
        assert _shown(found[key], finding) == finding
    assert len({finding["finding.id"] for finding in found.values()}) == len(found)


@_FEWER
@given(_logs(), st.sampled_from([2, 5, 20, 70]), st.integers(1, 40), st.randoms(use_true_random=False))
def test_batches_shards_and_order_change_nothing(events: list[Event], size: int, shards: int, random: Random) -> None:
    """To the last byte: the places of equal lines apart, of which the smallest is shown."""
    once, account = found_in(_batches(events, len(events)), SOURCES, RULES, LISTS)
    batches = _batches(events, size)
    random.shuffle(batches)
    again, other = found_in(batches, SOURCES, RULES, LISTS, shards)
    assert again.sort_by("finding.id").equals(once.sort_by("finding.id"))
    for what in ("signals", "duplicates"):
        assert [other.counts[source, what] for source in range(3)] == [
            account.counts[source, what] for source in range(3)
        ]


def test_long_lines_leave_before_their_bundle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column has room for 2 GiB, which fewer rows than usually leave together may have."""
    event = Event(0, 5, ("10.0.0.1", 1, "198.51.100.9", 22), 6, "success", (1, 1), "eni", None)
    batches = _batches([replace(event, second=second) for second in range(5)], 1)
    line = batches[0][1].column("event.original").nbytes
    monkeypatch.setattr(detecting, "_BYTES_TOGETHER", 2 * line)
    detect = _Detect(SOURCES, RULES, LISTS, 1)
    detect.start_bundle()
    leaving = [sum(isinstance(output, tuple) for output in detect.process(element)) for element in batches]
    assert leaving == [0, 1, 0, 1, 0]


@_FEWER
@given(_logs(), _logs())
def test_a_finding_keeps_its_id_whatever_else_is_found(events: list[Event], more: list[Event]) -> None:
    few = {finding["finding.id"]: _key(finding) for finding in rows_of(_all(events))}
    many = {finding["finding.id"]: _key(finding) for finding in rows_of(_all([*events, *more]))}
    assert few.items() <= many.items()


def _all(events: list[Event]) -> pa.RecordBatch:
    return found_in(_batches(events, 1_000), SOURCES, RULES, LISTS)[0]


def _found(events: list[Event], size: int = 1_000, rule: int = 2) -> list[dict[str, Any]]:
    """Return the findings of one rule."""
    found, _ = found_in(_batches(events, size), SOURCES, RULES, LISTS)
    return [finding for finding in rows_of(found) if finding["rule.name"] == f"r/{rule}"]


REFUSED = Event(0, 5, ("10.0.0.1", 50_000, "192.0.2.7", 22), 6, "failure", (40, None), "eni-1", None)


def test_a_finding_counts_all_of_its_events_and_shows_the_first_twenty() -> None:
    events = [replace(REFUSED, second=60 - number, sent=(number, None)) for number in range(45)]
    (finding,) = _found(events, size=7)
    assert finding["event.count"] == 45
    starts = [event["event.start"] for event in finding["finding.evidence"]]
    assert starts == sorted(starts)
    assert [event["source.bytes"] for event in finding["finding.evidence"]] == list(range(44, 24, -1))
    assert all(event["event.original"] for event in finding["finding.evidence"])
    # seed, ends, protocol, padding and ports, as the specification of Community IDs says
    told = bytes([0, 0, 10, 0, 0, 1, 192, 0, 2, 7, 6, 0]) + (50_000).to_bytes(2, "big") + (22).to_bytes(2, "big")
    name = "1:" + base64.b64encode(hashlib.sha1(told).digest()).decode()  # noqa: S324 - as it says
    assert {event["network.community_id"] for event in finding["finding.evidence"]} == {name}


def test_the_same_line_in_two_files_is_one_event_shown_where_it_stands_first() -> None:
    events = [REFUSED, replace(REFUSED, end=b""), replace(REFUSED, end=b"\r\n")]
    for size in (1, 3):
        found, account = found_in(_batches(events, size), SOURCES, RULES, LISTS)
        assert {finding["event.count"] for finding in rows_of(found)} == {1}
        assert {(e["log.file.path"], e["log.offset"]) for f in rows_of(found) for e in f["finding.evidence"]} == {
            ("file-0", 0)
        }
        assert (account.counts[0, "signals"], account.counts[0, "duplicates"]) == (1, 2)


def test_the_same_line_in_another_network_is_another_event() -> None:
    """Its address is somebody else's there."""
    found = _found([REFUSED, replace(REFUSED, source=1)])
    assert sorted(finding["sandbox.id"] for finding in found) == ["inside", "one"]


def test_each_holder_of_an_address_and_each_peer_has_a_finding_of_its_own() -> None:
    elsewhere = ("10.0.0.1", 50_001, "192.0.2.8", 22)
    found = _found(
        [REFUSED, replace(REFUSED, second=6), replace(REFUSED, second=101), replace(REFUSED, ends=elsewhere)]
    )
    assert sorted((finding["sandbox.id"], finding["peer.ip"], finding["event.count"]) for finding in found) == [
        ("one", "192.0.2.7", 2), ("one", "192.0.2.8", 1), ("two", "192.0.2.7", 1),
    ]  # fmt: skip


def test_a_reply_counts_for_the_peer_that_sent_it() -> None:
    reply = replace(REFUSED, ends=("192.0.2.7", 22, "10.0.0.1", 50_000))
    (finding,) = _found([REFUSED, reply])
    assert (finding["peer.port"], finding["network.direction"]) == ([22], ["egress", "ingress"])
    assert finding["network.conversations"] == 1


@pytest.mark.parametrize("size", [1, 2])
def test_candidates_that_agree_on_a_trajectory_are_one_entity_a_day(size: int) -> None:
    """No uid and no start tells its occupancy, and what else lay in a batch must not."""
    shared = ("10.0.0.3", 50_000, "192.0.2.7", 22)
    found = _found([replace(REFUSED, ends=shared, second=second) for second in (DAY - 1, DAY)], size)
    assert sorted((f["entity.type"], f["entity.id"], f["entity.anchor"], f["sandbox.id"]) for f in found) == [
        ("trajectory", "t9", "2026-03-02", None), ("trajectory", "t9", "2026-03-03", None),
    ]  # fmt: skip


def test_where_nothing_tells_the_workload_the_rule_and_the_finding_name_the_same_peer() -> None:
    """Both ends are leased, and no port, flag or sensor decides between them; one alone looks internal."""
    undecided = replace(REFUSED, ends=("198.51.100.7", 40_001, "10.0.0.1", 40_000))
    batches = _batches([undecided], 1)
    (row,) = _rows(batches)
    (finding,) = _found([undecided])
    assert row["attribution.status"] == "ambiguous"
    assert row["peer.ip"] == finding["peer.ip"] == "10.0.0.1"
    assert row["peer.port"] == finding["peer.port"][0] == 40_000


def test_secrets_in_evidence_are_scrubbed_and_change_no_count() -> None:
    (finding,) = _found(
        [replace(REFUSED, note="password=hunter2hunter2"), replace(REFUSED, note="password=swordfish99")]
    )
    assert "hunter2" not in str(finding)
    assert "[REDACTED]" in finding["finding.evidence"][0]["event.original"]


_BURST = _rule(9, "high", Match("connection.count", Op.AT_LEAST, 5), ("refusals",))


@_FEWER
@given(
    st.lists(st.integers(0, 254), min_size=5, max_size=130),
    st.sampled_from([1, 7, 50]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_what_went_to_several_peers_names_them(peers: list[int], size: int, shards: int, random: Random) -> None:
    """The first hundred by address, and none where it went to one, whatever the batches and the order."""
    events = [
        replace(REFUSED, ends=("10.0.0.1", 40_000 + number, f"192.0.2.{peer}", 22), second=1 + number // 20)
        for number, peer in enumerate(peers)
    ]
    random.shuffle(events)
    rows, _ = found_in(_batches(events, size), SOURCES, [_BURST], LISTS, shards)
    (burst,) = rows_of(rows)
    tried = sorted({f"192.0.2.{peer}" for peer in peers}, key=address)
    one = len(tried) == 1
    assert (burst["peer.ip"], burst["destination.ip"]) == (tried[0] if one else None, [] if one else tried[:100])
    assert burst["event.count"] == len(peers)


def test_a_rule_that_is_off_or_not_for_the_dataset_finds_nothing() -> None:
    mining = replace(REFUSED, verdict="mining")
    assert _found([mining], rule=5) == _found([mining], rule=4) == []
    assert len(_found([replace(mining, source=2)], rule=4)) == 1


def test_a_building_block_is_context_whatever_its_level() -> None:
    (finding,) = _found([replace(REFUSED, ends=("10.0.0.1", 50_000, "192.0.2.7", 3333))], rule=3)
    assert finding["finding.severity"] == "low"


_NOT_ADDED = ("network.conversations", "source.bytes", "destination.bytes")
"""What a conversation adds up to is counted once on either side, where its records are on both."""


@_FEWER
@given(_logs(), st.integers(0, 2**30))
def test_what_was_found_on_some_rows_added_to_what_is_found_on_the_others_is_what_all_tell(
    events: list[Event], salt: int
) -> None:
    whole = _all(events)
    # copies of a line are one event, on one side
    sides = [[one for one in events if crc32(one.line().strip(), salt + one.source) % 2 == side] for side in (0, 1)]
    first, second = (conform(_all(side), record("finding")) if side else whole.slice(0, 0) for side in sides)
    together = added(first, second)
    assert _without_places(together) == _without_places(whole)
    assert together.schema == whole.schema
    alone = added(first, whole.slice(0, 0))
    assert alone.equals(first)


def _without_places(findings: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return findings by id, without where their lines stood, which is told by rank among all events."""
    rows = sorted(rows_of(findings.drop_columns([*_NOT_ADDED])), key=lambda one: one["finding.id"])
    for row in rows:
        for event in row["finding.evidence"]:
            del event["log.file.path"], event["log.offset"]
    return rows


def test_two_halves_of_a_finding_count_both_and_show_the_first_twenty_of_both() -> None:
    events = [replace(REFUSED, second=60 - number, sent=(number, None)) for number in range(45)]
    ends = [replace(one, ends=("10.0.0.1", 50_000, "192.0.2.7", 23)) for one in events[30:]]
    halves = [_all(events[:30]), _all(ends)]
    (finding,) = [one for one in rows_of(added(*halves)) if one["rule.name"] == "r/2"]
    assert (finding["event.count"], finding["network.conversations"], finding["peer.port"]) == (45, 2, [22, 23])
    assert finding["source.bytes"] == sum(range(45))
    shown = [event["event.start"] for event in finding["finding.evidence"]]
    assert len(shown) == 20
    assert shown == sorted(shown)
    assert finding["finding.first_seen"] == shown[0]
    assert finding["finding.last_seen"] > shown[-1]
    assert finding["gen_ai.agent.id"] == "a1"


def test_of_a_finding_that_there_is_only_a_sum_of_it_is_told_what_is_known_by_now() -> None:
    before = _all([replace(REFUSED, ends=("10.0.0.2", 50_000, "192.0.2.7", 22))])
    count = before.num_rows
    none = np.zeros(count, np.int64)
    holders, _ = name_holders(_batch([replace(REFUSED, ends=("10.0.0.2", 1, "192.0.2.7", 22))], [("f", 0)], SOURCES[0]))
    assert as_known(before, holders, none).equals(before)
    end = pa.array([BASE + 99 * SECOND], TIMESTAMP)
    told = as_known(before, _with(holders, "attribution.lease_end", end), none)
    assert told.column("attribution.lease_end").unique().equals(end)
    same = [name for name in before.schema.names if name != "attribution.lease_end"]
    assert told.select(same).equals(before.select(same))
    # an episode that is named later: the finding is its
    other = _with(_with(holders, "entity.type", pa.array(["trajectory"])), "entity.id", pa.array(["t7"]))
    moved = as_known(before, other, none)
    assert moved.column("entity.id").to_pylist() == ["t7"] * count
    assert not set(moved.column("finding.id").to_pylist()) & set(before.column("finding.id").to_pylist())
    assert not set(moved.column("incident.id").to_pylist()) & set(before.column("incident.id").to_pylist())


def _with(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), column)
