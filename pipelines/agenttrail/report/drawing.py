"""A timeline on one axis: lanes of marks, merged where they would lie closer than can be told apart.

Everything is drawn on ``SLOTS`` places from the first to the last moment; a page stretches these over its width, so one
lane has that many marks at most, however much happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import ranges
from agenttrail.columns.text import printable
from agenttrail.errors import shortened
from agenttrail.report.pages import moment
from agenttrail.timeline_story import UNREPORTED, peers_on, reported, size, stepping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Longs = NDArray[np.int64]

SLOTS = 2_000
"""Places on the axis; no mark is narrower than one."""
MOST_PEERS = 6
"""Peers with a lane of their own."""
MOST_BARS = 8
"""Findings with a lane of their own."""
_SECOND, _MINUTE, _DAY = 1_000_000, 60_000_000, 86_400_000_000
_LEAST = 250
"""What is to be seen by itself is at least this part of the axis wide."""
_HOT = 70.0  # per cent
_TALL, _LOW = 40, 18  # units of height of a lane
_NAME = 120  # characters
_STEPS = [
    seconds * _SECOND
    for seconds in (
        1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 7 * 86_400,
        30 * 86_400, 365 * 86_400, 3_650 * 86_400,
    )
]  # fmt: skip
_FAR = 2
"""How many marks must be drawn as one, on the mean, before that is worth saying."""
_MOST_TICKS, _MOST_DATES = 6, 3


@dataclass(frozen=True)
class Shape:
    """One path of a lane.

    Attributes:
        look: its class in the style sheet.
        path: SVG path data, of numbers only.
        title: what a pointer on it is told; "" for nothing.
    """

    look: str
    path: Markup
    title: str = ""


@dataclass(frozen=True)
class Lane:
    """One row of the drawing.

    Attributes:
        label: what it is.
        note: how to read it, with its values in words.
        height: units.
        shapes: what is drawn, bottom first.
        target: id of what a reader finds out more at; "" for none.
        by_minute: whether it is known by the minute only, so that its marks are whole minutes.
    """

    label: str
    note: str
    height: int
    shapes: tuple[Shape, ...]
    target: str = ""
    by_minute: bool = False


@dataclass(frozen=True)
class Tick:
    """A time on the axis: where, in per cent, and how it is written."""

    at: str
    label: str


@dataclass(frozen=True)
class Drawing:
    """All lanes on one axis.

    Attributes:
        start: first moment, microseconds since 1970.
        stop: last moment.
        lanes: top to bottom.
        ticks: of the whole axis.
        band: first and last slot of the incident.
        minutes: those of the minutes that it touches.
        merged: kinds of marks that had to be merged, in words.
    """

    start: int
    stop: int
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    band: tuple[int, int]
    minutes: tuple[int, int]
    merged: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """A finding to be drawn: when, what it is called, how bad it is, the id of what tells more, and the peer."""

    start: int
    stop: int
    title: str
    severity: str
    target: str
    peer: str = ""


class _Axis:
    """Turns times into places."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, max(stop, start + _SECOND)
        self.merged: list[str] = []

    def slots(self, times: Longs) -> NDArray[np.float64]:
        return np.clip((times - self.start) * (SLOTS / (self.stop - self.start)), 0, SLOTS)

    def spans(self, starts: Longs, stops: Longs) -> list[tuple[int, int]]:
        """Return the places that some spans of time cover, as runs."""
        first = np.minimum(np.floor(self.slots(starts)).astype(np.int64), SLOTS - 1)
        last = np.maximum(np.ceil(self.slots(stops)).astype(np.int64), first + 1)
        change = np.zeros(SLOTS + 1, np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, last, -1)
        return _runs(np.cumsum(change)[:SLOTS] > 0)

    def bars(self, look: str, starts: Longs, stops: Longs, box: tuple[int, int], what: str = "") -> Shape:
        """Return spans of time as boxes from one height to another; tell if there were far more than places."""
        runs = self.spans(starts, stops)
        if what and len(starts) > _FAR * len(runs):
            self.merged.append(f"{len(starts):,} {what} are drawn as {len(runs):,}")
        top, bottom = box
        return Shape(look, _joined(f"M{a} {top}H{b}V{bottom}H{a}z" for a, b in runs))

    def heights(self, starts: Longs, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest value of each place that minutes cover, -1 where there is none."""
        out = np.full(SLOTS, -1.0)
        first = np.minimum(np.floor(self.slots(starts)).astype(np.int64), SLOTS - 1)
        last = np.maximum(np.ceil(self.slots(starts + _MINUTE)).astype(np.int64), first + 1)
        lengths = last - first
        np.maximum.at(out, ranges(first, lengths), np.repeat(values, lengths))
        return out


def _runs(on: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(pieces: Iterable[str]) -> Markup:
    return Markup("".join(pieces))  # noqa: S704 - letters of paths and numbers


def _area(heights: NDArray[np.float64], base: int, reach: float) -> Markup:
    """Return an area of steps over a base line; ``reach`` is how far a height of 1 goes up."""
    edges = np.flatnonzero(np.concatenate(([True], np.diff(heights) != 0, [True])))
    levels = heights[edges[:-1]]
    pieces, drawn = [], False
    for start, stop, level in zip(edges[:-1].tolist(), edges[1:].tolist(), levels.tolist(), strict=True):
        if level < 0:
            pieces.append(f"V{base}z" if drawn else "")
        else:
            pieces.append(f"{'' if drawn else f'M{start} {base}'}V{base - level * reach:.4g}H{stop}")
        drawn = level >= 0
    return _joined([*pieces, f"V{base}z" if drawn else ""])


def draw(
    timeline: pa.RecordBatch,
    bars: Sequence[Bar],
    incident: tuple[int, int],
    peers: Sequence[str],
    disputed: Sequence[tuple[str, int, int]] = (),
) -> Drawing:
    """Return the drawing of a timeline.

    Args:
        timeline: entries by time, as ``incident_files.timelines`` gives them.
        bars: findings, the worst first.
        incident: its first and last moment.
        peers: addresses that come first.
        disputed: peers of which a log says "blocked" and another "accepted", from when to when.
    """
    rows = _by_kind(timeline)
    starts, stops = _times(timeline)
    times = [*incident, *(bar.start for bar in bars), *(bar.stop for bar in bars)]
    axis = _Axis(min([*starts[:1].tolist(), *times]), max([*stops.tolist(), *times]))
    lanes = [
        *_findings(axis, bars), *_calls(axis, rows.get("tool_call"), bars), *_gpus(axis, rows),
        *_verdicts(axis, rows.get("egress"), disputed), *_peers(axis, rows.get("egress"), peers),
        *_lease(axis, rows), *_gaps(axis, rows.get("gap")),
    ]  # fmt: skip
    (band,) = axis.spans(np.array([incident[0]]), np.array([incident[1]]))
    first, last = incident[0] // _MINUTE * _MINUTE, (incident[1] // _MINUTE + 1) * _MINUTE
    (minutes,) = axis.spans(np.array([first]), np.array([last]))
    return Drawing(axis.start, axis.stop, tuple(lanes), _ticks(axis), band, minutes, tuple(axis.merged))


_DRAWN = [
    "@timestamp", "event.end", "event.outcome", "event.reason", "peer.ip", "peer.list", "peer.port", "source.bytes",
    "destination.bytes", "gpu.utilization", "training.step",
]  # fmt: skip
"""What of an entry is drawn."""


def _by_kind(timeline: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
    kinds, timeline = timeline.column("timeline.kind"), timeline.select(_DRAWN)
    return {kind: timeline.filter(pc.equal(kinds, kind)) for kind in pc.unique(kinds).to_pylist()}


def _times(rows: pa.RecordBatch) -> tuple[Longs, Longs]:
    starts = rows.column("@timestamp").cast(pa.int64()).to_numpy(zero_copy_only=False)
    stops = pc.coalesce(rows.column("event.end"), rows.column("@timestamp")).cast(pa.int64())
    return starts, np.maximum(stops.to_numpy(zero_copy_only=False), starts)


def _numbers(rows: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    floats = rows.column(name).cast(pa.float64(), safe=False)  # sums of bytes may be longer than what a float keeps
    return floats.fill_null(0.0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _shown(text: object) -> str:
    return printable(shortened(str(text), _NAME))


# -- lanes


def _findings(axis: _Axis, bars: Sequence[Bar]) -> list[Lane]:
    lanes = []
    own = [bar for bar in bars if bar.severity in ("medium", "high", "critical")][:MOST_BARS]
    for bar in own:
        seen = max(bar.stop, bar.start + (axis.stop - axis.start) // _LEAST)
        shape = axis.bars(f"bar {bar.severity}", np.array([bar.start]), np.array([seen]), (2, _LOW - 2))
        until = f" to {moment(bar.stop):%H:%M:%S}" if bar.stop > bar.start else ""
        whom = f", towards {_shown(bar.peer)}" if bar.peer else ""
        note = f"{bar.severity}, {moment(bar.start):%H:%M:%S}{until}{whom}"
        lanes.append(Lane(_shown(bar.title), note, _LOW, (shape,), bar.target))
    rest = [bar for bar in bars if bar not in own]
    if rest:
        spans = np.array([bar.start for bar in rest]), np.array([bar.stop for bar in rest])
        note = f"{len(rest):,} more findings, most of them context"
        lanes.append(Lane("Other findings", note, _LOW, (axis.bars("bar low", *spans, (6, _LOW - 6)),), "context"))
    return lanes


def _calls(axis: _Axis, calls: pa.RecordBatch | None, bars: Sequence[Bar]) -> list[Lane]:
    if calls is None:
        return []
    starts, stops = _times(calls)
    shapes = [axis.bars("call", starts, stops, (2, _LOW - 2), "tool calls")]
    named = [bar.start for bar in bars if bar.severity != "low"]
    before = [int(at) - 1 for at in np.searchsorted(starts, named, side="right") if at]
    if before:
        rows = np.unique(before)
        seen = np.maximum(stops[rows], starts[rows] + (axis.stop - axis.start) // _LEAST)
        shapes.append(axis.bars("call before", starts[rows], seen, (0, _LOW)))
    note = f"{len(starts):,} calls; taller and darker: the last one before each finding"
    return [Lane("Tool calls", note, _LOW, tuple(shapes))]


def _gpus(axis: _Axis, rows: Mapping[str, pa.RecordBatch]) -> list[Lane]:
    gpu, step = rows.get("gpu"), rows.get("step")
    if gpu is None and step is None:
        return []
    shapes, notes = [], []
    steps: dict[int, int] = {}
    if step is not None:
        steps = dict(zip(_times(step)[0].tolist(), numbers(step.column("training.step")).tolist(), strict=True))
    onward = np.array(sorted(stepping(steps)), np.int64)
    if gpu is not None:
        starts = _times(gpu)[0]
        use = np.clip(_numbers(gpu, "gpu.utilization"), 0.0, 100.0)
        busy = (use >= _HOT) & ~np.isin(starts, onward) if steps else np.zeros(len(use), bool)
        seen = reported(starts[busy].tolist(), steps, _silences(rows.get("gap")))
        idle = busy & np.isin(starts, np.array(sorted(seen), np.int64))
        silent = int((busy & ~idle).sum())
        shapes.append(Shape("gpu", _area(axis.heights(starts[~idle], use[~idle]), _TALL, _TALL / 100)))
        notes.append(f"area: GPU use, 0 to 100 %, {use.min():.0f} to {use.max():.0f} % here")
        if idle.any():
            shapes.append(Shape("stepless", _area(axis.heights(starts[idle], use[idle]), _TALL, _TALL / 100)))
            notes.append(f"red: {_minutes(int(idle.sum()))} busy while its job made no step")
        if silent:
            notes.append(f"{_minutes(silent)} more of busy GPUs, progress not reported")
    if steps:
        shapes.append(Shape("step", _line(axis, steps)))
        low, high = min(steps.values()), max(steps.values())
        notes.append(
            f"line: training step, {low:,} to {high:,}" if low != high else f"line: training step {low:,}, throughout"
        )
    else:
        notes.append("no training step was reported")
    return [Lane("GPU use and steps", "; ".join(notes), _TALL, tuple(shapes), by_minute=True)]


def _minutes(count: int) -> str:
    return f"{count:,} minute{'' if count == 1 else 's'}"


def _silences(gaps: pa.RecordBatch | None) -> list[tuple[int, int]]:
    """Return from when to when it is not known whether a job made steps."""
    if gaps is None:
        return []
    rows = gaps.filter(pc.is_in(gaps.column("event.reason").cast(pa.string()), pa.array(UNREPORTED)))
    starts, stops = _times(rows)
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _line(axis: _Axis, steps: Mapping[int, int]) -> Markup:
    """Return a line that is level for each whole minute of which a step is known."""
    times = np.array(sorted(steps), np.int64)
    values = np.array([steps[int(at)] for at in times], np.float64)
    spread = max(values.max() - values.min(), 1.0)
    heights = _TALL - 1 - (values - values.min()) / spread * (_TALL - 2)
    first, last = (np.floor(axis.slots(some)).astype(np.int64) for some in (times, times + _MINUTE))
    kept = np.append(np.diff(first) > 0, [True])  # the last of each place
    levels = zip(first[kept].tolist(), last[kept].tolist(), heights[kept].tolist(), strict=True)
    return _joined(["M", "L".join(f"{x} {y:.4g}H{until}" for x, until, y in levels)])


def _verdicts(axis: _Axis, egress: pa.RecordBatch | None, disputed: Sequence[tuple[str, int, int]]) -> list[Lane]:
    if egress is None:
        return []
    starts = _times(egress)[0]
    passed, stopped = (
        np.asarray(pc.fill_null(pc.equal(egress.column("event.outcome"), word), fill_value=False))
        for word in ("success", "failure")
    )
    elsewhere = stopped & _disputed(egress.column("peer.ip"), starts, disputed)
    shapes, counted = [], []
    for look, which, box in (
        ("allowed", passed, (1, 8)), ("allowed elsewhere", elsewhere, (1, 8)), ("blocked", stopped, (10, 17)),
    ):  # fmt: skip
        minutes = np.unique(starts[which])
        counted.append(len(minutes))
        if len(minutes):
            shapes.append(axis.bars(look, minutes, minutes + _MINUTE, box))
    if not shapes:
        return []
    also = f", and in {_minutes(counted[1])} by another log than the one that says blocked" if counted[1] else ""
    notes = [f"above: allowed in {_minutes(counted[0])}{also}", f"below: blocked in {_minutes(counted[2])}"]
    if pc.any(pc.is_null(egress.column("peer.ip"))).as_py():  # those are one line a minute and list
        notes.append("no verdicts shown for listed peers")
    return [Lane("Verdicts", "; ".join(notes), _LOW, tuple(shapes), by_minute=True)]


def _disputed(peers: pa.Array, starts: Longs, disputed: Sequence[tuple[str, int, int]]) -> NDArray[np.bool_]:
    """Tell which minutes of which peers a log calls blocked and another one accepted."""
    found = np.zeros(len(starts), dtype=bool)
    for peer, first, last in disputed:
        own = np.asarray(pc.fill_null(pc.equal(peers.cast(pa.string()), peer), fill_value=False))
        found |= own & (starts <= last) & (first < starts + _MINUTE)
    return found


_NO_PORT = -1


def _peers(axis: _Axis, egress: pa.RecordBatch | None, first: Sequence[str]) -> list[Lane]:
    if egress is None:
        return []
    coded = pc.dictionary_encode(
        pc.coalesce(egress.column("peer.ip"), egress.column("peer.list"), pa.scalar("unknown"))
    )
    listed = pc.is_null(egress.column("peer.ip")).cast(pa.int64()).to_numpy()
    codes, which = np.unique(coded.indices.to_numpy() * 2 + listed, return_inverse=True)
    words = coded.dictionary.to_pylist()
    names = [peers_on(words[code // 2]) if code % 2 else words[code // 2] for code in codes.tolist()]
    sent, received = (_numbers(egress, f"{side}.bytes") for side in ("source", "destination"))
    carried = np.bincount(which, weights=sent + received, minlength=len(names))
    order = sorted(
        range(len(names)),
        key=lambda at: (names[at] not in first, names[at].endswith(" peers"), -carried[at], names[at]),
    )
    by_name = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[by_name], np.arange(len(names) + 1))
    rows_of = [by_name[start:stop] for start, stop in pairwise(bounds.tolist())]
    starts, ports = _times(egress)[0], numbers(egress.column("peer.port"), _NO_PORT)
    lanes = []
    for at in order[:MOST_PEERS]:
        rows, name = rows_of[at], names[at]
        told = sorted(set(ports[rows].tolist()) - {_NO_PORT})
        label = f"{'To all' if name.endswith(' peers') else 'To'} {_shown(name)}" + (
            f" port {_few(told)}" if told else ""
        )
        lanes.append(_conversation(axis, label, starts[rows], sent[rows], received[rows]))
    if order[MOST_PEERS:]:
        rows = np.concatenate([rows_of[at] for at in order[MOST_PEERS:]])
        label = f"To {len(order) - MOST_PEERS:,} other peers"
        lanes.append(_conversation(axis, label, starts[rows], sent[rows], received[rows]))
    return lanes


def _few(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports[:3])) + (f" and {len(ports) - 3:,} more" if len(ports) > 3 else "")  # noqa: PLR2004


def _conversation(
    axis: _Axis, label: str, starts: Longs, sent: NDArray[np.float64], received: NDArray[np.float64]
) -> Lane:
    minutes, place = np.unique(starts, return_inverse=True)
    up, down = (np.bincount(place, weights=amounts, minlength=len(minutes)) for amounts in (sent, received))
    half = _TALL // 2
    peak = max(up.max(), down.max(), 1.0)
    shapes = []
    for look, amounts, sign in (("up", up, 1), ("down", down, -1)):
        # what is little is still to be seen
        share = np.where(amounts > 0, np.maximum(amounts / peak, 0.06), 0.02)
        shapes.append(Shape(look, _area(axis.heights(minutes, share), half, sign * (half - 1))))
    note = f"{size(int(sent.sum()))} up, {size(int(received.sum()))} down; at most {size(int(peak))} a minute one way"
    return Lane(label, note, _TALL, tuple(shapes), by_minute=True)


def _lease(axis: _Axis, rows: Mapping[str, pa.RecordBatch]) -> list[Lane]:
    if "lease_start" not in rows:
        return []
    begun = _times(rows["lease_start"])[0]
    ended = _times(rows["lease_end"])[0] if "lease_end" in rows else np.array([], np.int64)
    places = np.searchsorted(ended, begun, side="left")
    stops = np.array([int(ended[at]) if at < len(ended) else axis.stop for at in places])
    note = f"{len(begun):,} lease{'s' * (len(begun) != 1)}: when the address was its own"
    return [Lane("Lease", note, _LOW, (axis.bars("lease", begun, stops, (6, _LOW - 6)),))]


def _gaps(axis: _Axis, gaps: pa.RecordBatch | None) -> list[Lane]:
    if gaps is None:
        return []
    reasons = ", ".join(_shown(reason) for reason in pc.unique(gaps.column("event.reason")).to_pylist()[:3] if reason)
    shape = axis.bars("unseen", *_times(gaps), (3, _LOW - 3), "gaps")
    return [Lane("Not seen", reasons or "gaps", _LOW, (shape,), by_minute=True)]


def _ticks(axis: _Axis) -> tuple[Tick, ...]:
    span = axis.stop - axis.start
    most = _MOST_TICKS if span <= _DAY else _MOST_DATES
    step = next((step for step in _STEPS if span / step <= most), _STEPS[-1])
    first = -(-axis.start // step) * step
    style = "%Y-%m-%d" if step >= _DAY else "%m-%d %H:%M" if span > _DAY else "%H:%M" if step >= _MINUTE else "%H:%M:%S"
    ticks = []
    for at in range(first, axis.stop + 1, step):
        share = (at - axis.start) / span * 100
        if 4 <= share <= 96:  # noqa: PLR2004 - its label would stand over the edge
            ticks.append(Tick(f"{share:.3f}%", f"{moment(at):{style}}"))
    return tuple(ticks)
