"""long_connection.derive() agrees with chaining conversations one by one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import batch_of, checked, same
from tests.oracles.derived import Conversation
from tests.oracles.long_connection import long_connections

from agenttrail.detect.analytics import long_connection

_WORKLOADS = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND


def _drawn(dice: Random) -> list[Conversation]:
    ones = []
    span, grid = dice.choice([600, 3_000, 20_000]), dice.choice([1, 150, 300])
    for _ in range(dice.randrange(20 * _WORKLOADS)):
        start = _BASE + dice.randrange(0, span, grid) * _SECOND
        lease = dice.choice([(None, None), (0, None), (0, 1200), (0, 1200), (600, 7200), (5, 5), (None, 9)])
        opened, closed = (None if second is None else _BASE + second * _SECOND for second in lease)
        ones.append(
            Conversation(
                dice.randrange(_WORKLOADS),
                start,
                start + dice.choice([0, 30 * _SECOND, 300 * _SECOND, 1_199_999_999]),
                source=dice.choice(["10.0.0.1", "10.0.0.2"]),
                source_port=dice.choice([40_000, 40_000, 65_535, 0, None]),
                peer=dice.choice(["198.51.100.7", "198.51.100.7", "2001:db8::7"]),
                port=dice.choice([443, 443, 443, 22, None]),
                protocol=dice.choice([6, 6, 6, None]),
                sent=dice.choice([0, dice.randrange(10**9)]),
                received=dice.choice([0, dice.randrange(10**9)]),
                outcome=dice.choice(["success", "success", "failure", None]),
                lease_start=opened,
                lease_end=closed,
                outward=dice.random() < 0.5,
            )
        )
    return ones


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([0, 1, 120 * _SECOND, 600 * _SECOND]))
def test_connections_are_those_of_the_oracle_in_any_order(seed: int, gap: int) -> None:
    ones = _drawn(Random(seed))
    derived = long_connection.derive(batch_of(ones), gap)
    assert same(checked("long_connection", ones, derived), long_connections(ones, gap))


def _tunnel(*bounds: tuple[int, int]) -> list[Conversation]:
    """Return conversations at these seconds, within a lease of 40 minutes."""
    lease = (_BASE, _BASE + 2_400 * _SECOND)
    return [
        Conversation(
            1,
            _BASE + start * _SECOND,
            _BASE + end * _SECOND,
            lease_start=lease[0],
            lease_end=lease[1],
            sent=30,
            received=10,
        )
        for start, end in bounds
    ]


def test_a_tunnel_that_reconnects_is_one_connection() -> None:
    ones = _tunnel((60, 600), (720, 900), (910, 1_260))
    (row,) = checked("long_connection", ones, long_connection.derive(batch_of(ones)))
    assert (row["connection.duration"], row["connection.lease_share"]) == (1_200, 0.5)
    assert (row["connection.upload_share"], row["connection.rate"], row["connection.count"]) == (0.75, 0.1, 3)
    assert (row["event.outcome"], row["network.initiator"]) == ("success", None)


def test_a_hole_of_more_than_two_minutes_parts_them() -> None:
    assert long_connection.derive(batch_of(_tunnel((60, 350), (471, 761), (880, 890)))).events.num_rows == 1


def test_what_was_blocked_connects_nothing() -> None:
    ones = [replace(one, outcome="failure") for one in _tunnel((0, 2_400))]
    assert not long_connection.derive(batch_of(ones)).events.num_rows


def test_five_minutes_are_stated_and_an_open_lease_has_no_share() -> None:
    for length, stated in ((299, 0), (300, 1)):
        ones = [replace(one, lease_end=None) for one in _tunnel((0, length))]
        events = long_connection.derive(batch_of(ones)).events
        assert events.num_rows == stated
        assert events.column("connection.lease_share").null_count == stated


def test_nothing_comes_of_nothing() -> None:
    derived = long_connection.derive(batch_of([]))
    full = long_connection.derive(batch_of(_tunnel((0, 2_400))))
    assert derived.events.schema.equals(full.events.schema)
    assert (derived.events.num_rows, derived.members_offsets.tolist(), len(derived.members)) == (0, [0], 0)
    assert isinstance(full.events, pa.RecordBatch)
