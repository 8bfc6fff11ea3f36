"""attribute() agrees, row for row, with asking every lease."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.attribute import LeaseTable, attribute
from agenttrail.columns.addresses import address, parse_addresses
from agenttrail.columns.batches import stacked
from agenttrail.columns.dictionaries import addresses_decoded
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.entities import digested, each_once, holders_of, name_holders
from agenttrail.leases import resolve
from agenttrail.metadata import lease_batch
from agenttrail.schema import ADDRESS, TIMESTAMP

sys.path.insert(0, str(Path(__file__).parent))
from tests.oracles.attribution import NAMES, Event, Lease, Verdict, attribute_one

BASE = 1_772_409_600_000_000  # 2026-03-02 in microseconds
INTERNAL = NetworkLists.compile([[parse_network("10.0.0.0/8"), parse_network("fd00::/8")]])
_ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1", "198.51.100.7"]


@st.composite
def _leases(draw: st.DrawFn) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, 40))
        length = draw(st.none() | st.integers(0, 20))
        names: dict[str, str | None] = {
            "sandbox.id": f"pod-{number}",
            "k8s.pod.uid": f"uid-{number}",
            "host.name": draw(st.sampled_from(["n1", "n2"])),
        }
        names["trajectory.id"] = draw(st.sampled_from([None, f"t{number}", "t-shared"]))
        names["job.id"] = draw(st.sampled_from([None, "j1", "j2"]))
        names["gen_ai.agent.id"] = draw(st.sampled_from([None, "a1", "a2"]))
        rows.append(
            {
                "lease.scope": draw(st.sampled_from(["", "vpc-a", "vpc-b"])) or None,
                "lease.address": address(draw(st.sampled_from(_ADDRESSES[:4]))),
                "lease.start": BASE + start * 1_000_000,
                "lease.end": None if length is None else BASE + (start + length) * 1_000_000,
                **names,
            }
        )
    return rows


_PORT = st.sampled_from([None, 0, 22, 443, 1024, 3333, 32_768, 50_000])
_SIDE = st.sampled_from([None, "source", "destination"])
_EVENT = st.builds(
    Event,
    scope=st.sampled_from([None, "", "vpc-a", "vpc-b", "vpc-unknown"]),
    source=st.sampled_from([None, *_ADDRESSES]),
    source_port=_PORT,
    destination=st.sampled_from([None, *_ADDRESSES]),
    destination_port=_PORT,
    start=st.integers(-5, 70).map(lambda second: BASE + second * 1_000_000),
    client=_SIDE,
    sensor=_SIDE,
)


def _batch(events: list[Event]) -> pa.RecordBatch:
    columns = {
        "event.start": pa.array([event.start for event in events], TIMESTAMP),
        "event.end": pa.array([event.start for event in events], TIMESTAMP),
        "source.ip": parse_addresses(pa.array([event.source for event in events], pa.string()))[0],
        "source.port": pa.array([event.source_port for event in events], pa.int32()),
        "destination.ip": parse_addresses(pa.array([event.destination for event in events], pa.string()))[0],
        "destination.port": pa.array([event.destination_port for event in events], pa.int32()),
        "client.side": pa.array([event.client for event in events], pa.string()).dictionary_encode(),
        "observer.side": pa.array([event.sensor for event in events], pa.string()).dictionary_encode(),
        "attribution.scope": pa.array([event.scope for event in events], pa.string()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _encoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch as those logs give it whose addresses are read as dictionaries."""
    columns = [
        column.dictionary_encode() if name.endswith(".ip") else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _oracle_leases(resolved: pa.RecordBatch) -> list[Lease]:
    from agenttrail.columns.addresses import format_addresses

    texts = format_addresses(resolved.column("lease.address")).to_pylist()
    starts = resolved.column("lease.start").cast(pa.int64()).to_pylist()
    ends = resolved.column("lease.end").cast(pa.int64()).to_pylist()
    return [
        Lease(row["lease.id"], row["lease.scope"] or "", text, start, end, tuple((name, row[name]) for name in NAMES))
        for row, text, start, end in zip(
            resolved.select(["lease.id", "lease.scope", *NAMES]).to_pylist(), texts, starts, ends, strict=True
        )
    ]


def _verdicts(batch: pa.RecordBatch) -> list[Verdict]:
    names = ["attribution.status", "attribution.level", "attribution.lease_id", "attribution.candidates", *NAMES]
    return [
        Verdict(
            row["attribution.status"], row["attribution.level"], row["attribution.lease_id"],
            tuple(row["attribution.candidates"] or ()),
            tuple((name, row[name]) for name in NAMES),
        )
        for row in batch.select(names).to_pylist()
    ]  # fmt: skip


@given(_leases(), st.lists(_EVENT, min_size=1, max_size=30), st.sampled_from([0, 2_000_000]), st.integers(1, 30))
def test_every_row_belongs_to_whom_the_oracle_says(
    leases: list[dict[str, object]], events: list[Event], tolerance: int, cut: int
) -> None:
    resolved = resolve([lease_batch(leases, "leases")])
    table = LeaseTable.build(resolved, tolerance)
    oracle = _oracle_leases(resolved)
    batch = _batch(events)
    found = _verdicts(attribute(batch, table, INTERNAL))
    assert found == [attribute_one(event, oracle, tolerance) for event in events]
    pieces = [_verdicts(attribute(batch.slice(first, cut), table, INTERNAL)) for first in range(0, len(events), cut)]
    assert [verdict for piece in pieces for verdict in piece] == found


@given(
    _leases(), st.lists(_EVENT, min_size=1, max_size=30), st.sampled_from([0, 2_000_000]), st.integers(1, 30),
    st.sampled_from([(), ("attribution.scope",), ("attribution.scope", "source.ip"), ("destination.ip",)]),
)  # fmt: skip
def test_dictionaries_of_addresses_say_what_plain_ones_say(
    leases: list[dict[str, object]], events: list[Event], tolerance: int, cut: int, absent: tuple[str, ...]
) -> None:
    table = LeaseTable.build(resolve([lease_batch(leases, "leases")]), tolerance)
    batch = _batch(events).drop_columns(list(absent))
    plain = attribute(batch, table, INTERNAL).to_pylist()
    encoded = _encoded(batch)
    assert attribute(encoded, table, INTERNAL).to_pylist() == plain
    pieces = [attribute(encoded.slice(first, cut), table, INTERNAL) for first in range(0, len(events), cut)]
    assert [row for piece in pieces for row in piece.to_pylist()] == plain
    decoded = addresses_decoded(attribute(encoded, table, INTERNAL))
    assert decoded.column("peer.ip").type == ADDRESS
    assert decoded.to_pylist() == plain


@given(_leases(), st.lists(_EVENT, min_size=1, max_size=30), st.integers(1, 30))
def test_holders_that_come_again_in_another_batch_are_one(
    leases: list[dict[str, object]], events: list[Event], cut: int
) -> None:
    table = LeaseTable.build(resolve([lease_batch(leases, "leases")]), 2_000_000)
    attributed = attribute(_batch(events), table, INTERNAL)
    pieces = [holders_of(attributed.slice(first, cut))[0] for first in range(0, len(events), cut)]
    together = stacked(pieces)
    once, which = each_once(together)
    assert once.take(pa.array(which)).to_pylist() == together.to_pylist()
    held = [(row["attribution.lease_id"], row["entity.anchor"], row["attribution.scope"]) for row in once.to_pylist()]
    of_leases = [one for one in held if one[0] is not None]
    assert len(set(of_leases)) == len(of_leases)
    whole, _ = name_holders(attributed)
    known = {str(row) for row in whole.to_pylist()}
    assert {str(row) for row in digested(once).to_pylist()} == known


def test_a_host_is_another_holder_on_another_day() -> None:
    lease = {"lease.address": address("10.0.0.1"), "lease.start": BASE, "lease.end": None, "host.name": "n1"}
    table = LeaseTable.build(resolve([lease_batch([lease], "leases")]))
    event = Event(None, "10.0.0.1", 40_000, "198.51.100.7", 443, BASE, None, None)
    days = [replace(event, start=BASE + day * 86_400_000_000) for day in (0, 1, 0, 1)]
    pieces = [holders_of(attribute(_batch([one]), table, INTERNAL))[0] for one in days]
    once, which = each_once(stacked(pieces))
    assert which.tolist() == [0, 1, 0, 1]
    assert once.column("entity.anchor").to_pylist() == ["2026-03-02", "2026-03-03"]


@given(_leases(), st.lists(_EVENT.map(lambda event: replace(event, scope=None)), min_size=1, max_size=30))
def test_no_column_of_scopes_is_one_of_nulls(leases: list[dict[str, object]], events: list[Event]) -> None:
    table = LeaseTable.build(resolve([lease_batch(leases, "leases")]), 2_000_000)
    batch = _batch(events)
    without = attribute(batch.drop_columns(["attribution.scope"]), table, INTERNAL)
    assert _verdicts(without) == _verdicts(attribute(batch, table, INTERNAL))


@given(_leases(), st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_metadata_change_nothing(leases: list[dict[str, object]], random: object) -> None:
    shuffled = leases * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    halves = [lease_batch(shuffled[::2], "leases"), lease_batch(shuffled[1::2], "leases")]
    assert resolve(halves).equals(resolve([lease_batch(leases, "leases")]))


def _one(event: Event, leases: list[dict[str, object]], tolerance: int = 2_000_000) -> dict[str, object]:
    table = LeaseTable.build(resolve([lease_batch(leases, "leases")]), tolerance)
    row: dict[str, object] = attribute(_batch([event]), table, INTERNAL).to_pylist()[0]
    return row


def _pod(name: str, start: int, end: int | None, ip: str = "10.0.0.1", **more: object) -> dict[str, object]:
    return {
        "lease.address": address(ip), "lease.start": BASE + start, "lease.end": None if end is None else BASE + end,
        "sandbox.id": name, "k8s.pod.uid": f"uid-{name}", **more,
    }  # fmt: skip


def _flow(at: int, **more: object) -> Event:
    values: dict[str, object] = {
        "scope": None, "source": "10.0.0.1", "source_port": 50_000, "destination": "198.51.100.7",
        "destination_port": 443,
        "start": BASE + at, "client": None, "sensor": None,
    }  # fmt: skip
    return Event(**(values | more))  # type: ignore[arg-type]


SECOND = 1_000_000


@pytest.mark.parametrize(("at", "holder"), [(9, "first"), (10, None), (11, "second")])
def test_an_address_reused_within_seconds_has_the_right_holder(at: int, holder: str | None) -> None:
    """Half-open: at second 10 the first has ended and the second not begun; tolerance cannot decide."""
    pods = [_pod("first", 0, 10 * SECOND), _pod("second", 11 * SECOND, None)]
    row = _one(_flow(at * SECOND), pods)
    assert row["sandbox.id"] == holder
    assert row["attribution.status"] == ("attributed" if holder else "ambiguous")
    assert len(row["attribution.candidates"]) == (0 if holder else 2)  # type: ignore[arg-type]


def test_an_exact_lease_wins_over_one_within_tolerance() -> None:
    pods = [_pod("old", 0, 10 * SECOND), _pod("new", 10 * SECOND, None)]
    assert _one(_flow(10 * SECOND), pods)["sandbox.id"] == "new"
    assert _one(_flow(10 * SECOND - 1), pods)["sandbox.id"] == "old"


def test_tolerance_helps_only_what_no_lease_covers() -> None:
    row = _one(_flow(11 * SECOND), [_pod("only", 0, 10 * SECOND)])
    assert (row["sandbox.id"], row["attribution.reason"]) == ("only", "a lease lies within tolerance of the start")
    assert _one(_flow(12 * SECOND), [_pod("only", 0, 10 * SECOND)])["attribution.status"] == "unattributed"


def test_a_reply_belongs_to_the_workload_and_names_its_peer() -> None:
    reply = _flow(5 * SECOND, source="198.51.100.7", source_port=443, destination="10.0.0.1", destination_port=50_000)
    row = _one(reply, [_pod("pod", 0, None)])
    assert (row["sandbox.id"], row["network.direction"], row["network.initiator"], row["peer.port"]) == (
        "pod",
        "ingress",
        "workload",
        443,
    )
    assert row["peer.ip"] == address("198.51.100.7")


def test_two_workloads_the_event_is_that_of_the_one_that_opened_the_connection() -> None:
    pods = [_pod("client", 0, None), _pod("server", 0, None, ip="10.0.0.2")]
    there = _flow(SECOND, destination="10.0.0.2")
    back = _flow(SECOND, source="10.0.0.2", source_port=443, destination="10.0.0.1", destination_port=50_000)
    assert [_one(event, pods)["sandbox.id"] for event in (there, back)] == ["client", "client"]
    unclear = _flow(SECOND, destination="10.0.0.2", destination_port=50_001)
    row = _one(unclear, pods)
    assert (row["attribution.status"], row["network.direction"]) == ("ambiguous", None)
    sensed = _flow(SECOND, destination="10.0.0.2", destination_port=50_001, sensor="destination")
    assert _one(sensed, pods)["sandbox.id"] == "server"


def test_pods_on_the_host_network_share_its_address_and_the_rungs_they_agree_on_stay() -> None:
    pods = [
        _pod(name, 0, None, **{"host.name": "node-1", "job.id": job}) for name, job in (("one", "j1"), ("two", "j2"))
    ]
    row = _one(_flow(SECOND), pods)
    assert (row["attribution.status"], row["sandbox.id"], row["job.id"], row["host.name"]) == (
        "ambiguous",
        None,
        None,
        "node-1",
    )
    assert row["attribution.level"] == "host"
    assert len(row["attribution.candidates"]) == 2  # type: ignore[arg-type]


def test_a_flow_that_outlives_its_lease_says_so() -> None:
    table = LeaseTable.build(resolve([lease_batch([_pod("pod", 0, 10 * SECOND)], "leases")]), 0)
    batch = _batch([_flow(5 * SECOND)])
    longer = batch.set_column(1, "event.end", pa.array(np.array([BASE + 60 * SECOND])).view(TIMESTAMP))
    row = attribute(longer, table, INTERNAL).to_pylist()[0]
    assert (row["sandbox.id"], row["attribution.reason"]) == ("pod", "a lease covers the start; the flow outlives it")


def test_scopes_keep_equal_addresses_apart_and_no_scope_means_any() -> None:
    pods = [_pod("a", 0, None, **{"lease.scope": "vpc-a"}), _pod("b", 0, None, **{"lease.scope": "vpc-b"})]
    assert [_one(_flow(SECOND, scope=scope), pods)["sandbox.id"] for scope in ("vpc-a", "vpc-b")] == ["a", "b"]
    assert _one(_flow(SECOND, scope="vpc-c"), pods)["attribution.status"] == "unattributed"
    assert _one(_flow(SECOND), pods)["attribution.status"] == "ambiguous"
    assert _one(_flow(SECOND), pods[:1])["sandbox.id"] == "a"


def test_nothing_known_is_unattributed_and_the_internal_end_is_the_workload() -> None:
    row = _one(_flow(0, source="198.51.100.7", destination="10.9.9.9"), [])
    assert (row["attribution.status"], row["attribution.level"], row["network.direction"]) == (
        "unattributed",
        "address",
        "ingress",
    )
    nowhere = _one(_flow(0, source=None, destination=None), [])
    assert (nowhere["attribution.reason"], nowhere["network.direction"]) == ("the record names no address", None)
