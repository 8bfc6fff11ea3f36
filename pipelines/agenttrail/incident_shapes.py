"""What makes a JSON document an incident, a finding or a timeline entry, for all that read what may have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agenttrail.errors import InputError, shortened
from agenttrail.incidents.scoring import LEVELS
from agenttrail.metadata import parse_time
from agenttrail.schema import Field, record

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORT_ID = 12
"""Characters of the id of an incident that lists show, and that ``agenttrail incidents show`` takes."""
_NEEDED = {
    "incident": (
        "incident.id", "incident.first_seen", "incident.last_seen", "incident.severity", "incident.risk_score",
        "incident.risk_factors", "incident.title", "incident.summary", "entity.type", "entity.id",
        "attribution.status", "attribution.level",
    ),
    "finding": (
        "finding.id", "finding.first_seen", "finding.last_seen", "finding.severity", "finding.title", "rule.name",
        "event.count", "event.dataset",
    ),
    "timeline": ("timeline.id", "incident.id", "@timestamp", "timeline.kind"),
}  # fmt: skip
_CALLED = {"incident": "an incident", "finding": "a finding", "timeline": "a timeline entry"}
_TIMES = {
    "incident": ("incident.first_seen", "incident.last_seen"), "finding": ("finding.first_seen", "finding.last_seen"),
    "timeline": ("@timestamp", "event.end"),
}  # fmt: skip
_JSON: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("keyword", "text", "ip", "timestamp", "enum"), ((str,), "text")),
    **dict.fromkeys(("port", "long", "integer"), ((int,), "a whole number")),
    "double": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "object": ((dict,), "an object"),
}


def ended(document: Mapping[str, Any], kind: str) -> str:
    """Return when the last event of an incident or finding ended; what earlier versions wrote tells when it began."""
    return str(document.get("event.end") or document[f"{kind}.last_seen"])


def checked(document: Any, kind: str, place: str) -> dict[str, Any]:
    """Return a document read from ``place``, once it is known to be one that can be shown.

    Args:
        document: of any kind.
        kind: what it is to be: "incident", "finding" or "timeline", an entry of one.
        place: where it stands.

    Raises:
        InputError: it is none; says where and why.
    """
    told = _not_a_document(document, kind)
    if told:
        msg = f"{place}: not {_CALLED[kind]}: {told}"
        raise InputError(msg)
    return document  # type: ignore[no-any-return] # checked


def _not_a_document(document: Any, kind: str) -> str:
    if not isinstance(document, dict):
        return "it is no JSON object"
    missing = [name for name in _NEEDED[kind] if name not in document]
    if missing:
        return f"{missing[0]} is missing"
    fields = record(kind).fields
    wrong = (_wrong(value, fields[name]) for name, value in document.items() if name in fields)
    return next(filter(None, wrong), "") or _no_severity(document, kind) or _no_time(document, kind)


def _wrong(value: object, field: Field) -> str:
    types, words = _JSON[field.type]
    if type(value) in types and not field.list:
        return ""  # as most are
    values = value if field.list and isinstance(value, list) else [value]
    right = isinstance(value, list) is field.list and all(
        isinstance(one, types) and (isinstance(one, bool) is (field.type == "boolean")) for one in values
    )
    return "" if right else f"{field.name} must be {'a list, each entry ' if field.list else ''}{words}"


def _no_severity(document: dict[str, Any], kind: str) -> str:
    if kind == "timeline":
        return ""
    severity = document[f"{kind}.severity"]
    told = f"{kind}.severity is {shortened(repr(severity), 100)}, not one of {', '.join(LEVELS)}"
    return "" if severity in LEVELS else told


def _no_time(document: dict[str, Any], kind: str) -> str:
    try:
        for name in _TIMES[kind]:
            if name in document:
                parse_time(document[name], name)
    except ValueError as error:
        return str(error)
    timeless = any("event.start" not in event for event in document.get("finding.evidence", ()))
    return "finding.evidence: event.start is missing" if timeless else ""
