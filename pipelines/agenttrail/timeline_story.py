"""The timeline of an entity as a story for people: runs of like minutes as one line, in the order of time.

Pure functions on timeline entries, in columns or as plain documents.  Whatever they show of logs is shortened and shown
as it is: nothing in it moves a cursor.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.ordering import order_by
from agenttrail.columns.text import printable
from agenttrail.errors import shortened
from agenttrail.metadata import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Document = dict[str, Any]

MOST_MOMENTS = 48
"""Lines of a story that are shown unless all are asked for."""
_MINUTE, _SECOND = 60_000_000, 1_000_000
_DAY = 86_400 * _SECOND
_PAUSE = 5 * _MINUTE
"""Minutes of one kind that are no farther apart are one run: not every exporter is asked every minute."""
_QUIET = 15 * _MINUTE
"""The same for egress to listed peers, which is not what the story is about."""
_STEPLESS = 8 * _MINUTE
"""A job without a step for longer stands still: what the analytic ``gpu_progress`` asks for, too."""
UNREPORTED = ("no training progress reported at any rung", "training progress silent")
"""Reasons of gaps in which it is not known whether a job made steps."""
_SHORTEST = 3 * _MINUTE
"""A level of use that lasts less belongs to the run before it."""
_IDLE, _HOT = 10.0, 70.0  # per cent
_NAME, _TITLE, _ARGUMENTS, _PORTS = 60, 120, 160, 3  # characters, and ports
_OPENED, _BESIDE, REST = range(3)
_INDENT, _TIME = 2, 13  # characters
_ORDER = ("lease_start", "tool_call", "finding", "gap", "gpu", "egress", "lease_end")
_OPENING = ("medium", "high", "critical")


@dataclass(frozen=True)
class Moment:
    """One line of a story.

    Attributes:
        start: microseconds since 1970.
        end: when it was over, the same for what does not last.
        kind: what it tells of, as in ``timeline.kind``; what GPUs and steps tell together is "gpu".
        text: what happened, without what could move a cursor.
        weight: what of a long story is told first: 0 what opened the incident, 1 the calls before that and what went on
            for minutes, 2 the rest.
        exact: whether its times are to the second; else they are whole minutes.
    """

    start: int
    end: int
    kind: str
    text: str
    weight: int = REST
    exact: bool = True


def story(entries: Iterable[Document]) -> list[Moment]:
    """Return what timeline entries of one incident tell, by time.

    Args:
        entries: plain documents; their times are text, or microseconds since 1970.

    Raises:
        ValueError: an entry has no time.
    """
    egress: list[Document] = []
    others: list[Document] = []
    for entry in entries:
        (egress if entry["timeline.kind"] == "egress" else others).append(entry)
    return _told(_egress(_columns(egress)), others)


def story_of(timeline: pa.RecordBatch) -> list[Moment]:
    """Return the same of entries in the columns of the record "timeline", addresses as text.

    Most of a timeline is egress, which stays in columns.
    """
    kinds = timeline.column("timeline.kind")
    of_egress = pc.equal(kinds, "egress")
    egress = timeline.select([name for name, _ in _EGRESS]).filter(of_egress)
    others = timeline.select([name for name in timeline.schema.names if timeline.column(name).null_count < len(kinds)])
    return _told(_egress(egress), documents_of(others.filter(pc.invert(of_egress))))


def documents_of(entries: pa.RecordBatch) -> list[Document]:
    """Return entries in columns as documents, with times in microseconds since 1970; what is null is left out."""
    columns = {
        name: column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for name, column in zip(entries.schema.names, entries.columns, strict=True)
        if column.null_count < entries.num_rows
    }
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return [{name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in rows]


def _told(moments: list[Moment], others: Iterable[Document]) -> list[Moment]:
    """Return what egress and all other entries tell, by time."""
    by_kind: dict[str, list[Document]] = defaultdict(list)
    for entry in others:
        by_kind[entry["timeline.kind"]].append(entry)
    silences = [
        (_start(entry), _time(entry, "event.end"))
        for entry in by_kind["gap"]
        if entry.get("event.reason") in UNREPORTED and "event.end" in entry
    ]
    moments += _progress(by_kind.pop("gpu", []), by_kind.pop("step", []), silences)
    opened = [entry for entry in by_kind["finding"] if entry.get("finding.severity") in _OPENING]
    called = {entry.get("gen_ai.tool.call.id") for entry in opened} - {None}
    for kind, some in by_kind.items():
        moments += [_single(kind, entry, called) for entry in some]
    return sorted(moments, key=lambda one: (_since(one), _rank(one.kind), one.end, one.text))


def _since(moment: Moment) -> int:
    """Return by when all of it had begun: a call comes before the bytes of its minute, and these before the end."""
    if moment.kind == "lease_end":
        return moment.start // _MINUTE * _MINUTE + _MINUTE - 1
    return moment.start if moment.exact else moment.start + _MINUTE - 1


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _time(entry: Document, name: str) -> int:
    value = entry[name]
    return value if isinstance(value, int) else parse_time(value, name)


def _start(entry: Document) -> int:
    return _time(entry, "@timestamp")


def _shown(value: object, most: int = _NAME) -> str:
    return printable(shortened(str(value), most))


# -- what happened at one time


def _single(kind: str, entry: Document, called: set[Any]) -> Moment:
    start = _start(entry)
    end = max(start, _time(entry, "event.end")) if "event.end" in entry else start
    tell = _TOLD.get(kind)
    text = tell(entry) if tell else _shown(kind)
    weight = _OPENED if kind == "finding" and entry.get("finding.severity") in _OPENING else REST
    if kind == "tool_call" and entry.get("gen_ai.tool.call.id") in called:
        weight = _BESIDE
    return Moment(start, end, kind, text, weight)


def _tool_call(entry: Document) -> str:
    return " ".join(["tool call", *_call_names(entry), *_said(entry)])


def _call_names(entry: Document) -> list[str]:
    return [_shown(entry[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if entry.get(name)]


def _said(entry: Document) -> list[str]:
    arguments = entry.get("gen_ai.tool.call.arguments")
    return [_shown(arguments, _ARGUMENTS)] if arguments else []


def _finding(entry: Document) -> str:
    title = _shown(entry.get("finding.title") or entry.get("rule.name") or "finding", _TITLE)
    peer = f" towards {_shown(entry['peer.ip'])}" if entry.get("peer.ip") else ""
    gap = entry.get("gen_ai.tool.call.gap")
    call = " ".join(["tool call", *_call_names(entry)])
    before = "" if gap is None else f", {gap:,.1f} s after {call}" if gap else f", at {call}"
    return f"{_shown(entry.get('finding.severity', '')).upper()} {title}{peer}{before}".strip()


_TOLD: dict[str, Callable[[Document], str]] = {
    "lease_start": lambda _: "lease starts",
    "lease_end": lambda _: "lease ends",
    "tool_call": _tool_call,
    "finding": _finding,
    "gap": lambda entry: f"not seen: {_shown(entry.get('event.reason', 'something'))}",
}


# -- runs of minutes


def _runs(minutes: Iterable[int], pause: int) -> list[list[int]]:
    """Return ascending minutes as runs whose members are at most ``pause`` apart."""
    runs: list[list[int]] = []
    for minute in sorted(minutes):
        if runs and minute - runs[-1][-1] <= pause:
            runs[-1].append(minute)
        else:
            runs.append([minute])
    return runs


def _progress(gpu: Sequence[Document], steps: Sequence[Document], silences: Sequence[tuple[int, int]]) -> list[Moment]:
    """Return what GPUs did and whether their job made steps, by runs of minutes that are alike in both."""
    use = {_start(entry): float(entry.get("gpu.utilization", 0.0)) for entry in gpu}
    step = {_start(entry): int(entry.get("training.step", 0)) for entry in steps}
    onward = stepping(step)
    alike = {minute: (_level(use.get(minute)), minute in onward) for minute in use.keys() | step.keys()}
    seen = reported(alike, step, silences)
    moments = []
    for run in _runs(alike, _PAUSE):
        for part in _absorbed(_cut(run, alike), alike):
            told = [_gpus([use[minute] for minute in part if minute in use]), _steps(part, step, onward, seen)]
            text = ", ".join(filter(None, told))
            moments.append(Moment(part[0], part[-1] + _MINUTE, "gpu", text, _BESIDE, exact=False))
    return moments


def _level(use: float | None) -> int:
    return -1 if use is None else (use >= _IDLE) + (use >= _HOT)


def stepping(step: dict[int, int]) -> set[int]:
    """Return the minutes in which a job gets on: whose step is larger than the one before, and those between two such.

    Steps that are made once more after a restart from a checkpoint are steps, too.
    """
    rises, last = [], None
    for minute in sorted(step):
        if last is not None and step[minute] > last:
            rises.append(minute)
        last = step[minute]
    found: set[int] = set()
    for run in _runs(rises, _STEPLESS):
        found.update(range(run[0], run[-1] + 1, _MINUTE))
    return found


def reported(minutes: Iterable[int], step: dict[int, int], silences: Iterable[tuple[int, int]]) -> set[int]:
    """Return the minutes of which it is known whether a job made a step.

    Those with a report, and those between two reports that are close enough, or of which the later has no larger step;
    but none in which progress was silent.

    Args:
        minutes: their starts, in microseconds since 1970.
        step: the step that a job had reported, by minute.
        silences: starts and ends of the times in which progress was not reported, in microseconds since 1970.
    """
    reports, silent = sorted(step), sorted(silences)
    begins = [start for start, _ in silent]
    over = list(accumulate((end for _, end in silent), max))
    found = set()
    for minute in minutes:
        place = bisect_right(reports, minute)
        last, following = reports[max(place - 1, 0) : place], reports[place : place + 1]
        between = last and following and (following[0] - last[0] <= _STEPLESS or step[following[0]] <= step[last[0]])
        begun = bisect_left(begins, minute + _MINUTE)
        if (minute in step or between) and not (begun and over[begun - 1] > minute):
            found.add(minute)
    return found


def _cut(run: Sequence[int], alike: dict[int, tuple[int, bool]]) -> list[list[int]]:
    """Cut a run where neighbours are not alike."""
    parts: list[list[int]] = []
    for minute in run:
        if parts and alike[parts[-1][-1]] == alike[minute]:
            parts[-1].append(minute)
        else:
            parts.append([minute])
    return parts


def _absorbed(parts: Sequence[list[int]], alike: dict[int, tuple[int, bool]]) -> list[list[int]]:
    """Let what is short belong to what came before, where both got on or both did not."""
    out: list[list[int]] = []
    for part in parts:
        short = part[-1] - part[0] + _MINUTE < _SHORTEST
        if out and alike[out[-1][0]][1] == alike[part[0]][1] and (short or alike[out[-1][0]] == alike[part[0]]):
            out[-1] += part
        else:
            out.append(list(part))
    return out


def _gpus(use: Sequence[float]) -> str:
    if not use:
        return ""
    low, high = round(min(use)), round(max(use))
    return f"GPUs at {high} %" if low == high else f"GPUs at {low}-{high} %"


def _steps(part: Sequence[int], step: dict[int, int], onward: set[int], seen: set[int]) -> str:
    if not step:
        return ""
    told = [step[minute] for minute in part if minute in step]
    if part[0] not in onward:
        unseen = sum(1 for minute in part if minute not in seen)
        if unseen == len(part):
            return "progress not reported"
        return f"no step, progress not reported in {unseen:,} of {len(part):,} minutes" if unseen else "no step"
    if not told:
        return "steps before and after"
    return f"step {told[0]:,}" if min(told) == max(told) else f"steps {min(told):,} to {max(told):,}"


_EGRESS = (
    ("@timestamp", pa.int64()), ("peer.ip", pa.string()), ("peer.list", pa.string()), ("peer.port", pa.int64()),
    ("source.bytes", pa.float64()), ("destination.bytes", pa.float64()), ("event.outcome", pa.string()),
)  # fmt: skip
"""What of a minute of egress is told."""


def _columns(entries: Sequence[Document]) -> pa.RecordBatch:
    values: dict[str, list[object]] = {name: [_utf8(entry.get(name)) for entry in entries] for name, _ in _EGRESS}
    values["@timestamp"] = [_start(entry) for entry in entries]
    for name in ("source.bytes", "destination.bytes"):
        values[name] = [float(entry.get(name, 0)) for entry in entries]
    return pa.RecordBatch.from_arrays(
        [pa.array(values[name], type_) for name, type_ in _EGRESS], [name for name, _ in _EGRESS]
    )


def _utf8(value: object) -> object:
    """Return what can stand in a column: half of a surrogate pair comes out as an escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _egress(entries: pa.RecordBatch) -> list[Moment]:
    """Return bytes per peer, and per list where they are told so, by runs of minutes."""
    if not entries.num_rows:
        return []
    peer, peers = _words(entries, "peer.ip")
    listed, lists = _words(entries, "peer.list")
    minute = _numbers(entries, "@timestamp", pa.int64())
    order = order_by(peer, listed, minute)
    peer, listed, minute = peer[order], listed[order], minute[order]
    named = np.array([bool(word) for word in peers])[peer]
    same = (np.diff(peer) == 0) & (np.diff(listed) == 0)
    begins = np.flatnonzero(np.concatenate(([True], ~same | (np.diff(minute) > np.where(named[1:], _PAUSE, _QUIET)))))
    ends = np.append(begins[1:], len(minute))
    sent, received = (
        np.add.reduceat(_numbers(entries, f"{side}.bytes", pa.float64())[order], begins).tolist()
        for side in ("source", "destination")
    )
    verdicts = _verdicts(entries.column("event.outcome").take(pa.array(order)), minute, begins)
    ports = _ports(entries.column("peer.port").take(pa.array(order)), begins)
    first, last = minute[begins].tolist(), minute[ends - 1].tolist()
    of_run = zip(peer[begins].tolist(), listed[begins].tolist(), strict=True)
    moments = []
    for run, (whose, which) in enumerate(of_run):
        word, list_ = peers[whose], lists[which]
        whom = f"{_shown(word)}{_named(ports[run])}" if word else peers_on(_shown(list_)) if list_ else "peers"
        text = f"to {whom}: {size(sent[run])} up, {size(received[run])} down{verdicts[run]}"
        weight = _BESIDE if word else REST
        moments.append(Moment(first[run], last[run] + _MINUTE, "egress", text, weight, exact=False))
    return moments


def peers_on(list_: str) -> str:
    """Return what peers on a list are called; "allowed" alone would read as a verdict."""
    return "allow-listed peers" if list_ == "allowed" else f"{list_} peers"


def _words(entries: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column of text as codes and their words; what is null is the empty word."""
    coded = pc.dictionary_encode(pc.fill_null(entries.column(name).cast(pa.string()), ""))
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def _numbers(entries: pa.RecordBatch, name: str, type_: pa.DataType) -> NDArray[Any]:
    return pc.fill_null(entries.column(name).cast(type_, safe=False), 0).to_numpy()  # type: ignore[no-any-return]


def _ports(column: pa.Array, begins: NDArray[np.int64]) -> list[list[int]]:
    """Return the ports of each run, ascending."""
    known = np.asarray(column.is_valid())
    run = np.searchsorted(begins, np.flatnonzero(known), side="right") - 1
    of_run: list[list[int]] = [[] for _ in begins]
    port = pc.drop_null(column).cast(pa.int64()).to_numpy()
    order = order_by(run, port)
    run, port = run[order], port[order]
    new = np.ones(len(run), dtype=bool)
    new[1:] = (run[1:] != run[:-1]) | (port[1:] != port[:-1])
    for place, one in zip(run[new].tolist(), port[new].tolist(), strict=True):
        of_run[place].append(one)
    return of_run


def _named(ports: Sequence[int]) -> str:
    more = f" and {len(ports) - _PORTS:,} more" if len(ports) > _PORTS else ""
    return f" port {', '.join(map(str, ports[:_PORTS]))}{more}" if ports else ""


def _verdicts(outcomes: pa.Array, minute: NDArray[np.int64], begins: NDArray[np.int64]) -> list[str]:
    """Return what sensors decided in each run; a minute counts as blocked where all in it was."""
    known = np.asarray(pc.fill_null(pc.not_equal(pc.utf8_length(outcomes), 0), fill_value=False))
    passed = np.asarray(pc.fill_null(pc.equal(outcomes, "success"), fill_value=False))
    new = np.concatenate(([True], np.diff(minute) != 0))
    new[begins] = True
    minutes = np.flatnonzero(new)  # of each run
    known, passed = (np.logical_or.reduceat(some, minutes) for some in (known, passed))
    of_run = np.searchsorted(minutes, begins)
    told = np.add.reduceat(known.astype(np.int64), of_run).tolist()
    blocked = np.add.reduceat((known & ~passed).astype(np.int64), of_run).tolist()
    return [_verdict(some, all_) for some, all_ in zip(blocked, told, strict=True)]


def _verdict(blocked: int, known: int) -> str:
    if not known:
        return ""
    if blocked in (0, known):
        return ", blocked" if blocked else ", allowed"
    return f", blocked in {blocked:,} of {known:,} minutes"


def size(count: float) -> str:
    """Return bytes in a unit in which they are below a thousand."""
    amount, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if abs(amount) < 999.5:  # noqa: PLR2004 - more would be rounded to four digits
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"  # noqa: PLR2004
        amount /= 1000
    return f"{amount:,.1f} {units[-1]}"


# -- as lines


def story_lines(moments: Sequence[Moment], *, width: int = 80, most: int | None = MOST_MOMENTS) -> list[str]:
    """Return a story as lines.

    Args:
        moments: as :func:`story` gives them.
        width: characters of a line.
        most: moments to tell; of a longer story the middle is left out, but for what weighs most.  None: all.
    """
    out: list[str] = []
    day = None
    for told in told_moments(moments, most):
        if isinstance(told, int):
            left = "1 entry is left out here; --all shows it" if told == 1 else f"{told:,} entries are left out here"
            out.append(f"{' ' * _INDENT}… {left}" + ("" if told == 1 else "; --all shows them"))
            continue
        if day != told.start // _DAY:
            day = told.start // _DAY
            out.append(f"{' ' * _INDENT}{_at(told.start):%Y-%m-%d}")
        out += _wrapped(told, width)
    return out


def told_moments(moments: Sequence[Moment], most: int | None) -> list[Moment | int]:
    """Return the moments to tell, and how many are left out where some are."""
    if most is None or len(moments) <= most:
        return list(moments)
    ends = most // 3
    middle = range(ends, len(moments) - ends)
    heavy = (number for number in middle if moments[number].weight < REST)
    kept = set(sorted(heavy, key=lambda number: (moments[number].weight, number))[: most - 2 * ends])
    out: list[Moment | int] = []
    for number, moment in enumerate(moments):
        if number not in middle or number in kept:
            out.append(moment)
        elif out and isinstance(out[-1], int):
            out[-1] += 1
        else:
            out.append(1)
    return out


def _wrapped(told: Moment, width: int) -> list[str]:
    hanging = " " * (_INDENT + _TIME)
    first = f"{' ' * _INDENT}{_when(told):<{_TIME}}"
    told = replace(told, text=told.text + _until(told))
    return textwrap.wrap(
        told.text, width, initial_indent=first, subsequent_indent=hanging, break_on_hyphens=False
    ) or [first.rstrip()]  # fmt: skip


def _when(told: Moment) -> str:
    start, end = _at(told.start), _at(told.end)
    if told.exact:
        return f"{start:%H:%M:%S}"
    return f"{start:%H:%M}-{end:%H:%M}" if told.end - told.start > _MINUTE else f"{start:%H:%M}"


def _until(told: Moment) -> str:
    """Return when something was over, where the time before the line does not say."""
    start, end = _at(told.start), _at(told.end)
    if told.end - told.start >= _DAY:
        return f", until {end:%Y-%m-%d %H:%M}"
    lasts = told.exact and told.kind != "tool_call" and told.end - told.start >= _SECOND
    return (
        ""
        if not lasts
        else f", until {end:%H:%M:%S}"
        if start.date() == end.date()
        else f", until {end:%m-%d %H:%M:%S}"
    )


def _at(micros: int) -> datetime:
    return datetime.fromtimestamp(micros // _SECOND, UTC)
