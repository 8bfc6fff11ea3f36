"""attribute(): whose each event is, by a join of address and time with the leases - and how that is known.

A lease table holds, for every code that the join can give, one row of the table of resolutions: one lease, several
that fit at once, or none.  Events carry the code's row as dictionary columns over one shared index, so that naming
the holder of a row costs nothing until somebody reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import present
from agenttrail.columns.batches import joined
from agenttrail.columns.dictionaries import asked_once, decoded, places
from agenttrail.columns.groups import agreed, distinct_lists
from agenttrail.columns.intervals import NONE, OPEN, Segments
from agenttrail.columns.numbers import numbers
from agenttrail.columns.positions import AddressSet
from agenttrail.columns.text import choose
from agenttrail.schema import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.columns.networks import NetworkLists

    _Sides = NDArray[np.int8]

_ONLY_END = np.array([-1, 0, 1, -1], dtype=np.int8)
"""The end that holds a lease where one alone does, by source + 2 * destination."""
LEVELS = ("trajectory", "sandbox", "job", "host", "address")
STATUSES = ("attributed", "ambiguous", "unattributed")
_RUNGS = ("trajectory.id", "sandbox.id", "job.id", "host.name")
_ADDRESS_LEVEL = LEVELS.index("address")
_ANY_SCOPE = 0
SOURCE, DESTINATION, UNKNOWN = 0, 1, -1

REASONS = (
    "a lease covers the start",
    "a lease covers the start; the flow outlives it",
    "a lease lies within tolerance of the start",
    "several leases cover the start",
    "several leases lie within tolerance of the start",
    "both ends hold leases and nothing tells who opened the connection",
    "no lease covers the start",
    "the record names no address",
)
_COVERED, _OUTLIVED, _NEAR, _SEVERAL, _SEVERAL_NEAR, _BOTH_ENDS, _NO_LEASE, _NO_ADDRESS = range(len(REASONS))

_ONE, _MANY, _NOBODY = range(3)  # what a code stands for
_REASON_BY_KIND = np.array([_COVERED, _NEAR, _SEVERAL, _SEVERAL_NEAR, _NO_LEASE, _NO_LEASE], dtype=np.int8)
"""By kind * 2 + near."""

_EPHEMERAL = 32_768  # first port of the range from which Linux draws client ports
_RESERVED = 1_024
_KINDS = 4  # of ports: none, reserved, registered, ephemeral
_PORT_KIND = np.searchsorted([1, _RESERVED, _EPHEMERAL], np.arange(1 << 16), side="right").astype(np.uint8)
_CLIENT_BY_KINDS = np.full((_KINDS, _KINDS), UNKNOWN, dtype=np.int8)
_CLIENT_BY_KINDS[1:, 1:] = [
    [UNKNOWN, DESTINATION, DESTINATION],
    [SOURCE, UNKNOWN, DESTINATION],
    [SOURCE, SOURCE, UNKNOWN],
]
"""Which end is the client, by the kinds of both ports: the port of the higher kind is the client's."""


@dataclass(frozen=True)
class LeaseTable:
    """All leases, made ready for the join.

    Attributes:
        addresses: the addresses that any lease is on.
        scopes: number of each scope; 0 stands for "any".
        keys: key of (address, scope), (addresses, scopes); -1 where no lease is.
        exact: leases by key.
        near: leases by key, each longer by the tolerance on both sides.
        sets: all sets of leases that ``exact`` and ``near`` can give, as resolutions after the single leases.
        resolutions: what each code stands for: identity, status, level, proof.  The last row stands for none.
        kinds: whether each resolution is one lease, several or none.
        ends: end of each resolution's lease in microseconds, OPEN where it has none.
        tolerance: in microseconds.
    """

    addresses: AddressSet
    scopes: dict[str, int]
    keys: NDArray[np.int32]
    exact: Segments
    near: Segments
    resolutions: pa.RecordBatch
    kinds: NDArray[np.uint8]
    ends: NDArray[np.int64]
    tolerance: int

    @classmethod
    def build(cls, leases: pa.RecordBatch, tolerance: int = 0) -> LeaseTable:
        """Make a table of resolved ``leases``.

        Args:
            leases: batch in the shape of the lease record, as ``leases.resolve`` gives it.
            tolerance: how far clocks may be apart, in microseconds.
        """
        count = leases.num_rows
        known = AddressSet.of(leases.column("lease.address"))
        names = pc.fill_null(leases.column("lease.scope"), "")
        scopes = {name: number for number, name in enumerate(sorted(set(names.to_pylist())), start=1)}
        scope = np.array([scopes[name] for name in names.to_pylist()], dtype=np.int64)
        at = known.find(leases.column("lease.address")).astype(np.int64)
        # every lease is entered twice: under its own scope, and under "any" for events that name none
        slots = np.concatenate([at * (len(scopes) + 1) + scope, at * (len(scopes) + 1) + _ANY_SCOPE])
        used, keys = np.unique(slots, return_inverse=True)
        table = np.full(len(known) * (len(scopes) + 1), -1, dtype=np.int32)
        table[used] = np.arange(len(used))
        starts = np.tile(numbers(leases.column("lease.start").cast(pa.int64())), 2)
        ends = np.tile(numbers(leases.column("lease.end").cast(pa.int64()), OPEN), 2)
        later = np.where(ends == OPEN, OPEN, ends + tolerance)
        exact = _segments(keys, starts, ends, len(used), count)
        near = _segments(keys, starts - tolerance, np.where(ends > starts, later, starts - tolerance), len(used), count)
        resolutions = _resolutions(leases, exact.sets, near.sets)
        kinds = np.full(resolutions.num_rows, _MANY, dtype=np.uint8)
        kinds[:count], kinds[-1] = _ONE, _NOBODY
        return cls(
            known, scopes, table.reshape(len(known), len(scopes) + 1), *_share_sets(exact, near, count),
            resolutions=resolutions, kinds=kinds, tolerance=tolerance,
            ends=numbers(resolutions.column("attribution.lease_end").cast(pa.int64()), OPEN),
        )  # fmt: skip

    def find(
        self, ends: pa.Array, scope: NDArray[np.int64] | None, times: NDArray[np.int64], *, near: bool
    ) -> NDArray[np.int32]:
        """Return the resolution of each (address, scope, time), or of each in any scope; NONE where no lease fits."""
        if not len(self.addresses):
            return np.full(len(times), NONE, dtype=np.int32)
        keys = asked_once(ends, self._in_any_scope, NONE) if scope is None else self._in_scopes(ends, scope)
        return (self.near if near else self.exact).find(keys, times)

    def _in_any_scope(self, ends: pa.Array) -> NDArray[np.int32]:
        place = self.addresses.find(ends)
        keys: NDArray[np.int32] = self.keys[:, _ANY_SCOPE].take(place, mode="wrap")
        keys[place < 0] = NONE
        return keys

    def _in_scopes(self, ends: pa.Array, scope: NDArray[np.int64]) -> NDArray[np.int32]:
        place = self.addresses.find(ends)
        width = self.keys.shape[1]
        # rows whose address or scope is in no lease read any key, which is then taken back
        keys: NDArray[np.int32] = self.keys.ravel().take(place * width + scope, mode="wrap")
        if int(place.min(initial=0)) < 0 or int(scope.min(initial=0)) < 0:
            keys[(place < 0) | (scope < 0)] = NONE
        return keys

    def scope_numbers(self, scope: pa.Array | None, count: int) -> NDArray[np.int64]:
        """Return the number of each row's scope: any for null, NONE for a scope that no lease is in."""
        if scope is None:
            return np.full(count, _ANY_SCOPE)
        encoded = scope if pa.types.is_dictionary(scope.type) else scope.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        table = np.array([_ANY_SCOPE if not word else self.scopes.get(word, NONE) for word in words] + [_ANY_SCOPE])
        return table.take(places(encoded))


def _segments(
    keys: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], key_count: int, leases: int
) -> Segments:
    """Cut the time lines of the doubled leases, and name every lease by its number before doubling."""
    cut = Segments.build(keys, starts, ends, key_count)
    sets = tuple(tuple(sorted({member % leases for member in members})) for members in cut.sets)
    single = (cut.codes >= 0) & (cut.codes < cut.count)
    codes = np.where(single, cut.codes % max(leases, 1), np.where(cut.codes >= 0, cut.codes - cut.count + leases, NONE))
    return Segments(cut.first, cut.bounds, codes.astype(np.int32), sets, leases)


def _share_sets(exact: Segments, near: Segments, leases: int) -> tuple[Segments, Segments]:
    """Let the sets of ``near`` follow those of ``exact``, so that one table of resolutions serves both."""
    shift = len(exact.sets)
    codes = np.where(near.codes >= leases, near.codes + shift, near.codes).astype(np.int32)
    return exact, Segments(near.first, near.bounds, codes, exact.sets + near.sets, leases)


def _resolutions(leases: pa.RecordBatch, *sets: tuple[tuple[int, ...], ...]) -> pa.RecordBatch:
    """Return one row per lease, then one per set, then one for none."""
    members = [list(one) for many in sets for one in many]
    flat = np.array([lease for one in members for lease in one], dtype=np.int64)
    groups = np.repeat(np.arange(len(members)), [len(one) for one in members])
    single = _described(
        leases.num_rows, {name: leases.column(name) for name in ("lease.id", "lease.start", "lease.end", *IDENTITY)}
    )
    several = _merged(single.take(pa.array(flat)), groups, len(members))
    nobody = _described(1, {})
    return joined([single, several, nobody])


def _described(count: int, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Return resolutions of single leases, or of none where there are no ``columns``."""
    text = pa.nulls(count, pa.string())
    identity = {name: columns.get(name, text) for name in IDENTITY}
    known = "lease.id" in columns
    nothing = pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, dtype=np.int32)), pa.array([], pa.string()))
    time = pa.nulls(count, pa.timestamp("us", tz="UTC"))
    return pa.RecordBatch.from_arrays(
        [
            *identity.values(),
            pa.array(["attributed" if known else "unattributed"] * count, pa.string()),
            _levels(identity),
            columns.get("lease.id", text),
            nothing,
            columns.get("lease.start", time),
            columns.get("lease.end", time),
        ],
        names=[*identity, *_PROOF],
    )


_PROOF = (
    "attribution.status", "attribution.level", "attribution.lease_id", "attribution.candidates",
    "attribution.lease_start", "attribution.lease_end",
)  # fmt: skip


def _levels(identity: dict[str, pa.Array]) -> pa.Array:
    """Return the narrowest rung that each row knows."""
    count = len(identity[_RUNGS[0]])
    known = np.column_stack([present(identity[rung]) for rung in _RUNGS] + [np.ones(count, dtype=bool)])
    return pa.array(LEVELS).take(pa.array(known.argmax(axis=1)))


def _merged(members: pa.RecordBatch, groups: NDArray[np.int64], count: int) -> pa.RecordBatch:
    """Return resolutions of sets: the names on which all members agree, and all members as candidates.

    Args:
        members: resolutions, in the order of ``groups``; each a lease, or itself a set.
        groups: set of each member, ascending.
        count: number of sets.
    """
    identity = {name: agreed(groups, count, members.column(name), null_agrees=False) for name in IDENTITY}
    own = members.column("attribution.lease_id")
    listed = members.column("attribution.candidates")
    flat = pa.concat_arrays([own, listed.flatten()])
    owner = np.concatenate([groups, groups[listed.value_parent_indices().to_numpy()]])
    described = _described(count, {name: identity[name] for name in identity})
    columns = {name: described.column(name) for name in described.schema.names}
    columns["attribution.status"] = pa.array(["ambiguous"] * count, pa.string())
    columns["attribution.candidates"] = distinct_lists(owner, count, flat)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def attribute(events: pa.RecordBatch, table: LeaseTable, internal: NetworkLists) -> pa.RecordBatch:
    """Say whose each event is.

    Args:
        events: batch with ``event.start``, ``event.end`` and the ends; ``attribution.scope`` if the source names one.
        table: the leases.
        internal: one list of networks that are nobody's peer outside; it tells the workload's end where no lease does.

    Returns:
        The batch with the identity ladder, ``attribution.*``, ``peer.*``, ``network.direction`` and
        ``network.initiator``. An event belongs to the end that holds a lease at its start.  Where both do, to the one
        that opened the connection; where that is unknown, to the end at which the sensor stands; else it is
        ambiguous.  Tolerance is for events that no lease covers.
    """
    count = events.num_rows
    ends = _End(events, "source"), _End(events, "destination")
    times = numbers(events.column("event.start").cast(pa.int64()))
    named = _column(events, "attribution.scope")
    scope = None if named is None else table.scope_numbers(named, count)
    codes, near = _codes(table, ends, scope, times)
    client = _client_side(events, ends)
    sensor = _side(_column(events, "observer.side"), count)
    workload = _workload_side(codes, client, sensor)
    both_ends = (workload == UNKNOWN) & (codes[0] >= 0)
    resolutions, code = _resolve(table, codes, workload, both_ends)
    reason = _reasons(table, code, near, both_ends, events, ends)
    unleased = np.flatnonzero((workload == UNKNOWN) & ~both_ends)
    workload[unleased] = _unleased_side(ends, sensor, internal, unleased)
    added = _identity_columns(resolutions, code) | {"attribution.reason": choose(reason, REASONS)}
    return with_columns(events, added | _seen_from(ends, client, workload))


def _seen_from(ends: Sequence[_End], client: _Sides, workload: _Sides) -> dict[str, pa.Array]:
    """Return the peer, the direction and who opened the connection, seen from the workload's end."""
    unclear = (client | workload) == UNKNOWN  # -1 where either is
    initiator = np.where(unclear, np.int8(UNKNOWN), (client != workload).view(np.int8))
    return {
        **_peer_columns(ends, np.maximum(workload, SOURCE)),  # of an undecided pair the end that is named second
        "network.direction": choose(workload, ("egress", "ingress")),
        "network.initiator": choose(initiator, ("workload", "peer")),
    }


def seen_from(events: pa.RecordBatch, side: int) -> pa.RecordBatch:
    """Return events as they look if all their workloads are at one ``side``, or if UNKNOWN nobody can tell."""
    ends = _End(events, "source"), _End(events, "destination")
    workload = np.full(events.num_rows, side, dtype=np.int8)
    return with_columns(events, _seen_from(ends, _client_side(events, ends), workload))


def with_columns(batch: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Return ``batch`` with ``columns`` put in place of those of the same name, or behind the others."""
    kept = {name: batch.column(index) for index, name in enumerate(batch.schema.names)} | columns
    return pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    index = batch.schema.get_field_index(name)
    return None if index < 0 else batch.column(index)


class _End:
    """One end of the flows of a batch."""

    def __init__(self, events: pa.RecordBatch, side: str) -> None:
        count = events.num_rows
        ip, port = _column(events, f"{side}.ip"), _column(events, f"{side}.port")
        self.ip = pa.nulls(count, pa.binary(16)) if ip is None else ip
        self.port = pa.nulls(count, pa.int32()) if port is None else port
        self.known = present(self.ip)


def _codes(
    table: LeaseTable, ends: Sequence[_End], scope: NDArray[np.int64] | None, times: NDArray[np.int64]
) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
    """Return the code of each end, and which rows were resolved by tolerance only."""
    codes = [table.find(end.ip, scope, times, near=False) for end in ends]
    near = np.zeros(len(times), dtype=bool)
    uncovered = np.flatnonzero((codes[0] & codes[1]) < 0) if table.tolerance else ()
    if len(uncovered):
        rows, scopes = pa.array(uncovered), None if scope is None else scope[uncovered]
        for code, end in zip(codes, ends, strict=True):
            code[uncovered] = table.find(end.ip.take(rows), scopes, times[uncovered], near=True)
        near[uncovered] = (codes[0][uncovered] >= 0) | (codes[1][uncovered] >= 0)
    return codes, near


def _side(column: pa.Array | None, count: int) -> _Sides:
    """Return a column of sides as SOURCE, DESTINATION or UNKNOWN."""
    if column is None:
        return np.full(count, UNKNOWN, dtype=np.int8)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    numbered = {"source": SOURCE, "destination": DESTINATION}
    table = np.array([numbered.get(word, UNKNOWN) for word in encoded.dictionary.to_pylist()] + [UNKNOWN], np.int8)
    return table.take(places(encoded))


def _client_side(events: pa.RecordBatch, ends: Sequence[_End]) -> _Sides:
    """Return who opened the connection: as the sensor says, else as the ports tell.

    A port below 1024 is a server's if the other is not below; a port of the ephemeral range a client's if the other
    lies below that range.
    """
    kinds = [_PORT_KIND.take(numbers(end.port), mode="clip") for end in ends]
    by_port = _CLIENT_BY_KINDS.take(kinds[0] * np.uint8(_KINDS) + kinds[1])
    told = _column(events, "client.side")
    if told is None:
        return by_port
    sides = _side(told, events.num_rows)
    return np.where(sides == UNKNOWN, by_port, sides)


def _workload_side(codes: Sequence[NDArray[np.int32]], client: _Sides, sensor: _Sides) -> _Sides:
    """Return the end that the event belongs to; UNKNOWN where no end holds a lease or nothing decides between both."""
    source, destination = codes[0] >= 0, codes[1] >= 0
    alone = _ONLY_END.take(source + destination * np.uint8(2))
    both = np.flatnonzero(source & destination)
    if len(both):
        decided = np.where(client[both] == UNKNOWN, sensor[both], client[both])
        same = codes[0][both] == codes[1][both]
        alone[both] = np.where((decided == UNKNOWN) & same, SOURCE, decided)
    return alone


def _resolve(
    table: LeaseTable, codes: Sequence[NDArray[np.int32]], workload: _Sides, both_ends: NDArray[np.bool_]
) -> tuple[pa.RecordBatch, NDArray[np.int32]]:
    """Return the table of resolutions and each row's place in it; undecided pairs of ends get rows of their own."""
    nobody = table.resolutions.num_rows - 1
    code = np.where(workload == DESTINATION, codes[1], codes[0])
    code = np.where((code < 0) | both_ends, nobody, code).astype(np.int32)
    if not both_ends.any():
        return table.resolutions, code
    pairs = codes[0][both_ends].astype(np.int64) * (nobody + 1) + codes[1][both_ends]
    distinct, which = np.unique(pairs, return_inverse=True)
    members = table.resolutions.take(pa.array(np.column_stack(np.divmod(distinct, nobody + 1)).ravel()))
    merged = _merged(members, np.repeat(np.arange(len(distinct)), 2), len(distinct))
    code[both_ends] = nobody + 1 + which.ravel()
    return joined([table.resolutions, merged]), code


def _reasons(
    table: LeaseTable, code: NDArray[np.int32], near: NDArray[np.bool_], both_ends: NDArray[np.bool_],
    events: pa.RecordBatch, ends: Sequence[_End],
) -> NDArray[np.int8]:  # fmt: skip
    """Return how each decision came about."""
    # pairs of ends, whose codes lie beyond the table, are overwritten below
    kind = table.kinds.take(code, mode="clip")
    reason = _REASON_BY_KIND.take(kind * np.uint8(2) + near)
    finish = numbers(events.column("event.end").cast(pa.int64()))
    outlived = (finish > table.ends.take(code, mode="clip")) & (reason == _COVERED)
    reason[outlived] = _OUTLIVED
    if both_ends.any():
        reason[both_ends] = _BOTH_ENDS
    nobody = np.flatnonzero(kind == _NOBODY)
    nobody = nobody[~both_ends[nobody]]
    reason[nobody] = np.where(ends[0].known[nobody] | ends[1].known[nobody], _NO_LEASE, _NO_ADDRESS)
    return reason


def _identity_columns(resolutions: pa.RecordBatch, code: NDArray[np.int32]) -> dict[str, pa.Array]:
    """Return the identity ladder and proof of each row, as dictionaries over the resolutions with one shared index."""
    index = pa.array(code)
    return {
        name: pa.DictionaryArray.from_arrays(index, resolutions.column(name), safe=False)
        for name in resolutions.schema.names
    }


def _unleased_side(ends: Sequence[_End], sensor: _Sides, internal: NetworkLists, rows: NDArray[np.int64]) -> _Sides:
    """Return the likely end of the workload of ``rows``, where no lease tells.

    It is the sensor's end, else the only internal one, else the source.
    """
    index = pa.array(rows)
    inside = [internal.tag(end.ip.take(index)) != 0 for end in ends]
    guess = np.where(inside[1] & ~inside[0], DESTINATION, SOURCE)
    side = np.where(sensor[rows] == UNKNOWN, guess, sensor[rows])
    return np.where(ends[0].known[rows] | ends[1].known[rows], side, UNKNOWN).astype(np.int8)


def _peer_columns(ends: Sequence[_End], workload: _Sides) -> dict[str, pa.Array]:
    outward = pa.array(workload == SOURCE)
    return {
        "peer.ip": _either(outward, ends[1].ip, ends[0].ip),
        "peer.port": pc.if_else(outward, ends[1].port, ends[0].port),
    }


def _either(first: pa.Array, one: pa.Array, other: pa.Array) -> pa.Array:
    """Return the address of ``one`` where ``first`` says so, else of the ``other``; two dictionaries become one."""
    if not (pa.types.is_dictionary(one.type) and pa.types.is_dictionary(other.type)):
        return pc.if_else(first, decoded(one), decoded(other))
    behind = pc.add(other.indices.cast(pa.int32()), pa.scalar(len(one.dictionary), pa.int32()))
    indices = pc.if_else(first, one.indices.cast(pa.int32()), behind)
    return pa.DictionaryArray.from_arrays(indices, pa.concat_arrays([one.dictionary, other.dictionary]), safe=False)
