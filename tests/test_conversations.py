"""converse() agrees with putting records together one by one."""

from __future__ import annotations

import sys
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
    source_port=st.sampled_from([None, 40_000, 443]),
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
).map(lambda record: Record(**{**record.__dict__, "end": record.start + record.end}))


def batch_of(records: list[Record]) -> tuple[pa.RecordBatch, pa.Array]:
    columns = {
        "event.dataset": pa.array([r.dataset for r in records]).dictionary_encode(),
        "observer.name": pa.array([r.sensor for r in records], pa.string()),
        "source.ip": parse_addresses(pa.array([r.source for r in records], pa.string()))[0],
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
