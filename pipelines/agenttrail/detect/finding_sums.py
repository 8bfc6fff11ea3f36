"""Findings in two parts: what was found on rows that were let go of, and what is found on those that came later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import joined
from agenttrail.columns.groups import (
    agreed,
    distinct_lists,
    group_rows,
    latest_by,
    lists_by,
    max_by,
    ordinals,
    rank_in_group,
    smallest_by,
    sum_by,
)
from agenttrail.columns.ids import content_ids
from agenttrail.columns.numbers import numbers
from agenttrail.detect.findings import KEY, LEASE_END, MOST_EVIDENCE, MOST_LISTED, NAMES, STATE, holder_columns, ids_of
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNTED = ("event.count", "network.conversations", "source.bytes", "destination.bytes")
_LAST = ("finding.last_seen", "event.end")
_LISTED = (
    "attribution.scope", "attribution.lease_id", "attribution.candidates", "attribution.reason", "destination.ip",
    "peer.port", "network.transport", "network.direction", "event.dataset", "event.outcome",
)  # fmt: skip
_EVIDENCE = "finding.evidence"
_SCOPE = "attribution.scope"


def added(sums: pa.RecordBatch, findings: pa.RecordBatch) -> pa.RecordBatch:
    """Return findings, with what was summed of them, and those that there are only sums of.

    Args:
        sums: findings on some rows, in the shape of the finding record, each id once.
        findings: on others, in the same shape, likewise.

    Returns:
        What ``findings.gather`` gives for all these rows, sorted by id.
    """
    summed = pc.is_in(findings.column("finding.id"), value_set=sums.column("finding.id"))
    together = joined([_sum_of(joined([sums, findings.filter(summed)])), findings.filter(pc.invert(summed))])
    return together.take(pc.sort_indices(together.column("finding.id")))


def _sum_of(whole: pa.RecordBatch) -> pa.RecordBatch:
    """Return one finding for all of an id."""
    which, first = group_rows([whole.column("finding.id")])
    count = len(first)
    starts = numbers(whole.column("finding.first_seen").cast(pa.int64()))
    place = np.lexsort((np.arange(len(which)), starts, which))
    earliest = whole.take(pa.array(place[np.searchsorted(which[place], np.arange(count))]))
    columns = {name: earliest.column(name) for name in earliest.schema.names}
    for name in _COUNTED:
        columns[name] = pa.array(sum_by(which, count, numbers(whole.column(name))))
    for name in _LAST:
        columns[name] = pa.array(max_by(which, count, numbers(whole.column(name).cast(pa.int64())))).view(TIMESTAMP)
    for name in STATE:
        columns[name] = smallest_by(which, count, whole.column(name))
    for name in NAMES:
        columns[name] = agreed(which, count, whole.column(name), null_agrees=False)
    columns[LEASE_END] = latest_by(which, count, whole.column(LEASE_END))
    for name in _LISTED:
        values, owner = _flat(whole.column(name), which)
        columns[name] = distinct_lists(owner, count, values, MOST_LISTED)
    columns[_EVIDENCE] = _evidence(whole.column(_EVIDENCE), which, count)
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in whole.schema], schema=whole.schema
    )


def _flat(lists: pa.Array, which: NDArray[np.int64]) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return what stands in lists, and the group of each."""
    return pc.list_flatten(lists), np.repeat(which, numbers(pc.list_value_length(lists).cast(pa.int64())))


def _evidence(lists: pa.Array, which: NDArray[np.int64], count: int) -> pa.Array:
    """Return the first events of each group of lists by (start, id), which are whole once each list has the first."""
    events, owner = _flat(lists, which)
    starts = numbers(events.field("event.start").cast(pa.int64()))
    place = rank_in_group(owner, starts, ordinals(events.field("event.id")))
    shown = np.flatnonzero(place < MOST_EVIDENCE)
    shown = shown[np.lexsort((place[shown], owner[shown]))]
    return lists_by(owner[shown], count, events.take(pa.array(shown)))


def as_known(findings: pa.RecordBatch, holders: pa.RecordBatch, holder: NDArray[np.int64]) -> pa.RecordBatch:
    """Return findings with what is known by now of whom they are about, by which they are named, too.

    Args:
        findings: in the shape of the finding record, each on rows of one holder.
        holders: as ``name_holders`` gives them.
        holder: of each finding.
    """
    count = findings.num_rows
    columns = {name: findings.column(name) for name in findings.schema.names}
    columns |= holder_columns(holders, holder, np.arange(count), count)
    columns[_SCOPE] = findings.column(_SCOPE)  # of their rows, as the source of these names it
    columns["finding.id"] = ids_of(columns)
    columns["incident.id"] = content_ids(["incident", *(columns[name] for name in KEY)])
    return pa.RecordBatch.from_arrays(
        [columns[field.name].cast(field.type) for field in findings.schema], schema=findings.schema
    )
