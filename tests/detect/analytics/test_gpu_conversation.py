"""gpu_conversation.derive() agrees with laying connections and busy GPUs beside each other pair by pair."""

from __future__ import annotations

from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import rows_of, same
from tests.oracles.gpu_conversation import Interval, Sample, beside

from agenttrail.columns.offsets import offsets_of
from agenttrail.detect.analytics import gpu_conversation
from agenttrail.detect.analytics.gpu_progress import METRIC
from agenttrail.detect.derived import Derived
from agenttrail.schema import ADDRESS, TIMESTAMP

_CASES = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _CASES)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND
Busy = list[tuple[Interval, list[Sample]]]
Tensor = dict[int, list[Sample]]


def _drawn(dice: Random) -> tuple[list[Interval], Busy, Tensor]:
    """Draw connections, and disjoint busy intervals whose samples reach from their begin to their end."""
    connections = []
    for _ in range(dice.randrange(3 * _CASES)):
        start = _BASE + dice.randrange(0, 3_000, 100) * _SECOND
        connections.append(Interval(dice.randrange(_CASES), start, start + dice.randrange(0, 2_000, 100) * _SECOND))
    busy: Busy = []
    for entity in range(_CASES):
        at = _BASE + dice.randrange(-200, 900, 50) * _SECOND
        for _ in range(dice.randrange(4)):
            times = sorted(at + dice.randrange(0, 1_500, 50) * _SECOND for _ in range(dice.randrange(1, 9)))
            samples = [Sample(time, float(dice.randrange(60, 101))) for time in times]
            busy.append((Interval(entity, times[0], times[-1]), samples))
            at = times[-1] + dice.randrange(100, 900, 50) * _SECOND
    tensor: Tensor = {
        entity: [
            Sample(_BASE + dice.randrange(0, 3_000, 50) * _SECOND, dice.randrange(101) / 100)
            for _ in range(dice.randrange(12))
        ]
        for entity in range(_CASES)
        if dice.random() < 0.7
    }
    return connections, busy, tensor


def _derived(connections: list[Interval], busy: Busy, tensor: Tensor) -> tuple[Derived, Derived, pa.RecordBatch]:
    def times(values: list[int]) -> pa.Array:
        return pa.array(values, TIMESTAMP)

    own = {
        "entity": pa.array([one.entity for one in connections], pa.int64()),
        "event.start": times([one.start for one in connections]),
        "event.end": times([one.end for one in connections]),
        **{name: pa.nulls(len(connections), ADDRESS) for name in ("source.ip", "peer.ip", "destination.ip")},
        **{name: pa.nulls(len(connections), pa.int32()) for name in ("peer.port", "destination.port")},
        "network.iana_number": pa.nulls(len(connections), pa.int32()),
        "network.initiator": pa.nulls(len(connections), pa.string()),
        **{f"connection.{name}": pa.nulls(len(connections), pa.float64()) for name in ("duration", "lease_share")},
        **{f"connection.{name}": pa.nulls(len(connections), pa.float64()) for name in ("upload_share", "rate")},
        "connection.count": pa.array(range(len(connections)), pa.int64()),
    }
    count = np.arange(len(connections))
    told = {
        "entity": pa.array([one.entity for one, _ in busy], pa.int64()),
        "event.start": times([one.start for one, _ in busy]),
        "event.end": times([one.end for one, _ in busy]),
        "training.rung": pa.array(["sandbox"] * len(busy), pa.string()),
    }
    samples = [sample for _, some in busy for sample in some]
    owners = [interval.entity for interval, some in busy for _ in some]
    more = [(entity, sample) for entity, some in tensor.items() for sample in some]
    offsets = offsets_of(np.array([len(some) for _, some in busy], np.int64))
    return (
        Derived(pa.RecordBatch.from_pydict(own), np.append(count, len(count)), count),
        Derived(pa.RecordBatch.from_pydict(told), offsets, np.arange(len(samples))),
        pa.RecordBatch.from_pydict(
            {
                "event.start": times([sample.time for sample in samples] + [sample.time for _, sample in more]),
                "metric.value": pa.array(
                    [sample.value for sample in samples] + [sample.value for _, sample in more], pa.float64()
                ),
                "metric.name": pa.array([METRIC] * len(samples) + [gpu_conversation.TENSOR] * len(more), pa.string()),
                "entity": pa.array(owners + [entity for entity, _ in more], pa.int64()),
            }
        ),
    )


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48))
def test_what_coincides_is_what_the_oracle_says_in_any_order(seed: int) -> None:
    dice = Random(seed)
    connections, busy, tensor = _drawn(dice)
    dice.shuffle(busy)
    found = gpu_conversation.derive(*_derived(connections, busy, tensor))
    overlaps, events = beside(connections, busy, tensor)
    assert found.connections.events.column("connection.gpu_overlap").to_pylist() == overlaps
    rows = rows_of(found.gpus.events)
    lengths = np.diff(found.gpus.members_offsets).tolist()
    names = [name for name in events[0] if name != "samples"] if events else []
    told = [
        {name: row[name] for name in names} | {"samples": length} for row, length in zip(rows, lengths, strict=True)
    ]
    assert same(told, events)
