"""Reports of progress stay as long as they may say something of a sample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from agenttrail.casebook.samples import Needless
from agenttrail.detect.analytics.gpu_progress import SILENCE
from agenttrail.detect.progress import MINUTE
from agenttrail.detect.settled_samples import Times

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
