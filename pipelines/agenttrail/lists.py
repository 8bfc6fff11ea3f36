"""Lists that rules refer to by name: addresses, networks, words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.columns.networks import parse_network
from agenttrail.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping

Lists = dict[str, tuple[str, ...]]
ADDRESS_LISTS = ("internal", "egress_allow")
"""Lists that the program itself reads as networks."""


def shipped_lists() -> Lists:
    """Return the lists that ship with the rules, by name."""
    return {
        path.stem: parse_list(path.read_text(encoding="utf-8"))
        for path in sorted((shipped("rules") / "lists").glob("*.txt"))
    }


def parse_list(text: str) -> tuple[str, ...]:
    """Return the entries of a list file: one a line, without blank lines and what follows a #."""
    return tuple(entry for line in text.splitlines() if (entry := line.partition("#")[0].strip()))


def with_shipped(own: Mapping[str, tuple[str, ...]]) -> Lists:
    """Return the shipped lists, with those of a job in the place of their namesakes."""
    return shipped_lists() | dict(own)


def not_a_network(entries: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return place and reason of each entry that is no address or network."""
    wrong = []
    for index, entry in enumerate(entries):
        try:
            parse_network(entry)
        except ValueError as error:
            wrong.append((index, str(error)))
    return wrong
