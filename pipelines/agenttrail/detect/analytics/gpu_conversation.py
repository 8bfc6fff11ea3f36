"""GPUs that are busy without a step for just as long as a connection lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.offsets import ranges, run_offsets
from agenttrail.columns.overlaps import most_overlapped
from agenttrail.columns.text import constant
from agenttrail.detect.derived import Derived, column_of, integers
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

TENSOR = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"
"""Share of the cycles in which the tensor cores of one GPU were at work (NVIDIA DCGM, field 1004)."""
OVERLAP, SHARE = "connection.gpu_overlap", "connection.gpu_share"
_OF_CONNECTION = (
    "entity", "source.ip", "peer.ip", "peer.port", "destination.ip", "destination.port", "network.iana_number",
    "network.initiator", "connection.duration", "connection.lease_share", "connection.upload_share",
    "connection.rate", "connection.count", OVERLAP, SHARE,
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """Connections and busy GPUs laid beside each other.

    Attributes:
        connections: the long connections, with ``connection.gpu_overlap`` and ``connection.gpu_share``.
        gpus: the events of ``derive()``.
    """

    connections: Derived
    gpus: Derived


def derive(connections: Derived, busy: Derived, samples: pa.RecordBatch) -> Beside:
    """Lay the long connections of workloads beside the intervals in which their GPUs were busy without a step.

    ``connection.gpu_overlap`` = length of the intersection of the two intervals / length of their union (the Jaccard
    index of two sets), 0 to 1, with the interval of ``gpu_progress`` of the same workload that a connection coincides
    with most; ``connection.gpu_share`` = length of that intersection / length of the connection.  A miner keeps GPUs
    busy exactly while it talks to its pool; an evaluation and a connection that have nothing to do with one another
    begin and end at different times.  ``gpu.tensor_active`` = mean of the samples of ``TENSOR`` of the workload in that
    intersection, 0 to 1: networks are trained and evaluated on tensor cores, hashes are not computed there.

    Args:
        connections: what ``long_connection.derive()`` returns.
        busy: what ``gpu_progress.derive()`` returns.
        samples: the GPU samples that ``busy`` was derived from, and those of ``TENSOR``.

    Returns:
        The connections with these two, null where the workload has no busy interval.  And one event
        per connection that coincides with one, in their order, whose members are the samples of that interval from the
        first to the last instant of the connection: ``event.start``, ``event.end`` the first and the last of these,
        ``gpu.utilization`` their mean in per cent, ``gpu.busy_duration`` the seconds of the intersection,
        ``gpu.tensor_active``, null where no such sample lies in it, ``training.rung``; the
        ends and ``connection.*`` are those of the connection.  Connections within which no sample lies have no event.
    """
    own, others = _intervals(connections.events), _intervals(busy.events)
    share, which = most_overlapped(own, others)
    none = ~np.isin(own[0], others[0])
    columns = [pa.array(share, mask=none), pa.array(_covered(own, others, which), mask=none)]
    names = [*connections.events.schema.names, OVERLAP, SHARE]
    beside = pa.RecordBatch.from_arrays([*connections.events.columns, *columns], names=names)
    told = Derived(beside, connections.members_offsets, connections.members)
    connection, members = _samples_within(
        own, np.flatnonzero(which >= 0), which, busy, integers(samples, "event.start")
    )
    offsets = run_offsets(connection)
    rows, starts = connection[offsets[:-1]], offsets[:-1]
    interval = which[rows]
    time, use = integers(samples, "event.start")[members], _thousandths(samples)[members]
    begin, finish = np.maximum(own[1][rows], others[1][interval]), np.minimum(own[2][rows], others[2][interval])
    facts = {
        "event.dataset": constant("gpu_conversation", len(rows)),
        "event.start": pa.array(np.minimum.reduceat(time, starts)).view(TIMESTAMP),
        "event.end": pa.array(np.maximum.reduceat(time, starts)).view(TIMESTAMP),
        "gpu.utilization": pa.array(np.add.reduceat(use, starts) / np.diff(offsets) / 1_000),
        "gpu.busy_duration": pa.array((finish - begin) / 1e6),
        "gpu.tensor_active": _tensor_active(samples, own[0][rows], begin, finish),
        "training.rung": busy.events.column("training.rung").take(pa.array(interval)),
    }
    facts |= {name: beside.column(name).take(pa.array(rows)) for name in _OF_CONNECTION}
    events = pa.RecordBatch.from_arrays(list(facts.values()), names=list(facts))
    return Beside(told, Derived(events, offsets, members))


_Intervals = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


def _covered(own: _Intervals, others: _Intervals, which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each interval that the one of ``others`` covers which it coincides with most."""
    rows = np.flatnonzero(which >= 0)
    share = np.zeros(len(which))
    shared = np.minimum(own[2][rows], others[2][which[rows]]) - np.maximum(own[1][rows], others[1][which[rows]])
    share[rows] = shared / np.maximum(own[2] - own[1], 1)[rows]
    return share


def _intervals(events: pa.RecordBatch) -> _Intervals:
    return integers(events, "entity"), integers(events, "event.start"), integers(events, "event.end")


def _thousandths(samples: pa.RecordBatch) -> NDArray[np.int64]:
    """Return values in 1/1000, so that their sum does not depend on their order; those that are no per cents are 0."""
    value = column_of(samples, "metric.value", pa.float64()).to_numpy(zero_copy_only=False)
    use: NDArray[np.int64] = np.rint(np.clip(np.nan_to_num(value), 0, 100) * 1_000).astype(np.int64)
    return use


def _tensor_active(
    samples: pa.RecordBatch, entity: NDArray[np.int64], begin: NDArray[np.int64], finish: NDArray[np.int64]
) -> pa.Array:
    """Return the mean of the samples of ``TENSOR`` of each workload in [begin, finish]; null where there is none."""
    value = column_of(samples, "metric.value", pa.float64())
    share = pc.and_(pc.greater_equal(value, 0), pc.less_equal(value, 1))
    told = pc.and_(share, pc.equal(column_of(samples, "metric.name", pa.string()), TENSOR))
    rows = np.flatnonzero(np.asarray(pc.fill_null(told, fill_value=False)))
    owner, time = integers(samples, "entity")[rows], integers(samples, "event.start")[rows]
    order = np.lexsort((time, owner))
    rows, owner, time = rows[order], owner[order], time[order]
    # workload and rank of time in one ascending number, so that one search finds where each interval begins and ends
    times = np.unique(time)
    width = len(times) + 1
    place = owner * width + np.searchsorted(times, time)
    first = np.searchsorted(place, entity * width + np.searchsorted(times, begin))
    last = np.searchsorted(place, entity * width + np.searchsorted(times, finish, side="right"))
    # whole millionths add up to the same whatever their order
    parts = np.rint(value.take(pa.array(rows)).to_numpy(zero_copy_only=False) * 1e6).astype(np.int64)
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(parts)])
    count = last - first
    return pa.array((total[last] - total[first]) / np.maximum(count, 1) / 1e6, mask=count == 0)


def _samples_within(
    own: _Intervals,
    rows: NDArray[np.int64],
    which: NDArray[np.int64],
    busy: Derived,
    time: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of a connection among ``rows`` and a sample of its interval that lies within it."""
    first = busy.members_offsets[which[rows]]
    lengths = busy.members_offsets[which[rows] + 1] - first
    connection, members = np.repeat(rows, lengths), busy.members[ranges(first, lengths)]
    within = (time[members] >= own[1][connection]) & (time[members] <= own[2][connection])
    return connection[within], members[within]
