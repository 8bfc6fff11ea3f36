"""converse() agrees with putting records together one by one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.addresses import format_addresses, parse_addresses
from agenttrail.conversations import converse
from agenttrail.schema import TIMESTAMP

sys.path.insert(0, str(Path(__file__).parent))
from tests.oracles.conversations import Record, conversations

_ENTITIES = [bytes([number]) * 16 for number in (1, 2)]
_RECORD = st.builds(
    Record,
    entity=st.sampled_from(_ENTITIES),
    dataset=st.sampled_from(["flow", "wall"]),
    sensor=st.sampled_from([None, "eni-1", "eni-2"]),
    source=st.sampled_from([None, "10.0.0.1", "198.51.100.7"]),
    source_port=st.sampled_from([None, 40_000, 40_001, 443]),
    destination=st.sampled_from([None, "10.0.0.1", "198.51.100.7"]),
    destination_port=st.sampled_from([None, 40_000, 443]),
    protocol=st.sampled_from([None, 6, 17]),
    direction=st.sampled_from([None, "egress", "ingress"]),
    start=st.integers(0, 30),
    end=st.integers(0, 8),
    source_bytes=st.none() | st.integers(0, 10**12),
    destination_bytes=st.none() | st.integers(0, 10**12),
    outcome=st.sampled_from([None, "success", "failure"]),
    flags=st.sampled_from([None, 2, 18, 1, 0]),
    translated=st.booleans(),
).map(lambda record: Record(**{**record.__dict__, "end": record.start + record.end}))


def batch_of(records: list[Record]) -> tuple[pa.RecordBatch, pa.Array]:
    columns = {
        "event.dataset": pa.array([r.dataset for r in records]).dictionary_encode(),
        "observer.name": pa.array([r.sensor for r in records], pa.string()),
        "source.ip": parse_addresses(pa.array([r.source for r in records], pa.string()))[0],
        **{
            f"{side}.nat.ip": pa.array(
                [b"\1" * 16 if r.translated and (r.direction == "ingress") == inward else None for r in records],
                pa.binary(16),
            )
            for side, inward in (("source", False), ("destination", True))
        },
        "source.port": pa.array([r.source_port for r in records], pa.int32()),
        "destination.ip": parse_addresses(pa.array([r.destination for r in records], pa.string()))[0],
        "destination.port": pa.array([r.destination_port for r in records], pa.int32()),
        "network.iana_number": pa.array([r.protocol for r in records], pa.int32()),
        "network.direction": pa.array([r.direction for r in records], pa.string()).dictionary_encode(),
        "event.start": pa.array([r.start for r in records], TIMESTAMP),
        "event.end": pa.array([r.end for r in records], TIMESTAMP),
        "source.bytes": pa.array([r.source_bytes for r in records], pa.int64()),
        "destination.bytes": pa.array([r.destination_bytes for r in records], pa.int64()),
        "network.tcp_flags": pa.array([r.flags for r in records], pa.int32()),
        "event.outcome": pa.array([r.outcome for r in records], pa.string()),
        "event.action": pa.array([r.outcome for r in records], pa.string()),
    }
    entities = pa.array([r.entity for r in records], pa.binary(16))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), entities


@given(st.lists(_RECORD, max_size=30), st.integers(0, 4), st.randoms(use_true_random=False))
def test_conversations_are_those_of_the_oracle_in_any_order(
    records: list[Record], adjoining: int, random: object
) -> None:
    random.shuffle(records)  # type: ignore[attr-defined]
    found, which = converse(*batch_of(records), adjoining)
    expected, belongs = conversations(records, adjoining)
    assert sorted(map(_shown, found.to_pylist()), key=str) == sorted(map(_wanted, expected), key=str)
    pairs = {(int(place), b) for place, b in zip(which, belongs, strict=True)}
    assert len({place for place, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def _shown(row: dict[str, object]) -> tuple[object, ...]:
    ips = [
        format_addresses(pa.array([row[name]], pa.binary(16)))[0].as_py() for name in ("source.ip", "destination.ip")
    ]
    start, end = (int(row[name].timestamp() * 1e6 + 0.5) for name in ("event.start", "event.end"))  # type: ignore[attr-defined]
    ends = (ips[0], row["source.port"]), (ips[1], row["destination.port"])
    return (
        *ends,
        row["network.iana_number"],
        start,
        end,
        row["source.bytes"],
        row["destination.bytes"],
        row["event.outcome"],
        row["event.count"],
        row["opened"],
    )


def _wanted(one: dict[str, Any]) -> tuple[object, ...]:
    _, own, peer, protocol = one["connection"]
    told = ("start", "end", "out", "back", "outcome", "count", "opened")
    return own, peer, protocol, *(one[name] for name in told)


def _leg(port: int, start: int, end: int, sent: int, *, translated: bool) -> Record:
    ends = "10.0.0.1", port, "198.51.100.7", 443
    sensor = "eni-nat" if translated else "eni-own"
    return Record(
        _ENTITIES[0], "flow", sensor, *ends, 6, "egress", start, end, sent, None, "success", 2, translated=translated
    )


@given(st.permutations(range(6)))
def test_what_is_seen_again_behind_translation_counts_once(order: list[int]) -> None:
    """Two connections at once, each seen before and behind a gateway, and one that was seen behind it only."""
    records = [
        _leg(40_000, 0, 60, 1_000, translated=False), _leg(50_111, 1, 600, 1_040, translated=True),
        _leg(40_001, 10, 70, 500, translated=False), _leg(50_222, 11, 600, 520, translated=True),
        _leg(50_333, 9_000, 9_060, 77, translated=True), _leg(40_000, 60, 120, 1, translated=False),
    ]  # fmt: skip
    found, which = converse(*batch_of([records[number] for number in order]), 1)
    told = found.select(["source.port", "event.start", "event.end", "source.bytes", "event.count"]).to_pylist()
    shown = [
        (one["source.port"], one["event.end"].microsecond, one["source.bytes"], one["event.count"]) for one in told
    ]
    assert sorted(shown) == [(40_000, 120, 1_040, 3), (40_001, 70, 520, 2), (50_333, 9_060, 77, 1)]
    of = dict(zip(order, which.tolist(), strict=True))
    assert of[0] == of[1] == of[5]
    assert of[2] == of[3]
    assert len({of[0], of[2], of[4]}) == 3


def _bytes(*records: Record) -> list[int]:
    found, _ = converse(*batch_of(list(records)), 1)
    return sorted(found.column("source.bytes").to_pylist())


def test_a_leg_that_saw_more_than_anybody_else_is_believed() -> None:
    """What the workload's own log lacks, such as a window that was skipped, is not lost."""
    own = _leg(40_000, 0, 600, 10_000, translated=False)
    legs = [_leg(50_111, 0, 300, 400_000, translated=True), _leg(50_111, 300, 600, 600_000, translated=True)]
    assert _bytes(own, *legs) == [1_000_000]
    assert _bytes(own, *legs, _leg(50_112, 1, 600, 9, translated=True)) == [1_000_000]


def test_a_gateway_that_keeps_the_port_counts_once() -> None:
    before, behind = (_leg(40_000, 0, 60, 1_000, translated=one) for one in (False, True))
    assert _bytes(replace(before, sensor="eni-nat"), behind) == [1_000]


def test_a_leg_belongs_to_what_spans_it() -> None:
    """Also where something short began later, and was over."""
    spanning, short = _leg(40_000, 0, 600, 1_000, translated=False), _leg(40_001, 10, 20, 5, translated=False)
    assert _bytes(spanning, short, _leg(50_111, 300, 360, 200, translated=True)) == [5, 1_000]


def test_replies_alone_are_a_leg_too() -> None:
    own = _leg(40_000, 0, 60, 1_000, translated=False)
    reply = Record(
        _ENTITIES[0], "flow", "eni-nat", "198.51.100.7", 443, "10.0.0.1", 50_111, 6, "ingress", 1, 60, 70, None,
        "success", 18, translated=True,
    )  # fmt: skip
    found, _ = converse(*batch_of([own, reply]), 1)
    (told,) = found.select(["source.bytes", "destination.bytes"]).to_pylist()
    assert told == {"source.bytes": 1_000, "destination.bytes": 70}
