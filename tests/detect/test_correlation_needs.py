"""What correlations leave out beforehand changes nothing that they find."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrail.detect.correlate import Hits, correlate
from agenttrail.detect.correlation_needs import enough, needs_of, silent
from agenttrail.detect.correlations import Correlation

_TYPES = ("event_count", "value_count", "temporal", "temporal_ordered")
_EXAMPLES = max(settings().max_examples, 2_000)


def _correlation(kind: str, timespan: int, condition: tuple[str, int], **more: object) -> Correlation:
    values = ("peer.ip",) * 2 if kind == "value_count" else ()
    keys = (("entity.id", "entity.anchor"),) * 2
    return Correlation(
        id="c", name="c", title="c", level="low", type=kind, rules=("r0", "r1"), group_by=keys[0],
        keys=keys, timespan=timespan, condition=condition, values=values, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _rule(id_: str) -> Any:
    """Return as much of a rule as is asked for here."""
    return SimpleNamespace(id=id_)


@pytest.mark.parametrize("kind", _TYPES)
@settings(max_examples=_EXAMPLES)
@given(seed=st.integers(0, 2**48))
def test_nothing_that_is_found_is_lost(kind: str, seed: int) -> None:
    """With every hit's rows, of which the first gives its time, in whatever order they come."""
    dice = Random(seed)
    condition = ("gte", 2) if kind == "temporal_ordered" else (dice.choice(["gte", "gt", "eq"]), dice.randrange(1, 5))
    one = _correlation(kind, dice.choice([1, 3, 7]), condition)
    hits = [
        (dice.randrange(3), dice.randrange(20), dice.randrange(2), dice.randrange(3)) for _ in range(dice.randrange(20))
    ]
    rows = [(number, time + late) for number, (_, time, _, _) in enumerate(hits) for late in (0, *_later(dice))]
    dice.shuffle(rows)
    of, time = (np.array([row[place] for row in rows], np.int64) for place in (0, 1))
    workload, rule = (np.array([hits[number][place] for number, _ in rows], np.int64) for place in (0, 2))
    kept = enough(needs_of([one], [_rule("r0"), _rule("r1")]), rule, workload, time)
    left = sorted(set(of[kept].tolist()))
    assert _found(one, [hits[number] for number in left]) == _found(one, hits)


def _later(dice: Random) -> list[int]:
    return [dice.randrange(9) for _ in range(dice.randrange(3))]


def _found(one: Correlation, hits: list[tuple[int, int, int, int]]) -> list[tuple[int, ...]]:
    """Return group, first and last time and number of hits of each run."""
    columns = [np.array([hit[place] for hit in hits], np.int64) for place in range(4)]
    found = correlate(one, Hits(columns[0], columns[1], columns[2], columns[3], np.arange(len(hits))))
    bounds = (found.group, found.first, found.last, np.diff(found.offsets))
    return sorted(zip(*(bound.tolist() for bound in bounds), strict=True))


def test_too_few_are_left_out_and_enough_are_kept() -> None:
    needs = needs_of([_correlation("event_count", 10, ("gte", 3))], [_rule("r0"), _rule("r1")])
    rules, workload = np.array([0, 1, 0, 0, 0, 5]), np.array([1, 1, 1, 1, 2, 1])
    assert enough(needs, rules, workload, np.array([0, 4, 9, 40, 4, 4])).tolist() == [True] * 3 + [False] * 3
    assert not enough(needs, rules, workload, np.array([0, 4, 10, 40, 4, 4])).any()


def test_groups_that_reach_over_workloads_keep_everything() -> None:
    one = Correlation(
        id="c", name="c", title="c", level="low", type="event_count", rules=("r0",), group_by=("peer.ip",),
        keys=(("peer.ip",),), timespan=1, condition=("gte", 9),
    )  # fmt: skip
    needs = needs_of([one], [_rule("r0")])
    assert enough(needs, np.array([0, 0]), np.array([1, 2]), np.array([0, 99])).all()


def test_building_blocks_are_silent_unless_told_to_generate() -> None:
    one = _correlation("event_count", 1, ("gte", 1))
    assert silent([one], ["r0", "r7"]) == {"r0"}
    assert silent([_correlation("event_count", 1, ("gte", 1), off="no list")], ["r0"]) == frozenset()
    assert silent([one, _correlation("temporal", 1, ("gte", 2), generate=True)], ["r0"]) == frozenset()
