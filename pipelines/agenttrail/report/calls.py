"""What is said of the tool call before an act: that it came before, or that its own text tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.report.names import OPENING, is_of_a_call
from agenttrail.report.pages import lasting, micros, short, when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECOND = 1_000_000
_NEEDED = {"gen_ai.tool.call.start", "gen_ai.tool.call.gap"}


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


def call_of(incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], ended: int | None = None) -> str:
    """Return what is known of a tool call behind an incident, and no more than that; "" where none is known.

    Args:
        incident: the incident.
        findings: its findings, with their evidence.
        ended: when the last call before it was over, in microseconds since 1970; None where that is not known.
    """
    told = next((one for one in findings if one["finding.severity"] in OPENING and is_of_a_call(one)), None)
    if told is not None and told.keys() >= _NEEDED:
        start = when(told["gen_ai.tool.call.start"])
        return f"The text of tool call {_named(told)} at {start} tells by itself: {short(told['finding.title'])}."
    before = call_before(incident)
    if before and ended is not None and incident.get("gen_ai.tool.call.gap"):
        before += f"  {_over(ended, micros(incident['incident.first_seen']))}"
    return f"{before}  Coming before is no proof that it is the cause." if before else ""


def _over(ended: int, began: int) -> str:
    """Return whether the call was over when the act began."""
    if ended >= began:
        return "The call was still running when it began."
    ago = began // _SECOND - ended // _SECOND  # as the times are shown
    return f"The call had ended {f'{lasting(ago * _SECOND)}' if ago else 'less than 1 s'} before."


def _named(document: Mapping[str, Any]) -> str:
    names = [short(document[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if document.get(name)]
    return " ".join(names) or "without a name"
