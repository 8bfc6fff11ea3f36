"""The timeline of an entity: what it did, rolled up by the minute, on one axis with what was found.

Every function makes entries of one kind from columns; ``ordered()`` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import joined
from agenttrail.columns.groups import group_rows, max_by, ordinals, rank_in_group, smallest_by, sum_by
from agenttrail.columns.ids import content_ids
from agenttrail.columns.numbers import numbers
from agenttrail.schema import TIMESTAMP, conform, record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MINUTE = 60_000_000
"""Microseconds that a roll-up covers."""
WHOM = ("entity.type", "entity.id", "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id")
"""Columns that say whom an entry is about."""
_TOLD_APART = (
    "timeline.kind", "peer.ip", "peer.port", "peer.list", "gen_ai.tool.name", "gen_ai.tool.call.id", "finding.id",
    "event.reason", "gen_ai.tool.call.arguments",
)  # fmt: skip
_ARGUMENTS = "gen_ai.tool.call.arguments"
_SENSOR = ("event.dataset", "observer.name")


def _column(rows: pa.RecordBatch, name: str, type_: pa.DataType) -> pa.Array:
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, type_) if index < 0 else rows.column(index).cast(type_)


def _entries(kind: str, count: int, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    whole = {"timeline.kind": pa.array([kind] * count, pa.string()), **columns}
    return pa.RecordBatch.from_arrays(list(whole.values()), names=list(whole))


def leases(holders: pa.RecordBatch, incidents: pa.Array) -> list[pa.RecordBatch]:
    """Return when leases start and end.

    Args:
        holders: distinct holders with ``WHOM``, ``attribution.lease_start`` and ``attribution.lease_end``.
        incidents: id of the incident of each.
    """
    whom = {name: holders.column(name) for name in WHOM} | {"incident.id": incidents}
    out = []
    for kind in ("lease_start", "lease_end"):
        at = holders.column(f"attribution.{kind}")
        keys = [at.cast(pa.int64()), *whom.values()]
        _, first = group_rows(keys)
        first = first[np.asarray(at.is_valid())[first]]
        rows = pa.array(first)
        out.append(
            _entries(kind, len(first), {name: one.take(rows) for name, one in (whom | {"@timestamp": at}).items()})
        )
    return out


def tool_calls(calls: pa.RecordBatch) -> pa.RecordBatch:
    """Return every tool call; ``calls`` have ``WHOM``, ``incident.id``, ``event.start`` and what spans say."""
    names = ("gen_ai.tool.name", "gen_ai.tool.call.id", _ARGUMENTS)
    columns = {name: calls.column(name) for name in (*WHOM, "incident.id")}
    columns |= {name: _column(calls, name, pa.string()) for name in names}
    columns |= {"@timestamp": calls.column("event.start"), "event.end": calls.column("event.end")}
    return _entries("tool_call", calls.num_rows, columns)


def _minutes(rows: pa.RecordBatch) -> NDArray[np.int64]:
    return numbers(rows.column("event.start").cast(pa.int64())) // MINUTE * MINUTE


def _rolled(
    rows: pa.RecordBatch, *more: pa.Array
) -> tuple[NDArray[np.int64], int, dict[str, pa.Array], NDArray[np.int64]]:
    """Group rows by incident, minute and ``more``; return groups, their number, what they share, and first rows."""
    minute = _minutes(rows)
    which, first = group_rows([rows.column("incident.id"), pa.array(minute), *more])
    shared = {name: smallest_by(which, len(first), rows.column(name)) for name in WHOM}
    shared["incident.id"] = rows.column("incident.id").take(pa.array(first))
    shared["@timestamp"] = pa.array(minute[first]).view(TIMESTAMP)
    shared["event.end"] = pa.array(minute[first] + MINUTE).view(TIMESTAMP)
    return which, len(first), shared, first


def gpu_use(samples: pa.RecordBatch) -> pa.RecordBatch:
    """Return the mean use of GPUs per minute, of samples that lie between 0 and 100 per cent."""
    value = samples.column("metric.value")
    fits = pc.fill_null(pc.and_(pc.greater_equal(value, 0), pc.less_equal(value, 100)), fill_value=False)
    samples = samples.filter(fits)
    which, count, shared, _ = _rolled(samples)
    # whole thousandths add up to the same whatever the order
    use = np.floor(np.asarray(samples.column("metric.value"), dtype=np.float64) * 1000).astype(np.int64)
    sampled = np.bincount(which, minlength=count)
    mean = sum_by(which, count, use) / np.maximum(sampled, 1) / 1000
    return _entries("gpu", count, shared | {"gpu.utilization": pa.array(mean), "event.count": pa.array(sampled)})


def steps(reports: pa.RecordBatch) -> pa.RecordBatch:
    """Return the largest step per minute that was reported."""
    which, count, shared, _ = _rolled(reports)
    step = max_by(which, count, numbers(reports.column("training.step")))
    told = np.bincount(which, minlength=count)
    return _entries("step", count, shared | {"training.step": pa.array(step), "event.count": pa.array(told)})


CONVERSATION = "conversation"
"""Column in flight only: number of the conversation that a record belongs to; -1: of none."""
VIEW = "view"
"""Column in flight only: what tells apart how one sensor saw a conversation, as where it sees it again translated."""


def egress(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return bytes per minute and peer.

    Args:
        rows: distinct records with ``WHOM``, ``incident.id``, ``peer.ip``, ``peer.port``, direction and bytes,
            ``CONVERSATION``, ``VIEW``.

    Returns:
        Per minute of their start and peer: bytes of each end, as the sensor counted them, in one view, that saw most of
        each conversation, so that minutes add up to conversations also where sensors cut them into other records;
        records blocked and passed, where one that a sensor let through counts as blocked if another one stopped all
        that it saw of the same conversation in that minute.
    """
    peer = [rows.column("peer.ip"), rows.column("peer.port")]
    which, count, shared, first = _rolled(rows, *peer)
    ingress = _says(rows, "network.direction", "ingress")
    named = [numbers(_column(rows, f"{side}.bytes", pa.int64())) for side in ("source", "destination")]
    sent = {
        "source": np.where(ingress, named[1], named[0]),
        "destination": np.where(ingress, named[0], named[1]),
    }
    passed, blocked = (_says(rows, "event.outcome", word) for word in ("success", "failure"))
    passed &= ~_stopped(rows, which, passed, blocked)
    columns = shared | {"peer.ip": peer[0].take(pa.array(first)), "peer.port": peer[1].take(pa.array(first))}
    columns |= _most_seen_of_each(rows, which, count, sent)
    any_passed, any_blocked = (max_by(which, count, one.astype(np.int64)) > 0 for one in (passed, blocked))
    outcome = np.where(any_passed, "success", "failure")
    columns["event.outcome"] = pa.array(outcome, pa.string(), mask=~(any_passed | any_blocked))
    columns["event.count"] = pa.array(np.bincount(which, minlength=count))
    return _entries("egress", count, columns)


def _stopped(
    rows: pa.RecordBatch, which: NDArray[np.int64], passed: NDArray[np.bool_], blocked: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which rows are of a conversation of which, in their minute, one of the sensors let nothing pass."""
    talk, talks = group_rows([pa.array(which), rows.column(CONVERSATION)])
    seen, first = group_rows([pa.array(talk), *(_column(rows, name, pa.string()) for name in _SENSOR)])
    none = (max_by(seen, len(first), blocked.astype(np.int64)) > 0) & ~(
        max_by(seen, len(first), passed.astype(np.int64)) > 0
    )
    of_talk = max_by(talk[first], len(talks), none.astype(np.int64)) > 0
    return of_talk[talk] & (numbers(rows.column(CONVERSATION)) >= 0)


def _most_seen_of_each(
    rows: pa.RecordBatch, which: NDArray[np.int64], count: int, sent: Mapping[str, NDArray[np.int64]]
) -> dict[str, pa.Array]:
    """Return the bytes that each side sent per group, of every conversation as one sensor saw it: the one with most."""
    conversation = numbers(rows.column(CONVERSATION))
    alone = conversation < 0  # what belongs to none is looked at minute by minute
    conversation = np.where(alone, conversation.max(initial=0) + 1 + which, conversation)
    view = np.where(alone, 0, numbers(_column(rows, VIEW, pa.int64())))
    sensors = [*(_column(rows, name, pa.string()) for name in _SENSOR), pa.array(view)]
    seen, first = group_rows([pa.array(conversation), *sensors])
    by_name = [ordinals(sensor.take(pa.array(first))) for sensor in sensors]
    columns = {}
    for side, counted in sent.items():
        by_sensor = sum_by(seen, len(first), counted)
        most = rank_in_group(conversation[first], -by_sensor, *by_name) == 0
        columns[f"{side}.bytes"] = pa.array(sum_by(which, count, np.where(most[seen], counted, 0)))
    return columns


def egress_by_list(cells: pa.RecordBatch) -> pa.RecordBatch:
    """Return bytes per minute and list of peers.

    Args:
        cells: roll-ups with ``WHOM``, ``incident.id``, ``peer.list``, ``event.start``, sensor, ``event.count`` and what
            the workload (``source.bytes``) and its peers sent.

    Returns:
        Per minute and list: bytes summed per sensor, of which the largest counts, and all records.
    """
    which, count, shared, first = _rolled(cells, cells.column("peer.list"))
    sent = {side: numbers(cells.column(f"{side}.bytes")) for side in ("source", "destination")}
    columns = shared | _most_seen(cells, which, count, sent)
    columns["peer.list"] = cells.column("peer.list").take(pa.array(first))
    columns["event.count"] = pa.array(sum_by(which, count, numbers(cells.column("event.count"))))
    return _entries("egress", count, columns)


def _most_seen(
    rows: pa.RecordBatch, which: NDArray[np.int64], count: int, sent: Mapping[str, NDArray[np.int64]]
) -> dict[str, pa.Array]:
    """Return the bytes that each side sent per group, as the sensor saw it that saw most."""
    sensors = [_column(rows, name, pa.string()) for name in _SENSOR]
    seen, first = group_rows([pa.array(which), *sensors])
    columns = {}
    for side, counted in sent.items():
        by_sensor = sum_by(seen, len(first), counted)
        columns[f"{side}.bytes"] = pa.array(np.maximum(max_by(which[first], count, by_sensor), 0))
    return columns


def _says(rows: pa.RecordBatch, name: str, word: str) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(pc.equal(_column(rows, name, pa.string()), word), fill_value=False), dtype=bool)


def gaps(missing: pa.RecordBatch) -> pa.RecordBatch:
    """Return what could not be seen; ``missing`` has ``WHOM``, ``incident.id``, the interval and ``what``."""
    columns = {name: missing.column(name) for name in (*WHOM, "incident.id", "event.end")}
    columns |= {"@timestamp": missing.column("event.start"), "event.reason": missing.column("what").cast(pa.string())}
    return _entries("gap", missing.num_rows, columns)


def findings(found: pa.RecordBatch) -> pa.RecordBatch:
    """Return what was found, in the shape of the finding record, each with the tool call before it."""
    names = (
        *WHOM, "incident.id", "finding.id", "finding.title", "finding.severity", "rule.name", "peer.ip",
        "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.gap", "source.bytes", "destination.bytes",
        "event.count",
    )  # fmt: skip
    columns = {name: found.column(name) for name in names}
    columns |= {"@timestamp": found.column("finding.first_seen"), "event.end": _ends(found)}
    return _entries("finding", found.num_rows, columns)


def _ends(found: pa.RecordBatch) -> pa.Array:
    """Return when findings ended; those of earlier versions only tell when their last event began."""
    last = found.column("finding.last_seen")
    return pc.coalesce(found.column("event.end"), last) if "event.end" in found.schema.names else last


def ordered(entries: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return entries of any kinds as one batch in the shape of the timeline record.

    They are sorted by incident and time, and entries of one time by id; the same entry counts once.
    """
    whole = conform(joined(entries), record("timeline"))
    times = whole.column("@timestamp").cast(pa.int64()).cast(pa.string())
    kept_apart = ("incident.id", *_TOLD_APART)
    apart = [whole.column(name).cast(pa.binary() if name == "peer.ip" else pa.string()) for name in kept_apart]
    # calls without an id may begin together; of everything else the end may still grow
    ends = pc.if_else(
        pc.equal(whole.column("timeline.kind"), "tool_call"), whole.column("event.end"), pa.scalar(None, TIMESTAMP)
    )
    ids = content_ids(["timeline", times, ends.cast(pa.int64()).cast(pa.string()), *apart])
    whole = whole.set_column(whole.schema.get_field_index("timeline.id"), "timeline.id", ids)
    # the same lease, seen by several records, is one entry
    _, first = group_rows([ids])
    whole = whole.take(pa.array(np.sort(first)))
    order = pc.sort_indices(
        pa.table(whole.select(["incident.id", "@timestamp", "timeline.id"])),
        sort_keys=[(name, "ascending") for name in ("incident.id", "@timestamp", "timeline.id")],
    )
    return whole.take(order)
