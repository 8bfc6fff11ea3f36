"""resolve(): what all metadata say of addresses, as one set of leases."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import format_addresses
from agenttrail.columns.batches import joined
from agenttrail.columns.groups import agreed, group_rows, max_by, min_by, smallest_by
from agenttrail.columns.ids import content_ids
from agenttrail.columns.intervals import OPEN
from agenttrail.columns.numbers import numbers
from agenttrail.schema import IDENTITY, TIMESTAMP, conform, record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def resolve(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one lease per occupancy, with its id, from all observations of it, whatever their order.

    Observations of one pod (by uid; else by its names and its start) on one address are one occupancy: it starts with
    the earliest, ends with the earliest end that one of them knows, and keeps the names on which they agree.
    Observations of a node's own address are one occupancy from the first to the last.
    """
    observed = conform(joined(batches), record("lease")) if batches else conform(_nothing(), record("lease"))
    groups, first = group_rows(_workload(observed))
    count = len(first)
    starts = numbers(observed.column("lease.start").cast(pa.int64()))
    ends = numbers(observed.column("lease.end").cast(pa.int64()), OPEN)
    is_node = np.asarray(_is_node(observed).to_numpy(zero_copy_only=False), dtype=bool)
    from_first = min_by(groups, count, starts)
    end = np.where(is_node[first], max_by(groups, count, ends), min_by(groups, count, ends))
    columns = {name: observed.column(name).take(pa.array(first)) for name in ("lease.scope", "lease.address")}
    columns["lease.start"] = pa.array(from_first).view(TIMESTAMP)
    columns["lease.end"] = pa.array(end, mask=end == OPEN).cast(TIMESTAMP)
    for name in IDENTITY:
        columns[name] = agreed(groups, count, observed.column(name), null_agrees=True)
    columns["log.file.path"] = smallest_by(groups, count, observed.column("log.file.path"))
    columns["lease.id"] = _ids(columns)
    leases = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return conform(leases.take(pc.sort_indices(columns["lease.id"])), record("lease"))


def _nothing() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], pa.string())], names=["lease.scope"])


def _is_node(observed: pa.RecordBatch) -> pa.Array:
    """Return which observations are of a node's own address: they name a host and nothing on it."""
    narrower = [pc.is_null(observed.column(name)) for name in IDENTITY if name != "host.name"]
    return functools.reduce(pc.and_, narrower, pc.is_valid(observed.column("host.name")))


def _workload(observed: pa.RecordBatch) -> list[pa.Array]:
    """Return the columns in which two observations of one occupancy agree."""
    uid = observed.column("k8s.pod.uid")
    # without a uid the start tells two holders of one name apart; a node is the same node all along
    start = _unless(pc.or_(pc.is_valid(uid), _is_node(observed)), observed.column("lease.start").cast(pa.int64()))
    names = [_unless(pc.is_valid(uid), name) for name in _holder({name: observed.column(name) for name in IDENTITY})]
    return [observed.column("lease.scope"), observed.column("lease.address"), uid, start, *names]


def _holder(columns: Mapping[str, pa.Array]) -> list[pa.Array]:
    """Return the names that say who holds an address.

    An episode label may be added to a running pod; what names the occupancy is the pod.
    """
    holder = [columns[name] for name in ("k8s.pod.uid", "sandbox.id", "k8s.namespace.name", "job.id", "host.name")]
    named = pc.is_valid(pc.coalesce(*holder[:2]))
    return holder + [_unless(named, columns[name]) for name in ("trajectory.id", "gen_ai.agent.id")]


def _unless(mask: pa.Array, column: pa.Array) -> pa.Array:
    """Return ``column`` with null where ``mask`` holds."""
    return pc.if_else(mask, pa.scalar(None, column.type), column)


def _ids(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return ids made of what does not change while the occupancy lasts; the end does."""
    start = columns["lease.start"].cast(pa.int64()).cast(pa.string())
    addresses = format_addresses(columns["lease.address"])
    return content_ids(["lease", columns["lease.scope"], addresses, start, *_holder(columns)])
