"""egress_volume.derive() agrees with trying every window."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detect.analytics.conversations import batch_of, checked, same
from tests.oracles.derived import Conversation
from tests.oracles.egress_volume import egress_volumes

from agenttrail.detect.analytics import egress_volume

_WORKLOADS = 8
"""Workloads in one example, none of which may touch what is said of another: each is a case."""
_EXAMPLES = max(settings().max_examples, 5_000 // _WORKLOADS)
_SECOND = 1_000_000
_BASE = 1_772_409_600 * _SECOND


def _drawn(dice: Random) -> list[Conversation]:
    ones = []
    for _ in range(dice.randrange(20 * _WORKLOADS)):
        start = _BASE + dice.randrange(dice.choice([10, 60]))
        ones.append(
            Conversation(
                dice.randrange(_WORKLOADS),
                start,
                start + dice.randrange(100),
                source=dice.choice(["10.0.0.1", "10.0.0.2"]),
                peer=dice.choice(["198.51.100.7", "203.0.113.9", "2001:db8::7"]),
                port=dice.choice([443, 22, None]),
                sent=dice.choice([0, 10, dice.randrange(40)]),
                received=dice.randrange(9),
                outcome=dice.choice(["success", "failure", None]),
                outward=dice.random() < 0.5,
                unlisted=dice.random() < 0.8,
            )
        )
    return ones


@settings(max_examples=_EXAMPLES)
@given(st.integers(0, 2**48), st.sampled_from([1, 7, 100]), st.sampled_from([1, 50, 200]))
def test_windows_are_those_of_the_oracle_in_any_order(seed: int, window: int, least: int) -> None:
    ones = _drawn(Random(seed))
    derived = egress_volume.derive(batch_of(ones), window, least)
    assert same(checked("egress_volume", ones, derived), egress_volumes(ones, window, least))


def _sent(*bytes_at: tuple[int, int, str], unlisted: bool = True) -> list[Conversation]:
    """Return conversations of so many megabytes at these minutes with these peers."""
    return [
        Conversation(
            1,
            _BASE + minute * 60 * _SECOND,
            _BASE + minute * 60 * _SECOND,
            peer=peer,
            sent=size * 10**6,
            unlisted=unlisted,
        )
        for minute, size, peer in bytes_at
    ]


def test_an_hour_slides_over_full_hours() -> None:
    ones = _sent(
        (30, 10, "198.51.100.7"), (50, 45, "198.51.100.7"), (109, 55, "198.51.100.7"), (110, 1, "198.51.100.7")
    )
    derived = egress_volume.derive(batch_of(ones))
    (row,) = checked("egress_volume", ones, derived)
    assert (row["egress.bytes"], row["egress.peers"], row["peer.ip"]) == (100_000_000, 1, "198.51.100.7")
    assert sorted(derived.members.tolist()) == [1, 2]


def test_what_is_spread_over_peers_adds_up() -> None:
    ones = _sent(*((minute, 20, f"198.51.100.{minute}") for minute in range(1, 7)))
    (row,) = checked("egress_volume", ones, egress_volume.derive(batch_of(ones)))
    assert (row["egress.bytes"], row["egress.peers"], row["peer.ip"]) == (120_000_000, 6, None)


def test_listed_peers_may_have_gigabytes() -> None:
    ones = _sent((0, 50_000, "198.51.100.7"), unlisted=False)
    assert not egress_volume.derive(batch_of(ones)).events.num_rows


def test_absurd_sizes_do_not_turn_negative() -> None:
    ones = [Conversation(1, _BASE + second, _BASE, sent=2**62) for second in range(8)]
    events = egress_volume.derive(batch_of(ones)).events
    assert events.column("egress.bytes").to_pylist() == [8 << 43]


def test_nothing_comes_of_nothing() -> None:
    derived, full = (egress_volume.derive(batch_of(_sent(*sent))) for sent in ((), ((0, 500, "198.51.100.7"),)))
    assert derived.events.schema.equals(full.events.schema)
    assert (derived.events.num_rows, derived.members_offsets.tolist(), len(derived.members)) == (0, [0], 0)
