"""refusals.derive() agrees with chaining refused conversations one by one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import batch_of, checked, same
from tests.oracles.derived import Conversation
from tests.oracles.refusals import refusals

from agenttrail.detect.analytics import refusals as analytic

_WORKLOADS = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND


def _drawn(dice: Random) -> list[Conversation]:
    span = dice.choice([30, 200, 2_000])
    calls = {entity: [dice.randrange(span) for _ in range(dice.randrange(4))] for entity in range(_WORKLOADS)}
    return [
        Conversation(
            entity := dice.randrange(_WORKLOADS),
            start := _BASE + (at := dice.randrange(span)) * _SECOND,
            start + dice.choice([0, 0, 3 * _SECOND, 20 * _SECOND]),
            peer=dice.choice(["198.51.100.7", "198.51.100.8", "2001:db8::7"]),
            port=dice.choice([443, 22, None]),
            outcome=dice.choice(["failure", "failure", "failure", "success", None]),
            outward=dice.random() < 0.9,
            call=max((_BASE + call * _SECOND for call in calls[entity] if call <= at), default=None),
        )
        for _ in range(dice.randrange(30 * _WORKLOADS))
    ]


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([0, 5 * _SECOND, 20 * _SECOND]), st.sampled_from([1, 3, 5]))
def test_bursts_are_those_of_the_oracle_in_any_order(seed: int, gap: int, least: int) -> None:
    ones = _drawn(Random(seed))
    derived = analytic.derive(batch_of(ones), gap, least)
    assert same(checked("refusals", ones, derived), refusals(ones, gap, least))


def _at(*seconds: int) -> list[Conversation]:
    return [
        Conversation(1, _BASE + at * _SECOND, _BASE + at * _SECOND, outcome="failure", peer=f"198.51.100.{number}")
        for number, at in enumerate(seconds)
    ]


def test_what_was_refused_a_while_before_is_not_part_of_it() -> None:
    (row,) = checked("refusals", ones := _at(0, 21, 22, 23, 24, 44), analytic.derive(batch_of(ones)))
    assert (row["event.start"], row["connection.count"], row["egress.peers"]) == (_BASE + 21 * _SECOND, 5, 5)
    assert (row["connection.duration"], row["peer.ip"], row["event.outcome"]) == (23.0, None, "failure")


def test_the_next_call_begins_another_burst_unless_it_goes_on_without_a_pause() -> None:
    calls = (0, 0, 0, 0, 0, 20, 20, 20, 20, 20)
    for pause, bursts in ((5, 1), (6, 2)):
        times = [12, 13, 14, 15, 16, *(16 + pause + number for number in range(5))]
        ones = [replace(one, call=_BASE + call * _SECOND) for one, call in zip(_at(*times), calls, strict=True)]
        assert analytic.derive(batch_of(ones)).events.num_rows == bursts


def test_four_are_too_few_and_what_passed_is_none() -> None:
    assert not analytic.derive(batch_of(_at(0, 1, 2, 3))).events.num_rows
    assert not analytic.derive(batch_of([replace(one, outcome="success") for one in _at(*range(9))])).events.num_rows


def test_nothing_comes_of_nothing() -> None:
    derived = analytic.derive(batch_of([]))
    assert derived.events.schema.equals(analytic.derive(batch_of(_at(*range(9)))).events.schema)
    assert (derived.events.num_rows, derived.members_offsets.tolist(), len(derived.members)) == (0, [0], 0)
