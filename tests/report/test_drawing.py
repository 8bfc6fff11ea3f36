"""The drawing tells what a plain loop tells, at the width of a place, and never has more marks than places."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.cases import BEGIN, timeline

from agenttrail.incident_files import timeline_schema
from agenttrail.report.drawing import SLOTS, Bar, draw

_MINUTE = 60_000_000
_BEGIN = int(BEGIN.timestamp()) * 1_000_000


def _batch(*rows: dict[str, object]) -> pa.RecordBatch:
    timed = [{"timeline.id": f"{number:05}", "incident.id": "i", **row} for number, row in enumerate(rows)]
    for row in timed:
        for name in ("@timestamp", "event.end"):
            if isinstance(row.get(name), str):
                row[name] = datetime.fromisoformat(str(row[name]))
    return pa.RecordBatch.from_pylist(timed, timeline_schema())


def _boxes(path: str) -> list[tuple[int, int]]:
    """Return from where to where the boxes of a path go."""
    return [(int(a), int(b)) for a, b in re.findall(r"M(\d+) \d+H(\d+)", path)]


_SPANS = st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 400)), min_size=1, max_size=60)


@given(_SPANS)
def test_marks_cover_what_happened_and_nothing_else(spans: list[tuple[int, int]]) -> None:
    calls = [
        {
            "timeline.kind": "tool_call", "@timestamp": _at(start), "event.end": _at(start + lasts),
        }
        for start, lasts in sorted(spans)
    ]  # fmt: skip
    drawing = draw(_batch(*calls), [], (_BEGIN, _BEGIN + 10_400 * 1_000_000), [])
    (lane,) = [lane for lane in drawing.lanes if lane.label == "Tool calls"]
    drawn = np.zeros(SLOTS, bool)
    for first, last in _boxes(lane.shapes[0].path):
        drawn[first:last] = True
    expected = np.zeros(SLOTS, bool)
    for start, lasts in spans:
        first = min(int(start * SLOTS / 10_400), SLOTS - 1)
        last = -(-(start + lasts) * SLOTS // 10_400)
        expected[first : max(last, first + 1)] = True
    assert (drawn == expected).all()
    assert len(_boxes(lane.shapes[0].path)) <= min(len(spans), SLOTS)


def _at(second: int) -> datetime:
    return datetime.fromtimestamp(BEGIN.timestamp() + second, UTC)


def test_what_is_merged_is_told() -> None:
    calls = [{"timeline.kind": "tool_call", "@timestamp": _at(number)} for number in range(5_000)]
    drawing = draw(_batch(*calls), [], (_BEGIN, _BEGIN), [])
    assert drawing.merged == ("5,000 tool calls are drawn as 1",)


def test_every_kind_has_its_lane_and_says_its_values() -> None:
    entries = sorted(timeline(0), key=lambda entry: str(entry["@timestamp"]))
    bar = Bar(_BEGIN + 10 * _MINUTE, _BEGIN + 30 * _MINUTE, "SSH", "high", "finding-1", "198.51.100.7")
    drawing = draw(_batch(*entries), [bar], (bar.start, bar.stop), ["198.51.100.7"])
    lanes = {lane.label: lane for lane in drawing.lanes}
    assert list(lanes) == [
        "SSH", "Tool calls", "GPU use and steps", "Verdicts", "To 198.51.100.7 port 22", "Lease", "Not seen",
    ]  # fmt: skip
    assert "18 minutes busy while its job made no step" in lanes["GPU use and steps"].note
    assert "training step, 10 to 12" in lanes["GPU use and steps"].note
    assert lanes["Verdicts"].note == "above: allowed in 18 minutes; below: blocked in 3 minutes"
    assert lanes["To 198.51.100.7 port 22"].note.startswith("42.0 kB up, 840 B down")
    assert lanes["Not seen"].note == "no progress"
    assert (drawing.start, drawing.stop) == (_BEGIN, _BEGIN + 59 * _MINUTE)
    assert drawing.band == (10 * SLOTS // 59, -(-30 * SLOTS // 59))
    assert drawing.minutes == (10 * SLOTS // 59, -(-31 * SLOTS // 59))
    rolled_up = {"GPU use and steps", "Verdicts", "To 198.51.100.7 port 22", "Not seen"}
    assert {label for label, lane in lanes.items() if lane.by_minute} == rolled_up


_PLACE = 60 * 1_000_000 * SLOTS // (10 * _MINUTE)
"""Places of a minute, of ten in all."""


def _egress(minute: int, outcome: str | None, peer: str | None = "198.51.100.7") -> dict[str, object]:
    own = {"peer.ip": peer, "event.outcome": outcome} if peer else {"peer.list": "allowed"}
    return {"timeline.kind": "egress", "@timestamp": _at(60 * minute), "source.bytes": 9, **own}


def test_verdicts_are_whole_minutes_and_say_what_another_log_allowed() -> None:
    entries = [
        _egress(0, "failure"), _egress(1, "failure"), _egress(1, "success", "198.51.100.8"), _egress(3, "success"),
        _egress(5, "failure", "198.51.100.8"), _egress(7, None, None),
    ]  # fmt: skip
    disputed = [("198.51.100.7", _BEGIN + 90_000_000, _BEGIN + 9 * _MINUTE)]
    drawing = draw(_batch(*entries), [], (_BEGIN + 90_000_000, _BEGIN + 10 * _MINUTE), [], disputed)
    (lane,) = [lane for lane in drawing.lanes if lane.label == "Verdicts"]
    told = {shape.look: [(a // _PLACE, b // _PLACE) for a, b in _boxes(shape.path)] for shape in lane.shapes}
    assert told == {"allowed": [(1, 2), (3, 4)], "allowed elsewhere": [(1, 2)], "blocked": [(0, 2), (5, 6)]}
    assert lane.note == (
        "above: allowed in 2 minutes, and in 1 minute by another log than the one that says blocked; "
        "below: blocked in 3 minutes; no verdicts shown for listed peers"
    )
    assert (drawing.band[0], drawing.minutes[0]) == (_PLACE * 3 // 2, _PLACE)


def test_a_peer_without_a_port_is_named_without_one() -> None:
    drawing = draw(_batch(_egress(0, "success")), [], (_BEGIN, _BEGIN + _MINUTE), [])
    assert [lane.label for lane in drawing.lanes] == ["Verdicts", "To 198.51.100.7"]


def test_the_line_of_steps_is_level_for_each_minute() -> None:
    steps = [
        {"timeline.kind": "step", "@timestamp": _at(60 * minute), "training.step": step}
        for minute, step in ((0, 4), (1, 5), (4, 6))
    ]
    drawing = draw(_batch(*steps), [], (_BEGIN, _BEGIN + 10 * _MINUTE), [])
    ((shape,),) = [lane.shapes for lane in drawing.lanes]
    assert shape.path == f"M0 39H{_PLACE}L{_PLACE} 20H{2 * _PLACE}L{4 * _PLACE} 1H{5 * _PLACE}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("last", [2**53 + 1, 2**63 - 1])
def test_steps_beyond_what_a_float_keeps_are_told_apart(last: int) -> None:
    steps = [
        {"timeline.kind": "step", "@timestamp": _at(60 * minute), "training.step": step}
        for minute, step in ((0, last - 1), (1, last))
    ]
    gpus = [{"timeline.kind": "gpu", "@timestamp": _at(60 * minute), "gpu.utilization": 99.0} for minute in (0, 1)]
    drawing = draw(_batch(*steps, *gpus), [], (_BEGIN, _BEGIN + 2 * _MINUTE), [])
    (lane,) = drawing.lanes
    assert "red: 1 minute busy" in lane.note  # the first, which nothing is known before
    assert f"training step, {last - 1:,} to {last:,}" in lane.note


def test_an_empty_timeline_has_an_axis() -> None:
    drawing = draw(_batch(), [], (_BEGIN, _BEGIN), [])
    assert drawing.lanes == ()
    assert drawing.stop > drawing.start


@given(st.integers(1, 100 * 365 * 24 * 3600))
def test_labels_of_the_axis_are_few_and_in_order(seconds: int) -> None:
    stop = _BEGIN + seconds * 1_000_000
    stop = min(stop, 4_102_444_799_000_000)
    ticks = draw(_batch(), [], (_BEGIN, stop), []).ticks
    places = [float(tick.at.rstrip("%")) for tick in ticks]
    assert places == sorted(places)
    assert len(places) <= 7
    assert all(4 <= place <= 96 for place in places)
