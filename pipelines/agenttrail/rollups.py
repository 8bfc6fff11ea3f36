"""Egress to listed peers, rolled up by the minute: what a batch adds to timelines that may never be made.

Rows with a peer that is internal or allowed end in their batch, unless a rule hits them or they were blocked.  What
stays of them is how many bytes a workload exchanged with either list in a minute, as one sensor saw it.  Whoever
makes the timelines picks from these cells those of entities that have an incident, which are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import joined
from agenttrail.columns.dictionaries import places
from agenttrail.columns.groups import group_codes, sum_by
from agenttrail.columns.ids import hexadecimal
from agenttrail.columns.numbers import narrowed, numbers
from agenttrail.columns.text import choose, constant
from agenttrail.entities import ENTITY_DIGEST, WORKLOAD_DIGEST, name_holders
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

LEASE, MINUTE = "lease", "minute"
"""Columns in flight only: place of a workload among the resolutions of the lease table, and minutes since 1970."""
_MINUTE = 60_000_000  # microseconds
_OCCUPIED = ("trajectory", "sandbox")
_BEHIND = " behind translation"
_WHOM = ("entity.type", "entity.id", "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id")


def roll_up(
    events: pa.RecordBatch, listed: NDArray[np.int8], words: Sequence[str], apart: Numbers
) -> pa.RecordBatch | None:
    """Return what the workloads of a batch exchanged with listed peers.

    Args:
        events: attributed.
        listed: per row the number of the list that its peer is on, negative for none.
        words: what the lists are called.
        apart: rows to leave out: they go on by themselves.

    Returns:
        Cells, None where there are none: records and bytes per lease, minute of ``event.start``, list and sensor.
        ``source.bytes`` are those that the workload sent.  Cells of one kind add up, whatever the bounds of batches.
        What a sensor sees behind address translation it may have seen before it, too: there it counts as another one.
        Only rows of one trajectory or sandbox count.  Exact duplicates are not dropped here, as they are where rows
        enter a stateful step: to know them every row would have to be hashed, which costs more than all that is done
        here.  So a log that was delivered twice counts twice.
    """
    code = numbers(events.column("attribution.lease_id").indices)
    kept = _named(events)[code] & (listed >= 0)
    kept[apart] = False
    rows = np.flatnonzero(kept)
    if not len(rows):
        return None
    observers, sensors = _behind_translation(events, *_sensors(events))
    lease, leases = group_codes(code[rows], len(events.column("attribution.lease_id").dictionary))
    pair, owner, observer = _pairs(lease, len(leases), observers[rows], len(sensors))
    minute = numbers(events.column("event.start").cast(pa.int64()))[rows] // _MINUTE
    first, kinds = int(minute.min()), len(words)
    minute, minutes = group_codes(minute - first, int(minute.max()) - first + 1)
    place = (minute * len(owner) + pair) * kinds + listed[rows]
    which, cells = group_codes(place, len(minutes) * len(owner) * kinds)
    sent, received = _bytes(events, rows)
    of_pair = cells // kinds % len(owner)
    columns = {
        LEASE: narrowed(leases[owner[of_pair]]),
        MINUTE: pa.DictionaryArray.from_arrays(narrowed(cells // kinds // len(owner)), pa.array(minutes + first)),
        "peer.list": choose(cells % kinds, words),
        "event.dataset": constant(events.column("event.dataset")[0].as_py(), len(cells)),
        "observer.name": pa.DictionaryArray.from_arrays(narrowed(observer[of_pair]), sensors),
        "source.bytes": narrowed(sum_by(which, len(cells), sent)),
        "destination.bytes": narrowed(sum_by(which, len(cells), received)),
        "event.count": narrowed(np.bincount(which, minlength=len(cells))),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _named(events: pa.RecordBatch) -> NDArray[np.bool_]:
    """Return the resolutions that are one lease of a trajectory or sandbox."""
    level, status = (events.column(f"attribution.{name}").dictionary for name in ("level", "status"))
    named = pc.and_(pc.is_in(level, value_set=pa.array(_OCCUPIED)), pc.equal(status, "attributed"))
    return np.asarray(pc.fill_null(named, fill_value=False), dtype=bool)


def _sensors(events: pa.RecordBatch) -> tuple[Numbers, pa.Array]:
    """Return which sensor saw each row, as its number, and what they are called; the last is that of no name."""
    index = events.schema.get_field_index("observer.name")
    column = pa.nulls(events.num_rows, pa.string()) if index < 0 else events.column(index)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return numbers(encoded.indices, len(encoded.dictionary)), pa.concat_arrays(
        [encoded.dictionary, pa.nulls(1, encoded.dictionary.type)]
    )


def _behind_translation(events: pa.RecordBatch, observers: Numbers, sensors: pa.Array) -> tuple[Numbers, pa.Array]:
    """Return which sensor saw each row, where the address of the workload was translated before it as another one."""
    translated = np.zeros(events.num_rows, dtype=bool)
    for side, inward in (("source", False), ("destination", True)):
        index = events.schema.get_field_index(f"{side}.nat.ip")
        if index >= 0 and events.column(index).null_count < events.num_rows:
            translated |= np.asarray(events.column(index).is_valid()) & (_inward(events) == inward)
    if not translated.any():
        return observers, sensors
    behind = pc.binary_join_element_wise(pc.fill_null(sensors, ""), _BEHIND, "")
    return observers + translated * len(sensors), pa.concat_arrays([sensors, behind])


def _inward(events: pa.RecordBatch) -> NDArray[np.bool_]:
    """Tell which rows name the peer first."""
    direction = events.column("network.direction")
    inward = np.array([word == "ingress" for word in direction.dictionary.to_pylist()] + [False])
    return inward.take(places(direction))


def _pairs(owner: Numbers, count: int, observer: Numbers, observers: int) -> tuple[Numbers, Numbers, Numbers]:
    """Number the pairs of a lease and a sensor that stand in a row; return each row's, and lease and sensor of each.

    Most workloads are seen by one sensor, whose pair is numbered like the lease; only the others are sorted.
    """
    one = np.zeros(count, dtype=np.int64)
    one[owner] = observer
    other = np.flatnonzero(one[owner] != observer)
    if not len(other):
        return owner, np.arange(count), one
    found, more = np.unique(owner[other] * observers + observer[other], return_inverse=True)
    pair = owner.copy()
    pair[other] = count + more
    return pair, np.append(np.arange(count), found // observers), np.append(one, found % observers)


def _bytes(events: pa.RecordBatch, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return what the workload and what its peer sent in each of the ``rows``."""
    ingress = _inward(events)[rows]
    source, destination = (_count(events, f"{side}.bytes", rows) for side in ("source", "destination"))
    return np.where(ingress, destination, source), np.where(ingress, source, destination)


def _count(events: pa.RecordBatch, name: str, rows: Numbers) -> Numbers | np.int64:
    index = events.schema.get_field_index(name)
    return np.int64(0) if index < 0 else numbers(events.column(index))[rows]


@dataclass(frozen=True)
class Wanted:
    """The entities whose cells are wanted.

    Attributes:
        resolutions: of the lease table by which events were attributed.
        incidents: ids of all incidents; None where the cells of all entities are wanted.
        likely: which resolutions are called like the entity of one: what costs nothing to ask comes first.
    """

    resolutions: pa.RecordBatch
    incidents: pa.Array | None
    likely: NDArray[np.bool_]

    @classmethod
    def of(cls, resolutions: pa.RecordBatch, incidents: pa.Array, entities: pa.Array) -> Wanted:
        """Prepare for the incidents of some ids, on entities of some names."""
        level = resolutions.column("attribution.level")
        named = [
            pc.and_(pc.equal(level, rung), pc.is_in(resolutions.column(f"{rung}.id"), value_set=entities))
            for rung in _OCCUPIED
        ]
        return cls(resolutions, incidents, np.asarray(pc.fill_null(pc.or_(*named), fill_value=False), dtype=bool))

    @classmethod
    def every(cls, resolutions: pa.RecordBatch) -> Wanted:
        """Prepare for the cells of all entities."""
        return cls(resolutions, None, np.ones(resolutions.num_rows, dtype=bool))

    def likely_of(self, cells: pa.RecordBatch) -> pa.RecordBatch:
        """Return those of :func:`roll_up`'s cells that may be wanted; most are not."""
        return cells.filter(pa.array(self.likely[numbers(cells.column(LEASE))]))

    def of_cells(self, likely: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        """Return those of the ``likely`` cells that are of entities with an incident.

        They come with ``incident.id`` (that of the incident that their entity has or would have), what the entity is
        called, the digest of its workload, and ``event.start``, the start of their minute.
        """
        cells = joined([_widened(some) for some in likely])
        start = pa.array(numbers(cells.column(MINUTE)) * _MINUTE).view(TIMESTAMP)
        index = cells.column(LEASE)
        events = {
            name: pa.DictionaryArray.from_arrays(index, self.resolutions.column(name))
            for name in self.resolutions.schema.names
        }
        # none of them is named by its address, which is what the direction would tell
        events |= {"event.start": start, "network.direction": pa.nulls(cells.num_rows, pa.string())}
        holders, which = name_holders(pa.RecordBatch.from_arrays(list(events.values()), names=list(events)))
        place = pa.array(which)
        columns = {name: cells.column(name) for name in cells.schema.names if name not in (LEASE, MINUTE)}
        columns |= {name: holders.column(name).take(place) for name in (*_WHOM, WORKLOAD_DIGEST)}
        columns |= {"event.start": start, "incident.id": hexadecimal(holders.column(ENTITY_DIGEST)).take(place)}
        rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        if self.incidents is None:
            return rows
        return rows.filter(pc.is_in(rows.column("incident.id"), value_set=self.incidents))


def _widened(cells: pa.RecordBatch) -> pa.RecordBatch:
    """Return cells of one batch in the types that those of all batches have."""
    plain = (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in cells.columns)
    columns = (column.cast(pa.int64()) if pa.types.is_integer(column.type) else column for column in plain)
    return pa.RecordBatch.from_arrays(list(columns), names=cells.schema.names)
