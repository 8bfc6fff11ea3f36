"""A rule's condition on one event, as Sigma says it: what the plan must agree with."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from agenttrail.detect.expressions import And, Expression, Match, Not, Op, Or

if TYPE_CHECKING:
    from collections.abc import Mapping

Event = dict[str, Any]


def holds(expression: Expression, event: Event, lists: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether ``expression`` holds on ``event``; a missing field matches nothing."""
    if isinstance(expression, And):
        return all(holds(part, event, lists) for part in expression.parts)
    if isinstance(expression, Or):
        return any(holds(part, event, lists) for part in expression.parts)
    if isinstance(expression, Not):
        return not holds(expression.part, event, lists)
    return matches(expression, event, lists)


def matches(match: Match, event: Event, lists: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether one field of ``event`` matches."""
    value = event.get(match.field or "event.original")
    if match.op is Op.EXISTS:
        return (value is not None) == match.value
    if value is None:
        return False
    if match.op is Op.LIST:
        return _in_list(value, lists[str(match.value)], match)
    if match.op is Op.NETWORK or (match.op is Op.EQUALS and match.field.endswith(".ip")):
        return _plain(value) in ipaddress.ip_network(str(match.value))
    if match.op in (Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST) or (isinstance(value, int) and match.op is Op.EQUALS):
        return _compare(match.op, value, float(match.value))
    if match.op is Op.FIELD:
        other = event.get(str(match.value))
        return other is not None and _text(match.how, _fold(value, match), _fold(other, match))
    if match.op is Op.REGEX:
        return re.search(str(match.value), str(value)) is not None
    return _text(match.op, _fold(value, match), _fold(match.value, match))


def _fold(value: object, match: Match) -> str:
    return str(value) if match.cased else str(value).lower()


def _text(op: Op, value: str, wanted: str) -> bool:
    return {
        Op.EQUALS: value == wanted,
        Op.STARTS_WITH: value.startswith(wanted),
        Op.ENDS_WITH: value.endswith(wanted),
        Op.CONTAINS: wanted in value,
    }[op]


def _compare(op: Op, value: float, bound: float) -> bool:
    return {
        Op.EQUALS: value == bound,
        Op.LESS: value < bound,
        Op.AT_MOST: value <= bound,
        Op.MORE: value > bound,
        Op.AT_LEAST: value >= bound,
    }[op]


def _in_list(value: object, entries: tuple[str, ...], match: Match) -> bool:
    if match.field.endswith(".ip"):
        return any(_plain(value) in ipaddress.ip_network(entry) for entry in entries)
    return _fold(value, match) in {_fold(entry, match) for entry in entries}


def _plain(value: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(str(value))
    return getattr(parsed, "ipv4_mapped", None) or parsed
