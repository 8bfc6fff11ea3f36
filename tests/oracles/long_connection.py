"""Connections that last, conversation by conversation."""

from __future__ import annotations

from tests.oracles.derived import Conversation, by_peer, described

_MINUTE = 60_000_000


def long_connections(conversations: list[Conversation], gap: int) -> list[dict[str, object]]:
    """Return what long_connection.derive() must state."""
    found = []
    for ones in by_peer([one for one in conversations if one.outcome != "failure"]):
        chain: list[Conversation] = []
        for one in ones:
            if chain and one.start > max(member.end for member in chain) + gap:
                found.append(chain)
                chain = []
            chain.append(one)
        found.append(chain)
    return [_one(chain) for chain in found if _length(chain) >= 5 * _MINUTE]


def _length(chain: list[Conversation]) -> int:
    return max(one.end for one in chain) - min(one.start for one in chain)


def _lease(chain: list[Conversation]) -> tuple[int, int] | None:
    """Return the length of the lease and of its part that the connection takes."""
    starts, ends = [one.lease_start for one in chain], [one.lease_end for one in chain]
    if None in starts or None in ends:
        return None
    start, end = min(s for s in starts if s is not None), max(e for e in ends if e is not None)
    inside = min(end, max(one.end for one in chain)) - max(start, min(one.start for one in chain))
    return (end - start, max(inside, 0)) if end > start else None


def _one(chain: list[Conversation]) -> dict[str, object]:
    lease, total = _lease(chain), sum(one.sent + one.received for one in chain)
    seconds = _length(chain) / 1_000_000
    return described(chain) | {
        "connection.duration": seconds,
        "connection.lease_share": None if lease is None else lease[1] / lease[0],
        "connection.upload_share": sum(one.sent for one in chain) / total if total else None,
        "connection.rate": total / seconds,
        "connection.sockets": len({one.source_port for one in chain}),
    }
