"""converse(): all records of one connection - both directions, every sensor - as one row.

A connection is told by its ends and its transport (its Community ID) inside one entity; records whose intervals
overlap or adjoin belong to one conversation, later ones to the next.

A sensor behind address translation sees a connection once more, from another port.  What it saw is a leg: records that
name a translated address of the workload (``source.nat.ip``), of which none that goes out does not.  A leg belongs to a
conversation of the same entity and address with the same peer, peer's port and protocol that overlaps or adjoins it:
the one that began last by then - if that was over, of those the one that ended last - or the one that began first after
that, whichever is nearer.  It adds its records and verdicts, and its bytes where no sensor saw more, but neither time
nor port.  One whose connection nobody saw before it was translated stands for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.asof import NONE, last_before
from agenttrail.columns.chains import chain, running_max
from agenttrail.columns.groups import distinct_lists, group_rows, max_by, min_by, smallest_by, sum_by
from agenttrail.columns.numbers import numbers
from agenttrail.columns.ordering import firsts, order_by
from agenttrail.columns.text import choose
from agenttrail.schema import TIMESTAMP, cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

ADJOINING = 1_000_000
"""Microseconds between the end of one record and the start of the next that still adjoin: logs count whole seconds."""
OPENED = "opened"
"""Column in flight only: whether a record tells that the connection was opened in it; null where none has flags."""
_BUT_THE_PORT = ("source.ip", "destination.ip", "destination.port", "network.iana_number")
"""What a connection and a leg of it have in common."""
_NEVER = np.iinfo(np.int64).max
_Spans = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]
"""Keys, begins and ends."""
_SYN = 2
_INITIATORS = ("peer", "workload")  # what one record tells of the workload outweighs what others tell of the peer


def converse(
    rows: pa.RecordBatch, entities: pa.Array, adjoining: int = ADJOINING
) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Put records together into conversations.

    Args:
        rows: distinct events with ``source.*``, ``destination.*``, ``network.direction``, ``event.*``,
        ``observer.name``.
        entities: digest of the entity that each row is about.
        adjoining: largest gap between records of one conversation, in microseconds.

    Returns:
        The conversations, and the one that each row belongs to (-1 for a row that names only one end).  Columns:
        ``event.start``, ``event.end``, ``source.*`` (the workload's end) and ``destination.*`` (the peer's), where
        bytes are those sent by that end: summed over the windows of one sensor, and the largest of what sensors
        counted; ``event.action`` as ``<dataset>:<action>`` of every verdict, ``event.outcome`` failure where one of the
        sensors let nothing of it pass, unless something had come through by then, ``network.application`` where a
        sensor names one (of several the first by name), ``network.initiator`` workload where a record tells so, else
        peer where one does, ``event.count``.
    """
    ends = _ends(rows)
    known = np.asarray(ends["source.ip"].is_valid()) & np.asarray(ends["destination.ip"].is_valid())
    which = np.full(rows.num_rows, -1, dtype=np.int64)
    chosen = np.flatnonzero(known)
    rows, entities = rows.take(pa.array(chosen)), entities.take(pa.array(chosen))
    ends = {name: column.take(pa.array(chosen)) for name, column in ends.items()}
    start, end = (numbers(rows.column(name).cast(pa.int64())) for name in ("event.start", "event.end"))
    connection, _ = group_rows([entities, *ends.values()])
    conversation = chain(connection, start, end, adjoining)
    part_of = _legs(rows, entities, ends, conversation, (start, end), adjoining)[conversation]
    direct = np.flatnonzero(part_of == conversation)
    if len(direct) < len(part_of):
        _, conversation = np.unique(part_of, return_inverse=True)
    which[chosen] = conversation
    return _conversations(rows, ends, conversation, direct, (start, end), adjoining), which


def _legs(
    rows: pa.RecordBatch,
    entities: pa.Array,
    ends: dict[str, pa.Array],
    which: NDArray[np.int64],
    times: tuple[NDArray[np.int64], NDArray[np.int64]],
    adjoining: int,
) -> NDArray[np.int64]:
    """Return per conversation the one that it is a leg of; itself where it is none."""
    part_of = np.arange(int(which.max(initial=-1)) + 1)
    count = len(part_of)
    translated = behind_translation(rows)
    if not translated.any():
        return part_of
    plain = np.bincount(which[~translated & ~np.asarray(_ingress(rows))], minlength=count) > 0
    leg = (np.bincount(which[translated], minlength=count) > 0) & ~plain
    if not leg.any():
        return part_of
    _, first = firsts(which)
    opening = pa.array(first)
    key, _ = group_rows([one.take(opening) for one in (entities, *(ends[name] for name in _BUT_THE_PORT))])
    begin, finish = min_by(which, count, times[0]), max_by(which, count, times[1])
    legs, others = np.flatnonzero(leg), np.flatnonzero(~leg)
    port = numbers(ends["source.port"].take(opening), -1)
    others = others[order_by(key[others], begin[others], finish[others], port[others])]
    ours, theirs = ((key[some], begin[some], finish[some]) for some in (legs, others))
    found = _beside(ours, theirs, adjoining)
    known = found >= 0
    part_of[legs[known]] = others[found[known]]
    return part_of


def _beside(legs: _Spans, others: _Spans, adjoining: int) -> NDArray[np.int64]:
    """Return per leg the place of what it is a leg of among ``others``, which ascend; -1 for none."""
    key, begin, finish = others

    def meets(place: NDArray[np.int64]) -> NDArray[np.bool_]:
        touching: NDArray[np.bool_] = place >= 0
        begins, ends = np.append(begin, 0)[place], np.append(finish, 0)[place]
        return touching & (begins <= legs[2] + adjoining) & (ends >= legs[1] - adjoining)

    last = last_before(legs[0], legs[1], key, begin)
    by_end = np.argsort(finish, kind="stable")
    rank = np.empty(len(finish), dtype=np.int64)
    rank[by_end] = np.arange(len(finish))
    longest = np.append(by_end[running_max(key, rank)], NONE)[last] if len(key) else last
    before = np.where(meets(last), last, longest)
    after = last_before(legs[0], -1 - legs[1], key, -begin)
    since, until = (
        np.where(meets(place), np.abs(np.append(begin, 0)[place] - legs[1]), _NEVER) for place in (before, after)
    )
    return np.where(np.minimum(since, until) == _NEVER, NONE, np.where(since <= until, before, after))


def behind_translation(rows: pa.RecordBatch) -> NDArray[np.bool_]:
    """Tell which rows a sensor saw when the address of the workload's end had been translated."""
    ingress = np.asarray(_ingress(rows))
    named = [
        np.asarray(_column(rows, f"{side}.nat.ip", pa.binary(16)).is_valid()) for side in ("source", "destination")
    ]
    return np.where(ingress, named[1], named[0])


def views(rows: pa.RecordBatch) -> NDArray[np.int64]:
    """Return what tells apart how a sensor saw a conversation: the workload's port, and whether that was translated.

    Of the bytes that sensors counted in one view the sum is theirs; of several views of a conversation the largest sum
    is the conversation's.
    """
    port = numbers(_ends(rows)["source.port"], -1)
    return port * 2 + behind_translation(rows)


def _column(rows: pa.RecordBatch, name: str, type_: pa.DataType) -> pa.Array:
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, type_) if index < 0 else cast(rows.column(index), type_)


def _words(rows: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column of words as it is, plain or as a dictionary."""
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, pa.string()) if index < 0 else rows.column(index)


def _ends(rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the workload's end as source and the peer's as destination, whichever the record names first."""
    ingress = _ingress(rows)
    ends = {}
    for field, type_ in (("ip", pa.binary(16)), ("port", pa.int32())):
        source, destination = (_column(rows, f"{side}.{field}", type_) for side in ("source", "destination"))
        ends[f"source.{field}"] = pc.if_else(ingress, destination, source)
        ends[f"destination.{field}"] = pc.if_else(ingress, source, destination)
    return ends | {"network.iana_number": _column(rows, "network.iana_number", pa.int32())}


def _ingress(rows: pa.RecordBatch) -> pa.Array:
    direction = _words(rows, "network.direction")
    if not pa.types.is_dictionary(direction.type):
        return pc.fill_null(pc.equal(direction, "ingress"), fill_value=False)
    inward = pc.fill_null(pc.equal(direction.dictionary, "ingress"), fill_value=False)
    return pc.fill_null(inward.take(direction.indices), fill_value=False)


def _conversations(
    rows: pa.RecordBatch,
    ends: dict[str, pa.Array],
    which: NDArray[np.int64],
    direct: NDArray[np.int64],
    times: tuple[NDArray[np.int64], NDArray[np.int64]],
    adjoining: int,
) -> pa.RecordBatch:
    """Return what rows make up: ends and time by those that are ``direct``, which each conversation has."""
    start, end = (time[direct] for time in times)
    count = int(which.max(initial=-1)) + 1
    first = np.zeros(count, dtype=np.int64)
    first[which[direct[::-1]]] = direct[::-1]
    columns = {name: column.take(pa.array(first)) for name, column in ends.items()}
    columns["event.start"] = pa.array(min_by(which[direct], count, start)).view(TIMESTAMP)
    columns["event.end"] = pa.array(max_by(which[direct], count, end)).view(TIMESTAMP)
    columns |= _bytes_by_end(rows, which, count)
    columns |= _verdicts(rows, which, count, times, adjoining)
    columns |= _told(rows, which, count)
    columns["event.count"] = pa.array(np.bincount(which, minlength=count))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _bytes_by_end(rows: pa.RecordBatch, which: NDArray[np.int64], count: int) -> dict[str, pa.Array]:
    """Return the bytes that each end sent: summed per sensor and view, see :func:`views`; then the largest sum."""
    sensors = [_words(rows, "event.dataset"), _words(rows, "observer.name")]
    # where nothing was translated all of a conversation has one port
    view = [pa.array(views(rows))] if behind_translation(rows).any() else []
    seen, first = group_rows([pa.array(which), *sensors, *view])
    ingress = np.asarray(_ingress(rows))
    named = [numbers(_column(rows, f"{side}.bytes", pa.int64())) for side in ("source", "destination")]
    out = {}
    for side, sent in (
        ("source", np.where(ingress, named[1], named[0])),
        ("destination", np.where(ingress, named[0], named[1])),
    ):
        by_sensor = sum_by(seen, len(first), sent)
        out[f"{side}.bytes"] = pa.array(np.maximum(max_by(which[first], count, by_sensor), 0))
    return out


def _verdicts(
    rows: pa.RecordBatch,
    which: NDArray[np.int64],
    count: int,
    times: tuple[NDArray[np.int64], NDArray[np.int64]],
    adjoining: int,
) -> dict[str, pa.Array]:
    """Return every sensor's verdict, and whether one of them blocked: sensors stand one behind the other.

    A sensor that speaks up more than ``adjoining`` after something has come through cut a conversation, but did not
    prevent it.
    """
    dataset, action = _words(rows, "event.dataset"), _words(rows, "event.action")
    outcome = _column(rows, "event.outcome", pa.string())
    told = np.flatnonzero(np.asarray(outcome.is_valid()))
    index, owner = pa.array(told), which[told]
    passed = np.asarray(pc.equal(outcome, "success").take(index)).astype(np.int64)
    sensors = [pa.array(owner), dataset.take(index), _words(rows, "observer.name").take(index)]
    of_sensor, first = group_rows(sensors)
    denies = (max_by(of_sensor, len(first), passed) == 0)[of_sensor]
    start, end = (time[told] for time in times)
    denied = min_by(owner[denies], count, start[denies])
    came = min_by(owner[passed == 1], count, end[passed == 1])
    groups = owner[denies], owner[passed == 1], owner
    blocked, any_passed, any_told = (np.bincount(some, minlength=count) > 0 for some in groups)
    blocked &= ~(any_passed & (came < denied - adjoining))
    verdict = pa.array(np.where(blocked, "failure", "success"), mask=~any_told)
    said = distinct_lists(which, count, _said(dataset, action))
    return {"event.action": said, "event.outcome": verdict.cast(pa.string())}


def _said(dataset: pa.Array, action: pa.Array) -> pa.Array:
    """Return ``<dataset>:<action>`` of each row, as a dictionary of few words; null where either is."""
    pair, first = group_rows([dataset, action])
    index = pa.array(first)
    words = pc.binary_join_element_wise(*(cast(some.take(index), pa.string()) for some in (dataset, action)), ":")
    missing = np.asarray(words.is_null())[pair]
    return pa.DictionaryArray.from_arrays(pa.array(pair, mask=missing), words.fill_null(""))


def _told(rows: pa.RecordBatch, which: NDArray[np.int64], count: int) -> dict[str, pa.Array]:
    """Return what some records tell of the whole: its application, and who opened it."""
    initiator = _column(rows, "network.initiator", pa.string())
    rank = numbers(pc.index_in(initiator, value_set=pa.array(_INITIATORS)), -1)
    opened = max_by(which, count, rank)
    flags = _column(rows, "network.tcp_flags", pa.int32())
    told = np.flatnonzero(np.asarray(flags.is_valid()))
    known = np.bincount(which[told], minlength=count) > 0
    begun = which[told][numbers(flags)[told] & _SYN > 0]
    return {
        OPENED: pa.array(np.bincount(begun, minlength=count) > 0, mask=~known),
        "network.application": smallest_by(which, count, _column(rows, "network.application", pa.string())),
        "network.initiator": choose(opened, _INITIATORS).dictionary_decode(),
    }
