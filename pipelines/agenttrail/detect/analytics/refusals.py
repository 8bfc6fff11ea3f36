"""Bursts of refused connections: one workload, one after the other, whoever the peers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.chains import running_max
from agenttrail.columns.groups import column_codes
from agenttrail.columns.offsets import run_offsets
from agenttrail.columns.ordering import distinct, order_by
from agenttrail.detect.derived import Derived, column_of, flags, from_conversations, integers
from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAP = 20_000_000
"""Microseconds without a refused connection after which another burst begins: retries of TCP come after 1, 3, 7 and 15
seconds, and who tries other addresses does not wait longer for each."""
PAUSE = 5_000_000
"""The same where another tool call started in between: what one call is refused and what the next one is are two things
unless it goes on without a pause, as something in the background does."""
LEAST = 5
"""Refused conversations that it takes to be stated."""
_CALL_GAP, _CALL_START = "gen_ai.tool.call.gap", "gen_ai.tool.call.start"


def derive(conversations: pa.RecordBatch, gap: int = GAP, least: int = LEAST) -> Derived:
    """State the bursts in which a workload was refused.

    Conversations of one workload (``entity``) that it opened itself and that were blocked are one burst as long as none
    starts more than ``gap`` after the furthest end before it; or more than ``PAUSE`` (or ``gap``, if that is less)
    where the tool call before it is another than before its predecessor by (start, end).  What lies further back is
    part of another burst: so the first event of a burst is where it began, and not what happened to be refused a while
    before.  (Source: session windows, as stream processors and rsigma have them, with the gap in event time.)

    Args:
        conversations: what ``converse()`` returns, with ``entity`` and ``outward``, and where there are spans with
            ``gen_ai.tool.call.start`` and ``gen_ai.tool.call.gap``.
        gap: in microseconds.
        least: conversations that it takes.

    Returns:
        One event per burst, with the columns of ``from_conversations()`` (``peer.*`` null where it went to several) and
        ``egress.peers``: number of distinct peers;
        ``connection.duration``: seconds from the first start to the last end;
        ``gen_ai.tool.call.gap``: seconds from the start of the tool call before its first conversation; null without.
    """
    refused = pc.equal(column_of(conversations, "event.outcome", pa.string()), "failure")
    rows = np.flatnonzero(np.asarray(pc.fill_null(refused, fill_value=False)) & flags(conversations, "outward"))
    start, end = (integers(conversations, f"event.{name}")[rows] for name in ("start", "end"))
    entity = column_codes(column_of(conversations, "entity", pa.int64()).take(pa.array(rows)))[0]
    call = integers(conversations, _CALL_START, -1)[rows]
    order = order_by(entity, start, end, call)
    bursts = _numbered(entity[order], start[order], end[order], call[order], gap)
    often = (np.bincount(bursts) >= least)[bursts] if len(rows) else np.zeros(0, dtype=bool)
    kept, bursts = order[often], bursts[often]
    members, offsets = rows[kept], run_offsets(bursts)
    first = offsets[:-1]
    peer, peers = column_codes(column_of(conversations, "destination.ip", ADDRESS).take(pa.array(members)))
    which = np.repeat(np.arange(len(first)), np.diff(offsets))
    peers_of = np.bincount(distinct(which * max(peers, 1) + peer) // max(peers, 1), minlength=len(first))
    begun, done = np.minimum.reduceat(start[kept], first), np.maximum.reduceat(end[kept], first)
    facts = {
        "egress.peers": pa.array(peers_of),
        "connection.duration": pa.array((done - begun) / 1e6),
        _CALL_GAP: column_of(conversations, _CALL_GAP, pa.float64()).take(pa.array(members[first])),
    }
    return from_conversations("refusals", conversations, offsets, members, facts)


def _numbered(
    entity: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64], call: NDArray[np.int64], gap: int
) -> NDArray[np.int64]:
    """Number the bursts of conversations that ascend by entity, start and end."""
    furthest = running_max(entity, end)
    fresh = np.ones(len(entity), dtype=bool)
    longest = np.where(call[1:] == call[:-1], gap, min(PAUSE, gap))
    fresh[1:] = (entity[1:] != entity[:-1]) | (start[1:] > furthest[:-1] + longest)
    numbered: NDArray[np.int64] = np.cumsum(fresh) - 1
    return numbered
