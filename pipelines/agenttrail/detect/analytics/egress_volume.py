"""Bytes that leave: the most that a workload sent to unlisted peers within one hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.groups import group_rows
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.columns.ordering import MOST, distinct, firsts, order_by
from agenttrail.detect.derived import Derived, column_of, flags, from_conversations, integers
from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 3_600_000_000
"""Microseconds of event time that bytes are summed over."""
LEAST = 100_000_000
"""Bytes below which nothing is stated."""
_MOST = 1 << 43
"""Bytes that one conversation counts for at most (8.8 TB), so that no sum of a window leaves int64."""


def derive(conversations: pa.RecordBatch, window: int = WINDOW, least: int = LEAST) -> Derived:
    """State the hour in which a workload sent most to one unlisted peer, and to all of them.

    egress.bytes = max over t of the sum of ``source.bytes`` of conversations whose start lies in [t, t + window): an
    exact sliding window of event time, never a fixed hour.  A conversation's bytes count at its start, also where it
    lasts longer than the window: that can put bytes together that left up to the conversation's length later, and the
    event's end says so.  Of equal windows it is the earliest that begins with a conversation.  Only peers that are
    neither internal nor allowed (``unlisted``) count.  (Source: volume by pair of hosts, as in RITA's and Zeek's
    reports of uploads, over a window of fixed length instead of a day.)

    Args:
        conversations: what ``converse()`` returns, with ``entity`` and ``unlisted``.
        window: in microseconds.
        least: bytes that a window needs to be stated.

    Returns:
        One event per workload and peer (``egress.peers`` 1), and one per workload for all peers together, with
        ``peer.ip`` null, if two or more received bytes in that window or spoke with it (``egress.peers`` their
        number); each with the columns of ``from_conversations()``, of the conversations in the window, and
        ``egress.bytes``, ``egress.peers``.  The port is null where it is not one.
    """
    rows = np.flatnonzero(flags(conversations, "unlisted"))
    kept = conversations.take(pa.array(rows))
    entity, address = column_of(kept, "entity", pa.int64()), column_of(kept, "destination.ip", ADDRESS)
    peers, _ = group_rows([entity, address])
    workloads, _ = group_rows([entity])
    start = integers(kept, "event.start")
    sent = np.clip(integers(kept, "source.bytes"), 0, _MOST)
    one = _fullest_windows(peers, start, sent, window, least)
    every = _fullest_windows(workloads, start, sent, window, least)
    parts = [one, _of_several(every, peers)]
    members = np.concatenate([part[0] for part in parts])
    lengths = np.concatenate([np.diff(part[1]) for part in parts])
    offsets = offsets_of(lengths)
    facts = {
        "egress.bytes": pa.array(np.add.reduceat(sent[members], offsets[:-1])),
        "egress.peers": pa.array(_distinct(peers[members], offsets)),
    }
    return from_conversations("egress_volume", conversations, offsets, rows[members], facts)


def _fullest_windows(
    groups: NDArray[np.int64], start: NDArray[np.int64], sent: NDArray[np.int64], window: int, least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the members of each group's fullest window with at least ``least`` bytes, and their offsets."""
    order = order_by(groups, start)
    group, begin = groups[order], start[order]
    # Group and time in one ascending number: one search finds the end of every row's window in its group.
    after = begin - begin.min(initial=0)
    width = int(after.max(initial=0)) + window + 1
    if width * (int(group.max(initial=0)) + 1) < MOST:
        place, ends = group * width + after, group * width + after + window
    else:  # the rank of a time instead: ranks are few
        times = distinct(begin)
        place, ends = (group * (len(times) + 1) + np.searchsorted(times, at) for at in (begin, begin + window))
    stop = np.searchsorted(place, ends)
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(sent[order])])
    held = total[stop] - total[:-1]
    # of each group the fullest, then the earliest
    enough = np.flatnonzero(held >= least)
    best = enough[order_by(group[enough], -held[enough])]
    best = best[firsts(group[best])[1]]
    lengths = stop[best] - best
    return order[ranges(best, lengths)], offsets_of(lengths)


def _of_several(
    found: tuple[NDArray[np.int64], NDArray[np.int64]], peers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the windows in which there are two peers or more."""
    members, offsets = found
    several = _distinct(peers[members], offsets) > 1
    lengths = np.diff(offsets)
    return members[np.repeat(several, lengths)], offsets_of(lengths[several])


def _distinct(values: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of distinct values in each slice."""
    count = len(offsets) - 1
    which = np.repeat(np.arange(count), np.diff(offsets))
    width = int(values.max(initial=0)) + 1
    return np.bincount(distinct(which * width + values) // width, minlength=count)
