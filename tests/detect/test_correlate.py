"""correlate() and correlate_all() agree with trying every window."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.correlations import Hit, Run, evaluate, runs

from agenttrail.detect.correlate import Hits, Runs, correlate
from agenttrail.detect.correlated import Correlated, correlate_all
from agenttrail.detect.correlations import Correlation
from agenttrail.schema import TIMESTAMP

_TYPES = ("event_count", "value_count", "temporal", "temporal_ordered")
_CASES = 25
"""Cases in one example: drawing is what costs."""
_EXAMPLES = max(settings().max_examples, 6_000 // _CASES)
_BASE = 1_772_409_600_000_000


def _correlation(kind: str, rules: int = 1, timespan: int = 10, condition: tuple[str, int] = ("gte", 1)) -> Correlation:
    ids = tuple(f"r{number}" for number in range(rules))
    return Correlation("c", "c", "C", "high", kind, ids, ("g",), (("g",),) * rules, timespan, condition)


def _batch(hits: list[Hit]) -> Hits:
    def column(name: str) -> Any:
        values = [getattr(hit, name) for hit in hits]
        return np.array([-1 if value is None else value for value in values], dtype=np.int64)

    return Hits(*(column(name) for name in ("group", "time", "rule", "value", "rank")))


def _told(found: Runs, hits: list[Hit]) -> list[Run]:
    """Return runs in the shape of the oracle."""
    members = np.split(found.members, found.offsets[1:-1])
    moments = np.split(found.moments, found.moment_offsets[1:-1])
    return [
        Run(
            group=found.group[place].item(),
            first=found.first[place].item(),
            last=found.last[place].item(),
            fired=found.fired[place].item(),
            peak=found.peak[place].item(),
            peak_time=found.peak_time[place].item(),
            members=tuple(hits[row] for row in members[place]),
            moments=tuple(moments[place].tolist()),
        )
        for place in range(len(found.group))
    ]


def _in_order(found: list[Run]) -> list[Run]:
    return sorted(found, key=lambda run: (run.group, run.first))


def _drawn(dice: Random, rules: int) -> list[Hit]:
    """Draw hits that often share an instant or lie a window apart; now and then with codes and times that are large."""
    length = dice.choice([3, 12, 40])
    wide, far, many = dice.choice([1, 1, 10**9]), dice.choice([1, 1, 10**14]), dice.choice([1, 1 << 16])
    ranks = dice.sample(range(100), 24)
    return [
        Hit(
            dice.choice([None, 0, wide, 2 * wide]),
            _BASE + far * dice.randrange(length),
            dice.randrange(rules),
            dice.choice([None, 0, many, 2 * many, 3 * many]),
            ranks.pop(),
        )
        for _ in range(dice.randrange(24))
    ]


@pytest.mark.parametrize("kind", _TYPES)
@settings(max_examples=_EXAMPLES)
@given(seed=st.integers(0, 2**48))
def test_runs_are_those_of_the_oracle_in_any_order(kind: str, seed: int) -> None:
    dice = Random(seed)
    for _ in range(_CASES):
        rules = dice.randrange(1, 4)
        hits = _drawn(dice, rules)
        far = 10**14 if any(hit.time - _BASE >= 100 for hit in hits) else 1
        timespan = far * dice.choice([1, 2, 5, 11])
        condition = (dice.choice(["gte", "gte", "gt", "lte", "lt", "eq", "neq"]), dice.randrange(5))
        if kind == "temporal_ordered":
            condition = ("gte", rules)
        found = _told(correlate(_correlation(kind, rules, timespan, condition), _batch(hits)), hits)
        assert found == _in_order(found)
        assert found == _in_order(runs(kind, rules, timespan, condition, hits))


# -- sharp cases, said out loud


def _found(kind: str, at: list[tuple[int, int]], **more: Any) -> list[tuple[int, int, int]]:
    """Return (first, last, members) of the runs of hits (time, rule or value)."""
    hits = [Hit(0, time, 0 if kind == "value_count" else which, which, rank) for rank, (time, which) in enumerate(at)]
    found = correlate(_correlation(kind, **more), _batch(hits))
    return list(zip(found.first.tolist(), found.last.tolist(), np.diff(found.offsets).tolist(), strict=True))


def test_a_window_is_open_at_its_begin() -> None:
    """Hits exactly one timespan apart are in no window together."""
    assert _found("event_count", [(0, 0), (10, 0)], condition=("gte", 2)) == []
    assert _found("event_count", [(0, 0), (9, 0)], condition=("gte", 2)) == [(0, 9, 2)]


def test_windows_slide_and_are_no_buckets() -> None:
    assert _found("event_count", [(9, 0), (11, 0), (18, 0)], condition=("gte", 3)) == [(9, 18, 3)]


def test_windows_that_touch_only_are_two_findings() -> None:
    """(0, 10] and (10, 20] share no point of time; (0, 10] and (9, 19] do."""
    assert _found("event_count", [(10, 0), (20, 0)]) == [(10, 10, 1), (20, 20, 1)]
    assert _found("event_count", [(10, 0), (19, 0)]) == [(10, 19, 2)]


def test_a_run_takes_in_the_hits_between_its_windows() -> None:
    """At 9 three hits fulfil the condition, at 12 again; the one at 10 is in the windows, though its own has four."""
    at = [(0, 0), (4, 0), (9, 0), (10, 0)]
    assert _found("event_count", at, condition=("eq", 3)) == [(0, 10, 4)]


def test_hits_at_one_instant_are_in_order_whichever_rule_they_belong_to() -> None:
    assert _found("temporal_ordered", [(5, 1), (5, 0)], rules=2, condition=("gte", 2)) == [(5, 5, 2)]


def test_order_holds_inside_one_window() -> None:
    """A newer hit of the first rule replaces an older one; the second must not come before it."""
    asked: dict[str, Any] = {"rules": 2, "condition": ("gte", 2)}
    assert _found("temporal_ordered", [(0, 1), (5, 0)], **asked) == []
    assert _found("temporal_ordered", [(0, 0), (10, 1)], **asked) == []
    assert _found("temporal_ordered", [(0, 0), (4, 0), (10, 1)], **asked) == [(4, 10, 2)]
    assert _found("temporal_ordered", [(0, 0), (1, 1), (2, 0)], **asked) == [(0, 2, 3)]


def test_a_value_that_comes_again_counts_on() -> None:
    at = [(0, 7), (5, 7), (12, 8)]
    assert _found("value_count", at, condition=("gte", 2)) == [(5, 12, 2)]


def test_nulls_are_no_value_but_members() -> None:
    at: list[tuple[int, Any]] = [(0, 1), (1, None), (2, 2)]
    assert _found("value_count", at, condition=("gte", 3)) == []
    assert _found("value_count", at, condition=("gte", 2)) == [(0, 2, 3)]


def test_nothing_is_judged_where_no_hit_ends_a_window() -> None:
    """Three hits, then silence: fewer than two hits are found at the first of them only."""
    assert _found("event_count", [(0, 0), (1, 0), (2, 0)], condition=("lt", 2)) == [(0, 0, 1)]


@pytest.mark.parametrize("kind", _TYPES)
def test_no_hits_are_no_findings(kind: str) -> None:
    assert _found(kind, []) == []
    assert len(correlate(_correlation(kind), _batch([Hit(None, 5, 0)])).group) == 0


# -- whole tables: null and aliased keys, events that several rules match, chains

_FIELDS = ("source.ip", "destination.ip", "sandbox.id")


def _table(rows: list[dict[str, Any]], order: list[int]) -> pa.RecordBatch:
    columns = {name: pa.array([rows[row][name] for row in order], pa.string()) for name in _FIELDS}
    columns["sandbox.id"] = columns["sandbox.id"].dictionary_encode()
    columns["event.start"] = pa.array([rows[row]["event.start"] for row in order]).view(TIMESTAMP)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _drawn_correlations(dice: Random) -> list[Correlation]:
    """Draw correlations over rules a, b, c and over one another; all know the names ``host`` and ``sandbox.id``."""
    drawn: list[Correlation] = []
    for number in range(dice.randrange(1, 4)):
        rules = dice.sample(["a", "b", "c", *(one.id for one in drawn)], dice.randrange(1, 4))
        group_by = dice.choice([("host",), ("host",), ("host", "sandbox.id")])
        if any(len(one.group_by) == 1 for one in drawn if one.id in rules):
            group_by = ("host",)
        group_by = () if not {"a", "b", "c"} & set(rules) and dice.random() < 0.5 else group_by
        if any(not one.group_by for one in drawn if one.id in rules):
            group_by = ()
        kind = dice.choice(_TYPES)
        condition = (dice.choice(["gte", "gte", "lte", "eq"]), dice.randrange(1, 4))
        condition = ("gte", len(rules)) if kind == "temporal_ordered" else condition
        keys = tuple(tuple(_column(dice, rule, name) for name in group_by) for rule in rules)
        values = tuple("destination.ip" if len(rule) == 1 else "host" for rule in rules)
        drawn.append(
            Correlation(
                f"c{number}", "", "", "high", kind, tuple(rules), group_by, keys, dice.choice([2, 5, 11]), condition,
                values if kind == "value_count" else (),
            )
        )  # fmt: skip
    return drawn


def _column(dice: Random, rule: str, name: str) -> str:
    return dice.choice(["source.ip", "destination.ip"]) if name == "host" and len(rule) == 1 else name


def _said(found: Correlated, one: Correlation, order: list[int]) -> list[tuple[Any, ...]]:
    keys = zip(*(found.keys[name].to_pylist() for name in one.group_by), strict=True)
    groups = list(keys) if one.group_by else [()] * len(found.runs.group)
    moments = np.split(found.runs.moments, found.runs.moment_offsets[1:-1])
    rows = np.split(found.rows, found.offsets[1:-1])
    return sorted(
        (group, found.runs.first[place].item(), found.runs.last[place].item(), found.runs.fired[place].item(),
         found.runs.peak[place].item(), tuple(moments[place].tolist()), tuple(order[row] for row in rows[place]))
        for place, group in enumerate(groups)
    )  # fmt: skip


def _expected(found: list[Run], times: list[int]) -> list[tuple[Any, ...]]:
    out = []
    for run in found:
        rows = sorted({row for hit in run.members for row in hit.rows}, key=lambda row: (times[row], row))
        out.append((run.group, run.first, run.last, run.fired, run.peak, run.moments, tuple(rows)))
    return sorted(out)


@settings(max_examples=max(settings().max_examples, 2_000 // _CASES))
@given(st.integers(0, 2**48))
def test_tables_and_chains_are_evaluated_as_the_oracle_says_in_any_order(seed: int) -> None:
    dice = Random(seed)
    for _ in range(_CASES):
        rows: list[dict[str, Any]] = [
            {name: dice.choice([None, "x", "y", "x", "y"]) for name in _FIELDS}
            | {"event.start": _BASE + dice.randrange(20)}
            for _ in range(dice.randrange(1, 16))
        ]
        correlations = _drawn_correlations(dice)
        matched = {rule: [row for row in range(len(rows)) if dice.random() < 0.5] for rule in "abc"}
        order = dice.sample(range(len(rows)), len(rows))
        place = {row: at for at, row in enumerate(order)}
        hits = {rule: np.array([place[row] for row in some], dtype=np.int64) for rule, some in matched.items()}
        found = correlate_all(correlations, _table(rows, order), hits, np.array(order))
        expected = evaluate(correlations, rows, matched)
        times = [row["event.start"] for row in rows]
        for one in correlations:
            assert _said(found[one.id], one, order) == _expected(expected[one.id], times)
