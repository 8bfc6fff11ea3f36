"""Whom a row is about: the narrowest rung of the identity ladder that is known, and which of its occupancies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import format_addresses, present
from agenttrail.columns.dictionaries import asked_once
from agenttrail.columns.groups import group_rows
from agenttrail.columns.ids import content_digests
from agenttrail.columns.numbers import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDENTITY = (
    "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name", "k8s.namespace.name", "k8s.pod.uid",
    "attribution.scope", "attribution.status", "attribution.level", "attribution.lease_id", "attribution.candidates",
    "attribution.lease_start", "attribution.lease_end",
)  # fmt: skip
"""What is known of the holder of a row, and how."""
ENTITY = ("entity.type", "entity.id", "entity.anchor")
KEY = ("entity.type", "entity.id", "job.id", "entity.anchor")
"""What sets one occupancy of one entity apart from every other: what an incident is keyed by."""
ENTITY_DIGEST = "entity.digest"
"""Column in flight only: 16 bytes that are the same for the holders that are one entity in one occupancy."""
WORKLOAD_DIGEST = "workload.digest"
"""Column in flight only: 16 bytes that are the same for all entities of one pod: its trajectories, and itself."""

NAMED_BY = (*IDENTITY, "event.start", "network.direction", "source.ip", "destination.ip")
"""Columns that :func:`name_holders` looks at."""

_RUNGS = {"trajectory": "trajectory.id", "sandbox": "sandbox.id", "job": "job.id", "host": "host.name"}
OCCUPIED = ("trajectory", "sandbox")
DAY = 86_400_000_000
"""Microseconds."""
_FAR = 1 << 61


def name_holders(events: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Name whom each attributed event is about, with what :func:`digested` adds; see :func:`holders_of`."""
    holders, which = holders_of(events)
    return digested(holders), which


def digested(holders: pa.RecordBatch) -> pa.RecordBatch:
    """Return holders with the digests by which they are put together."""
    columns = {name: holders.column(name) for name in holders.schema.names}
    columns[ENTITY_DIGEST] = content_digests(["incident", *(columns[name] for name in KEY)])
    columns[WORKLOAD_DIGEST] = _workloads(columns, columns[ENTITY_DIGEST])
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def each_once(holders: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Return holders of several batches of one run without those that came again, and each one's place among them.

    A lease says all of its holder but the day that anchors it, if any, the scope that the log names, and what a record
    calls an agent that the lease does not name.  Holders without one lease are left as they are.
    """
    lease = holders.column("attribution.lease_id")
    alone = np.where(np.asarray(lease.is_valid()), -1, np.arange(len(lease)))
    said = (holders.column(name) for name in ("entity.anchor", "attribution.scope", "gen_ai.agent.id"))
    which, first = group_rows([pa.array(alone), lease, *said])
    return holders.take(pa.array(first)), which


def holders_of(events: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Name whom each attributed event is about.

    Returns:
        The distinct holders - ``IDENTITY`` and ``ENTITY`` in plain columns - and each row's place among them.  The
        anchor is the pod's uid or the start of the occupancy for a trajectory or sandbox, and the UTC day of the event
        for a job, a host or an address, and where neither is known.  An address is named with its scope, where that is
        known.
    """
    level = _plain(events.column("attribution.level"))
    occupied = np.asarray(pc.is_in(level, value_set=pa.array(OCCUPIED)))
    # of several candidates that only agree on a name, none says when it started
    anchored = occupied & (_known(events, "k8s.pod.uid") | _known(events, "attribution.lease_start"))
    day = numbers(events.column("event.start").cast(pa.int64())) // DAY
    at_address = pc.equal(level, "address")
    own = pc.if_else(at_address, _own_address(events), pa.scalar(None, pa.binary(16)))
    scope = _column(events, "attribution.scope")
    resolution = events.column("attribution.lease_id").indices
    which, first = group_rows([resolution, pa.array(np.where(anchored, -1, day)), own, scope])
    index = pa.array(first)
    columns = {name: _plain(_column(events, name).take(index)) for name in IDENTITY}
    columns |= _entity(columns, own.take(index), day[first])
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), which


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _column(events: pa.RecordBatch, name: str) -> pa.Array:
    index = events.schema.get_field_index(name)
    return pa.nulls(events.num_rows, pa.string()) if index < 0 else events.column(index)


def _known(events: pa.RecordBatch, name: str) -> NDArray[np.bool_]:
    return asked_once(events.column(name), present, of_null=False)


def _own_address(events: pa.RecordBatch) -> pa.Array:
    """Return the address of the workload's end."""
    ingress = pc.fill_null(pc.equal(_plain(events.column("network.direction")), "ingress"), fill_value=False)
    nothing = pa.nulls(events.num_rows, pa.binary(16))
    ends = [events.column(name) if name in events.schema.names else nothing for name in ("destination.ip", "source.ip")]
    return pc.if_else(ingress, *ends)


def _entity(columns: dict[str, pa.Array], own: pa.Array, days: NDArray[np.int64]) -> dict[str, pa.Array]:
    level = columns["attribution.level"]
    named = [
        pc.if_else(pc.equal(level, rung), columns[name], pa.scalar(None, pa.string())) for rung, name in _RUNGS.items()
    ]
    address = pc.coalesce(format_addresses(own), pa.scalar("unknown"))
    scoped = pc.binary_join_element_wise(columns["attribution.scope"], address, "/", null_handling="skip")
    day = _texts(pa.array(days * DAY, pa.timestamp("us")), "%Y-%m-%d")
    occupied = pc.is_in(level, value_set=pa.array(OCCUPIED))
    occupancy = columns["k8s.pod.uid"]
    if pc.any(pc.and_(occupied, pc.is_null(occupancy))).as_py():
        occupancy = pc.coalesce(occupancy, _texts(columns["attribution.lease_start"], "%Y-%m-%dT%H:%M:%SZ"), day)
    return {
        "entity.type": level,
        "entity.id": pc.coalesce(*named, scoped),
        "entity.anchor": pc.if_else(occupied, occupancy, day),
    }


def lifetimes(holders: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when each holder's lease, or the UTC day that anchors it, begins and ends, in microseconds, half-open.

    What is not known is far away.
    """
    times = [holders.column(f"attribution.lease_{name}").cast(pa.int64()) for name in ("start", "end")]
    begin, end = numbers(times[0], -_FAR), numbers(times[1], _FAR)
    occupied = pc.is_in(holders.column("entity.type"), value_set=pa.array(OCCUPIED))
    anchored = np.asarray(pc.and_(occupied, pc.or_(holders.column("k8s.pod.uid").is_valid(), times[0].is_valid())))
    days = pc.if_else(pa.array(anchored), pa.scalar(None, pa.string()), holders.column("entity.anchor"))
    day = numbers(pc.strptime(days, format="%Y-%m-%d", unit="us").cast(pa.int64()))
    return np.where(anchored, begin, day), np.where(anchored, end, day + DAY)


def workload_digests(findings: pa.RecordBatch) -> pa.Array:
    """Return what :func:`name_holders` gives the holders of findings as digest of their workload."""
    columns = {name: findings.column(name) for name in (*KEY, "k8s.pod.uid")}
    return _workloads(columns, content_digests(["incident", *(columns[name] for name in KEY)]))


def _workloads(columns: dict[str, pa.Array], entities: pa.Array) -> pa.Array:
    """Return what an entity's rows are kept together by: its pod, where the pod's uid anchors it; else itself."""
    anchored = pc.and_(
        pc.is_in(columns["entity.type"], value_set=pa.array(OCCUPIED)), columns["k8s.pod.uid"].is_valid()
    )
    if not pc.any(anchored).as_py():
        return entities
    pods = content_digests(["pod", columns["k8s.pod.uid"]])
    return pc.if_else(anchored, pods, entities)


def _texts(times: pa.Array, form: str) -> pa.Array:
    """Format times, each distinct one once: formatting costs a microsecond."""
    encoded = times.dictionary_encode()
    return pc.strftime(encoded.dictionary, form).take(encoded.indices)


def shards(digests: pa.Array, count: int) -> NDArray[np.int64]:
    """Return the shard of each entity digest: a slice of all entities, so that one entity's rows stay together."""
    words = np.frombuffer(digests.buffers()[1], dtype="<u4").reshape(-1, 4)[
        digests.offset : digests.offset + len(digests), 0
    ]
    return words.astype(np.int64) % count
