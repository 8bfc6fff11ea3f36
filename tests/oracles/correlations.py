"""Correlations window by window, in plain Python: what correlate() and correlate_all() must agree with."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.detect.correlations import Correlation

_COMPARE = {
    "gte": operator.ge, "gt": operator.gt, "lte": operator.le, "lt": operator.lt, "eq": operator.eq,
    "neq": operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class Hit:
    """One hit of a rule; ``group`` and ``value`` are None where there is none; ``rows`` are what it stands for."""

    group: Any
    time: int
    rule: int
    value: Any = None
    rank: int = 0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Run:
    """One finding."""

    group: Any
    first: int
    last: int
    fired: int
    peak: int
    peak_time: int
    members: tuple[Hit, ...]
    moments: tuple[int, ...]


def runs(kind: str, rules: int, timespan: int, condition: tuple[str, int], hits: Sequence[Hit]) -> list[Run]:
    """Return the runs that correlate() must find, in no particular order."""
    found = []
    for group in {hit.group for hit in hits if hit.group is not None}:
        own = [hit for hit in hits if hit.group == group]
        counts = {end: _count(kind, rules, _window(own, end, timespan)) for end in {hit.time for hit in own}}
        ends = sorted(end for end, count in counts.items() if _COMPARE[condition[0]](count, condition[1]))
        found += [_run(group, own, part, counts, timespan) for part in _overlapping(ends, timespan)]
    return found


def _window(hits: list[Hit], end: int, timespan: int) -> list[Hit]:
    return [hit for hit in hits if end - timespan < hit.time <= end]


def _count(kind: str, rules: int, window: list[Hit]) -> int:
    if kind == "event_count":
        return len(window)
    if kind == "value_count":
        return len({hit.value for hit in window} - {None})
    if kind == "temporal":
        return len({hit.rule for hit in window})
    times = [[hit.time for hit in window if hit.rule == rule] for rule in range(rules)]
    chains = product(*times)
    return rules if any(all(a <= b for a, b in pairwise(chain)) for chain in chains) else 0


def _overlapping(ends: list[int], timespan: int) -> list[list[int]]:
    """Put windows that share a point of time, directly or through others, together."""
    parts: list[list[int]] = []
    for end in ends:
        touching = [part for part in parts if any(max(a, end) - timespan < min(a, end) for a in part)]
        parts = [part for part in parts if part not in touching] + [
            sorted([end, *(one for part in touching for one in part)])
        ]
    return parts


def _run(group: object, own: list[Hit], ends: list[int], counts: Mapping[int, int], timespan: int) -> Run:
    members = [hit for hit in own if any(end - timespan < hit.time <= end for end in ends)]
    members.sort(key=lambda hit: (hit.time, hit.rank, hit.rule))
    peak = max(counts[end] for end in ends)
    return Run(
        group=group,
        first=members[0].time,
        last=members[-1].time,
        fired=ends[0],
        peak=peak,
        peak_time=min(end for end in ends if counts[end] == peak),
        members=tuple(members),
        moments=tuple(ends),
    )


def evaluate(
    correlations: Sequence[Correlation], rows: Sequence[Mapping[str, Any]], matched: Mapping[str, Sequence[int]]
) -> dict[str, list[Run]]:
    """Return by id the runs that correlate_all() must find; the rank of a row is its number."""
    found: dict[str, list[Run]] = {}
    for one in correlations:
        hits: list[Hit] = []
        for rule, id_ in enumerate(one.rules):
            if id_ in found:
                inner = next(other for other in correlations if other.id == id_)
                hits += _chained(one, rule, inner, found[id_])
                continue
            for row in matched.get(id_, ()):
                hit = _hit(one, rule, rows[row], rows[row]["event.start"], row, (row,))
                twice = any(other.group == hit.group and other.rows == (row,) and not other.rank < 0 for other in hits)
                hits += [] if one.type == "event_count" and twice else [hit]
        found[one.id] = runs(one.type, len(one.rules), one.timespan, one.condition, hits)
    return found


def _hit(one: Correlation, rule: int, fields: Mapping[str, Any], time: int, rank: int, rows: tuple[int, ...]) -> Hit:
    group = tuple(fields.get(name) for name in one.keys[rule])
    value = fields.get(one.values[rule]) if one.values else None
    return Hit(None if None in group else group, time, rule, value, rank, rows)


def _chained(one: Correlation, rule: int, inner: Correlation, found: list[Run]) -> list[Hit]:
    out = []
    for run in found:
        fields = dict(zip(inner.group_by, run.group, strict=True))
        rows = tuple(sorted({row for hit in run.members for row in hit.rows}))
        times = run.moments if one.type in ("temporal", "temporal_ordered") else (run.fired,)
        out += [_hit(one, rule, fields, time, -1, rows) for time in times]
    return out
