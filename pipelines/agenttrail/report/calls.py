"""What is said of the tool call before an act: that it came before, or that its own text tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from agenttrail.columns.text import printable
from agenttrail.errors import shortened
from agenttrail.report.names import OPENING, is_of_a_call
from agenttrail.report.pages import clock, micros, short, when

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST, _WHOLE = 120, 400
"""Characters of the text of a call that stand on the first screen, and those that are folded."""
_LONG_WORD, _WORD_HEAD, _WORD_TAIL = 40, 12, 6
"""Characters of a word of a call that is not cut, and of one that is those that stay."""
_REDACTED = "[REDACTED]"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/\s\"'?#]*")
"""The scheme and the host of an address."""
_COMMANDS = ("command", "cmd", "code", "script")
"""What tools call the argument that is run."""
_NO_CAUSE = "Order in time, not a proven cause."
_TEXT = "gen_ai.tool.call.arguments"
_NEEDED = {"gen_ai.tool.call.start", "gen_ai.tool.call.gap"}


class Call(NamedTuple):
    """A tool call behind an incident.

    Attributes:
        label: how it lies to the incident.
        text: what was called, in short.
        note: when, and what that proves.
        whole: all of its arguments where that is more; "" where it is not.
        itself: whether its text tells by itself.
    """

    label: str
    text: str
    note: str
    whole: str
    itself: bool = False


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


def call_of(
    incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], arguments: str = "", ended: int | None = None
) -> Call | None:
    """Return what is known of a tool call behind an incident, and no more than that; None where none is known.

    Args:
        incident: the incident.
        findings: its findings, with their evidence.
        arguments: those of the call; "" where they are not known.
        ended: when the call was over, in microseconds since 1970; None where that is not known.
    """
    told = next((one for one in findings if one["finding.severity"] in OPENING and is_of_a_call(one)), None)
    itself = told is not None and told.keys() >= _NEEDED
    document = told if told is not None and itself else incident
    if not document.keys() >= _NEEDED:
        return None
    first = incident["incident.first_seen"]
    start = clock(document["gen_ai.tool.call.start"], first)
    if itself:
        events = document.get("finding.evidence", ())
        arguments = next((str(one[_TEXT]) for one in events if one.get(_TEXT)), "")
    text = spoken(arguments)
    whole = shortened(arguments, _WHOLE) if text != arguments or len(text) > LONGEST else ""
    what = abridged(text, LONGEST) or _named(document)
    if itself:
        tool = f" {short(document['gen_ai.tool.name'], 40)}" if document.get("gen_ai.tool.name") else ""
        return Call(f"Tool call{tool} {start}:", what, "", whole, itself=True)
    gap = document["gen_ai.tool.call.gap"]
    if not gap:
        return Call("Tool call at the same moment:", what, f"({start}).  {_NO_CAUSE}", whole)
    return Call("Last tool call before:", what, f"({_when(start, gap, ended, first)}).  {_NO_CAUSE}", whole)


def spoken(arguments: str) -> str:
    """Return the command or the code that a tool was called with, without the JSON around it; else all of it."""
    try:
        told = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    said = [told[name] for name in _COMMANDS if isinstance(told.get(name), str)] if isinstance(told, dict) else []
    return " ".join(said[0].split()) if said else arguments


def abridged(text: str, most: int) -> str:
    """Return a command as it is, or with the middle of its long arguments left out, then of all its arguments.

    Its program stays, and the host of an address in it; what was redacted is never cut in two.

    Args:
        text: the command.
        most: characters from which on it is abridged; words that must stay may be more.
    """
    text = printable(text)
    if len(text) <= most:
        return text
    words = [_abridged_word(word) for word in text.split(" ")]
    if len(" ".join(words)) <= most:
        return " ".join(words)
    kept = {0}
    left = most - len(words[0])
    first_needed = sorted(range(1, len(words)), key=lambda number: "://" not in words[number])
    for number in first_needed:  # in their order; the last one stays where there is room for it
        if len(words[number]) + 1 > left:
            break
        left -= len(words[number]) + 1
        kept.add(number)
    out = [words[number] if number in kept else "…" for number in range(len(words))]
    return shortened(" ".join(word for number, word in enumerate(out) if word != "…" or out[number - 1] != "…"), _WHOLE)


def _abridged_word(word: str) -> str:
    if len(word) <= _LONG_WORD:
        return word
    address, redacted = _URL.search(word), word.find(_REDACTED)
    if redacted >= 0 and not address:
        before, after = word[:redacted], word[redacted + len(_REDACTED) :]
        head = before if len(before) <= _WORD_HEAD else f"{before[:_WORD_HEAD]}…"
        return f"{head}{_REDACTED}{after if len(after) <= _WORD_TAIL else '…'}"
    head = word[: address.end()] if address and address.end() <= _WHOLE else word[:_WORD_HEAD]
    if _REDACTED in head or not word.startswith(head):
        return head
    tail = "" if redacted >= 0 else word[-_WORD_TAIL:]
    return f"{head}…{tail}" if len(head) + len(tail) < len(word) else word


def _when(start: str, gap: float, ended: int | None, began: str) -> str:
    """Return when a call ran, and whether it was over when the act began."""
    if ended is None:
        return f"{start}, begun {gap:,.1f} s before"
    if ended >= micros(began):
        return f"{start}, still running when it began"
    over = clock(when(ended), began)
    return f"{start}{f' to {over}' if over != start else ''}, begun {gap:,.1f} s before"


def _named(document: Mapping[str, Any]) -> str:
    names = [short(document[name]) for name in ("gen_ai.tool.name", "gen_ai.tool.call.id") if document.get(name)]
    return " ".join(names) or "without a name"
