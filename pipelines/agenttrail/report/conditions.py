"""What a rule asked for when it fired, and what stood in its fields, as the finding kept it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from agenttrail.detect.correlations import show_correlation
from agenttrail.detect.expressions import COMPARISONS, And, Match, Not, Op, Or, matches
from agenttrail.detect.kept_values import LONGEST
from agenttrail.detect.predicates import NUMBERS, evaluate_column
from agenttrail.errors import shortened
from agenttrail.report.amounts import grouped
from agenttrail.report.pages import lasting
from agenttrail.schema import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
PER_RECORD = ("source.bytes", "destination.bytes", "network.bytes")
"""Amounts that each record tells of itself."""
NOT_THERE = ("not there",)
"""What stands for the values of a field that no event had."""
_SECOND = 1_000_000
_LONGEST = 160
"""Characters of a pattern that are shown."""
_WORDS = {
    Op.EQUALS: "is", Op.STARTS_WITH: "begins with", Op.ENDS_WITH: "ends with", Op.CONTAINS: "contains",
    Op.REGEX: "matches", Op.NETWORK: "lies in", Op.LESS: "is below", Op.AT_MOST: "is at most", Op.MORE: "is above",
    Op.AT_LEAST: "is at least", Op.LIST: "is on the list", Op.FIELD: "is the same as in",
}  # fmt: skip


_COUNTS = {"gte": Op.AT_LEAST, "gt": Op.MORE, "lte": Op.AT_MOST, "lt": Op.LESS}


@dataclass(frozen=True)
class Question:
    """One question of a condition, and whether it is to be answered with no."""

    match: Match
    negated: bool


@dataclass(frozen=True)
class Count:
    """What a correlation asks of its count, and whether that must not be so."""

    field: str
    op: Op
    bound: int
    negated: bool


@dataclass(frozen=True)
class Part:
    """What one rule asks for.

    Attributes:
        rule: its name.
        asks: what must hold, all of it, one line each.
        fields: the event fields that it looks at.
        questions: what it asks of each of them, one by one.
        patterns: fields and the RE2 patterns that they are to match.
    """

    rule: str
    asks: tuple[str, ...]
    fields: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Condition:
    """What a rule or correlation asks for.

    Attributes:
        description: in its author's words.
        together: what a correlation asks of the hits of its rules; "" for a rule.
        parts: the rule's own condition, or those of a correlation's rules.
        count: what a correlation compares; None for a rule.
    """

    description: str
    together: str
    parts: tuple[Part, ...]
    count: Count | None = None


@dataclass(frozen=True)
class Value:
    """What stood in a field: the values, shown as they are, and of what they are.

    Attributes:
        asked: what was asked of it, where it was kept at detection.
        met: whether it was so: "yes", "no", "for some", or "" where it takes more than the value to tell.
    """

    field: str
    values: tuple[str, ...]
    of: str
    asked: str = ""
    met: str = ""


def conditions(rules: Iterable[Rule], correlations: Iterable[Correlation]) -> dict[str, Condition]:
    """Return what each rule asks for, by its id."""
    parts = {rule.id: _part(rule) for rule in rules}
    found = {rule.id: Condition(rule.description, "", (parts[rule.id],)) for rule in rules}
    names = {rule.id: rule.name for rule in rules}
    for one in correlations:  # each after those that it refers to
        names[one.id] = one.name
        own = [part for rule in one.rules for part in (found[rule].parts if rule in found else ())]
        op, bound = one.condition
        count = Count(one.type, _COUNTS.get(op, Op.EQUALS), bound, op == "neq")
        found[one.id] = Condition(one.description, _together(one, names), tuple(own), count)
    return found


def _together(one: Correlation, names: Mapping[str, str]) -> str:
    asked = show_correlation(one, names)
    return asked.replace(f"within {one.timespan / _SECOND:g} s", f"within {lasting(one.timespan)}")


def _part(rule: Rule) -> Part:
    asks = tuple(in_words(part) for part in _all_of(rule.condition))
    fields = sorted({match.field or "event.original" for match in matches(rule.condition)})
    questions = tuple(_questions(rule.condition, negated=False))
    return Part(rule.name, asks, tuple(fields), questions, tuple(_patterns(rule.condition)))


def _patterns(condition: Expression) -> list[tuple[str, str]]:
    """Return the fields and patterns that a condition wants to match; what it excludes is none of them."""
    if isinstance(condition, Match):
        return [(condition.field or "event.original", str(condition.value))] if condition.op is Op.REGEX else []
    return [] if isinstance(condition, Not) else [pair for part in condition.parts for pair in _patterns(part)]


def _questions(condition: Expression, *, negated: bool) -> Iterator[Question]:
    if isinstance(condition, Match):
        if condition.field not in ("", "event.original"):
            yield Question(condition, negated)
    elif isinstance(condition, Not):
        yield from _questions(condition.part, negated=not negated)
    else:
        for part in condition.parts:
            yield from _questions(part, negated=negated)


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
        grouped(field, condition.value)
        if condition.op is Op.LIST or not isinstance(condition.value, str)
        else f'"{shortened(condition.value, _LONGEST)}"'
    )
    return f"{field} {_WORDS[condition.op]} {value}"


def values(condition: Condition, finding: Mapping[str, Any]) -> list[Value]:
    """Return what stood in the fields that a condition looks at: as the finding kept it, else as its events show it."""
    kept: dict[str, list[str]] = {}
    for text in finding.get("finding.values", []):
        field, _, value = str(text).partition("=")
        kept.setdefault(field, []).append(value)
    out = [_counted(condition.count, value) for value in kept.get(condition.count.field, ())] if condition.count else []
    whole = bool(kept) and condition.count is None  # of a rule all is kept, so that what is not kept was not there
    questions = dict.fromkeys(one for part in condition.parts for one in part.questions)
    out += [_judged(one, kept.get(one.match.field, [])) for one in questions if whole or one.match.field in kept]
    shown = {value.field for value in out}
    fields = sorted({field for part in condition.parts for field in part.fields} - shown - {"event.original"})
    return out + [told for field in fields if (told := _in_evidence(field, finding)).values]


def _counted(count: Count, value: str) -> Value:
    holds = _holds(Match(count.field, count.op, str(count.bound)), value) != count.negated
    asked = f"{'not: ' if count.negated else ''}{_WORDS[count.op]} {grouped(count.field, count.bound)}"
    return Value(count.field, (grouped(count.field, value),), "its fullest window", asked, _verdict([holds]))


def _judged(question: Question, kept: Sequence[str]) -> Value:
    match = question.match
    absent = match.op is Op.EXISTS and not match.value
    judged = [_holds(match, value) for value in kept] or [absent]
    asked = in_words(match).removeprefix(f"{match.field} ")
    asked = f"not: {asked}" if question.negated else asked
    holds = [None if one is None else one != question.negated for one in judged]
    return Value(
        match.field, _few(match.field, kept) or NOT_THERE, "the first that it fired on", asked, _verdict(holds)
    )


def _verdict(holds: Sequence[bool | None]) -> str:
    if None in holds:
        return ""
    return "yes" if all(holds) else "for some" if any(holds) else "no"


def _holds(match: Match, value: str) -> bool | None:
    """Tell whether a value is as asked, by the code that rules run on; None where it takes more than the value."""
    if match.op in (Op.LIST, Op.FIELD) or len(value) >= LONGEST or "[REDACTED]" in value:
        return None
    if match.op is Op.NETWORK or (match.op is Op.EQUALS and match.field.endswith(".ip")):
        try:
            return ip_address(value) in ip_network(str(match.value), strict=False)
        except ValueError:
            return None
    column = pa.array([value])
    known = record("event").fields.get(match.field)
    if match.op in COMPARISONS or (match.op is Op.EQUALS and (known is None or known.type in NUMBERS)):
        try:
            column = pa.array([float(value)])
        except ValueError:
            return None
    return bool(evaluate_column(match, column, {})[0])


def _in_evidence(field: str, finding: Mapping[str, Any]) -> Value:
    if field in _OF_FINDING and (field in finding or field == "peer.ip"):
        value = finding[field] if field in finding else finding.get("destination.ip", [])
        return Value(field, _few(field, value if isinstance(value, list) else [value]), "all its events")
    seen = [event[field] for event in finding.get("finding.evidence", []) if field in event]
    amounts = [value for value in seen if isinstance(value, int)]
    if (
        field in PER_RECORD and amounts
    ):  # several records tell of one conversation: which are more than others says nothing
        return Value(field, (grouped(field, max(amounts)),), "the largest of its first events")
    return Value(field, _few(field, seen), "its first events")


def _few(field: str, seen: Sequence[Any]) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(grouped(field, value) for value in seen))
    more = len(distinct) - _MOST_VALUES
    return (*distinct[:_MOST_VALUES], *([f"and {more:,} more"] if more > 0 else ()))
