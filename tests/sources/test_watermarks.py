"""A watermark is never early."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.parsing import Block
from agenttrail.sources.positions import Position
from agenttrail.sources.watermarks import MedianTime, Pace, watermark

PACE = Pace(disorder=10)
NOW = 10_000


def _at(**newest: int | None) -> dict[str, Position]:
    return {part: Position(1, newest=time) for part, time in newest.items()}


@pytest.mark.parametrize(
    ("newest", "unread", "quiet", "passed"),
    [
        ({}, (), (), None),
        ({"a": 100}, ("a",), (), 90),
        ({"a": 100, "b": 50}, ("a", "b"), (), 40),
        ({"a": 100, "b": 50}, ("a",), (), 40),
        ({"a": 100, "b": 50}, ("a",), ("b",), 90),
        ({"a": 100, "b": 50}, (), ("a", "b"), 90),
        ({"a": 100, "b": None}, ("a", "b"), (), None),
        ({"a": 100, "b": None}, ("a",), ("b",), 90),
        ({"a": 100}, ("a", "unknown"), (), None),
        ({"a": 1_000_000}, ("a",), (), NOW - 10),
    ],
)
def test_the_slowest_part_that_is_awake_holds_it(
    newest: dict[str, int | None], unread: tuple[str, ...], quiet: tuple[str, ...], passed: int | None
) -> None:
    assert watermark(_at(**newest), unread, quiet, PACE, NOW) == passed


def test_where_all_parts_are_quiet_it_goes_on_as_fast_as_the_clock() -> None:
    """And no faster, so that old data may be replayed; and not where nothing has told a time."""
    assert watermark(_at(a=100, b=50), (), ("a", "b"), PACE, NOW, 500) == 590
    assert watermark(_at(a=9_900), (), ("a",), PACE, NOW, 500) == NOW - 10
    assert watermark(_at(a=100, b=50), (), ("a",), PACE, NOW, 500) == 40
    assert watermark(_at(a=100), ("a",), (), PACE, NOW, 500) == 90
    assert watermark(_at(a=100), ("a", "unknown"), (), PACE, NOW, 500) is None
    assert watermark(_at(a=None), (), ("a",), PACE, NOW, 500) is None


@given(st.lists(st.integers(1_700_000_000, 1_700_000_999), min_size=1, max_size=2000), st.integers(0, 3))
def test_a_block_has_not_reached_more_than_its_newest_line(starts: list[int], broken: int) -> None:
    rows = [
        f"2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 {start} {start + 60} ACCEPT OK\n".encode() for start in starts
    ]
    reached, last = MedianTime("aws_vpc_flow", {})(Block(b"".join(rows + [b"junk\n"] * broken), "flow.log", 0, b""))
    assert last == tuple(start * 1_000_000 for start in starts[-9:])
    if len(starts) == 1:  # which may tell any time
        assert reached is None
        return
    assert reached is not None
    assert reached <= max(starts) * 1_000_000
    if len(starts) < 500:  # all of them are looked at
        assert reached == int(np.sort(starts)[(len(starts) - 1) // 2]) * 1_000_000


def test_lines_without_a_time_tell_none() -> None:
    assert MedianTime("aws_vpc_flow", {})(Block(b"junk\n", "flow.log", 0, b"")) == (None, ())


@given(st.lists(st.booleans(), max_size=60), st.lists(st.integers(0, 60), max_size=4, unique=True))
def test_a_few_lines_from_the_future_move_nothing_however_lines_are_cut_into_blocks(
    cuts: list[bool], wrong: list[int]
) -> None:
    """Of a slow stream every line is a block of its own."""
    median, held = MedianTime("aws_vpc_flow", {}), b""
    reached: int | None = None
    last: tuple[int, ...] = ()
    for number in range(61):
        start = 4_084_000_000 if number in wrong else 1_700_000_000 + number
        held += f"2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 {start} {start + 60} ACCEPT OK\n".encode()
        if number >= len(cuts) or cuts[number]:
            reached, last = median(Block(held, "flow.log", 0, b""), last)
            held = b""
    assert reached is not None
    assert 1_700_000_050_000_000 <= reached <= 1_700_000_060_000_000
