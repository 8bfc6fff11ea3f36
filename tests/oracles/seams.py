"""What one run says, row by row: what any consecutive runs must add up to."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Event = tuple[str, int]
"""Entity and second."""
Finding = tuple[str, str, int, int, int]
"""Rule, entity, first and last second, count."""


def detect(events: Iterable[Event]) -> list[Finding]:
    """Return what three rules find on the events of each entity; two of them change their minds as more events come."""
    of_entity: dict[str, list[int]] = defaultdict(list)
    for entity, second in events:
        of_entity[entity].append(second)
    found = []
    for entity, seconds in of_entity.items():
        some = {"all": seconds, "even": [one for one in seconds if one % 2 == 0], "odd": sorted(seconds)[:2]}
        holds = {"all": True, "even": sum(seconds) % 3 != 0, "odd": len(seconds) % 2 == 1}
        found += [
            (rule, entity, min(shown), max(shown), len(shown))
            for rule, shown in some.items()
            if shown and holds[rule]
        ]  # fmt: skip
    return sorted(found)


def one_run(events: Sequence[Event], start: int, stop: int) -> list[Finding]:
    """Return what a run over [start, stop) says that has read everything before ``stop``."""
    return [
        one for one in detect(event for event in events if event[1] < stop) if start <= one[3]
    ]  # fmt: skip
