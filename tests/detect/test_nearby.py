"""unanswered_nearby() agrees with looking at every other conversation."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import batch_of
from tests.oracles import nearby as oracle
from tests.oracles.derived import Conversation

from agenttrail.detect.nearby import REACH, unanswered_nearby

_WORKLOADS = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND


def _drawn(dice: Random) -> list[Conversation]:
    span = dice.choice([10, 300, 3_000])
    return [
        Conversation(
            dice.randrange(_WORKLOADS),
            start := _BASE + dice.randrange(span) * _SECOND,
            start + _SECOND,
            peer=f"10.0.3.{dice.randrange(6)}",
            port=dice.choice([22, 80, None]),
            protocol=dice.choice([6, 6, 6, 17, None]),
            sent=dice.choice([60, 320, 321, 600, 601]),
            received=dice.choice([0, 0, 0, 40]),
            outcome=dice.choice(["success", "success", "failure", None]),
            outward=dice.random() < 0.9,
            unlisted=dice.random() < 0.1,
        )
        for _ in range(dice.randrange(30 * _WORKLOADS))
    ]


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([0, 5 * _SECOND, REACH]))
def test_counts_are_those_of_the_oracle_in_any_order(seed: int, reach: int) -> None:
    ones = _drawn(Random(seed))
    assert unanswered_nearby(batch_of(ones), reach).to_pylist() == oracle.unanswered_nearby(ones, reach)


def test_who_answers_first_is_known_by_those_that_do_not() -> None:
    scan = [
        Conversation(1, at := _BASE + n * _SECOND, at, peer=f"10.0.3.{n}", port=80, sent=60, unlisted=False)
        for n in range(5)
    ]
    scan[0] = Conversation(1, _BASE, _BASE, peer="10.0.3.0", port=80, sent=460, received=700, unlisted=False)
    check = Conversation(1, _BASE, _BASE, peer="10.0.3.9", port=8000, sent=460, received=700, unlisted=False)
    assert unanswered_nearby(batch_of([*scan, check])).to_pylist() == [4, 3, 3, 3, 3, 0]


def test_one_peer_asked_again_and_again_has_no_others_nearby() -> None:
    ones = [Conversation(1, _BASE + n, _BASE + n, peer="10.0.3.1", sent=60, unlisted=False) for n in range(9)]
    assert unanswered_nearby(batch_of(ones)).to_pylist() == [0] * 9


def test_times_a_century_apart_and_nothing_at_all() -> None:
    ends = (946_684_800 * _SECOND, 4_102_444_799 * _SECOND)
    ones = [
        Conversation(entity, at, at, peer=f"10.0.3.{n}", sent=60, unlisted=False)
        for entity in range(50)
        for n, at in enumerate((*ends, *ends))
    ]
    assert unanswered_nearby(batch_of(ones)).to_pylist() == [1] * 200
    assert unanswered_nearby(batch_of([])).to_pylist() == []
