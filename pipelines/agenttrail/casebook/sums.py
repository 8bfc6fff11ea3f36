"""What was found on samples that were let go of: it is added to what later ones tell."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.asof import last_before
from agenttrail.columns.numbers import numbers
from agenttrail.detect.finding_sums import as_known
from agenttrail.detect.settled_samples import Times
from agenttrail.entities import WORKLOAD_DIGEST, name_holders, workload_digests
from agenttrail.gathering.shard import column
from agenttrail.schema import conform, record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.casebook.segments import Known
    from agenttrail.gathering.shard import Shard

_METRIC = "metric.name"
_WHOSE, _BEGIN, _END = "workload", "begin", "end"
_NEVER = -(1 << 61)
_CLAIMED = ("k8s.pod.uid", "sandbox.id", "k8s.namespace.name", "gen_ai.agent.id")
"""By what a sample names its workload."""
RUNG = "training.rung"
"""Column of sums beyond those of findings: at which rung progress was reported that they rest on."""


@dataclass(frozen=True)
class SampleTimes:
    """When workloads took some of their GPU samples.

    Attributes:
        workloads: digests, each once.
        times: half-open intervals; entities are places among ``workloads``.
    """

    workloads: pa.Array
    times: Times

    @classmethod
    def none(cls) -> SampleTimes:
        """Return no times."""
        none = np.empty(0, np.int64)
        return cls(pa.array([], pa.binary(16)), Times(none, none, none))

    @classmethod
    def of(cls, shard: Shard, times: Times) -> SampleTimes:
        """Return times whose entities are numbers of the workloads of a shard."""
        codes, digests = shard.workloads()
        owners, place = np.unique(times.entity, return_inverse=True)
        return cls(digests.take(pa.array(np.searchsorted(codes, owners))), times._replace(entity=place.ravel()))

    def hold(self, raw: pa.RecordBatch, known: Known, before: int = _NEVER) -> NDArray[np.bool_]:
        """Tell which raw events that name their workload are samples of these times.

        Args:
            raw: the events.
            known: all leases.
            before: of all other workloads the samples before this, in microseconds, are told, too.
        """
        latest = max(before, int(self.times.end.max(initial=_NEVER)))
        start = numbers(raw.column("event.start").cast(pa.int64()))
        if _METRIC not in raw.schema.names or not (start < latest).any():
            return np.zeros(raw.num_rows, dtype=bool)
        holders, which = name_holders(known.named(raw))
        workload = pc.index_in(holders.column(WORKLOAD_DIGEST), value_set=self.workloads)
        owner = numbers(workload.cast(pa.int64()), -1)[which]
        place = last_before(owner, start, self.times.entity, self.times.begin)
        inside = start < np.append(self.times.end, _NEVER)[place]
        held: NDArray[np.bool_] = np.where(owner < 0, start < before, inside)
        held &= np.asarray(raw.column(_METRIC).is_valid(), dtype=bool)
        return held

    def table(self) -> pa.RecordBatch:
        """Return them as a batch: digest of the workload, begin and end."""
        columns = [
            self.workloads.take(pa.array(self.times.entity)),
            pa.array(self.times.begin),
            pa.array(self.times.end),
        ]
        return pa.RecordBatch.from_arrays(columns, names=[_WHOSE, _BEGIN, _END])

    @classmethod
    def from_table(cls, table: pa.RecordBatch) -> SampleTimes:
        """Return what :meth:`table` gave, sorted."""
        whose = table.column(_WHOSE)
        workloads = whose.unique()
        owner = numbers(pc.index_in(whose, value_set=workloads).cast(pa.int64()))
        begin, end = (numbers(table.column(name)) for name in (_BEGIN, _END))
        order = np.lexsort((begin, owner))
        return cls(workloads, Times(owner[order], begin[order], end[order]))


@dataclass(frozen=True)
class Sums:
    """What was found on GPU samples that were let go of, and which these were.

    Attributes:
        findings: in the shape of the finding record, and ``RUNG``; on pods with a uid and one lease, each id once.
        gone: when samples were taken that were let go of: those that come again tell nothing, since others, of which
            they would tell something together, do not.
        settled: of workloads that ``gone`` tells nothing of all samples before this, in microseconds.
    """

    findings: pa.RecordBatch
    gone: SampleTimes = field(default_factory=SampleTimes.none)
    settled: int = _NEVER

    @classmethod
    def none(cls) -> Sums:
        """Return that nothing was let go of."""
        none = conform(pa.RecordBatch.from_arrays([], names=[]), record("finding"))
        return cls(none.append_column(RUNG, pa.array([], pa.string())))

    def __bool__(self) -> bool:
        """Tell whether anything was."""
        return self.settled > _NEVER

    def hold(self, raw: pa.RecordBatch, known: Known) -> NDArray[np.bool_]:
        """Tell which raw events that name their workload are samples that were let go of."""
        return self.gone.hold(raw, known, self.settled)

    def of(self, workloads: pa.Array, known: Known, progress: pa.RecordBatch) -> pa.RecordBatch:
        """Return the findings on some workloads, in the shape of the finding record, as far as they still hold.

        Args:
            workloads: digests.
            known: all leases: an episode may be told of, or end, after its samples went.
            progress: reports: where a sandbox came to report by itself, what those of its job told does not hold.
        """
        mine = self.findings.filter(pc.is_in(workload_digests(self.findings), value_set=workloads))
        if not mine.num_rows:
            return mine.drop_columns([RUNG])
        reports = pc.is_in(mine.column("sandbox.id"), value_set=column(progress, "sandbox.id").drop_null())
        mine = mine.filter(pc.or_(pc.equal(mine.column(RUNG), "sandbox"), pc.invert(reports))).drop_columns([RUNG])
        columns = [mine.column("finding.first_seen"), *(mine.column(name) for name in _CLAIMED)]
        events = pa.RecordBatch.from_arrays(columns, names=["event.start", *_CLAIMED])
        return as_known(mine, *name_holders(known.named(events)))

    def touched(self, pods: pa.Array) -> pa.Array:
        """Return the digests of the workloads of findings on some pods, by uid."""
        mine = self.findings.filter(pc.is_in(self.findings.column("k8s.pod.uid"), value_set=pods))
        return workload_digests(mine)

    def alone(self, workloads: pa.Array, pods: pa.Array) -> Sums:
        """Return the same without findings on other workloads and other pods, by uid, than these: those stand."""
        held = pc.is_in(workload_digests(self.findings), value_set=workloads)
        lives = pc.is_in(self.findings.column("k8s.pod.uid"), value_set=pods.drop_null())
        return replace(self, findings=self.findings.filter(pc.or_(held, lives)))
