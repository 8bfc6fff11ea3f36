"""What a stream takes in of what names its workload, and how long reports of progress stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from agenttrail.casebook.samples import Needless, _talks
from agenttrail.casebook.sums import SampleTimes, Sums
from agenttrail.detect.analytics.gpu_conversation import TENSOR
from agenttrail.detect.analytics.gpu_progress import METRIC, SILENCE
from agenttrail.detect.progress import MINUTE
from agenttrail.detect.signals import HOLDER, Signals
from agenttrail.entities import WORKLOAD_DIGEST
from agenttrail.gathering.named import may_matter_named
from agenttrail.gathering.shard import Shard
from agenttrail.schema import TIMESTAMP

_NONE = np.empty(0, np.int64)
_SETTLED = 1_772_409_600_000_000
_NEAR = SILENCE + MINUTE


@pytest.mark.parametrize(
    ("sampled", "times", "told"),
    [
        ([], [-_NEAR - 1, -_NEAR, 0, 10 * _NEAR], [False, True, True, True]),
        ([-10 * _NEAR], [-11 * _NEAR - 1, -11 * _NEAR, -9 * _NEAR, -9 * _NEAR + 1], [False, True, True, False]),
        ([-10 * _NEAR, -4 * _NEAR], [-10 * _NEAR, -7 * _NEAR, -3 * _NEAR], [True, False, True]),
    ],
)
def test_reports_are_told_apart_by_the_samples_that_are_kept(
    sampled: list[int], times: list[int], told: list[bool]
) -> None:
    needless = Needless(SampleTimes.none(), _SETTLED, Sums.none().findings)
    kept = needless.told_of(np.array(times) + _SETTLED, np.array(sampled, np.int64) + _SETTLED)
    assert kept.tolist() == told


def test_of_what_names_its_workload_calls_reports_and_the_use_of_gpus_and_tensor_cores_may_matter() -> None:
    events = pa.RecordBatch.from_pydict(
        {
            "event.action": ["execute_tool", "chat", "gpu_sample", "gpu_sample", "gpu_sample", "pipeline_step", None],
            "metric.name": [None, None, METRIC, TENSOR, "DCGM_FI_DEV_POWER_USAGE", None, None],
            "training.step": pa.array([None, None, None, None, None, 0, None], pa.int64()),
        }
    )
    assert may_matter_named(events).tolist() == [0, 2, 3, 5]
    assert may_matter_named(events.select(["event.action"])).tolist() == [0]


_SECOND = 1_000_000


@pytest.mark.parametrize(
    ("records", "told"),
    [
        # windows of a minute that follow one another closely enough are one talk, whatever the port
        ([(0, 60, 443), (180, 240, 444), (240, 300, 443)], [(0, 300)]),
        # two that are further apart are two, of which the second does not last
        ([(0, 300, 443), (421, 480, 443)], [(0, 300)]),
        # one that does not last may yet come to, if it is new
        ([(-3600, -3500, 443), (86_300, 86_400, 443)], [(86_300, 86_400)]),
        ([(86_000, 86_279, 443)], []),
        ([(86_000, 86_280, 443)], [(86_000, 86_280)]),
    ],
)
def test_talks_are_what_is_or_may_come_to_be_a_long_connection(
    records: list[tuple[int, int, int]], told: list[tuple[int, int]]
) -> None:
    count = len(records)
    columns: dict[str, Any] = {
        "event.start": pa.array([_SETTLED + begin * _SECOND for begin, _, _ in records]).cast(TIMESTAMP),
        "event.end": pa.array([_SETTLED + end * _SECOND for _, end, _ in records]).cast(TIMESTAMP),
        "source.ip": pa.array([bytes(15) + b"\1"] * count, pa.binary(16)),
        "destination.ip": pa.array([bytes(15) + b"\2"] * count, pa.binary(16)),
        "destination.port": pa.array([port for _, _, port in records], pa.int32()),
        "network.direction": ["egress"] * count,
        HOLDER: pa.array(np.zeros(count, np.int64)),
    }
    rows = pa.RecordBatch.from_pydict(columns)
    holders = pa.RecordBatch.from_pydict({WORKLOAD_DIGEST: pa.array([bytes(16)], pa.binary(16))})
    times = _talks(Shard.of(Signals(rows, holders, 0)), _SETTLED + 86_400 * _SECOND)
    found = zip((times.begin - _SETTLED) // _SECOND, (times.end - _SETTLED) // _SECOND, strict=True)
    assert [(int(begin), int(end)) for begin, end in found] == told
