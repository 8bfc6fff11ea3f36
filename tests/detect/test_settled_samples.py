"""What is stated of GPUs is the same without the samples that are needless, as time goes by and in the end."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import rows_of

from agenttrail.columns.offsets import offsets_of
from agenttrail.detect.analytics import gpu_conversation, gpu_progress
from agenttrail.detect.derived import Derived
from agenttrail.detect.settled_samples import Times, needless
from agenttrail.schema import ADDRESS, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_WORKLOADS = 4
_EXAMPLES = max(settings().max_examples, 1_000 // _WORKLOADS)
_MINUTE = 60_000_000
_BASE = 29_540_160 * _MINUTE
_LATE = gpu_progress.SILENCE + _MINUTE
_LONG = 900.0
"""Seconds from which intervals tell something by themselves here, as they would to a rule."""
_UTIL, _TENSOR = gpu_progress.METRIC, gpu_conversation.TENSOR


@dataclass(frozen=True)
class _Sample:
    workload: int
    time: int
    value: float
    metric: str = _UTIL


@dataclass(frozen=True)
class _Talk:
    workload: int
    start: int
    end: int


def _samples(dice: Random, workload: int, minutes: int) -> list[_Sample]:
    use, minute, samples = 50, 0, []
    while minute < minutes:
        minute += dice.choice([1] * 40 + [2, 3, 9])
        use = dice.choice([use] * 8 + [0, 60, 69, 70, 71, 80, 100])
        time = _BASE + minute * _MINUTE + dice.randrange(60) * 1_000_000
        samples += [_Sample(workload, time, float(use)), _Sample(workload, time, use / 100, _TENSOR)]
    return samples


def _reports(dice: Random, workload: int, minutes: int) -> list[tuple[int, int, str]]:
    """Return reports, (minute, step, sandbox), whose usual advance is one: so it does not change as they come."""
    step, minute, reports = 0, dice.randrange(-60, 30), []
    while minute < minutes:
        reports.append((minute, step, f"pod-{workload}"))
        minute += dice.choice([5, 20, 50, 119, 121])
        step += dice.choice([0, 0, 1])
    return reports


def _talks(dice: Random, workload: int, minutes: int) -> list[_Talk]:
    talks = []
    for _ in range(dice.randrange(4)):
        start = dice.randrange(minutes)
        talks.append(_Talk(workload, _BASE + start * _MINUTE, _BASE + (start + dice.randrange(5, 400)) * _MINUTE))
    return talks


def _batch(samples: Sequence[_Sample]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "metric.name": pa.array([one.metric for one in samples], pa.string()),
            "metric.value": pa.array([one.value for one in samples], pa.float64()),
            "gpu.id": pa.array(["gpu-0"] * len(samples), pa.string()),
            "event.start": pa.array([one.time for one in samples], TIMESTAMP),
            "entity": pa.array([one.workload for one in samples], pa.int64()),
            "sandbox.id": pa.array([f"pod-{one.workload}" for one in samples], pa.string()),
            "job.id": pa.array(["job"] * len(samples), pa.string()),
        }
    )


def _progress(reports: Sequence[tuple[int, int, str]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "event.start": pa.array([_BASE + minute * _MINUTE for minute, _, _ in reports], TIMESTAMP),
            "training.step": pa.array([step for _, step, _ in reports], pa.int64()),
            "sandbox.id": pa.array([sandbox for _, _, sandbox in reports], pa.string()),
            "job.id": pa.array(["job"] * len(reports), pa.string()),
        }
    )


def _connections(talks: Sequence[_Talk]) -> Derived:
    nothing = len(talks)
    columns = {
        "entity": pa.array([one.workload for one in talks], pa.int64()),
        "event.start": pa.array([one.start for one in talks], TIMESTAMP),
        "event.end": pa.array([one.end for one in talks], TIMESTAMP),
        **{name: pa.nulls(nothing, ADDRESS) for name in ("source.ip", "peer.ip", "destination.ip")},
        **{name: pa.nulls(nothing, pa.int32()) for name in ("peer.port", "destination.port", "network.iana_number")},
        "network.initiator": pa.nulls(nothing, pa.string()),
        **{
            f"connection.{name}": pa.nulls(nothing, pa.float64())
            for name in ("duration", "lease_share", "upload_share", "rate")
        },
        "connection.count": pa.array(range(nothing), pa.int64()),
    }
    return Derived(pa.RecordBatch.from_pydict(columns), offsets_of(np.ones(nothing, np.int64)), np.arange(nothing))


def _stated(
    samples: Sequence[_Sample], reports: Sequence[tuple[int, int, str]], talks: Sequence[_Talk]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    batch = _batch(samples)
    busy, _ = gpu_progress.derive(batch, _progress(reports))
    return rows_of(busy.events), rows_of(gpu_conversation.derive(_connections(talks), busy, batch).gpus.events)


def _times(talks: Sequence[_Talk], now: int) -> Times:
    begun = [one for one in talks if one.start < now]
    columns = ([one.workload for one in begun], [one.start for one in begun], [min(one.end, now) for one in begun])
    return Times(*(np.array(column, np.int64) for column in columns))


def _long(busy: pa.RecordBatch) -> NDArray[np.bool_]:
    long: NDArray[np.bool_] = busy.column("gpu.busy_duration").to_numpy() >= _LONG
    return long


def _without(samples: Sequence[_Sample], gone: Times) -> list[_Sample]:
    intervals = list(zip(*(column.tolist() for column in gone), strict=True))
    return [
        one
        for one in samples
        if not any(who == one.workload and begin <= one.time < end for who, begin, end in intervals)
    ]


def _even(busy: pa.RecordBatch) -> NDArray[np.bool_]:
    """Let what is told of every other workload be kept in place of its samples."""
    even: NDArray[np.bool_] = busy.column("entity").to_numpy() % 2 == 0
    return even


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([None, _even]))
def test_without_what_is_needless_the_same_is_stated(
    seed: int, sums: Callable[[pa.RecordBatch], NDArray[np.bool_]] | None
) -> None:
    dice, minutes = Random(seed), 600
    summed: list[dict[str, Any]] = []

    def drawn(draw: Callable[[Random, int, int], list[Any]]) -> list[Any]:
        return [one for workload in range(_WORKLOADS) for one in draw(dice, workload, minutes)]

    samples, reports, talks = drawn(_samples), drawn(_reports), drawn(_talks)
    held: list[_Sample] = []
    before = 0
    for minute in (*sorted(dice.sample(range(minutes), 5)), minutes + 300):
        now = _BASE + minute * _MINUTE
        held += [one for one in samples if before <= one.time < now]
        told = [one for one in reports if one[0] < minute]
        found = needless(_batch(held), _progress(told), _times(talks, now), now - _LATE, _long, sums)
        held, before = _without(held, found.gone), now
        summed += rows_of(found.summed.events)
    assert len(held) < len(samples)
    busy, beside = _stated(held, reports, talks)
    wanted, beside_ = _stated(samples, reports, talks)
    assert beside == beside_
    assert all(one["entity"] % 2 == 0 and sums is not None for one in summed)
    # each once: among the sums, or told by the samples that are left
    order = lambda one: (one["entity"], one["event.start"])  # noqa: E731 - of one line
    assert [one for one in wanted if one["gpu.busy_duration"] >= _LONG] == sorted(
        (one for one in [*busy, *summed] if one["gpu.busy_duration"] >= _LONG), key=order
    )
    assert all(one in wanted for one in [*busy, *summed])


# -- by hand


def _used(*parts: tuple[int, int, int]) -> list[_Sample]:
    """Return a sample a minute of (from minute, to minute, per cent)."""
    return [
        _Sample(0, _BASE + minute * _MINUTE, float(value))
        for begin, end, value in parts
        for minute in range(begin, end)
    ]


def _gone(
    samples: Sequence[_Sample], settled: int, talks: Sequence[_Talk] = (), sums: Any = None
) -> list[tuple[int, int]]:
    """Return the needless times, in minutes, of a workload whose stream lives and makes no step."""
    reports = [(minute, 1, "pod-0") for minute in range(0, 900, 30)]
    times = _times(talks, _BASE + 900 * _MINUTE)
    found = needless(_batch(samples), _progress(reports), times, _BASE + settled * _MINUTE, _long, sums).gone
    assert set(found.entity.tolist()) == {0}
    begin, end = (((times - _BASE) // _MINUTE).tolist() for times in (found.begin, found.end))
    return [(max(first, 0), last) for first, last in zip(begin, end, strict=True)]


def test_hot_minutes_that_cold_ones_outweigh_are_needless() -> None:
    assert _gone(_used((0, 60, 20), (60, 66, 100), (66, 580, 10)), 400) == [(0, 400)]


def test_hot_minutes_that_may_yet_be_an_interval_are_needed() -> None:
    assert _gone(_used((0, 60, 20), (60, 66, 100), (66, 70, 40), (70, 74, 100)), 74) == [(0, 60)]


def test_an_interval_is_needed_and_a_little_beside_it() -> None:
    assert _gone(_used((0, 60, 20), (60, 80, 100), (80, 580, 10)), 400) == [(0, 60), (84, 396)]


def test_what_lies_between_two_intervals_is_needed_while_one_talks_throughout() -> None:
    samples = _used((0, 60, 20), (60, 80, 100), (80, 200, 10), (200, 220, 100), (220, 580, 10))
    assert _gone(samples, 400) == [(0, 60), (84, 196), (224, 396)]
    talk = _Talk(0, _BASE + 70 * _MINUTE, _BASE + 210 * _MINUTE)
    assert _gone(samples, 400, [talk]) == [(0, 60), (224, 396)]
    assert _gone(samples, 400, [_Talk(1, talk.start, talk.end)]) == [(0, 60), (84, 196), (224, 396)]
    halves = [_Talk(0, talk.start, _BASE + 100 * _MINUTE), _Talk(0, _BASE + 101 * _MINUTE, talk.end)]
    assert _gone(samples, 400, halves) == [(0, 60), (84, 196), (224, 396)]


def test_an_interval_that_tells_nothing_is_needed_only_if_one_talks_meanwhile() -> None:
    samples = _used((0, 60, 20), (60, 70, 100), (70, 580, 10))
    assert _gone(samples, 400) == [(0, 400)]
    for begin, end in ((50, 60), (69, 69), (65, 66), (0, 300)):
        talk = _Talk(0, _BASE + begin * _MINUTE, _BASE + end * _MINUTE)
        assert _gone(samples, 400, [talk]) == [(0, 60), (74, 396)]
    for begin, end in ((0, 59), (71, 90)):
        assert _gone(samples, 400, [_Talk(0, _BASE + begin * _MINUTE, _BASE + end * _MINUTE)]) == [(0, 400)]


def test_a_short_pause_between_two_intervals_stays() -> None:
    samples = _used((0, 30, 20), (30, 45, 75), (45, 48, 0), (48, 63, 75), (63, 580, 10))
    assert _gone(samples, 400) == [(0, 30), (67, 396)]


def test_without_samples_nothing_is_needless() -> None:
    found = needless(_batch([]), _progress([]), _times([], 0), _BASE, _long, _even)
    assert not len(found.gone.entity)
    assert not found.summed.events.num_rows


def _summed(samples: Sequence[_Sample], settled: int, talks: Sequence[_Talk] = ()) -> list[tuple[int, int]]:
    """Return the intervals, in minutes, of a workload whose stream lives and makes no step that are to be summed."""
    reports = [(minute, 1, "pod-0") for minute in range(0, 900, 30)]
    times = _times(talks, _BASE + 900 * _MINUTE)
    found = needless(_batch(samples), _progress(reports), times, _BASE + settled * _MINUTE, _long, _even).summed
    bounds = [found.events.column(name).cast(pa.int64()).to_pylist() for name in ("event.start", "event.end")]
    rows = found.members.tolist()
    assert len(rows) == sum((end - begin) // _MINUTE + 1 for begin, end in zip(*bounds, strict=True))
    assert all(any(begin <= samples[row].time <= end for begin, end in zip(*bounds, strict=True)) for row in rows)
    return [((begin - _BASE) // _MINUTE, (end - _BASE) // _MINUTE + 1) for begin, end in zip(*bounds, strict=True)]


def test_what_is_told_of_an_interval_that_is_over_takes_the_place_of_its_samples() -> None:
    samples = _used((0, 60, 20), (60, 80, 100), (80, 200, 10), (200, 205, 100), (205, 580, 10))
    assert _gone(samples, 400, sums=_even) == [(0, 400)]
    assert _summed(samples, 400) == [(60, 80)]  # what tells nothing has no sum
    assert _summed(samples, 79) == []


def test_an_interval_while_one_talks_or_close_to_such_a_one_is_not_summed() -> None:
    parts = (0, 60, 20), (60, 76, 75), (76, 78, 0), (78, 94, 75), (94, 300, 10), (300, 320, 100), (320, 580, 10)
    samples = _used(*parts)
    assert _summed(samples, 500) == [(60, 76), (78, 94), (300, 320)]
    talk = _Talk(0, _BASE + 65 * _MINUTE, _BASE + 70 * _MINUTE)
    assert _summed(samples, 500, [talk]) == [(300, 320)]
    assert _gone(samples, 500, [talk], _even) == [(0, 60), (98, 496)]
    assert _summed(samples, 500, [_Talk(0, _BASE + 310 * _MINUTE, _BASE + 315 * _MINUTE)]) == [(60, 76), (78, 94)]
