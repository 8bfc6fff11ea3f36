"""What is said of the tool call before an act: that it came before, or that its own text tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.report.names import OPENING
from agenttrail.report.pages import short, when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NEEDED = {"gen_ai.tool.call.start", "gen_ai.tool.call.gap"}


def is_of_a_call(finding: Mapping[str, Any]) -> bool:
    """Tell whether what a finding rests on is a tool call itself, not what came after one."""
    return any(event.get("gen_ai.operation.name") == "execute_tool" for event in finding.get("finding.evidence", ()))


def call_before(document: Mapping[str, Any], what: str = "it") -> str:
    """Return the last tool call before an incident or a finding in a sentence; "" where none is known."""
    if is_of_a_call(document):
        return f"It is tool call {_named(document)} itself."
    if not document.keys() >= _NEEDED:
        return ""
    gap, start = document["gen_ai.tool.call.gap"], when(document["gen_ai.tool.call.start"])
    if not gap:
        return f"Tool call {_named(document)} began at the same moment, {start}."
    return f"The last tool call before {what} is {_named(document)} at {start}, {gap:,.1f} s earlier."


def call_of(incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    """Return what is known of a tool call behind an incident, and no more than that; "" where none is known."""
    told = next((one for one in findings if one["finding.severity"] in OPENING and is_of_a_call(one)), None)
    if told is not None and told.keys() >= _NEEDED:
        start = when(told["gen_ai.tool.call.start"])
        return f"The text of tool call {_named(told)} at {start} tells by itself: {short(told['finding.title'])}."
    before = call_before(incident)
    return f"{before}  Coming before is no proof that it is the cause." if before else ""


def _named(document: Mapping[str, Any]) -> str:
    names = [short(document[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if document.get(name)]
    return " ".join(names) or "without a name"
