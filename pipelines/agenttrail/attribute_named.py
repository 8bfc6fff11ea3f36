"""attribute_named(): whose each event is that names its workload itself - a tool call, a GPU sample, a report of steps.

What is proven comes from the leases of the pod that the event names, at the time of the event.  What the record says of
itself counts where there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.attribute import LEVELS, LeaseTable, with_columns
from agenttrail.columns.addresses import present
from agenttrail.columns.groups import group_rows
from agenttrail.columns.ids import content_digests
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import choose
from agenttrail.schema import IDENTITY, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONS = (
    "the pod that the record names has a lease at that time",
    "the pod that the record names has a lease within the tolerance",
    "several pods have the name that the record gives",
    "named by the record itself: no lease proves it",
    "the record names no workload",
)
_LEASED, _NEAR, _SEVERAL, _ITSELF, _NOTHING = range(len(REASONS))
_RUNGS = ("trajectory.id", "sandbox.id", "job.id", "host.name")
_POD = ("k8s.pod.uid", "k8s.namespace.name", "sandbox.id")
_PROOF = (
    "attribution.status", "attribution.level", "attribution.lease_id", "attribution.candidates",
    "attribution.lease_start", "attribution.lease_end",
)  # fmt: skip


@dataclass(frozen=True)
class NameTable:
    """All leases by the names of their pods: by uid, by namespace and name, and by name.

    Attributes:
        leases: the leases, where digests of these names stand for addresses.
    """

    leases: LeaseTable

    @classmethod
    def build(cls, leases: pa.RecordBatch, tolerance: int = 0) -> NameTable:
        """Make a table of resolved ``leases``; a pod with several addresses has one lease here."""
        pods = np.flatnonzero(present(leases.column("sandbox.id")) | present(leases.column("k8s.pod.uid")))
        leases = leases.take(pa.array(pods))
        held = ("lease.start", "lease.end", "lease.scope", *IDENTITY)
        _, first = group_rows([leases.column(name) for name in held])
        leases = leases.take(pa.array(np.sort(first)))
        entered = []
        for names in _names({name: leases.column(name) for name in _POD}):
            known = np.flatnonzero(present(names))
            columns = {name: leases.column(name).take(pa.array(known)) for name in leases.schema.names}
            columns["lease.address"] = names.take(pa.array(known))
            entered.append(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))
        whole = pa.Table.from_batches(entered).combine_chunks().to_batches()
        return cls(LeaseTable.build(whole[0] if whole else entered[0], tolerance))


def _names(columns: dict[str, pa.Array]) -> list[pa.Array]:
    """Return 16 bytes for each name of a pod, the one that says most first; null where it has no such name."""
    uid, namespace, name = (columns[column] for column in _POD)
    both = pc.and_(namespace.is_valid(), name.is_valid())
    digests = (
        (content_digests(["uid", uid]), uid.is_valid()),
        (content_digests(["pod", namespace, name]), both),
        (content_digests(["name", name]), name.is_valid()),
    )
    return [pc.if_else(known, digest, pa.scalar(None, digest.type)) for digest, known in digests]


def attribute_named(events: pa.RecordBatch, table: NameTable) -> pa.RecordBatch:
    """Say whose each event is.

    Args:
        events: with ``event.start`` and those of the identity ladder's columns that the records fill.
        table: the leases by name.

    Returns:
        The batch with the identity ladder and ``attribution.*``, encoded as ``attribute()`` does.  Pods are found by
        uid, else by namespace and name where the record tells both, else by name.  The lease's names stand, also where
        the record says otherwise or more; only the agent's name is taken from the record where the lease has none.
    """
    count = events.num_rows
    said = {name: _column(events, name) for name in IDENTITY}
    which, first = group_rows(list(said.values()))
    claims = {name: column.take(pa.array(first)) for name, column in said.items()}
    times = numbers(events.column("event.start").cast(pa.int64()))
    scope = table.leases.scope_numbers(_scope(events), count)
    code, near = _find(table.leases, claims, which, times, scope)
    pairs = code.astype(np.int64) * (len(first) + 1) + which
    distinct, place = np.unique(pairs, return_inverse=True)
    codes, claim = distinct // (len(first) + 1), distinct % (len(first) + 1)
    resolved = _resolved(table.leases, codes, {name: column.take(pa.array(claim)) for name, column in claims.items()})
    index = pa.array(place.ravel().astype(np.int32))
    added = {
        name: pa.DictionaryArray.from_arrays(index, column, safe=False)
        for name, column in zip(resolved.schema.names, resolved.columns, strict=True)
    }
    status = np.asarray(resolved.column("attribution.status"))[place.ravel()]
    nobody = code == table.leases.resolutions.num_rows - 1
    reason = np.where(near, _NEAR, _LEASED)
    reason = np.where(status == "ambiguous", _SEVERAL, reason)
    reason = np.where(nobody, np.where(status == "attributed", _ITSELF, _NOTHING), reason)
    added["attribution.reason"] = choose(reason, REASONS)
    added["network.direction"] = pa.nulls(count, pa.string())
    return with_columns(events, added)


def _column(events: pa.RecordBatch, name: str) -> pa.Array:
    index = events.schema.get_field_index(name)
    return pa.nulls(events.num_rows, pa.string()) if index < 0 else cast(events.column(index), pa.string())


def _scope(events: pa.RecordBatch) -> pa.Array | None:
    """Return the scope that the source of the events names, if it does: pods of two clusters may have one name."""
    index = events.schema.get_field_index("attribution.scope")
    return None if index < 0 else events.column(index)


def _find(
    table: LeaseTable,
    claims: dict[str, pa.Array],
    which: NDArray[np.int64],
    times: NDArray[np.int64],
    scope: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the resolution of each row, and which rows have one by tolerance only."""
    nobody = table.resolutions.num_rows - 1
    code = np.full(len(times), nobody, dtype=np.int32)
    near = np.zeros(len(times), dtype=bool)
    names = _names(claims)
    for tolerant in (False, True) if table.tolerance else (False,):
        for digests in names:
            rows = np.flatnonzero(code == nobody)
            found = table.find(digests.take(pa.array(which[rows])), scope[rows], times[rows], near=tolerant)
            hit = rows[found >= 0]
            code[hit], near[hit] = found[found >= 0], tolerant
    return code, near


def _resolved(table: LeaseTable, codes: NDArray[np.int64], claims: dict[str, pa.Array]) -> pa.RecordBatch:
    """Return identity and proof of each pair of resolution and claim."""
    rows = table.resolutions.take(pa.array(codes))
    alone = pa.array(codes == table.resolutions.num_rows - 1)
    columns = {name: rows.column(name) for name in rows.schema.names}
    for name in IDENTITY:
        columns[name] = pc.if_else(alone, claims[name], columns[name])
    agent = "gen_ai.agent.id"
    columns[agent] = pc.coalesce(columns[agent], claims[agent])
    known = np.column_stack([present(columns[rung]) for rung in _RUNGS] + [np.ones(len(codes), dtype=bool)])
    level = known.argmax(axis=1)
    columns["attribution.level"] = pa.array(LEVELS).take(pa.array(level))
    named = pa.array(level < len(_RUNGS))
    itself = pc.if_else(named, "attributed", "unattributed")
    columns["attribution.status"] = pc.if_else(alone, itself, columns["attribution.status"])
    names = [*IDENTITY, *_PROOF]
    return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)
