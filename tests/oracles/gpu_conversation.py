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
        ranked = sorted(own, key=lambda pair: (-_share(one, pair[0]), pair[0].start))
        overlaps.append(_share(one, ranked[0][0]) if ranked else None)
        if ranked and _share(one, ranked[0][0]) > 0:
            other, samples = ranked[0]
            begin, finish = max(one.start, other.start), min(one.end, other.end)
            at_work = [sample.value for sample in tensor.get(one.entity, []) if begin <= sample.time <= finish]
            within = [sample for sample in samples if one.start <= sample.time <= one.end]
            if within:
                events.append(
                    {
                        "entity": one.entity,
                        "event.start": min(sample.time for sample in within),
                        "event.end": max(sample.time for sample in within),
                        "gpu.utilization": sum(sample.value for sample in within) / len(within),
                        "gpu.busy_duration": (min(one.end, other.end) - max(one.start, other.start)) / 1_000_000,
                        "connection.gpu_overlap": overlaps[-1],
                        "connection.gpu_share": (min(one.end, other.end) - max(one.start, other.start))
                        / (one.end - one.start),
                        "gpu.tensor_active": sum(at_work) / len(at_work) if at_work else None,
                        "samples": len(within),
                    }
                )
    return overlaps, events


def _share(one: Interval, other: Interval) -> float:
    shared = min(one.end, other.end) - max(one.start, other.start)
    union = max(one.end, other.end) - min(one.start, other.start)
    return shared / union if shared > 0 else 0.0
