"""What the rows of a shard add to the timelines of its entities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail import timeline
from agenttrail.columns.batches import joined
from agenttrail.columns.groups import column_codes, group_rows, max_by, min_by
from agenttrail.columns.ids import hexadecimal
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import ranges
from agenttrail.columns.ordering import firsts
from agenttrail.conversations import views
from agenttrail.detect.analytics.gpu_progress import METRIC
from agenttrail.detect.findings import peers
from agenttrail.entities import ENTITY_DIGEST, lifetimes
from agenttrail.gathering.shard import are, column, with_columns
from agenttrail.gathering.tool_calls import EXECUTE_TOOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.gathering.gathered import Asked
    from agenttrail.gathering.shard import Shard

_OPENING = ("medium", "high", "critical")


def timeline_of(
    shard: Shard,
    asked: Asked,
    progress: pa.RecordBatch,
    gaps: pa.RecordBatch,
    known: tuple[Sequence[pa.RecordBatch | None], pa.Array | None],
    conversation: NDArray[np.int64],
) -> pa.RecordBatch:
    """Return the entries of all entities on which something was found that may open an incident, or had opened one.

    Where timelines of ``every`` entity are asked for, all of which anything is known here.  Each row belongs to a
    ``conversation``, or to none (-1).
    """
    incident = hexadecimal(shard.holders.column(ENTITY_DIGEST))
    wanted = np.ones(len(incident), dtype=bool) if asked.every else _may_open(incident, *known)
    progress = _before(progress, asked.until)
    rows = np.flatnonzero(wanted[shard.holder])
    told = with_columns(shard.rows.take(pa.array(rows)), _whom(shard, incident, shard.holder[rows]))
    told = with_columns(told, {timeline.CONVERSATION: pa.array(conversation[rows])})
    flows = told.filter(column(told, "network.direction").is_valid())
    flows = with_columns(flows, {timeline.VIEW: pa.array(views(flows))})
    samples = _where(told, "metric.name", METRIC)
    entries = timeline.leases(shard.holders.filter(pa.array(wanted)), incident.filter(pa.array(wanted)))
    entries.append(timeline.tool_calls(_where(told, "gen_ai.operation.name", EXECUTE_TOOL)))
    if samples.num_rows:
        entries.append(timeline.gpu_use(samples))
    if flows.num_rows:
        entries.append(timeline.egress(with_columns(flows, peers(flows))))
    entries += _of_reports(shard, incident, wanted, progress, gaps)
    return joined([entry for entry in entries if entry.num_rows] or [entries[0]])


def _may_open(incident: pa.Array, found: Sequence[pa.RecordBatch | None], stored: pa.Array | None) -> NDArray[np.bool_]:
    """Tell on whom a finding of a level that opens incidents was made, a unit, or a ``stored`` incident."""
    opening = [
        one.column("incident.id").filter(pc.is_in(one.column("finding.severity"), value_set=pa.array(_OPENING)))
        if place == 0
        else one.column("incident.id")
        for place, one in enumerate(found)
        if one is not None
    ]
    opening += [] if stored is None else [stored]
    return np.asarray(pc.is_in(incident, value_set=pa.concat_arrays(opening)), dtype=bool)


def _before(reports_: pa.RecordBatch, until: int | None) -> pa.RecordBatch:
    """Return the reports before a time."""
    times = numbers(reports_.column("event.start").cast(pa.int64()))
    return reports_ if until is None else reports_.filter(pa.array(times < until))


def _where(rows: pa.RecordBatch, name: str, word: str) -> pa.RecordBatch:
    return rows.filter(pa.array(are(rows, name, word)))


def _whom(shard: Shard, incident: pa.Array, holders: NDArray[np.int64]) -> dict[str, pa.Array]:
    index = pa.array(holders)
    whom = {name: shard.holders.column(name).take(index) for name in timeline.WHOM}
    return whom | {"incident.id": incident.take(index)}


def _of_reports(
    shard: Shard,
    incident: pa.Array,
    wanted: NDArray[np.bool_],
    progress: pa.RecordBatch,
    gaps: pa.RecordBatch,
) -> list[pa.RecordBatch]:
    """Return steps that the entities' sandboxes reported, and what is missing."""
    out = []
    holders = np.flatnonzero(wanted)
    report, owner = _reported(shard.holders.take(pa.array(holders)), incident.take(pa.array(holders)), progress)
    if len(report):
        told = progress.take(pa.array(report)).select(["event.start", "training.step"])
        out.append(timeline.steps(with_columns(told, _whom(shard, incident, holders[owner]))))
    if gaps.num_rows:
        entities, place_ = firsts(shard.workload)
        owner = shard.holder[place_[np.searchsorted(entities, numbers(gaps.column("entity")))]]
        missing = with_columns(gaps, _whom(shard, incident, owner))
        out.append(timeline.gaps(missing.filter(pa.array(wanted[owner]))))
    return out


def _reported(
    holders: pa.RecordBatch, incident: pa.Array, progress: pa.RecordBatch
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of a report and a holder, one per incident, in whose lifetime the sandbox of that name sent it."""
    none = np.empty(0, dtype=np.int64)
    if not progress.num_rows or not holders.num_rows:
        return none, none
    which, first = group_rows([incident])
    begin, end = lifetimes(holders)
    leased = np.asarray(holders.column("attribution.lease_start").is_valid())
    # of an incident that has leases, those tell; what several of them agree on has none
    tells = leased | ~(max_by(which, len(first), leased.astype(np.int64)) > 0)[which]
    begin, end = (
        min_by(which[tells], len(first), begin[tells]), max_by(which[tells], len(first), end[tells]),
    )  # fmt: skip
    names = pa.concat_arrays([holders.column("sandbox.id").take(pa.array(first)), progress.column("sandbox.id")])
    codes, _ = column_codes(names)
    known = np.asarray(names.is_valid())
    ours, theirs = codes[: len(first)], codes[len(first) :]
    order = np.flatnonzero(known[: len(first)])
    order = order[np.argsort(ours[order], kind="stable")]
    reports_ = np.flatnonzero(known[len(first) :])
    at = np.searchsorted(ours[order], theirs[reports_])
    lengths = np.searchsorted(ours[order], theirs[reports_], side="right") - at
    report, owner = np.repeat(reports_, lengths), order[ranges(at, lengths)]
    times = numbers(progress.column("event.start").cast(pa.int64()))[report]
    inside = (times >= begin[owner]) & (times < end[owner])
    return report[inside], first[owner[inside]]
