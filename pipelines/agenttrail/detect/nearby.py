"""Who asks and who answers nearby: what sets the question of a scan apart from that of a service that works.

A scan is told by those that do not answer; but some do, and the very first may.  Seen by itself, that conversation is
like any other short one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import group_rows
from agenttrail.columns.ordering import MOST
from agenttrail.detect.derived import column_of, flags, integers
from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

REACH = 120_000_000
"""Microseconds before and after: the slowest scan that is told as one asks every half a minute."""
FIRST_PACKETS = 320
"""Most bytes that first packets weigh, sent again and again to somebody who does not answer."""
QUESTION = 600
"""Most bytes that a handshake, one short question and its acknowledgements weigh."""
_TCP = 6


def unanswered_nearby(conversations: pa.RecordBatch, reach: int = REACH) -> pa.Array:
    """Count per conversation the attempts nearby that nobody answered.

    Args:
        conversations: what ``converse()`` returns, with ``entity``, ``outward`` and ``unlisted``.
        reach: in microseconds.

    Returns:
        For each TCP conversation that a workload (``entity``) opened to a peer that is not ``unlisted`` and in which it
        sent no more than ``QUESTION`` bytes: how many such conversations of the same workload, to the same port of
        other peers, that start no more than ``reach`` before or after it, were refused, or sent no more than
        ``FIRST_PACKETS`` bytes and got nothing back.  Null for all others.
    """
    sent = integers(conversations, "source.bytes")
    asks = flags(conversations, "outward") & ~flags(conversations, "unlisted") & (sent <= QUESTION)
    asks &= integers(conversations, "network.iana_number") == _TCP
    rows = np.flatnonzero(asks)
    counts = np.zeros(len(asks), dtype=np.int64)
    if len(rows):
        some = conversations.take(pa.array(rows))
        keys = [column_of(some, "entity", pa.int64()), column_of(some, "destination.port", pa.int32())]
        start, silent = integers(some, "event.start"), np.flatnonzero(_unanswered(some))
        port, peer = (
            _within(group_rows(columns)[0], start, silent, reach)
            for columns in (keys, [*keys, column_of(some, "destination.ip", ADDRESS)])
        )
        counts[rows] = port - peer
    return pa.array(counts, mask=~asks)


def _unanswered(some: pa.RecordBatch) -> NDArray[np.bool_]:
    refused = pc.equal(column_of(some, "event.outcome", pa.string()), "failure")
    nothing = integers(some, "destination.bytes") == 0
    weak = integers(some, "source.bytes") <= FIRST_PACKETS
    unanswered: NDArray[np.bool_] = np.asarray(pc.fill_null(refused, fill_value=False), dtype=bool) | (nothing & weak)
    return unanswered


def _within(groups: Numbers, start: Numbers, which: Numbers, reach: int) -> Numbers:
    """Count per row those of the rows ``which`` that are in its group and start within ``reach`` of it."""
    low = int(start.min()) - reach
    moments = int(start.max()) + reach - low + 1
    if moments * (int(groups.max()) + 1) < MOST:
        own, first, last = start[which] - low, start - reach - low, start + reach - low
    else:  # the rank of a moment instead: ranks are few
        times = [start[which], start - reach, start + reach]
        distinct, ranks = np.unique(np.concatenate(times), return_inverse=True)
        own, first, last = np.split(ranks.ravel(), np.cumsum([len(one) for one in times])[:-1])
        moments = len(distinct)
    # a group and a moment as one number
    found = np.sort(groups[which] * moments + own)
    lift = groups * moments
    return _place(found, lift + last + 1) - _place(found, lift + first)


def _place(ordered: Numbers, values: Numbers) -> Numbers:
    """Return where each value belongs; those that ascend find their place in half the time, to sort them included."""
    order = np.argsort(values)
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.searchsorted(ordered, values[order])
    return place
