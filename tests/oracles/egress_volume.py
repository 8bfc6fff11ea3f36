"""The hour in which most left, window by window."""

from __future__ import annotations

from tests.oracles.derived import Conversation, described


def egress_volumes(conversations: list[Conversation], window: int, least: int) -> list[dict[str, object]]:
    """Return what egress_volume.derive() must state."""
    unlisted = [one for one in conversations if one.unlisted]
    found = []
    for entity in {one.entity for one in unlisted}:
        own = [one for one in unlisted if one.entity == entity]
        found += [_fullest([one for one in own if one.peer == peer], window) for peer in {one.peer for one in own}]
        every = _fullest(own, window)
        if len({one.peer for one in every}) > 1:
            found.append(every)
    return [_one(members) for members in found if sum(one.sent for one in members) >= least]


def _fullest(ones: list[Conversation], window: int) -> list[Conversation]:
    best: list[Conversation] = []
    for start in sorted({one.start for one in ones}):
        held = [one for one in ones if start <= one.start < start + window]
        if not best or sum(one.sent for one in held) > sum(one.sent for one in best):
            best = held
    return best


def _one(members: list[Conversation]) -> dict[str, object]:
    return described(members) | {
        "egress.bytes": sum(one.sent for one in members),
        "egress.peers": len({one.peer for one in members}),
    }
