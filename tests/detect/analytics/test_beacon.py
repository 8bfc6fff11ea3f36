"""beacon.derive() agrees with scoring peer by peer in fractions, and tells heartbeats from people."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import batch_of, checked, same
from tests.oracles.beacon import beacons
from tests.oracles.derived import Conversation

from agenttrail.detect.analytics import beacon

_WORKLOADS = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND
_HOUR = 3_600


def _drawn(dice: Random) -> list[Conversation]:
    leases: list[tuple[int | None, int | None]] = [
        (None, None), (-60, None), (0, _HOUR), (-9, 80_000), (3_000, 9_000), (0, 86_400), (0, 86_401)
    ]  # fmt: skip
    ones = []
    for entity in range(_WORKLOADS):
        opened, closed = (None if second is None else _BASE + second * _SECOND for second in dice.choice(leases))
        for peer in ("198.51.100.7", "2001:db8::7")[: dice.choice([1, 1, 2])]:
            period, jitter = dice.choice([0, 1, 5, 60, 600]), dice.choice([0, 0, 1, 30, 300])
            size, spread = dice.choice([0, 1, 80, 4_000]), dice.choice([0, 1, 40])
            begin = _BASE + dice.randrange(_HOUR) * _SECOND
            for number in range(dice.choice([2, 7, 8, 9, 13, 30, 50, 110])):
                start = begin + (number * period + dice.randrange(jitter + 1)) * _SECOND + dice.randrange(9) * 100_000
                ones.append(
                    Conversation(
                        entity,
                        start,
                        start + dice.randrange(3) * _SECOND,
                        peer=peer,
                        port=dice.choice([443] * 20 + [None, 22]),
                        source_port=40_000 + dice.choice([number, number, number, number // 3, 0]),
                        protocol=dice.choice([6] * 30 + [17]),
                        opened=dice.choice([None, False, True]),
                        sent=size + dice.randrange(spread + 1),
                        lease_start=opened,
                        lease_end=closed,
                        outcome=dice.choice(["success", "failure", None]),
                        outward=dice.random() < 0.97,
                    )
                )
    dice.shuffle(ones)
    return ones


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([4, 8]))
def test_scores_are_those_of_the_oracle_in_any_order(seed: int, least: int) -> None:
    ones = _drawn(Random(seed))
    derived = beacon.derive(batch_of(ones), least)
    assert same(checked("beacon", ones, derived), beacons(ones, least))


def _contact(seconds: list[float], sizes: list[int] | None = None, **more: Any) -> list[Conversation]:
    sizes = sizes or [120] * len(seconds)
    times = [_BASE + round(second * _SECOND) for second in seconds]
    numbered = enumerate(zip(times, sizes, strict=True), start=40_000)
    return [Conversation(1, time, time, sent=size, **{"source_port": port} | more) for port, (time, size) in numbered]


def _lease(seconds: int) -> dict[str, Any]:
    return {"lease_start": _BASE, "lease_end": _BASE + seconds * _SECOND}


def _only(ones: list[Conversation]) -> dict[str, Any]:
    (row,) = checked("beacon", ones, beacon.derive(batch_of(ones)))
    return row


def test_a_perfect_heartbeat_over_the_whole_life_scores_one() -> None:
    row = _only(_contact([30 * number for number in range(96)], **_lease(96 * 30)))
    assert row["beacon.score"] == pytest.approx(1, abs=0.003)
    assert [row[f"beacon.{part}_score"] for part in ("timestamp", "size", "histogram")] == [1, 1, 1]
    assert row["beacon.period"] == 30


def test_a_life_of_forty_minutes_is_enough() -> None:
    """Over a day, as RITA looks at it, its duration and histogram would count for nothing."""
    dice = Random(4)
    seconds = [60 * number + dice.uniform(-6, 6) for number in range(1, 40)]
    sizes = [dice.randrange(180, 220) for _ in seconds]
    row = _only(_contact(seconds, sizes, **_lease(2_400)))
    assert row["beacon.score"] > 0.85
    assert row["beacon.period"] == pytest.approx(60, abs=3)
    over_a_day = _only(_contact(seconds, sizes, lease_start=_BASE, lease_end=_BASE + 86_399 * _SECOND))
    assert over_a_day["beacon.score"] < 0.6


def test_bursts_of_unlike_size_score_low() -> None:
    dice = Random(5)
    seconds = sorted(burst * 400 + dice.expovariate(1 / 8) for burst in (0, 1, 4, 5) for _ in range(10))
    row = _only(_contact(seconds, [int(dice.paretovariate(0.6) * 200) for _ in seconds], **_lease(2_400)))
    assert row["beacon.score"] < 0.55


def test_one_instant_has_no_period_and_no_length() -> None:
    row = _only(_contact([0] * 9))
    assert row["beacon.period"] is None
    assert (row["beacon.timestamp_score"], row["beacon.duration_score"], row["beacon.histogram_score"]) == (0, 0, 0)
    assert row["beacon.size_score"] == 1


def test_a_beacon_for_half_of_the_life_is_as_flat_as_one() -> None:
    row = _only(_contact([20 * number for number in range(96)], **_lease(2 * 96 * 20)))
    assert (row["beacon.duration_score"], row["beacon.histogram_score"]) == (1, 1)


def test_seven_are_too_few_and_inward_ones_do_not_count() -> None:
    ones = _contact([60 * number for number in range(8)])
    assert beacon.derive(batch_of(ones)).events.num_rows == 1
    ones[0] = replace(ones[0], outward=False)
    assert not beacon.derive(batch_of(ones)).events.num_rows


def test_blocked_beacons_are_beacons() -> None:
    row = _only(_contact([60 * number for number in range(30)], outcome="failure"))
    assert row["event.outcome"] == "failure"


def test_a_connection_that_stays_open_is_one_contact_however_often_it_is_recorded() -> None:
    """The windows of a flow log are even, whoever talks in them."""
    ones = _contact([60.0 * minute for minute in range(30)], source_port=40_000, **_lease(3_600))
    assert not beacon.derive(batch_of(ones)).events.num_rows
    bound = _contact([60.0 * minute for minute in range(30)], source_port=40_000, opened=True, **_lease(3_600))
    assert _only(bound)["beacon.count"] == 30  # a client that binds its port, where flags tell that it opens anew
    again = _contact([16 * 60.0 * number for number in range(9)], source_port=40_000, **_lease(9_000))
    assert _only(again)["beacon.count"] == 9


def test_nothing_comes_of_nothing() -> None:
    derived, full = (beacon.derive(batch_of(_contact(list(range(count))))) for count in (0, 8))
    assert derived.events.schema.equals(full.events.schema)
    assert (derived.events.num_rows, derived.members_offsets.tolist(), len(derived.members)) == (0, [0], 0)
