"""What rules and correlations have in common: what their authors say of them, and how it is checked."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from agenttrail.yaml_files import known_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrail.errors import Problem
    from agenttrail.yaml_files import YamlDocument

SEVERITIES = ("informational", "low", "medium", "high", "critical")
"""Levels of a rule and severities of what it finds, ascending."""
_SLIP = 0.8  # how alike a slip of the pen is to what was meant
_TACTICS = {
    "reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
    "stealth", "defense-evasion", "credential-access", "discovery", "lateral-movement", "collection",
    "command-and-control", "exfiltration",
    "impact", "defense-impairment",
}  # fmt: skip


def severity_of(level: str, *, building_block: bool) -> str:
    """Return the severity of a finding: a building block is context, whatever its level."""
    return min(level, "low", key=SEVERITIES.index) if building_block else level


def misspelt(document: YamlDocument) -> list[Problem]:
    """Return keys that look like a slip of the pen; other keys that Sigma does not know are the author's own."""
    known = known_keys("rule")
    return [
        document.problem((key,), f"unknown key {key!r}", close[0])
        for key in document.data
        if key not in known and (close := difflib.get_close_matches(str(key), known, n=1, cutoff=_SLIP))
    ]


def parse(document: YamlDocument, problems: list[Problem]) -> SigmaRule | None:
    """Let pySigma check all but the detection or correlation, which we read ourselves.

    What it says of lines that have problems already is left out.
    """
    data = {key: value for key, value in document.data.items() if key != "correlation"}
    if "correlation" in document.data:
        data |= {"logsource": {"product": "any"}, "detection": {}}
    if isinstance(data.get("detection"), dict):
        data["detection"] = {"any": {"field": 1}, "condition": "any"}
    told = {problem.line for problem in problems}
    try:
        parsed = SigmaRule.from_dict(data, collect_errors=True)
    except (SigmaError, ValueError, TypeError, AttributeError, KeyError) as error:
        if not problems:
            problems.append(document.problem((), f"not a Sigma rule: {error}"))
        return None
    for wrong in parsed.errors:
        found = document.problem(_place_of(wrong), f"not a Sigma rule: {wrong}")
        problems += [found] if found.line not in told else []
    return parsed


def _place_of(error: SigmaError) -> tuple[str, ...]:
    kind = type(error).__name__
    words = {
        "Logsource": "logsource",
        "Detection": "detection",
        "Level": "level",
        "Status": "status",
        "Identifier": "id",
        "Date": "date",
        "Modified": "modified",
        "Related": "related",
        "Tag": "tags",
        "Value": "tags",
    }
    return next(((place,) for word, place in words.items() if word in kind), ())


def metadata(parsed: SigmaRule, document: YamlDocument, name: str) -> dict[str, Any]:
    """Return the fields that rules and correlations share, from a document without problems."""
    data = document.data
    tags = [str(tag) for tag in parsed.tags]
    recommendation = data.get("recommendation", [])
    return {
        "id": str(data["id"]).lower(),
        "name": name,
        "title": data["title"],
        "level": data["level"],
        "description": (data.get("description") or "").strip(),
        "techniques": tuple(sorted(filter(None, map(_technique, tags)))),
        "tactics": tuple(
            sorted(tag.removeprefix("attack.") for tag in tags if tag.removeprefix("attack.") in _TACTICS)
        ),
        "references": tuple(data.get("references") or ()),
        "falsepositives": tuple(data.get("falsepositives") or ()),
        "recommendation": ((recommendation.strip(),) if isinstance(recommendation, str) else tuple(recommendation)),
        "building_block": bool(data.get("building_block")),
        "path": document.path,
    }


def _technique(tag: str) -> str | None:
    """Return the technique id of a tag: attack.t1496.001 -> T1496.001, atlas.aml.t0072 -> AML.T0072."""
    space, _, rest = tag.partition(".")
    upper = rest.upper()
    if space == "attack" and upper[:1] == "T" and upper[1:2].isdigit():
        return upper
    return upper if space == "atlas" and upper.startswith("AML.T") else None


def lists_of_test(entry: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the lists that a test of a rule brings along."""
    return {name: tuple(values) for name, values in (entry.get("lists") or {}).items()}
