"""Bursts of refused connections, conversation by conversation."""

from __future__ import annotations

from tests.oracles.derived import Conversation, described


def refusals(conversations: list[Conversation], gap: int, least: int) -> list[dict[str, object]]:
    """Return what refusals.derive() must state."""
    bursts: list[list[Conversation]] = []
    for entity in sorted({one.entity for one in conversations}):
        own = [one for one in conversations if one.entity == entity and one.outward and one.outcome == "failure"]
        burst: list[Conversation] = []
        for one in sorted(own, key=lambda one: (one.start, one.end, -1 if one.call is None else one.call)):
            longest = min(gap, 5_000_000) if burst and burst[-1].call != one.call else gap
            if burst and one.start > max(member.end for member in burst) + longest:
                bursts.append(burst)
                burst = []
            burst.append(one)
        bursts.append(burst)
    return [
        described(burst)
        | {
            "egress.peers": len({one.peer for one in burst}),
            "connection.duration": (max(one.end for one in burst) - burst[0].start) / 1_000_000,
            "gen_ai.tool.call.gap": None if (call := burst[0].call) is None else (burst[0].start - call) / 1_000_000,
        }
        for burst in bursts
        if len(burst) >= least
    ]
