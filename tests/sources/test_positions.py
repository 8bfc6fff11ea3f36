"""Claims, cuts and where a source goes on."""

from __future__ import annotations

import pytest

from agenttrail.sources.positions import Position, Progress, ProgressCoder, ProgressTracker, from_json, to_json

ONE = Progress({"t/0": Position(5, header=b"\xff header", newest=7, stop=9, path="p", mark="3:aa", stored=2)})
TWO = Progress({"t/0": Position(6)})


def test_a_cut_leaves_what_was_not_claimed() -> None:
    tracker = ProgressTracker(ONE)
    assert tracker.try_claim(TWO)
    assert tracker.try_split(0) == (Progress(TWO.positions, done=True), TWO)
    assert not tracker.try_claim(ONE)
    assert tracker.try_split(0) is None
    tracker.check_done()
    assert tracker.current_restriction().positions == TWO.positions


def test_shares_of_the_work_are_not_given_away() -> None:
    tracker = ProgressTracker(ONE)
    assert tracker.try_split(0.5) is None
    assert tracker.try_claim(TWO)
    assert tracker.current_progress().fraction_completed == 0.5


def test_a_source_that_is_left_before_its_end_is_an_error() -> None:
    tracker = ProgressTracker(ONE)
    with pytest.raises(ValueError, match="left before its end"):
        tracker.check_done()
    assert tracker.try_claim(Progress(ONE.positions, done=True))
    tracker.check_done()
    assert tracker.try_split(0) is None


def test_a_source_that_knows_nothing_yet_can_be_cut() -> None:
    """Its rest must not be mistaken for none."""
    split = ProgressTracker(Progress()).try_split(0)
    assert split is not None
    assert split[1]


def test_positions_travel() -> None:
    coder = ProgressCoder()
    assert coder.decode(coder.encode(ONE)) == ONE
    assert from_json(to_json(ONE.positions)) == ONE.positions
    with pytest.raises(ValueError, match=r"malformed|invalid|Expected"):
        from_json(b'{"t/0": {"at": "five"}}')
