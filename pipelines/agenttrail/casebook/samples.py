"""GPU samples that no longer prove anything: most of what a pod tells that lives for days.

A finding on GPUs rests on intervals in which they were busy without a step.  Long after a minute went by it is known
for good whether it lies in one, or may yet come to: samples of all others go, however long their pod lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.asof import last_before
from agenttrail.columns.groups import group_rows, max_by, min_by
from agenttrail.columns.numbers import numbers
from agenttrail.detect.analytics.gpu_progress import SILENCE
from agenttrail.detect.findings import peers
from agenttrail.detect.progress import MINUTE
from agenttrail.detect.settled_samples import Times, needless
from agenttrail.entities import WORKLOAD_DIGEST, name_holders
from agenttrail.gathering.gathered import GPU_PROGRESS, fires, samples_of
from agenttrail.gathering.merging import merged
from agenttrail.gathering.named import reports
from agenttrail.gathering.shard import Shard, column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.casebook.segments import Known, Segment
    from agenttrail.gathering.gathered import Asked

SETTLED = 6 * 3_600_000_000
"""How long after it a minute is settled, in microseconds: longer than the silence that a report may still end."""
_METRIC = "metric.name"
_NEAR = SILENCE + MINUTE
"""Of a sample from up to so long before or after reports say something, in microseconds."""
_EVER = 1 << 61


@dataclass(frozen=True)
class Needless:
    """When GPU samples of workloads are needed no more.

    Attributes:
        workloads: digests of those of which there are samples of how much GPUs are used.
        times: half-open intervals; entities are places among ``workloads``.
        settled: before this all samples of all others are needless, in microseconds.
    """

    workloads: pa.Array
    times: Times
    settled: int

    @classmethod
    def of(cls, segments: Sequence[Segment], asked: Asked, settled: int) -> Needless:
        """Ask what all samples say together.

        Args:
            segments: all that is held.
            asked: what rules ask.
            settled: no report and no sample from before this, and as long after it as ``gpu_progress.SILENCE``, is to
                come any more, in microseconds.
        """
        none = np.empty(0, np.int64)
        if not any(_METRIC in one.signals.rows.schema.names for one in segments):
            return cls(pa.array([], pa.binary(16)), Times(none, none, none), settled)
        shard = Shard.of(merged([one.signals for one in segments])[0])
        samples = shard.are(_METRIC)
        told = reports([one.progress for one in segments if one.progress is not None])
        times = needless(
            samples_of(shard, samples),
            told,
            _talks(shard),
            settled,
            lambda busy: fires(asked.plans[GPU_PROGRESS], busy),
        )
        codes, first = np.unique(shard.workload, return_index=True)
        digests = shard.holders.column(WORKLOAD_DIGEST).take(pa.array(shard.holder[first]))
        owners, place = np.unique(times.entity, return_inverse=True)
        workloads = digests.take(pa.array(np.searchsorted(codes, owners)))
        return cls(workloads, times._replace(entity=place.ravel()), settled)

    def among(self, segment: Segment, known: Known) -> NDArray[np.bool_]:
        """Tell which raw rows of a segment are such samples."""
        raw = segment.raw
        if segment.dataset is not None or _METRIC not in raw.schema.names:
            return np.zeros(raw.num_rows, dtype=bool)
        holders, which = name_holders(known.named(raw))
        workload = pc.index_in(holders.column(WORKLOAD_DIGEST), value_set=self.workloads)
        owner = numbers(workload.cast(pa.int64()), -1)[which]
        start = segment.started()
        gone: NDArray[np.bool_] = np.where(owner < 0, start < self.settled, self._inside(owner, start))
        gone &= np.asarray(raw.column(_METRIC).is_valid(), dtype=bool)
        return gone

    def told_of(self, times: NDArray[np.int64], sampled: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell at which times reports of progress say something of samples, or may of those to come.

        Args:
            times: of reports, in microseconds.
            sampled: when the samples that are kept were taken, ascending.
        """
        bounds = np.concatenate([np.array([-_EVER]), sampled, np.array([_EVER])])
        place = np.searchsorted(bounds, times, side="right")
        near = np.minimum(times - bounds[place - 1], bounds[np.minimum(place, len(bounds) - 1)] - times) <= _NEAR
        told: NDArray[np.bool_] = near | (times >= self.settled - _NEAR)
        return told

    def _inside(self, owner: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which times of workloads lie in an interval."""
        place = last_before(owner, start, self.times.entity, self.times.begin)
        inside: NDArray[np.bool_] = start < np.append(self.times.end, -_EVER)[place]
        return inside


def _talks(shard: Shard) -> Times:
    """Return from when to when each workload talked to each of its peers, whatever went on between."""
    rows = shard.are("network.direction")
    flows = shard.rows.take(pa.array(rows))
    start, end = (numbers(column(flows, name).cast(pa.int64())) for name in ("event.start", "event.end"))
    owner = shard.workload[rows]
    which, first = group_rows([pa.array(owner), peers(flows)["peer.ip"]])
    return Times(owner[first], min_by(which, len(first), start), max_by(which, len(first), np.maximum(start, end)))
