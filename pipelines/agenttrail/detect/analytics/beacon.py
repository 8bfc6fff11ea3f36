"""Regular contact: how much the conversations of a workload with one peer look like a machine's heartbeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.chains import running_max
from agenttrail.columns.groups import group_rows, max_by, min_by, sum_by
from agenttrail.columns.offsets import offsets_of, run_offsets
from agenttrail.columns.ordering import order_by
from agenttrail.detect.derived import Derived, column_of, flags, from_conversations, integers
from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 8
"""Contacts that it takes to speak of regularity."""
LONG_LIVED = 86_400_000_000
"""Microseconds of a lease from which a workload's life counts as what was seen of it."""
SLICES = 24
"""Most slices that a life is cut into, as RITA cuts its day into hours."""
FEWEST_SLICES = 4
CONTINUED = 900_000_000
"""Microseconds between conversations from one TCP port of the workload within which they are one contact, unless flags
tell that it was opened anew: a connection that stays open is cut at the capture windows of flow logs, which are as even
as any beacon."""
_TCP = 6
_PER_SLICE = 4
"""Conversations per slice, on average, below which there are fewer slices."""
_SPREAD = 10
"""Seconds or bytes between the quartiles below which skewness says nothing."""
_FEWEST_VALUES = 3
_BIMODAL_SLICES = 11
_UNKNOWN = np.iinfo(np.int64).min
_MOST_SENT, _MOST = 1 << 40, 1 << 56
"""Bytes that one conversation and one contact count for at most, so that no product below leaves int64."""


def derive(conversations: pa.RecordBatch, least: int = LEAST) -> Derived:
    """Score how regular the conversations with one peer are.

    For every workload (``entity``), peer, peer's port and protocol with at least ``least`` contacts that were opened
    outward.  A contact is a conversation, or several over TCP from one port of the workload that follow one another
    within ``CONTINUED``, none but the first ``opened`` as far as flags tell: it starts with the first of them and
    carries the bytes of all.  The four sub-scores and their
    constants are those of RITA (Active Countermeasures, github.com/activecm/rita, version 5), but over the **life of
    the workload** instead of the data set's day: from ``lease.start`` to ``lease.end``, extended to what was seen of
    it; or what was seen of it (first start to last end of all its conversations here) where one of its leases is open
    or unknown, or where they reach over more than 24 hours.

    - ``beacon.timestamp_score``: the positive gaps between starts, in whole seconds.  Mean of 1 - |Bowley skewness| and
      max(0, (median - MAD) / median), MAD being the median distance from the median.  Bowley skewness =
      (Q1 + Q3 - 2 Q2) / (Q3 - Q1), taken as 0 where Q3 - Q1 < 10 s or Q2 equals Q1 or Q3; quartiles are the medians of
      the lower and the upper half without the middle value.  0 where there are fewer than three gaps.
    - ``beacon.size_score``: the same of bytes sent per contact (10 bytes); the second term is 0 where the median
      is below 1 byte.
    - ``beacon.duration_score``: the larger of coverage = (last start - first start) / life and consistency = 2 x
      longest run of filled slices / slices, each at most 1; 0 where less than a quarter of the slices, or less than
      two, are filled.  The life is cut into n // 4 equal slices for n contacts, at least 4 and at most 24 (RITA:
      24 hours of a day, 12 in a row are ideal).  RITA lets runs go on from the last slice to the first; a life is no
      circle, so here they do not.
    - ``beacon.histogram_score``: the larger of max(0, 1 - standard deviation / mean) of the contacts per slice
      and, where 11 slices or more are filled, the share of the filled slices but one that hold one of the two
      commonest numbers of conversations (numbers within 5 % of the largest count as one), at most 1.
    - ``beacon.score``: their mean.  All are 0 to 1, never null; the last two are 0 for a life without length.
    - ``beacon.evenness``: max(0, (median - MAD) / median) of those gaps, the second term of the timestamp score alone,
      0 where there are fewer than three.  With a jitter of up to j of the period, even on both sides, it is about
      1 - j / 2, for contacts that come at random about 0.3; of few gaps it parts the two better than skewness does.
    - ``beacon.count``: number of contacts.
    - ``beacon.period``: median of those gaps in seconds; null where there are fewer than three.

    Args:
        conversations: what ``converse()`` returns, with ``entity``, ``lease.start``, ``lease.end``, ``outward``,
            ``opened``.
        least: contacts that it takes.

    Returns:
        One event per workload and peer's end, blocked or not, with the columns of ``from_conversations()`` and those
        above.
    """
    members, which = _often_opened(conversations, least)
    contacts = _contacts(conversations, members, which)
    often = np.flatnonzero(np.bincount(contacts.which) >= least)
    held = np.isin(which, often)
    members, offsets = members[held], run_offsets(which[held])
    contacts = contacts.only(often)
    start, which, count = contacts.start, contacts.which, len(often)
    of_contacts = offsets_of(np.bincount(which, minlength=count))
    gaps, owner = _gaps(start // 1_000_000, which)
    timestamps, evenness, period = _regularity(gaps, owner, count, 1.0)
    sizes, _, _ = _regularity(contacts.sent, which, count, 0.0)
    born, life = _lives(conversations, members[offsets[:-1]])
    slices, counts = _slices(start, which, of_contacts, born, life)
    first, last = start[of_contacts[:-1]], start[of_contacts[1:] - 1]
    duration = np.where(life > 0, _duration(slices, counts, (last - first) / np.maximum(life, 1)), 0.0)
    histogram = np.where(life > 0, _histogram(slices, counts), 0.0)
    facts = {
        "beacon.score": pa.array((timestamps + sizes + duration + histogram) / 4),
        "beacon.timestamp_score": pa.array(timestamps),
        "beacon.size_score": pa.array(sizes),
        "beacon.duration_score": pa.array(duration),
        "beacon.histogram_score": pa.array(histogram),
        "beacon.evenness": pa.array(evenness),
        "beacon.count": pa.array(np.diff(of_contacts)),
        "beacon.period": pa.array(period, mask=np.isnan(period)),
    }
    return from_conversations("beacon", conversations, offsets, members, facts)


def _often_opened(conversations: pa.RecordBatch, least: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the conversations of each peer's end that was contacted often, ascending in time, and the end of each."""
    rows = np.flatnonzero(flags(conversations, "outward"))
    columns = [
        column_of(conversations, "entity", pa.int64()),
        column_of(conversations, "destination.ip", ADDRESS),
        column_of(conversations, "destination.port", pa.int32()),
        column_of(conversations, "network.iana_number", pa.int32()),
    ]
    groups, _ = group_rows([column.take(pa.array(rows)) for column in columns])
    often = (np.bincount(groups) >= least)[groups] if len(groups) else np.zeros(0, dtype=bool)
    rows, groups = rows[often], groups[often]
    start, end = (integers(conversations, f"event.{name}")[rows] for name in ("start", "end"))
    order = order_by(groups, start, end)
    lengths = np.diff(run_offsets(groups[order]))
    return rows[order], np.repeat(np.arange(len(lengths)), lengths)


@dataclass(frozen=True)
class _Contacts:
    """Contacts, ascending by peer's end and start.

    Attributes:
        which: peer's end of each.
        start: of each, in microseconds.
        sent: bytes of each.
    """

    which: NDArray[np.int64]
    start: NDArray[np.int64]
    sent: NDArray[np.int64]

    def only(self, ends: NDArray[np.int64]) -> _Contacts:
        """Return those of some peer's ends, which are numbered anew."""
        held = np.isin(self.which, ends)
        return _Contacts(np.searchsorted(ends, self.which[held]), self.start[held], self.sent[held])


def _contacts(conversations: pa.RecordBatch, members: NDArray[np.int64], which: NDArray[np.int64]) -> _Contacts:
    start, end = (integers(conversations, f"event.{name}")[members] for name in ("start", "end"))
    sent = np.clip(integers(conversations, "source.bytes")[members], 0, _MOST_SENT)
    port = integers(conversations, "source.port", -1)[members]
    stays = (integers(conversations, "network.iana_number")[members] == _TCP) & (port >= 0)
    socket = np.where(stays, port, -1 - np.arange(len(members)))
    sockets, _ = group_rows([pa.array(which), pa.array(socket)])
    anew = flags(conversations, "opened")[members]
    ascending = order_by(sockets, start, end)
    socket, begin, finish = sockets[ascending], start[ascending], end[ascending]
    furthest = running_max(socket, finish)
    fresh = np.ones(len(members), dtype=bool)
    fresh[1:] = (socket[1:] != socket[:-1]) | (begin[1:] > furthest[:-1] + CONTINUED) | anew[ascending][1:]
    contact = np.empty(len(members), dtype=np.int64)
    contact[ascending] = np.cumsum(fresh) - 1
    count = int(contact.max(initial=-1)) + 1
    begun, owner = min_by(contact, count, start), max_by(contact, count, which)
    order = order_by(owner, begun)
    return _Contacts(owner[order], begun[order], np.minimum(sum_by(contact, count, sent)[order], _MOST))


def _gaps(seconds: NDArray[np.int64], which: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positive gaps between neighbours of one event, and the event of each."""
    gaps = np.diff(seconds)
    real = (which[1:] == which[:-1]) & (gaps > 0)
    return gaps[real], which[1:][real]


def _regularity(
    values: NDArray[np.int64], which: NDArray[np.int64], count: int, without_median: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score the values of each event by their skewness and dispersion.

    Args:
        values: not negative.
        which: event of each value, ascending.
        count: number of events.
        without_median: score of the dispersion where the median is below 1.

    Returns:
        The scores and the dispersions in them, 0 where there are fewer than three values, and the medians, not a number
        there.
    """
    number = np.bincount(which, minlength=count)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(number)])[:-1]
    ordered = _sorted_within(values, which)
    half = number // 2
    # all doubled, as a median may be half a unit
    q1, q2 = _twice_median(ordered, offsets, half), _twice_median(ordered, offsets, number)
    q3 = _twice_median(ordered, offsets + number - half, half)
    tells = (q3 - q1 >= 2 * _SPREAD) & (q2 != q1) & (q2 != q3)
    skewness = np.where(tells, np.abs(q1 + q3 - 2 * q2) / np.where(tells, q3 - q1, 1), 0.0)
    distance = _sorted_within(np.abs(2 * values - q2[which]), which)
    mad = _twice_median(distance, offsets, number)  # four times
    has_median = q2 >= 2  # noqa: PLR2004 - twice one
    middle = np.where(has_median, q2, 1)
    dispersion = np.where(has_median, np.maximum(2 * middle - mad, 0) / (2 * middle), without_median)
    enough = number >= _FEWEST_VALUES
    score = np.where(enough, (1 - skewness + dispersion) / 2, 0.0)
    return score, np.where(enough, dispersion, 0.0), np.where(enough, q2 / 2, np.nan)


def _sorted_within(values: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort the values of each event; ``which`` ascends."""
    width = int(values.max(initial=0)) + 1
    ordered: NDArray[np.int64]
    if width * (int(which.max(initial=0)) + 1) < 1 << 62:
        ordered = np.sort(which * width + values) - which * width
    else:
        ordered = values[order_by(which, values)]
    return ordered


def _twice_median(
    ordered: NDArray[np.int64], offsets: NDArray[np.int64], number: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return twice the median of ``number`` ordered values from each offset on; of none, anything."""
    padded = np.append(ordered, 0)
    lower, upper = (np.minimum(offsets + place, len(ordered)) for place in ((number - 1) // 2, number // 2))
    twice: NDArray[np.int64] = padded[lower] + padded[upper]
    return twice


def _lives(conversations: pa.RecordBatch, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return birth and length, in microseconds, of the lives of the workloads that ``rows`` belong to."""
    entities, entity = np.unique(integers(conversations, "entity"), return_inverse=True)
    entity, count = entity.ravel(), len(entities)
    seen = min_by(entity, count, integers(conversations, "event.start"))
    gone = max_by(entity, count, integers(conversations, "event.end"))
    opened, closed = (integers(conversations, f"lease.{name}", _UNKNOWN) for name in ("start", "end"))
    known = min_by(entity, count, np.minimum(opened, closed)) != _UNKNOWN
    start = np.where(known, min_by(entity, count, opened), 0)
    end = np.where(known, max_by(entity, count, closed), 0)
    known &= end - start <= LONG_LIVED
    born = np.where(known, np.minimum(start, seen), seen)
    life = np.where(known, np.maximum(end, gone), gone) - born
    return born[entity[rows]], life[entity[rows]]


def _slices(
    start: NDArray[np.int64],
    which: NDArray[np.int64],
    offsets: NDArray[np.int64],
    born: NDArray[np.int64],
    life: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of slices of each life, and the conversations in each slice (zero in those too many)."""
    slices = np.clip(np.diff(offsets) // _PER_SLICE, FEWEST_SLICES, SLICES)
    place = (start - born[which]) * slices[which] // np.maximum(life, 1)[which]
    cell = which * SLICES + np.minimum(place, slices[which] - 1)
    return slices, np.bincount(cell, minlength=len(slices) * SLICES).reshape(-1, SLICES)


def _duration(
    slices: NDArray[np.int64], counts: NDArray[np.int64], coverage: NDArray[np.float64]
) -> NDArray[np.float64]:
    filled = counts > 0
    longest, run = np.zeros(len(slices), np.int64), np.zeros(len(slices), np.int64)
    for place in range(SLICES):
        run = np.where(filled[:, place], run + 1, 0)
        longest = np.maximum(longest, run)
    enough = np.count_nonzero(filled, axis=1) >= np.maximum(2, -(-slices // 4))
    return np.where(enough, np.minimum(np.maximum(coverage, 2 * longest / slices), 1.0), 0.0)


def _histogram(slices: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    total = counts.sum(axis=1)
    variation: NDArray[np.float64] = np.sqrt(slices * (counts * counts).sum(axis=1) - total * total) / np.maximum(
        total, 1
    )
    score: NDArray[np.float64] = np.maximum(1 - variation, 0.0)
    many = np.flatnonzero(np.count_nonzero(counts, axis=1) >= _BIMODAL_SLICES)
    score[many] = np.maximum(score[many], _two_levels(counts[many]))
    return score


def _two_levels(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the filled slices but one that hold one of the two commonest numbers."""
    width = -(-counts.max(axis=1, initial=1) * 5 // 100)
    level = np.where(counts > 0, counts // width[:, None], -1)
    alike = np.zeros_like(counts)
    for place in range(SLICES):
        alike += (level == level[:, place, None]) & (level >= 0)
    commonest = alike.argmax(axis=1)
    rows = np.arange(len(counts))
    first = alike[rows, commonest]
    second = np.where(level == level[rows, commonest][:, None], 0, alike).max(axis=1, initial=0)
    share = (first + second) / np.maximum(np.count_nonzero(counts, axis=1) - 1, 1)
    return np.where(share > 1, 1.0, share)
