"""GPUs that are busy without a step for just as long as a connection lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.offsets import ranges, run_offsets
from agenttrail.columns.overlaps import Overlaps, overlaps
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

    ``connection.gpu_overlap`` = length of what a connection shares with intervals of ``gpu_progress`` of the same
    workload / length of it and of all intervals that it meets, taken together (the Jaccard index of two sets), 0 to 1;
    ``connection.gpu_share`` = that shared length / length of the connection.  A miner keeps GPUs busy while it talks to
    its pool, and not otherwise; an evaluation and a connection that have nothing to do with one another begin and end
    at different times.  Samples that are missing part an interval, but do not matter here otherwise.
    ``gpu.tensor_active`` = mean of the samples of ``TENSOR`` of the workload from the first to the last instant that is
    shared, 0 to 1: networks are trained and evaluated on tensor cores, hashes are not computed there.

    Args:
        connections: what ``long_connection.derive()`` returns.
        busy: what ``gpu_progress.derive()`` returns.
        samples: the GPU samples that ``busy`` was derived from, and those of ``TENSOR``.

    Returns:
        The connections with these two, null where the workload has no busy interval.  And one event per connection
        that meets one, in their order, whose members are the samples of those intervals from the first to the last
        instant of the connection: ``event.start``, ``event.end`` the first and the last of these, ``gpu.utilization``
        their mean in per cent, ``gpu.busy_duration`` the seconds that are shared, ``gpu.tensor_active``, null where no
        such sample lies there, ``training.rung`` of the first interval; the ends and ``connection.*`` are those of the
        connection.  Connections within which no sample lies have no event.
    """
    own, others = _intervals(connections.events), _intervals(busy.events)
    found = overlaps(own, others)
    none = ~np.isin(own[0], others[0])
    share = found.shared / np.maximum(own[2] - own[1], 1)
    columns = [pa.array(found.of_both, mask=none), pa.array(share, mask=none)]
    names = [*connections.events.schema.names, OVERLAP, SHARE]
    beside = pa.RecordBatch.from_arrays([*connections.events.columns, *columns], names=names)
    told = Derived(beside, connections.members_offsets, connections.members)
    time = integers(samples, "event.start")
    connection, members = _samples_within(own, found, busy, time)
    offsets = run_offsets(connection)
    rows, starts = connection[offsets[:-1]], offsets[:-1]
    first = found.other[np.searchsorted(found.row, rows)]
    last = found.other[np.searchsorted(found.row, rows, side="right") - 1]
    time, use = time[members], _thousandths(samples)[members]
    begin, finish = np.maximum(own[1][rows], others[1][first]), np.minimum(own[2][rows], others[2][last])
    facts = {
        "event.dataset": constant("gpu_conversation", len(rows)),
        "event.start": pa.array(np.minimum.reduceat(time, starts)).view(TIMESTAMP),
        "event.end": pa.array(np.maximum.reduceat(time, starts)).view(TIMESTAMP),
        "gpu.utilization": pa.array(np.add.reduceat(use, starts) / np.diff(offsets) / 1_000),
        "gpu.busy_duration": pa.array(found.shared[rows] / 1e6),
        "gpu.tensor_active": _tensor_active(samples, own[0][rows], begin, finish),
        "training.rung": busy.events.column("training.rung").take(pa.array(first)),
    }
    facts |= {name: beside.column(name).take(pa.array(rows)) for name in _OF_CONNECTION}
    events = pa.RecordBatch.from_arrays(list(facts.values()), names=list(facts))
    return Beside(told, Derived(events, offsets, members))


_Intervals = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


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
    own: _Intervals, found: Overlaps, busy: Derived, time: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of a connection and a sample within it, in order of time, of the intervals that it meets."""
    first = busy.members_offsets[found.other]
    lengths = busy.members_offsets[found.other + 1] - first
    connection, members = np.repeat(found.row, lengths), busy.members[ranges(first, lengths)]
    within = (time[members] >= own[1][connection]) & (time[members] <= own[2][connection])
    return connection[within], members[within]
