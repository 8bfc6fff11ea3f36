"""gpu_progress.derive() agrees with looking at every minute, and states nothing where nothing is told."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import rows_of, same
from tests.oracles.gpu_progress import Report, Sample
from tests.oracles.gpu_progress import gpu_progress as wanted

from agenttrail.detect.analytics import gpu_progress
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from agenttrail.detect.derived import Derived

_WORKLOADS = 8
"""Workloads in one example: each is a case, though those of one job share its reports."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND


def _drawn(dice: Random, *, lost: bool = True) -> tuple[list[Sample], list[Report]]:
    samples = [one for entity in range(_WORKLOADS) for one in _samples(dice, entity)]
    reports = []
    for sandbox, job in ((None, "job-0"), (None, "job-1"), ("pod-1", None), ("pod-2", "job-0"), ("pod-3", "job-1")):
        if dice.random() < 0.6:
            reports += _reports(dice, sandbox, job, lost=lost)
    dice.shuffle(samples)
    dice.shuffle(reports)
    return samples, reports


def _samples(dice: Random, entity: int) -> list[Sample]:
    gpus: list[str | None] = dice.choice([[None], ["a"], ["a", "b"]])
    every, value = dice.choice([20, 40, 60, 60, 110]), 0
    samples: list[Sample] = []
    time = _BASE + dice.randrange(900) * _SECOND
    for _ in range(dice.randrange(2_400 // every)):
        time += dice.choice([every] * 30 + [120, 121, 500]) * _SECOND
        value = dice.choice([value] * 12 + [0, 40, 69, 70, 71, 90, 100])
        samples += [
            Sample(
                dice.choice([entity] * 60 + [None]),
                time,
                dice.choice([value] * 40 + [value + 1, None, float("nan"), -1]),
                gpu,
                dice.choice(["DCGM_FI_DEV_GPU_UTIL"] * 40 + ["DCGM_FI_DEV_POWER_USAGE"]),
                dice.choice([f"pod-{entity}"] * 200 + [None, "pod-1"]),
                f"job-{entity % 3}",
            )
            for gpu in gpus
        ]
    return samples


def _reports(dice: Random, sandbox: str | None, job: str | None, *, lost: bool = True) -> list[Report]:
    begin = dice.choice(
        [dice.randrange(-600, 1_200), dice.randrange(-600, 1_200, 60), dice.randrange(-7_201, -5_000, 60)]
    )
    time, step, reports = _BASE + begin * _SECOND, dice.randrange(5), []
    usual = dice.choice([1, 10])
    for _ in range(dice.randrange(7)):
        reports.append(Report(time, dice.choice([step] * 9 + [None]), sandbox, job))
        time += dice.choice([0, 60, 300, 700, 900, 1_500, 7_200, 7_201]) * _SECOND
        step += dice.choice([usual, usual, usual, 0, -usual, *([2 * usual] if lost else [])])
    return reports


def _batches(samples: list[Sample], reports: list[Report]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    def column(ones: list[Any], name: str, type_: pa.DataType) -> pa.Array:
        return pa.array([getattr(one, name) for one in ones], type_)

    return pa.RecordBatch.from_pydict(
        {
            "metric.name": column(samples, "metric", pa.string()).dictionary_encode(),
            "metric.value": column(samples, "value", pa.float64()),
            "gpu.id": column(samples, "gpu", pa.string()),
            "event.start": column(samples, "time", TIMESTAMP),
            "entity": column(samples, "entity", pa.int64()),
            "sandbox.id": column(samples, "sandbox", pa.string()).dictionary_encode(),
            "job.id": column(samples, "job", pa.string()),
        }
    ), pa.RecordBatch.from_pydict(
        {
            "event.start": column(reports, "time", TIMESTAMP),
            "training.step": column(reports, "step", pa.int64()),
            "sandbox.id": column(reports, "sandbox", pa.string()),
            "job.id": column(reports, "job", pa.string()),
        }
    )


def _found(samples: list[Sample], reports: list[Report]) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    derived, gaps = gpu_progress.derive(*_batches(samples, reports))
    return _checked(samples, derived), [tuple(row.values()) for row in rows_of(gaps)]


def _checked(samples: list[Sample], derived: Derived) -> list[dict[str, Any]]:
    rows = rows_of(derived.events)
    for number, row in enumerate(rows):
        assert row.pop("event.dataset") == "gpu_progress"
        start, stop = derived.members_offsets[number : number + 2].tolist()
        members = [samples[place] for place in derived.members[start:stop].tolist()]
        row["samples"] = len(members)
        assert {one.entity for one in members} == {row["entity"]}
        assert [one.time for one in members] == sorted(one.time for one in members)
        assert (members[0].time, members[-1].time) == (row["event.start"], row["event.end"])
    assert len(derived.members) == derived.members_offsets[-1]
    return rows


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48))
def test_intervals_and_gaps_are_those_of_the_oracle_in_any_order(seed: int) -> None:
    samples, reports = _drawn(Random(seed))
    events, gaps = _found(samples, reports)
    wanted_events, wanted_gaps = wanted(samples, reports)
    assert same(events, wanted_events)
    assert sorted(gaps) == wanted_gaps


def _used(*parts: tuple[int, int, int], gpus: int = 2) -> list[Sample]:
    """Return two samples a minute of (from minute, to minute, per cent)."""
    return [
        Sample(1, _BASE + (minute * 60 + second) * _SECOND, value, f"gpu-{gpu}", sandbox="pod-1", job="job-1")
        for start, stop, value in parts
        for minute in range(start, stop)
        for second in (0, 30)
        for gpu in range(gpus)
    ]


def _told(*reports: tuple[int, int | None], sandbox: str | None = "pod-1") -> list[Report]:
    """Return reports of (minute, step)."""
    return [Report(_BASE + minute * 60 * _SECOND, step, sandbox, "job-1") for minute, step in reports]


_STEPS = [(minute, minute) for minute in range(0, 20, 2)]
_LATER = [(minute, minute - 40) for minute in range(60, 80, 2)]
"""Steps 18 and 20 lie more than 40 minutes apart, and nothing says that others were made between."""


def test_forty_hot_minutes_without_a_step_are_stated() -> None:
    samples = _used((0, 18, 90), (18, 60, 97), (60, 80, 90))
    (row,), gaps = _found(samples, _told(*_STEPS, *_LATER))
    assert (row["gpu.busy_duration"], row["gpu.utilization"], row["gpu.count"]) == (41 * 60, 97, 2)
    assert row["training.rung"] == "sandbox"
    assert (row["event.start"], row["event.end"]) == (
        _BASE + 19 * 60 * _SECOND,
        _BASE + (59 * 60 + 30) * _SECOND,
    )
    assert gaps == [(1, _BASE + 79 * 60 * _SECOND, _BASE + 80 * 60 * _SECOND, gpu_progress.SILENT)]


def test_steps_that_went_unreported_are_a_gap() -> None:
    """The number of steps says that the training went on."""
    samples = _used((0, 80, 97))
    rows, gaps = _found(samples, _told(*_STEPS, *((minute, minute) for minute in range(60, 80, 2))))
    assert rows == []
    assert gaps[0] == (1, _BASE + 19 * 60 * _SECOND, _BASE + 60 * 60 * _SECOND, gpu_progress.SILENT)


def test_telemetry_that_ended_proves_nothing() -> None:
    rows, gaps = _found(_used((0, 80, 97)), _told(*_STEPS))
    assert rows == []
    assert gaps == [(1, _BASE + 19 * 60 * _SECOND, _BASE + 80 * 60 * _SECOND, gpu_progress.SILENT)]


def test_no_telemetry_at_all_is_a_gap() -> None:
    reports = [Report(_BASE, 1, "pod-2", "job-2"), Report(_BASE + 7_200 * _SECOND, 2, "pod-2", "job-2")]
    rows, gaps = _found(_used((0, 80, 97)), reports)
    assert rows == []
    assert gaps == [(1, _BASE, _BASE + 80 * 60 * _SECOND, gpu_progress.NO_PROGRESS)]


def test_more_than_two_hours_between_reports_need_heartbeats() -> None:
    samples = _used((0, 200, 97))
    ends = [(0, 1), (1, 2), (190, 3)]
    assert _found(samples, _told(*ends))[0] == []
    (row,), _ = _found(samples, _told(*ends, *((minute, 2) for minute in range(10, 190, 20))))
    assert row["gpu.busy_duration"] == (190 - 2) * 60
    (row,), _ = _found(samples, _told(*ends, *((minute, None) for minute in range(10, 190, 20))))
    assert row["gpu.busy_duration"] == (190 - 2) * 60


def test_the_job_speaks_for_a_sandbox_that_is_silent() -> None:
    samples = _used((0, 18, 90), (18, 60, 97), (60, 80, 90))
    (row,), _ = _found(samples, _told(*_STEPS, *_LATER, sandbox="pod-7"))
    assert row["training.rung"] == "job"
    own = _told((0, 1), *((minute, 1) for minute in range(0, 80, 5)))
    rows, _ = _found(samples, _told(*_STEPS, *_LATER, sandbox="pod-7") + own)
    assert {row["training.rung"] for row in rows} == {"sandbox"}


def test_two_minutes_without_samples_part_an_interval_and_are_a_gap() -> None:
    reports = _told(*_STEPS, *_LATER)
    samples = _used((18, 60, 97))
    holes = {_BASE + second * _SECOND for second in range(30 * 60, 30 * 60 + 91, 30)}
    parts, gaps = _found([one for one in samples if one.time not in holes], reports)
    assert [row["gpu.busy_duration"] for row in parts] == [11 * 60, 28 * 60]
    assert gaps == [(1, _BASE + 1_770 * _SECOND, _BASE + 1_920 * _SECOND, gpu_progress.NO_SAMPLES)]
    holes.remove(max(holes))
    (whole,), gaps = _found([one for one in samples if one.time not in holes], reports)
    assert (whole["gpu.busy_duration"], gaps) == (41 * 60, [])


def test_a_dip_is_bridged_and_seven_minutes_are_too_few() -> None:
    reports = _told(*_STEPS, *_LATER)
    (row,), _ = _found(_used((20, 30, 100), (30, 32, 0), (32, 42, 100), (42, 60, 5)), reports)
    assert row["gpu.busy_duration"] == 22 * 60
    assert _found(_used((20, 27, 100), (27, 60, 5)), reports)[0] == []
    assert len(_found(_used((20, 28, 70), (28, 60, 5)), reports)[0]) == 1


def test_idle_gpus_are_no_finding() -> None:
    assert _found(_used((0, 80, 12)), _told(*_STEPS, *_LATER))[0] == []


def test_gpus_that_were_busy_are_counted() -> None:
    samples = [
        Sample(1, _BASE + minute * 60 * _SECOND, 40 if gpu == 7 else 99, f"gpu-{gpu}", sandbox="pod-1")
        for minute in range(20, 50)
        for gpu in range(8)
    ]
    (row,), _ = _found(samples, _told(*_STEPS, *_LATER))
    assert row["gpu.count"] == 7


def test_nothing_comes_of_nothing() -> None:
    derived, gaps = gpu_progress.derive(*_batches([], []))
    full, holes = gpu_progress.derive(*_batches(_used((20, 60, 97), (70, 80, 9)), _told(*_STEPS, *_LATER)))
    assert derived.events.schema.equals(full.events.schema)
    assert gaps.schema.equals(holes.schema)
    assert (derived.events.num_rows, derived.members_offsets.tolist(), gaps.num_rows) == (0, [0], 0)
    assert (full.events.num_rows, holes.num_rows) == (1, 1 + 1)
