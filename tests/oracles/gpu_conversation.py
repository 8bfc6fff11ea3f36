"""Connections laid beside busy GPUs, pair by pair."""

from __future__ import annotations

from typing import Any, NamedTuple

Row = dict[str, Any]


class Interval(NamedTuple):
    """A long connection, or an interval of busy GPUs; times in microseconds."""

    entity: int
    start: int
    end: int


class Sample(NamedTuple):
    """A sample of an interval."""

    time: int
    value: float


def beside(
    connections: list[Interval], busy: list[tuple[Interval, list[Sample]]], tensor: dict[int, list[Sample]]
) -> tuple[list[float | None], list[Row]]:
    """Return the overlap of each connection, and the events that gpu_conversation.derive() must state."""
    overlaps: list[float | None] = []
    events = []
    for one in connections:
        own = [(other, samples) for other, samples in busy if other.entity == one.entity]
        met = sorted((pair for pair in own if _shared(one, pair[0]) > 0), key=lambda pair: pair[0].start)
        shared = sum(_shared(one, other) for other, _ in met)
        union = one.end - one.start + sum(other.end - other.start for other, _ in met) - shared
        overlaps.append((shared / union if shared else 0.0) if own else None)
        within = [sample for _, samples in met for sample in samples if one.start <= sample.time <= one.end]
        if within:
            begin, finish = max(one.start, met[0][0].start), min(one.end, met[-1][0].end)
            at_work = [sample.value for sample in tensor.get(one.entity, []) if begin <= sample.time <= finish]
            events.append(
                {
                    "entity": one.entity,
                    "event.start": min(sample.time for sample in within),
                    "event.end": max(sample.time for sample in within),
                    "gpu.utilization": sum(sample.value for sample in within) / len(within),
                    "gpu.busy_duration": shared / 1_000_000,
                    "connection.gpu_overlap": overlaps[-1],
                    "connection.gpu_share": shared / (one.end - one.start),
                    "gpu.tensor_active": sum(at_work) / len(at_work) if at_work else None,
                    "samples": len(within),
                }
            )
    return overlaps, events


def _shared(one: Interval, other: Interval) -> int:
    return max(min(one.end, other.end) - max(one.start, other.start), 0)
