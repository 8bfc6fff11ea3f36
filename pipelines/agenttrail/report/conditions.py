"""What a rule asked for when it fired, and what stood in its fields: as far as the findings keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.detect.correlations import show_correlation
from agenttrail.detect.expressions import And, matches, show
from agenttrail.detect.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agenttrail.detect.correlations import Correlation

_MOST_VALUES = 4
"""Different values of one field that are shown."""
_OF_FINDING = ("peer.ip", "peer.port", "network.transport", "network.direction", "event.outcome", "event.count")
"""Fields that a finding tells of all its events."""


@dataclass(frozen=True)
class Part:
    """What one rule asks for.

    Attributes:
        rule: its name.
        asks: what must hold, all of it, one line each.
        fields: the event fields that it looks at.
    """

    rule: str
    asks: tuple[str, ...]
    fields: tuple[str, ...]


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
        found[one.id] = Condition(one.description, show_correlation(one, names), tuple(own))
    return found


def _part(rule: Rule) -> Part:
    condition = rule.condition
    asks = [show(part) for part in condition.parts] if isinstance(condition, And) else [show(condition)]
    fields = sorted({match.field or "event.original" for match in matches(condition)})
    return Part(rule.name, tuple(asks), tuple(fields))


def values(condition: Condition, finding: Mapping[str, Any]) -> list[Value]:
    """Return what stood in the fields that a condition looks at, where the finding keeps it."""
    fields = sorted({field for part in condition.parts for field in part.fields} - {"event.original"})
    evidence = finding.get("finding.evidence", [])
    out = []
    for field in fields:
        if field in _OF_FINDING and field in finding:
            value = finding[field]
            out.append(Value(field, _few(value if isinstance(value, list) else [value]), "all events"))
        elif seen := [event[field] for event in evidence if field in event]:
            out.append(Value(field, _few(seen), "the events below"))
    return out


def _few(seen: Sequence[Any]) -> tuple[str, ...]:
    distinct = list(dict.fromkeys(str(value) for value in seen))
    more = len(distinct) - _MOST_VALUES
    return (*distinct[:_MOST_VALUES], *([f"and {more} more"] if more > 0 else ()))


def not_kept(condition: Condition, known: Sequence[Value]) -> list[str]:
    """Return the fields whose values were worked out while the job ran and are kept nowhere."""
    fields = {field for part in condition.parts for field in part.fields} - {"event.original"}
    return sorted(fields - {value.field for value in known})
