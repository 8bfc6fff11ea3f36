"""Why a rule fired, in one line: the values that it asked for, in units, and the part of a text that matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.errors import shortened
from agenttrail.report.names import several
from agenttrail.report.pages import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.report.conditions import Condition, Part, Value

_MOST_TERMS = 6
_LONG = 110
"""Characters of one demand that are shown unfolded."""
_MATCHED, _TAIL = 140, 60
"""Characters of what matched, and of the rest of its last word."""
_MOST_TEXTS = 3
"""Events whose text is looked at for what matched."""
_WORDS = {
    "beacon.count": ("contacts", ""), "beacon.period": ("period", "s"), "beacon.score": ("regularity", "of 1"),
    "beacon.evenness": ("evenness of gaps", "of 1"), "connection.count": ("conversations", ""),
    "connection.duration": ("lasted", "s"), "connection.gpu_overlap": ("coincides with busy GPUs", "of 1"),
    "connection.gpu_share": ("share with busy GPUs", "of 1"),
    "connection.lease_share": ("share of its sandbox's life", "of 1"), "connection.rate": ("rate", "bytes/s"),
    "connection.sockets": ("sockets", ""), "connection.upload_share": ("share of the bytes that it sent", "of 1"),
    "egress.bytes": ("sent", "bytes"), "egress.peers": ("peers", ""), "gpu.busy_duration": ("GPUs busy", "s"),
    "gpu.utilization": ("GPU use", "%"), "gpu.tensor_active": ("tensor cores active", "of 1"),
    "gen_ai.tool.call.arguments": ("text of the call:", ""),
    "gen_ai.tool.call.gap": ("since the last tool call", "s"), "peer.ip": ("peer", ""), "peer.port": ("port", ""),
    "rule.category": ("sensor's category", ""), "rule.name": ("sensor's rule", ""), "event.outcome": ("outcome", ""),
    "network.direction": ("direction", ""), "network.transport": ("transport", ""),
    "network.application": ("protocol", ""), "event.count": ("events", ""), "destination.domain": ("name", ""),
}  # fmt: skip
"""What fields are called in a line for people, and their units."""
_LAST = ("peer.ip", "peer.port", "network.direction", "network.transport", "event.outcome")
"""What is said elsewhere on the first screen: told only where there is nothing else."""
_BOUNDS = ("is below ", "is at most ", "is above ", "is at least ")


@dataclass(frozen=True)
class Term:
    """One value for which a rule fired.

    Attributes:
        label: what it is.
        value: with its unit.
        asked: what the rule asked of it, "" where that is no bound.
    """

    label: str
    value: str
    asked: str


def because(condition: Condition, known: Sequence[Value], matched: Mapping[str, str]) -> list[Term]:
    """Return the values for which a rule fired, those that say most first.

    Args:
        condition: what it asks for.
        known: what stood in its fields.
        matched: the part of a field's text that matched a pattern, by field.
    """
    terms = [Term(_label(field), f"“{text}”", "") for field, text in matched.items()]
    told = [value for value in known if value.field not in matched]
    for value in sorted(told, key=lambda one: (one.field in _LAST, not _bounds(condition, one.field))):
        if terms and value.field in _LAST:
            break
        unit = _WORDS.get(value.field, ("", ""))[1]
        texts = several([shortened(_number(text), 80) for text in value.values])
        asked = _bounds(condition, value.field)
        terms.append(Term(_label(value.field), f"{texts} {unit}".rstrip(), f"{asked} {unit}".rstrip() if asked else ""))
    return terms[:_MOST_TERMS]


def _label(field: str) -> str:
    return _WORDS.get(field, (short(field, 60), ""))[0]


def _number(text: str) -> str:
    """Return a number with no more digits than a reader needs; any other text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:,.2f}".rstrip("0").rstrip(".") if len(text) < 40 and "." in text else text  # noqa: PLR2004


def _bounds(condition: Condition, field: str) -> str:
    """Return the bounds that a rule sets on a field, in words."""
    asked = [
        ask.removeprefix(field).strip().removeprefix("is ")
        for part in condition.parts
        for ask in part.asks
        if ask.startswith(tuple(f"{field} {bound}" for bound in _BOUNDS)) and len(ask) < _LONG
    ]
    return ", ".join(dict.fromkeys(asked))


def matched_parts(condition: Condition, finding: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of each field's text that a pattern of the rule matched, in the first events of the evidence."""
    found: dict[str, str] = {}
    for field, pattern in dict.fromkeys(pair for part in condition.parts for pair in part.patterns):
        if field in found:
            continue
        texts = [str(event[field]) for event in finding.get("finding.evidence", ()) if field in event]
        for text in dict.fromkeys(texts[:_MOST_TEXTS]):
            part = _matched(text, pattern)
            if part and field not in found:
                found[field] = short(part, _MATCHED)
    return found


def _matched(text: str, pattern: str) -> str:
    """Return the first part of a text that a pattern of RE2 matches, to the end of its last word."""
    column = pa.array([text])
    if not pc.match_substring_regex(column, pattern)[0].as_py():
        return ""
    whole = rf"^[\s\S]*?((?:{pattern})[^\s\"']{{0,{_TAIL}}})[\s\S]*$"
    return str(pc.replace_substring_regex(column, whole, r"\1", max_replacements=1)[0].as_py()).strip(" \"'\\{[(:,;&|")


def folded(part: Part) -> list[tuple[str, str]]:
    """Return what a rule asks for: each demand in short, and whole where that is long."""
    return [(ask, "") if len(ask) <= _LONG else (_in_short(ask, part), ask) for ask in part.asks]


def _in_short(ask: str, part: Part) -> str:
    words = set(ask.replace("(", " ").split())
    fields = [field for field in part.fields if field in words] or ["the original line"]
    return f"{'a pattern' if ' matches ' in ask else 'a longer condition'} on {several(fields)}"
