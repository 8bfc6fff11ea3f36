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

from agenttrail.casebook.sums import RUNG, SampleTimes, Sums
from agenttrail.columns.chains import chain
from agenttrail.columns.groups import column_codes, group_rows, max_by, min_by
from agenttrail.columns.numbers import numbers
from agenttrail.conversations import ADJOINING
from agenttrail.detect.analytics.gpu_progress import SILENCE
from agenttrail.detect.analytics.long_connection import GAP, LEAST
from agenttrail.detect.finding_sums import added
from agenttrail.detect.findings import peers
from agenttrail.detect.progress import MINUTE
from agenttrail.detect.settled_samples import Times, needless
from agenttrail.entities import ENTITY_DIGEST, workload_digests
from agenttrail.gathering.gathered import GPU_PROGRESS, fires, gpu_findings, samples_of
from agenttrail.gathering.merging import merged
from agenttrail.gathering.named import reports
from agenttrail.gathering.shard import Shard, column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.casebook.segments import Known, Segment
    from agenttrail.detect.derived import Derived
    from agenttrail.gathering.gathered import Asked

SETTLED = 6 * 3_600_000_000
"""How long after it a minute is settled, in microseconds: longer than the silence that a report may still end."""
_METRIC = "metric.name"
_NEAR = SILENCE + MINUTE
"""Of a sample from up to so long before or after reports say something, in microseconds."""
_APART = max(ADJOINING, GAP)
"""Longest time between two records of one connection, in microseconds."""
_EVER = 1 << 61


@dataclass(frozen=True)
class Needless:
    """When GPU samples of workloads are needed no more.

    Attributes:
        times: of those workloads of which there are samples of how much GPUs are used.
        settled: before this all samples of all others are needless, in microseconds.
        findings: on some of them, which are to be kept, in the shape of the finding record.
    """

    times: SampleTimes
    settled: int
    findings: pa.RecordBatch

    @classmethod
    def of(cls, segments: Sequence[Segment], asked: Asked, settled: int, accused: pa.Array, pods: pa.Array) -> Needless:
        """Ask what all samples say together.

        Args:
            segments: all that is held.
            asked: what rules ask.
            settled: no report and no sample from before this, and as long after it as ``gpu_progress.SILENCE``, is to
                come any more, in microseconds.
            accused: digests of the workloads whose samples are evidence that stays as long as they live.
            pods: uids of those with one lease.  Of these, but for the accused, what is told is summed.
        """
        if not any(_METRIC in one.signals.rows.schema.names for one in segments):
            return cls(SampleTimes.none(), settled, Sums.none().findings)
        shard = Shard.of(merged([one.signals for one in segments])[0])
        samples = samples_of(shard, shard.are(_METRIC))
        told = reports([one.progress for one in segments if one.progress is not None])
        plan = asked.plans[GPU_PROGRESS]
        over = needless(
            samples,
            told,
            _talks(shard, settled),
            settled,
            lambda busy: fires(plan, busy),
            lambda busy: ~_stays(shard, asked, (accused, pods), busy),
        )
        found = over.summed.events.num_rows > 0
        findings = _at_rungs(shard, asked, over.summed) if found else Sums.none().findings
        return cls(SampleTimes.of(shard, over.gone), settled, findings)

    def added_to(self, sums: Sums) -> Sums:
        """Return sums with what is told of these samples, which then are let go of."""
        return Sums(added(sums.findings, self.findings), self.times, self.settled)

    def among(self, segment: Segment, known: Known) -> NDArray[np.bool_]:
        """Tell which raw rows of a segment are such samples."""
        if segment.dataset is not None:
            return np.zeros(segment.raw.num_rows, dtype=bool)
        return self.times.hold(segment.raw, known, self.settled)

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


def _at_rungs(shard: Shard, asked: Asked, busy: Derived) -> pa.RecordBatch:
    """Return the findings on some intervals, and at which rung progress was reported that they rest on."""
    found = gpu_findings(shard, asked, busy)
    codes, digests = shard.workloads()
    whose = digests.take(pa.array(np.searchsorted(codes, numbers(busy.events.column("entity")))))
    rung = busy.events.column(RUNG).cast(pa.string()).take(pc.index_in(workload_digests(found), value_set=whose))
    return found.append_column(RUNG, rung)


def _stays(shard: Shard, asked: Asked, whose: tuple[pa.Array, pa.Array], busy: pa.RecordBatch) -> NDArray[np.bool_]:
    """Tell what of intervals stays: of the accused, of whom a correlation asks, and of others than pods of one lease.

    What such a pod is known by is asked for anew whenever it is told, so that it may change.
    """
    accused, pods = whose
    leased = pc.and_(
        pc.is_in(shard.holders.column("k8s.pod.uid"), value_set=pods),
        shard.holders.column("attribution.lease_id").is_valid(),
    )
    codes, digests = shard.workloads()
    rows = shard.are(_METRIC)
    entity, _ = column_codes(shard.holders.column(ENTITY_DIGEST))
    pairs = np.unique(np.stack([shard.workload[rows], entity[shard.holder[rows]]]), axis=1)
    several = np.bincount(pairs[0], minlength=int(codes.max(initial=-1)) + 1)[codes]
    kept = np.asarray(pc.is_in(digests, value_set=accused)) | (several > 1)
    kept |= np.isin(codes, shard.workload[rows][~np.asarray(leased)[shard.holder[rows]]])
    stays: NDArray[np.bool_] = kept[np.searchsorted(codes, numbers(busy.column("entity")))]
    referred = np.unique(np.concatenate([np.empty(0, np.int64), *(need.rules for need in asked.needs)]))
    return stays | fires(asked.plans[GPU_PROGRESS], busy, among=referred)


def _talks(shard: Shard, settled: int) -> Times:
    """Return from when to when workloads talked to a peer so that it is, or may yet come to be, a long connection.

    Of all that a workload and a peer say to each other connections are parts, each within one of these times.
    """
    rows = shard.are("network.direction")
    flows = shard.rows.take(pa.array(rows))
    start, end = (numbers(column(flows, name).cast(pa.int64())) for name in ("event.start", "event.end"))
    owner = shard.workload[rows]
    pair, _ = group_rows([pa.array(owner), peers(flows)["peer.ip"]])
    end = np.maximum(start, end)
    chains = chain(pair, start, end, _APART)
    _, first = np.unique(chains, return_index=True)
    begin, finish = min_by(chains, len(first), start), max_by(chains, len(first), end)
    long = (finish - begin >= LEAST) | (finish >= settled - _APART)
    return Times(owner[first[long]], begin[long], finish[long])
