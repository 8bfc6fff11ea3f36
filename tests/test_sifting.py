"""What of a block is too late."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from tests.formats.golden import parsed_sample

from agenttrail.attribute import with_columns
from agenttrail.transforms.parsing import Source
from agenttrail.transforms.sifting import _Sift

if TYPE_CHECKING:
    from numpy.typing import NDArray

MINUTE = 60_000_000
DAY = 1440 * MINUTE


def _late(starts: NDArray[np.int64], newest: int | None) -> int:
    """Return how many of some events are too late, 14 minutes being allowed."""
    events = parsed_sample("aws_vpc_flow").events
    events = events.take(pa.array(np.arange(len(starts)) % events.num_rows))
    times = pa.array(starts).cast(events.schema.field("event.start").type)
    sift = _Sift([Source("flows", "aws_vpc_flow", {})], [], {}, 14 * MINUTE)
    told = with_columns(events, {"event.start": times, "event.end": times})
    _, late = sift._in_time(told, newest)  # noqa: SLF001 - what is late is what it is for
    return 0 if late is None else late.num_rows


@pytest.mark.parametrize("ahead", [1, 16, 20, 32])
def test_times_that_have_not_come_yet_make_nothing_late_that_is_told_now(ahead: int) -> None:
    """Agents write their spans themselves."""
    now = time.time_ns() // 1000
    starts = np.full(3_000, now - MINUTE)
    starts[:ahead] = now + DAY
    assert _late(starts, now - 2 * MINUTE) == 0
    assert _late(starts, now + DAY) == 0


def test_what_is_older_than_what_came_before_it_is_late() -> None:
    then = 1_772_409_600_000_000
    starts = np.full(3_000, then)
    starts[2_000:2_100] = then - 15 * MINUTE
    assert _late(starts, None) == 100
    assert _late(starts, then + 15 * MINUTE) == 3_000
    assert _late(starts, then + 13 * MINUTE) == 100
