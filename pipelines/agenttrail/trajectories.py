"""cut(): the second hop of leases - which trajectory ran in a sandbox, by the spans that name both.

A span of a trajectory names a pod and a time, but no address; the pod's leases have the address.  Where a pod's own
metadata names the trajectory, that stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import format_addresses, present
from agenttrail.columns.groups import agreed, column_codes
from agenttrail.columns.ids import content_ids
from agenttrail.columns.intervals import OPEN, Segments
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import ranges
from agenttrail.schema import TIMESTAMP, conform, record

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cut(leases: pa.RecordBatch, spans: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
    """Cut leases where trajectories begin and end in their pods.

    Args:
        leases: resolved, in the shape of the lease record.
        spans: of trajectories, likewise without address: ``trajectory.id``, the names of the pod, and the interval.

    Returns:
        The leases, sorted by id, in pieces: those in which one trajectory ran name it.  Where several ran at once
        none is named.  And the number of spans that met no lease: they name no pod, or one of which no lease is known.
    """
    lease, span = _pairs(leases, spans)
    elsewhere = _elsewhere(leases, spans, lease, span)
    lease, span = lease[~elsewhere], span[~elsewhere]
    begin, end = _interval(leases)
    from_, until = _interval(spans)
    open_ = ~present(leases.column("trajectory.id"))
    meets = open_[lease] & (from_[span] < end[lease]) & (until[span] > begin[lease])
    unmet = spans.num_rows - len(np.unique(span))
    lease, span = lease[meets], span[meets]
    if not len(lease):
        return leases, unmet
    line = Segments.build(
        lease, np.maximum(from_[span], begin[lease]), np.minimum(until[span], end[lease]), leases.num_rows
    )
    return _pieces(leases, spans, line, span), unmet


def _elsewhere(
    leases: pa.RecordBatch, spans: pa.RecordBatch, lease: NDArray[np.int64], span: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which pairs are of two scopes: pods of two clusters may have one name."""
    scopes = pa.concat_arrays([leases.column("lease.scope"), spans.column("lease.scope")])
    codes, _ = column_codes(scopes)
    known = present(scopes)
    ours, theirs = lease, span + leases.num_rows
    elsewhere: NDArray[np.bool_] = known[ours] & known[theirs] & (codes[ours] != codes[theirs])
    return elsewhere


def _interval(batch: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = numbers(batch.column("lease.start").cast(pa.int64()))
    return start, numbers(batch.column("lease.end").cast(pa.int64()), OPEN)


def _pairs(leases: pa.RecordBatch, spans: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of a lease and a span of one pod: by uid where both know it, else by name and namespace."""
    found = []
    for place, names in enumerate((("k8s.pod.uid",), ("k8s.namespace.name", "sandbox.id"), ("sandbox.id",))):
        keys = []
        for batch in (leases, spans):
            columns = [batch.column(name) for name in names]
            known = np.logical_and.reduce([present(column) for column in columns])
            text = pc.binary_join_element_wise(*columns, "/") if len(columns) > 1 else columns[0]
            keys.append((text, known))
        codes, count = column_codes(pa.concat_arrays([keys[0][0], keys[1][0]]))
        ours, theirs = codes[: leases.num_rows], codes[leases.num_rows :]
        usable = keys[1][1]
        # what a span knows best decides: one that knows the uid, or the namespace, is not looked for by less
        for narrower in ("k8s.pod.uid", "k8s.namespace.name")[:place]:
            usable = usable & ~present(spans.column(narrower))
        rows = np.flatnonzero(keys[0][1])
        order = rows[np.argsort(ours[rows], kind="stable")]
        first = np.searchsorted(ours[order], np.arange(count + 1))
        chosen = np.flatnonzero(usable)
        lengths = (first[1:] - first[:-1])[theirs[chosen]]
        found.append((order[ranges(first[theirs[chosen]], lengths)], np.repeat(chosen, lengths)))
    return np.concatenate([lease for lease, _ in found]), np.concatenate([span for _, span in found])


def _pieces(leases: pa.RecordBatch, spans: pa.RecordBatch, line: Segments, span: NDArray[np.int64]) -> pa.RecordBatch:
    begin, end = _interval(leases)
    counts = np.diff(line.first)
    whole = np.flatnonzero(counts == 0)
    owner = np.repeat(np.arange(leases.num_rows), counts)
    starts, codes = line.bounds, line.codes.astype(np.int64)
    stops = np.append(starts[1:], 0)
    last = line.first[1:][counts > 0] - 1
    stops[last] = end[counts > 0]
    # before the first trajectory
    some = np.flatnonzero(counts > 0)
    head = some[starts[line.first[some]] > begin[some]]
    owner = np.concatenate([owner, head])
    codes = np.concatenate([codes, np.full(len(head), -1)])
    stops = np.concatenate([stops, starts[line.first[head]]])
    starts = np.concatenate([starts, begin[head]])
    kept = np.flatnonzero(starts < stops)
    owner, codes, starts, stops = owner[kept], codes[kept], starts[kept], stops[kept]
    names = _named(spans, line, span)
    index = pa.array(np.where(codes < 0, len(names) - 1, codes))
    columns = {name: leases.column(name).take(pa.array(owner)) for name in leases.schema.names}
    columns["trajectory.id"] = names.column("trajectory.id").take(index)
    columns["gen_ai.agent.id"] = pc.coalesce(columns["gen_ai.agent.id"], names.column("gen_ai.agent.id").take(index))
    columns["lease.start"] = pa.array(starts).view(TIMESTAMP)
    columns["lease.end"] = pa.array(stops, mask=stops == OPEN).cast(TIMESTAMP)
    columns["lease.id"] = _ids(columns)
    pieces = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    together = pa.Table.from_batches([leases.take(pa.array(whole)), conform(pieces, record("lease"))])
    every = together.combine_chunks().to_batches()[0]
    return every.take(pc.sort_indices(every.column("lease.id")))


def _named(spans: pa.RecordBatch, line: Segments, span: NDArray[np.int64]) -> pa.RecordBatch:
    """Return what each code of the segments names: single spans, then sets on what they agree, then nothing."""
    members = [np.arange(line.count), *(np.array(one, dtype=np.int64) for one in line.sets)]
    groups = np.concatenate(
        [members[0], *(np.full(len(one), line.count + place) for place, one in enumerate(members[1:]))]
    )
    rows = pa.array(span[np.concatenate(members)])
    count = line.count + len(line.sets)
    columns = {
        name: pa.concat_arrays(
            [agreed(groups, count, spans.column(name).take(rows), null_agrees=False), pa.nulls(1, pa.string())]
        )
        for name in ("trajectory.id", "gen_ai.agent.id")
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _ids(columns: dict[str, pa.Array]) -> pa.Array:
    """Return ids of pieces in which a trajectory ran; the others keep that of their lease, which proves them."""
    start = columns["lease.start"].cast(pa.int64()).cast(pa.string())
    made = content_ids(
        ["trajectory", columns["lease.id"], format_addresses(columns["lease.address"]), start, columns["trajectory.id"]]
    )
    return pc.if_else(columns["trajectory.id"].is_valid(), made, columns["lease.id"])
