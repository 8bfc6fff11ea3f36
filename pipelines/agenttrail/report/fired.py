"""Why a rule fired, in one line: the values that it asked for, in units, and the part of a text that matched."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.errors import shortened
from agenttrail.report.conditions import NOT_THERE
from agenttrail.report.names import several
from agenttrail.report.pages import short
from agenttrail.timeline_story import size

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
TEXT = "text of the call:"
"""What the text of a tool call is called."""
_WORDS = {
    "beacon.count": ("contacts", ""), "beacon.period": ("period", "s"), "beacon.score": ("regularity", "of 1"),
    "beacon.evenness": ("evenness of gaps", "of 1"), "connection.count": ("conversations", ""),
    "connection.duration": ("lasted", "s"), "connection.gpu_overlap": ("coincides with busy GPUs", "share"),
    "connection.gpu_share": ("share with busy GPUs", "share"),
    "connection.lease_share": ("share of its sandbox's life", "share"), "connection.rate": ("rate", "bytes/s"),
    "connection.sockets": ("sockets", ""), "connection.upload_share": ("share of the bytes that it sent", "share"),
    "egress.bytes": ("sent", "bytes"), "egress.peers": ("peers", ""), "gpu.busy_duration": ("GPUs busy", "s"),
    "gpu.utilization": ("GPU use", "%"), "gpu.tensor_active": ("tensor cores active", "share"),
    "temporal": ("rules that hit", ""), "temporal_ordered": ("rules that hit in order", ""),
    "gen_ai.tool.call.arguments": (TEXT, ""),
    "gen_ai.tool.call.gap": ("since the last tool call", "s"), "peer.ip": ("peer", ""), "peer.port": ("port", ""),
    "source.bytes": ("largest record sent", "bytes"), "destination.bytes": ("largest record received", "bytes"),
    "network.bytes": ("largest record", "bytes"),
    "rule.category": ("sensor's category", ""), "rule.name": ("sensor's rule", ""), "event.outcome": ("outcome", ""),
    "network.initiator": ("opened by", ""), "network.direction": ("direction", ""),
    "network.transport": ("transport", ""), "value_count": ("counted", ""), "event_count": ("events counted", ""),
    "network.application": ("protocol", ""), "event.count": ("events", ""), "destination.domain": ("name", ""),
}  # fmt: skip
"""What fields are called in a line for people, and their units."""
_LAST = ("peer.ip", "peer.port", "network.direction", "network.transport", "event.outcome")
"""What is said elsewhere on the first screen: told only where there is nothing else."""
_LONGEST_NUMBER = 24
_WHOLE_SECONDS = 100
"""From so many on the rest of a second says nothing."""
_TENSOR, _NONE = "gpu.tensor_active", {"0", "0.0"}
"""Networks run on tensor cores, hashes do not."""
_OF_RULES = ("temporal", "temporal_ordered")
"""Counts of rules, of those that a correlation names."""
_GAP = "gen_ai.tool.call.gap"
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


def because(
    condition: Condition,
    known: Sequence[Value],
    matched: Mapping[str, str],
    totals: Mapping[str, float] = MappingProxyType({}),
) -> list[Term]:
    """Return the values for which a rule fired, those that say most first.

    Args:
        condition: what it asks for.
        known: what stood in its fields.
        matched: the part of a field's text that matched a pattern, by field.
        totals: bytes in all, by the field that has those of one record.
    """
    terms = [Term(_label(field), f"“{text}”", "") for field, text in matched.items()]
    told = {value.field: value for value in known if value.field not in matched and value.values != NOT_THERE}
    asked = {field: _asked(condition, field) for field in told}
    for field in sorted(told, key=lambda one: (one in _LAST, one != _TENSOR, not asked[one])):
        if terms and field in _LAST and not asked[field]:
            continue
        texts = several([_amount(text, field) for text in told[field].values])
        if field == _TENSOR and set(told[field].values) <= _NONE:
            terms.append(Term("tensor cores", "idle", ""))
        elif field not in _OF_RULES or told[field].values != (
            str(len(condition.parts)),
        ):  # that all hit is why it fired
            of = f" of {len(condition.parts)}" if field in _OF_RULES and condition.parts else ""
            terms.append(Term(_label(field), texts + of, asked[field]))
    if totals and not any(term.label == _WORDS["egress.bytes"][0] for term in terms):
        terms[:0] = [_total(field, amount) for field, amount in totals.items() if field in told and amount]
    return terms[:_MOST_TERMS]


def _total(field: str, amount: float) -> Term:
    return Term("sent in all" if field == "source.bytes" else "received in all", size(amount), "")


def _label(field: str) -> str:
    return _WORDS.get(field, (short(field, 60), ""))[0]


def _amount(text: str, field: str) -> str:
    """Return a value in its unit; what has none, as it is."""
    unit = _WORDS.get(field, ("", ""))[1]
    try:
        number = float(text.replace(",", "")) if unit else None
    except ValueError:
        number = None
    if number is None or len(text) > _LONGEST_NUMBER:
        return shortened(text, 80)
    if unit.startswith("bytes"):
        return size(number) + unit.removeprefix("bytes")
    if unit == "share":
        return f"{f'{100 * number:,.1f}'.removesuffix('.0')} %"
    if field == _GAP:  # as everywhere else on a page
        return f"{number:,.1f} s"
    if unit == "s" and number >= _WHOLE_SECONDS:
        return f"{number:,.0f} s"
    return f"{f'{number:,.2f}'.rstrip('0').rstrip('.')} {unit}"


def _asked(condition: Condition, field: str) -> str:
    """Return the bounds that a rule sets on a field, and the lists that it must not stand on, in words."""
    asked, lists = [], []
    for ask in dict.fromkeys(ask for part in condition.parts for ask in part.asks):
        bound = next((bound for bound in _BOUNDS if ask.startswith(f"{field} {bound}")), "")
        if bound and len(ask) < _LONG:
            number = ask.removeprefix(f"{field} {bound}")
            asked.append(f"{bound.removeprefix('is ')}{_amount(number, field)}")
        names = ask.removeprefix("not: ").replace(f"{field} is on the list ", "").split(" or ")
        if ask.startswith("not: ") and ask.count(" is on the list ") == len(names) and " " not in "".join(names):
            lists += names
    return ", ".join([*asked, *([f"on none of the lists {several(list(dict.fromkeys(lists)))}"] if lists else [])])


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
