"""What analysts say of an incident: who has it, how it stands, and all that was done about it.

It lies below ``triage`` of the stored incident, which the pipeline keeps and never writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUSES = ("open", "in_progress", "closed", "false_positive")
"""What ``triage.status`` may be set to; there is none before anybody has set it."""
HISTORY = "history"
"""Below ``triage``: what was done, the oldest first, each with ``at``, ``by`` and what it set."""
_SHOWN = 500  # characters of an entry


@dataclass(frozen=True)
class Change:
    """What an analyst does to one incident; what is None stays as it is.

    Attributes:
        by: who does it.
        at: when (RFC 3339); with ``by`` and the rest it tells this change from all others.
        status: one of ``STATUSES``.
        assignee: whose it is from now on.
        note: added to those before it.
    """

    by: str
    at: str
    status: str | None = None
    assignee: str | None = None
    note: str | None = None

    def entry(self) -> dict[str, str]:
        """Return the change as an entry of the incident's history."""
        told = {"at": self.at, "by": self.by, "status": self.status, "assignee": self.assignee, "note": self.note}
        return {name: value for name, value in told.items() if value is not None}

    def applied(self, triage: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``triage`` with this change; whatever else analysts' tools keep there stays."""
        own = {name: value for name in ("status", "assignee") if (value := getattr(self, name)) is not None}
        return {**triage, **own, HISTORY: [*history(triage), self.entry()]}


def triage_of(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored incident says of triage, as one object: tools write it as one, or as dotted names."""
    dotted = {name.removeprefix("triage."): value for name, value in source.items() if name.startswith("triage.")}
    whole = source.get("triage")
    return {**dotted, **(whole if isinstance(whole, dict) else {})}


def history(triage: Mapping[str, Any]) -> list[Any]:
    """Return what was done to an incident, the oldest first."""
    told = triage.get(HISTORY)
    return told if isinstance(told, list) else [told] if told else []


def entry_text(entry: object) -> str:
    """Return an entry of a history in a line, for people; it may be of any shape."""
    if not isinstance(entry, dict):
        return shortened(str(entry), _SHOWN)
    what = [f"{name} {entry[name]}" for name in ("status", "assignee") if name in entry]
    what += [f"note: {entry['note']}"] if "note" in entry else []
    return shortened(f"{entry.get('at', '')} {entry.get('by', 'somebody')}: {', '.join(what)}", _SHOWN)
