"""All that was observed of leases, made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import leases as leases_
from agenttrail.columns.batches import joined
from agenttrail.columns.groups import group_rows
from agenttrail.columns.json_text import json_objects
from agenttrail.columns.numbers import numbers
from agenttrail.schema import conform, record
from agenttrail.trajectories import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EVER = 1 << 61


def resolved(observed: Iterable[pa.RecordBatch]) -> tuple[pa.RecordBatch, int | None]:
    """Return the leases that observations make, cut where trajectories begin and end in their pods.

    Args:
        observed: in the shape of the lease record, or with fewer columns; those without an address are trajectories.

    Returns:
        The leases, sorted by id, and the number of trajectories that met none; None where there are no trajectories.
    """
    batches = [conform(batch, record("lease")) for batch in observed]
    held = [batch.filter(batch.column("lease.address").is_valid()) for batch in batches]
    spans = [batch.filter(batch.column("lease.address").is_null()) for batch in batches]
    leases = leases_.resolve(held)
    if not any(batch.num_rows for batch in spans):
        return leases, None
    return cut(leases, joined(spans))


def distinct(observed: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return observations without those that say again what others say: a document that is read again says it all."""
    whole = joined([conform(batch, record("lease")) for batch in observed])
    _, first = group_rows([json_objects(whole)])
    return whole if len(first) == whole.num_rows else whole.take(pa.array(np.sort(first)))


def still_needed(
    observed: Sequence[pa.RecordBatch], leases: pa.RecordBatch, gone: pa.Array, since: int
) -> pa.RecordBatch:
    """Return the observations without those of pods that ended before.

    Those of nodes stay, since an occupancy of theirs lasts from the first to the last.

    Args:
        observed: as :func:`resolved` takes them.
        leases: what that made of them.
        gone: uids of pods of which no rows are looked at any more.
        since: a time, in microseconds.
    """
    whole = distinct(observed)
    over = numbers(leases.column("lease.end").cast(pa.int64()), _EVER) < since
    uids = leases.column("k8s.pod.uid")
    living = uids.filter(pa.array(~over)).drop_null().unique()
    ended = uids.filter(pa.array(over)).drop_null().unique()
    ended = ended.filter(pc.and_(pc.is_in(ended, value_set=gone), pc.invert(pc.is_in(ended, value_set=living))))
    names = leases.column("sandbox.id").filter(pa.array(~over)).drop_null().unique()
    by_uid = np.asarray(pc.is_in(whole.column("k8s.pod.uid"), value_set=ended, skip_nulls=True), dtype=bool)
    named = whole.column("sandbox.id")
    nameless = np.asarray(pc.and_(whole.column("k8s.pod.uid").is_null(), named.is_valid()), dtype=bool)
    left = np.asarray(pc.invert(pc.is_in(named, value_set=names, skip_nulls=True)), dtype=bool)
    old = numbers(whole.column("lease.end").cast(pa.int64()), _EVER) < since
    return whole.filter(pa.array(~(by_uid | (nameless & left & old))))
