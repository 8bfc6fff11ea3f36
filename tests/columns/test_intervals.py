"""Looking an instant up agrees with asking every interval."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns.intervals import OPEN, Segments

_INTERVAL = st.tuples(st.integers(0, 4), st.integers(-20, 40), st.none() | st.integers(-3, 25))


@given(st.lists(_INTERVAL, max_size=25), st.lists(st.tuples(st.integers(-1, 4), st.integers(-30, 80)), max_size=60))
def test_an_instant_is_in_the_intervals_that_say_so(
    intervals: list[tuple[int, int, int | None]], asked: list[tuple[int, int]]
) -> None:
    keys = np.array([key for key, _, _ in intervals], dtype=np.int64)
    starts = np.array([start for _, start, _ in intervals], dtype=np.int64)
    ends = np.array([OPEN if length is None else start + length for _, start, length in intervals], dtype=np.int64)
    cut = Segments.build(keys, starts, ends, 5)
    codes = cut.find(
        np.array([key for key, _ in asked], dtype=np.int64), np.array([at for _, at in asked], dtype=np.int64)
    )
    for (key, at), code in zip(asked, codes.tolist(), strict=True):
        expected = tuple(i for i in range(len(intervals)) if keys[i] == key and starts[i] <= at < ends[i])
        assert cut.members(code) == expected


def test_the_end_is_not_inside_and_the_start_is() -> None:
    cut = Segments.build(np.array([0]), np.array([100]), np.array([200]), 1)
    assert cut.find(np.zeros(4, np.int64), np.array([99, 100, 199, 200])).tolist() == [-1, 0, 0, -1]
