"""`make bench` at a small size: the contestants agree, the input is the mix that it should be, the sums are right."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.bench import MIX, ROOT, Bench, Sizes, Slope, answers, check_mix, compare, report
from tests.benchmarks.columns_job import sum_by_window
from tests.benchmarks.measure import Cost, measure

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.xdist_group("bench")
def test_the_contestants_agree_and_the_results_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it runs for real; it fails where an answer, the mix or the number of dead letters is another."""
    monkeypatch.chdir(ROOT)
    sizes = Sizes(60_000, 200_000, naive_small=2_000, naive_large=4_000, json_small=10_000, json_large=20_000)
    sizes = replace(sizes, conversations=40_000, groups=800)
    found = Bench(tmp_path, sizes).all()
    slopes = (found.ours, found.full, found.lazy, found.naive, found.rules, found.whole, found.clean, found.mixed)
    text = report("make bench", sizes, found)
    for slope in slopes:
        assert slope.small.cpu > 0
        assert slope.large.memory > 20_000_000
        assert f"| {slope.name} |" in text
    assert set(found.mix) == set(MIX)
    assert answers(found.ours.large)["rows"] == sizes.large
    for said in ("Linear:", "Start-up:", "| times naive Beam | ≥ 25 |", "| `temporal_ordered` |"):
        assert said in text


def test_another_answer_is_an_error() -> None:
    def slope(name: str, rows: int) -> Slope:
        cost = Cost(1.0, 1, 1.0, f'{{"rows": {rows}}}')
        return Slope(name, cost, cost, (1, 2))

    compare([slope("a", 5), slope("b", 5)])
    with pytest.raises(RuntimeError, match="b: other answers"):
        compare([slope("a", 5), slope("b", 6)])


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unlisted", "unlisted", 60),
        ("prefiltered", "prefiltered", 20),
        ("in findings of medium and above", "events_in_findings", 1),
        ("incidents", "incidents", 201),
    ],
)
def test_another_mix_is_an_error(name: str, key: str, value: int) -> None:
    found, books = {"rows": 100_000, "unlisted": 5_000, "prefiltered": 3_000}, {"events_in_findings": 9, "incidents": 9}
    assert set(check_mix(found, books)) == set(MIX)
    scaled = value * 100 if key in found or key == "events_in_findings" else value
    changed = [{**part, key: scaled} if key in part else part for part in (found, books)]
    with pytest.raises(RuntimeError, match=name):
        check_mix(*changed)


def test_costs_are_slopes() -> None:
    """Start-up of 2 s and 3 µs a row come out as such."""
    costs = [Cost(2 + 3e-6 * rows, 1, 1.0, "") for rows in (1_000_000, 4_000_000)]
    slope = Slope("a", costs[0], costs[1], (1_000_000, 4_000_000))
    assert slope.micros == pytest.approx(3)
    assert slope.start_up == pytest.approx(2)


def test_what_a_command_starts_is_measured_too(tmp_path: Path) -> None:
    burn = "import time\nx = bytearray(60_000_000)\nfor _ in range(4_000_000): pass\ntime.sleep(0.6)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    alone = measure([sys.executable, "-c", "pass"], tmp_path)
    cost = measure([sys.executable, "-c", nested], tmp_path)
    assert cost.cpu > alone.cpu
    assert cost.memory > 60_000_000
    with pytest.raises(RuntimeError, match="ended with 3"):
        measure([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


_ROW = st.tuples(st.integers(-1, 5), st.integers(0, 400), st.integers(0, 1 << 50))


@given(st.lists(_ROW, max_size=60), st.integers(1, 70), st.integers(0, 60))
def test_windowed_sums_are_those_of_a_loop_and_add_up(rows: list[tuple[int, int, int]], width: int, cut: int) -> None:
    """In one go, and as sums of partial sums."""
    wanted: Counter[tuple[int, int]] = Counter()
    counted: Counter[tuple[int, int]] = Counter()
    for key, time, value in rows:
        if key >= 0:
            wanted[key, time // width * width] += value
            counted[key, time // width * width] += 1

    def sums(part: list[tuple[int, int, int]]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        keys, times, values = (np.array([row[column] for row in part], dtype=np.int64) for column in range(3))
        return sum_by_window(keys, times, width, {"value": values})

    whole = sums(rows)
    parts = [sums(rows[:cut]), sums(rows[cut:])]
    merged = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    again = sum_by_window(merged["key"], merged["window"], width, {name: merged[name] for name in ("rows", "value")})
    for found in (whole, again):
        pairs = list(zip(found["key"].tolist(), found["window"].tolist(), strict=True))
        assert dict(zip(pairs, found["value"].tolist(), strict=True)) == dict(wanted)
        assert dict(zip(pairs, found["rows"].tolist(), strict=True)) == dict(counted)
