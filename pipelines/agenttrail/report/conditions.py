"""What a rule asked for when it fired, and what stood in its fields: as far as the findings keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.detect.correlations import show_correlation
from agenttrail.detect.expressions import And, Match, Not, Op, Or, matches
from agenttrail.errors import shortened
from agenttrail.report.pages import lasting, micros

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.expressions import Expression
    from agenttrail.detect.rules import Rule

_MOST_VALUES = 4
"""Different values of one field that are shown."""
_OF_FINDING = (
    "gen_ai.tool.call.gap",
    "peer.ip",
    "peer.port",
    "network.transport",
    "network.direction",
    "event.outcome",
    "event.count",
)
"""Fields that a finding tells of all its events."""
_SECOND, _HOT = 1_000_000, 70.0
_LONGEST = 160
"""Characters of a pattern that are shown."""
_WORDS = {
    Op.EQUALS: "is", Op.STARTS_WITH: "begins with", Op.ENDS_WITH: "ends with", Op.CONTAINS: "contains",
    Op.REGEX: "matches", Op.NETWORK: "lies in", Op.LESS: "is below", Op.AT_MOST: "is at most", Op.MORE: "is above",
    Op.AT_LEAST: "is at least", Op.LIST: "is on the list", Op.FIELD: "is the same as in",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What one rule asks for.

    Attributes:
        rule: its name.
        asks: what must hold, all of it, one line each.
        fields: the event fields that it looks at.
        patterns: fields and the RE2 patterns that they are to match.
    """

    rule: str
    asks: tuple[str, ...]
    fields: tuple[str, ...]
    patterns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Condition:
    """What a rule or correlation asks for.

    Attributes:
        description: in its author's words.
        together: what a correlation asks of the hits of its rules; "" for a rule.
        parts: the rule's own condition, or those of a correlation's rules.
    """

    description: str
    together: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Value:
    """What stood in a field: the values, shown as they are, and of what they are."""

    field: str
    values: tuple[str, ...]
    of: str


def conditions(rules: Iterable[Rule], correlations: Iterable[Correlation]) -> dict[str, Condition]:
    """Return what each rule asks for, by its id."""
    parts = {rule.id: _part(rule) for rule in rules}
    found = {rule.id: Condition(rule.description, "", (parts[rule.id],)) for rule in rules}
    names = {rule.id: rule.name for rule in rules}
    for one in correlations:  # each after those that it refers to
        names[one.id] = one.name
        own = [part for rule in one.rules for part in (found[rule].parts if rule in found else ())]
        found[one.id] = Condition(one.description, _together(one, names), tuple(own))
    return found


def _together(one: Correlation, names: Mapping[str, str]) -> str:
    asked = show_correlation(one, names)
    return asked.replace(f"within {one.timespan / _SECOND:g} s", f"within {lasting(one.timespan)}")


def _part(rule: Rule) -> Part:
    asks = tuple(in_words(part) for part in _all_of(rule.condition))
    fields = sorted({match.field or "event.original" for match in matches(rule.condition)})
    return Part(rule.name, asks, tuple(fields), tuple(_patterns(rule.condition)))


def _patterns(condition: Expression) -> list[tuple[str, str]]:
    """Return the fields and patterns that a condition wants to match; what it excludes is none of them."""
    if isinstance(condition, Match):
        return [(condition.field or "event.original", str(condition.value))] if condition.op is Op.REGEX else []
    return [] if isinstance(condition, Not) else [pair for part in condition.parts for pair in _patterns(part)]


def _all_of(condition: Expression) -> list[Expression]:
    if isinstance(condition, And):
        return [inner for part in condition.parts for inner in _all_of(part)]
    return [condition]


def in_words(condition: Expression) -> str:
    """Return what a condition asks for, in words."""
    if isinstance(condition, Not):
        return f"not: {in_words(condition.part)}"
    if not isinstance(condition, Match):
        joint = " or " if isinstance(condition, Or) else " and "
        return joint.join(
            in_words(part) if isinstance(part, Match) else f"({in_words(part)})" for part in condition.parts
        )
    field = condition.field or "the original line"
    if condition.op is Op.EXISTS:
        return f"{field} is {'there' if condition.value else 'not there'}"
    value = (
        condition.value
        if condition.op is Op.LIST or not isinstance(condition.value, str)
        else f'"{shortened(condition.value, _LONGEST)}"'
    )
    return f"{field} {_WORDS[condition.op]} {value}"


def values(condition: Condition, finding: Mapping[str, Any], timeline: pa.RecordBatch) -> list[Value]:
    """Return what stood in the fields that a condition looks at, where the finding keeps it or it can be told again."""
    fields = sorted({field for part in condition.parts for field in part.fields} - {"event.original"})
    evidence = finding.get("finding.evidence", [])
    again = _told_again(finding, timeline)
    out = []
    for field in fields:
        if field in _OF_FINDING and (field in finding or field == "peer.ip"):
            value = finding[field] if field in finding else finding.get("destination.ip", [])
            out.append(Value(field, _few(value if isinstance(value, list) else [value]), "all its events"))
        elif field in again:
            out.append(again[field])
        elif seen := [event[field] for event in evidence if field in event]:
            out.append(Value(field, _few(seen), "its first events"))
    return [value for value in out if value.values]


def _told_again(finding: Mapping[str, Any], timeline: pa.RecordBatch) -> dict[str, Value]:
    """Return what was worked out over many events, worked out once more from what is kept; about the same."""
    first, last = micros(finding["finding.first_seen"]), micros(finding["finding.last_seen"])
    told: dict[str, tuple[str, str]] = {}
    seconds = (last - first) / _SECOND
    sent, received = finding.get("source.bytes"), finding.get("destination.bytes")
    if seconds:
        told["connection.duration"] = f"{seconds:,.0f}", "seconds from its first to its last event"
    if sent is not None and received is not None and sent + received:
        told["connection.upload_share"] = f"{sent / (sent + received):.2f}", "all its conversations"
        told["egress.bytes"] = f"{sent:,}", "all its conversations"
        if seconds:
            told["connection.rate"] = f"{(sent + received) / seconds:,.0f}", "bytes a second, first to last event"
    if finding.get("network.conversations"):
        told["connection.count"] = f"{finding['network.conversations']:,}", "all its conversations"
    at = timeline.column("@timestamp").cast(pa.int64())
    inside = pc.and_(pc.greater_equal(at, first - first % (60 * _SECOND)), pc.less_equal(at, last))
    use = timeline.filter(pc.and_(inside, pc.equal(timeline.column("timeline.kind"), "gpu"))).column("gpu.utilization")
    busy = use.filter(pc.fill_null(pc.greater_equal(use, _HOT), fill_value=False))
    if len(busy):
        minutes = f"its {len(busy):,} busy minutes"
        told["gpu.utilization"] = f"{pc.mean(busy).as_py():.0f}", f"per cent, mean of {minutes}"
        told["gpu.busy_duration"] = f"{60 * len(busy):,}", f"seconds, {minutes}"
    return {field: Value(field, (value,), f"{of}; about") for field, (value, of) in told.items()}


def _few(seen: Sequence[Any]) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(str(value) for value in seen))
    more = len(distinct) - _MOST_VALUES
    return (*distinct[:_MOST_VALUES], *([f"and {more} more"] if more > 0 else ()))


def not_kept(condition: Condition, known: Sequence[Value]) -> list[str]:
    """Return the fields whose values were worked out while the job ran and are kept nowhere."""
    fields = {field for part in condition.parts for field in part.fields} - {"event.original"}
    return sorted(fields - {value.field for value in known})
