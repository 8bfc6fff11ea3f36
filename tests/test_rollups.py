"""Egress to listed peers: whatever the batches and the order, what one would add up event by event."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.pipeline import rows_of
from tests.oracles import rollups as oracle

from agenttrail import timeline
from agenttrail.attribute import LeaseTable, attribute
from agenttrail.columns.addresses import address, parse_addresses
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.text import constant
from agenttrail.detect.signals import LISTED, Lists
from agenttrail.leases import resolve
from agenttrail.metadata import lease_batch
from agenttrail.rollups import Wanted, roll_up
from agenttrail.schema import TIMESTAMP, record

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]
BASE = 1_772_409_600_000_000 - 120_000_000  # two minutes before 2026-03-02
SECOND = 1_000_000
NETWORKS = {"internal": "10.0.0.0/8", "allowed": "10.9.0.0/16", "too": "192.0.2.0/24"}
LISTS = Lists.of({"internal": (NETWORKS["internal"],), "egress_allow": (NETWORKS["allowed"], NETWORKS["too"])})
INTERNAL = NetworkLists.compile([[parse_network(NETWORKS["internal"])]])


def _lease(own: str, start: int, end: int | None, **names: str) -> Row:
    return {
        "lease.address": address(own), "lease.start": BASE + start * SECOND,
        "lease.end": None if end is None else BASE + end * SECOND,
        **{name.replace("__", "."): value for name, value in names.items()},
    }  # fmt: skip


_LEASES = [
    _lease("10.0.0.1", 0, 130, sandbox__id="pod-1", k8s__pod__uid="u1", job__id="j1", trajectory__id="t1"),
    _lease("10.0.0.1", 130, None, sandbox__id="pod-1", k8s__pod__uid="u2", job__id="j1"),  # the name used again
    _lease("10.0.0.2", 0, None, sandbox__id="pod-2", gen_ai__agent__id="a1"),  # known by when it began
    _lease("10.0.0.3", 0, None, host__name="n1"),
    _lease("10.0.0.4", 0, 90, sandbox__id="pod-4"), _lease("10.0.0.4", 60, 200, sandbox__id="pod-5"),
    _lease("fd00::1", 0, None, sandbox__id="pod-6", k8s__pod__uid="u6"),
]  # fmt: skip
_TABLE = LeaseTable.build(resolve([lease_batch(_LEASES, "leases.csv")]), 0)

_EVENT = st.fixed_dictionaries(
    {
        "own": st.sampled_from(["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", None]),
        "peer.ip": st.sampled_from(
            ["10.0.0.9", "10.9.0.1", "192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::1", "10.0.0.2", None]
        ),
        "start": st.integers(0, 260 * 1000).map(lambda milli: BASE + milli * 1000),
        "reply": st.booleans(),
        "source.bytes": st.none() | st.integers(0, 2**53),
        "destination.bytes": st.none() | st.integers(0, 2**53),
        "observer.name": st.sampled_from([None, "eni-a", "eni-a", "eni-b", "eni-c"]),
        "nat": st.sampled_from([None, None, None, "source", "destination"]),
        "apart": st.sampled_from([False, False, False, True]),
    }
)


def _events(rows: Sequence[Row], dataset: str, *, encoded: bool, both: bool) -> pa.RecordBatch:
    """Return attributed events; ``encoded``: how sensors are told, ``both``: whether both ends' bytes are told."""
    ends = [(row["peer.ip"], row["own"]) if row["reply"] else (row["own"], row["peer.ip"]) for row in rows]
    sensor = pa.array([row["observer.name"] for row in rows], pa.string())
    columns = {
        "event.dataset": constant(dataset, len(rows)),
        "event.start": pa.array([row["start"] for row in rows], TIMESTAMP),
        "event.end": pa.array([row["start"] for row in rows], TIMESTAMP),
        "source.ip": parse_addresses(pa.array([end[0] for end in ends], pa.string()))[0],
        "destination.ip": parse_addresses(pa.array([end[1] for end in ends], pa.string()))[0],
        "source.bytes": pa.array([row["source.bytes"] for row in rows], pa.int64()),
        "observer.name": sensor.dictionary_encode() if encoded else sensor,
    }
    for side in ("source", "destination") if encoded else ():
        there = [b"\1" * 16 if row["nat"] == side else None for row in rows]
        columns[f"{side}.nat.ip"] = pa.array(there, pa.binary(16))
    if both:
        columns["destination.bytes"] = pa.array([row["destination.bytes"] for row in rows], pa.int64())
    return attribute(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), _TABLE, INTERNAL)


def _cells(events: pa.RecordBatch, apart: Sequence[bool]) -> pa.RecordBatch | None:
    return roll_up(events, LISTS.numbered(events.column("peer.ip")), LISTED, np.flatnonzero(apart))


def _told(cells: Sequence[pa.RecordBatch | None], wanted: Wanted) -> dict[Any, tuple[int, int, int]]:
    likely = [wanted.likely_of(some) for some in cells if some is not None]
    if not likely:
        return {}
    entries = timeline.ordered([timeline.egress_by_list(wanted.of_cells(likely))])
    assert entries.schema == record("timeline").arrow()
    return {
        (one["incident.id"], one["@timestamp"], one["peer.list"]): (
            one["source.bytes"], one["destination.bytes"], one["event.count"]
        )
        for one in rows_of(entries)
    }  # fmt: skip


@given(
    st.lists(_EVENT, min_size=1, max_size=60), st.lists(st.integers(1, 59), max_size=3, unique=True),
    st.sampled_from([{"encoded": True, "both": True}, {"encoded": False, "both": False}]),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_roll_ups_add_up_to_what_the_oracle_says(
    rows: list[Row], cuts: list[int], form: dict[str, bool], random: Any
) -> None:
    bounds = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    batches = [
        (_events(part, dataset, **form), [row["apart"] for row in part])
        for number, (first, last) in enumerate(pairwise(bounds))
        for part, dataset in [(rows[first:last], "aws_vpc_flow" if number % 2 else "alibaba_cloud_firewall")]
    ]
    plain = [
        row | {"apart": apart} for events, aparts in batches for row, apart in zip(rows_of(events), aparts, strict=True)
    ]
    possible = sorted({oracle.incident_of(row) for row in plain})
    incidents = {id_ for id_ in possible if random.random() < 0.7}
    names = {(row["trajectory.id"] or row["sandbox.id"] or "") for row in plain if oracle.incident_of(row) in incidents}
    lists = {"internal": NETWORKS["internal"], "allowed": NETWORKS["too"]}  # what is on both is internal
    expected = oracle.egress_by_list(plain, lists, incidents)
    wanted = Wanted.of(
        _TABLE.resolutions, pa.array(sorted(incidents), pa.string()), pa.array(sorted(names), pa.string())
    )
    random.shuffle(batches)
    assert _told([_cells(*batch) for batch in batches], wanted) == expected


def test_nothing_of_nobody_is_rolled_up() -> None:
    """Neither without a lease, nor with several, nor of a host, nor towards a peer on no list."""
    row: Row = {
        "reply": False,
        "source.bytes": 9,
        "destination.bytes": None,
        "observer.name": None,
        "start": BASE + SECOND,
    }
    rows = [
        row | {"own": own, "peer.ip": peer}
        for own, peer in (
            ("10.0.7.7", "10.0.0.9"), ("10.0.0.3", "10.0.0.9"), ("10.0.0.2", "198.51.100.7"), ("10.0.0.2", None),
        )
    ] + [row | {"own": "10.0.0.4", "peer.ip": "10.0.0.9", "start": BASE + 70 * SECOND}]  # fmt: skip
    assert _cells(_events(rows, "aws_vpc_flow", encoded=False, both=True), [False] * len(rows)) is None


def test_cells_are_few_however_many_the_rows() -> None:
    """What waits for incidents is bounded by workloads, minutes, lists and sensors, not by rows."""
    row: Row = {"reply": False, "source.bytes": 1, "destination.bytes": None, "own": "10.0.0.2", "peer.ip": "192.0.2.1"}
    rows = [row | {"observer.name": f"eni-{n % 2}", "start": BASE + n % 120 * SECOND} for n in range(6_000)]
    cells = _cells(_events(rows, "aws_vpc_flow", encoded=False, both=False), [False] * len(rows))
    assert cells is not None
    assert cells.num_rows == 4
    assert cells.column("source.bytes").to_pylist() == [1_500] * 4


def test_times_a_century_apart_cost_two_cells_and_no_table_of_minutes() -> None:
    row: Row = {"reply": False, "source.bytes": 7, "destination.bytes": None, "own": "10.0.0.2", "peer.ip": "192.0.2.1"}
    ends = (BASE + SECOND, 4_102_444_799 * SECOND)
    rows = [row | {"observer.name": "eni-a", "start": start} for start in ends]
    cells = _cells(_events(rows, "aws_vpc_flow", encoded=False, both=False), [False, False])
    assert cells is not None
    assert cells.column("minute").to_pylist() == [end // (60 * SECOND) for end in ends]
    assert cells.get_total_buffer_size() < 10_000


@pytest.mark.parametrize("inward", [False, True])
def test_what_a_sensor_sees_before_and_behind_translation_counts_once(inward: bool) -> None:  # noqa: FBT001 - a parameter
    """Within one batch and over two of them."""
    row: Row = {
        "own": "10.0.0.1", "peer.ip": "192.0.2.1", "reply": inward, "source.bytes": 900, "destination.bytes": None,
        "observer.name": "eni-nat", "start": BASE + SECOND, "nat": None,
    }  # fmt: skip
    rows = [row, row | {"nat": "destination" if inward else "source", "source.bytes": 940}]
    for parts in ([rows], [rows[:1], rows[1:]]):
        events = [_events(part, "aws_vpc_flow", encoded=True, both=True) for part in parts]
        cells = [_cells(one, [False] * one.num_rows) for one in events]
        (told,) = _told(cells, Wanted.every(_TABLE.resolutions)).values()
        assert told == ((0, 940, 2) if inward else (940, 0, 2))
