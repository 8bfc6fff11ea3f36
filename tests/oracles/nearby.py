"""Unanswered attempts nearby, conversation by conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.oracles.derived import Conversation


def unanswered_nearby(ones: list[Conversation], reach: int) -> list[int | None]:
    """Return what nearby.unanswered_nearby() must say of each."""
    asking = [one for one in ones if _asks(one)]
    return [
        sum(
            (other.entity, other.port) == (one.entity, one.port)
            and other.peer != one.peer
            and abs(other.start - one.start) <= reach
            and _unanswered(other)
            for other in asking
        )
        if _asks(one)
        else None
        for one in ones
    ]


def _asks(one: Conversation) -> bool:
    return one.outward and not one.unlisted and one.protocol == 6 and one.sent <= 600


def _unanswered(one: Conversation) -> bool:
    return one.outcome == "failure" or (one.sent <= 320 and one.received == 0)
