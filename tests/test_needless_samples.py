"""What a stream takes in of what names its workload, and how long reports of progress stay."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from agenttrail.casebook.samples import Needless
from agenttrail.detect.analytics.gpu_conversation import TENSOR
from agenttrail.detect.analytics.gpu_progress import METRIC, SILENCE
from agenttrail.detect.progress import MINUTE
from agenttrail.detect.settled_samples import Times
from agenttrail.gathering.named import may_matter_named

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
    needless = Needless(pa.array([], pa.binary(16)), Times(_NONE, _NONE, _NONE), _SETTLED)
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
