"""Severity and risk of an incident, with the terms that they are made of."""

from __future__ import annotations

LEVELS = ("informational", "low", "medium", "high", "critical")
"""Severities, ascending."""
MEDIUM = LEVELS.index("medium")
"""From this one on a finding opens an incident."""

_BASE = {"medium": 40, "high": 65, "critical": 85}
_FOR_ANOTHER_RULE, _MOST_FOR_RULES = 5, 10
_FOR_AGREEMENT = 10
_FOR_DOUBT = -15


def raised(highest: int, kinds: int) -> str:
    """Return the severity: that of the worst finding, one step up when two independent kinds of source agree."""
    return LEVELS[min(highest + (kinds > 1), len(LEVELS) - 1)]


def risk(highest: str, rules: int, sources: list[str], status: str) -> tuple[float, list[str]]:
    """Return a risk score of 0 to 100, and its terms in words.

    Args:
        highest: highest severity of a finding.
        rules: number of distinct rules of medium or above that fired.
        sources: the kinds of source that they rest on.
        status: status of attribution.
    """
    terms = [(_BASE[highest], f"the worst finding is {highest}")]
    if rules > 1:
        terms.append(
            (min((rules - 1) * _FOR_ANOTHER_RULE, _MOST_FOR_RULES), f"{rules} different rules of medium or above fired")
        )
    if len(sources) > 1:
        terms.append((_FOR_AGREEMENT, f"independent sources agree: {', '.join(sources)}"))
    if status != "attributed":
        terms.append((_FOR_DOUBT, f"who it was is {status}"))
    score = max(0, min(100, sum(points for points, _ in terms)))
    return float(score), [f"{points:+d} {why}" for points, why in terms]
