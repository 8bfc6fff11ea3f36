"""What correlations find, as findings: each run of qualifying windows puts the findings on its units together.

A unit is what one hit of a correlation stands for - a conversation, a derived event, a tool call - and travels as the
finding that it would make by itself, with the columns that correlations group by beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import (
    agreed,
    distinct_lists,
    group_rows,
    latest_by,
    lists_by,
    max_by,
    min_by,
    ordinals,
    rank_in_group,
    smallest_by,
    sum_by,
)
from agenttrail.columns.ids import content_ids
from agenttrail.columns.numbers import numbers
from agenttrail.columns.offsets import ranges
from agenttrail.detect.correlated import Correlated, correlate_all
from agenttrail.detect.correlation_needs import silent
from agenttrail.detect.findings import KEY, LEASE_END, MOST_EVIDENCE, NAMES, STATE
from agenttrail.detect.signals import digest_words
from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.seams import seen_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation
    from agenttrail.seams import Span

KEY_PREFIX = "unit:"
"""Stands before the columns of a unit that correlations group by or count."""
UNIT_DIGEST = "unit.digest"
"""Column in flight only: digest of the first event of a unit."""
_LISTS = (
    "attribution.scope", "attribution.lease_id", "attribution.candidates", "attribution.reason", "peer.port",
    "network.transport", "network.direction", "event.dataset", "event.outcome",
)  # fmt: skip
_SUMS = ("event.count", "network.conversations", "source.bytes", "destination.bytes")
_CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.start", "gen_ai.tool.call.gap")
_MOST_LISTED = 100


def key_columns(correlations: Sequence[Correlation]) -> tuple[str, ...]:
    """Return the event columns that correlations group by or count."""
    names = {name for one in correlations for keys in one.keys for name in keys}
    return tuple(sorted(names | {name for one in correlations for name in one.values}))


def correlation_findings(
    correlations: Sequence[Correlation],
    units: pa.RecordBatch,
    earlier: pa.RecordBatch | None = None,
    span: Span | None = None,
) -> pa.RecordBatch:
    """Return the findings of all correlations on all units.

    A finding is on the entity that all units of its run share; where they are of one pod, on that pod; else each entity
    has a finding of its own with its part of the run.

    Args:
        correlations: each after those that it refers to.
        units: what they look at.
        earlier: findings of earlier runs, which may have seen units that are now out of view.  One that holds the
            beginning of a finding of the same correlation, group and entity is the same: its id and beginning stay.
        span: what the run is over; None where all is in view.
    """
    told_before = None if earlier is None or span is None else (earlier, span)
    rule = units.column("rule.id").dictionary_encode()
    codes = rule.indices.to_numpy(zero_copy_only=False)
    matched = {word: np.flatnonzero(codes == code) for code, word in enumerate(rule.dictionary.to_pylist())}
    keyed = {name: units.column(name) for name in units.schema.names if name.startswith(KEY_PREFIX)}
    columns = {name.removeprefix(KEY_PREFIX): column for name, column in keyed.items()}
    columns["event.start"] = units.column("finding.first_seen")
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    rank = np.empty(units.num_rows, dtype=np.int64)
    rank[np.lexsort((ordinals(units.column("rule.id")), digest_words(units.column(UNIT_DIGEST))))] = np.arange(
        len(rank)
    )
    found = correlate_all(correlations, rows, matched, rank)
    quiet = silent(correlations, [one.id for one in correlations if one.building_block])
    said = [one for one in correlations if one.id in found and one.id not in quiet]
    parts = [_findings(one, found[one.id], units, told_before) for one in said]
    parts = [part for part in parts if part.num_rows]
    if not parts:
        return conform(units.slice(0, 0), record("finding"))
    whole = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    return whole.take(pc.sort_indices(whole.column("finding.id")))


def _findings(
    correlation: Correlation, found: Correlated, units: pa.RecordBatch, told_before: tuple[pa.RecordBatch, Span] | None
) -> pa.RecordBatch:
    run = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    member = units.take(pa.array(found.rows))
    keys = _entities(member, run)
    which, first = group_rows([pa.array(run), *keys])
    count = len(first)
    columns = {name: key.take(pa.array(first)) for name, key in zip(KEY, keys, strict=True)}
    columns |= {name: agreed(which, count, member.column(name), null_agrees=False) for name in (*NAMES, "peer.ip")}
    columns["destination.ip"] = _ends(member, which, count)
    columns |= {name: smallest_by(which, count, member.column(name)) for name in STATE}
    columns[LEASE_END] = latest_by(which, count, member.column(LEASE_END))
    columns["attribution.level"] = columns["entity.type"]
    for name in _LISTS:
        lists = member.column(name)
        owner = which[lists.value_parent_indices().to_numpy()]
        columns[name] = distinct_lists(owner, count, lists.flatten(), _MOST_LISTED)
    columns |= {name: pa.array(sum_by(which, count, numbers(member.column(name)))) for name in _SUMS}
    start, end = (numbers(member.column(f"finding.{seen}_seen").cast(pa.int64())) for seen in ("first", "last"))
    columns["finding.first_seen"] = pa.array(min_by(which, count, start)).view(TIMESTAMP)
    columns["finding.last_seen"] = pa.array(max_by(which, count, end)).view(TIMESTAMP)
    ended = numbers(member.column("event.end").cast(pa.int64()))
    columns["event.end"] = pa.array(max_by(which, count, ended)).view(TIMESTAMP)
    columns["finding.evidence"] = _evidence(member, which, count)
    digests = ordinals(member.column(UNIT_DIGEST).cast(pa.binary()))
    earliest_first = np.lexsort((digests, start, which))
    earliest = earliest_first[np.searchsorted(np.sort(which), np.arange(count))]
    columns |= {name: member.column(name).take(pa.array(earliest)) for name in _CALL}
    columns["finding.values"] = _values(correlation, member, which, earliest_first, found.runs.peak[run[first]])
    columns |= _said(correlation, count)
    shared = [_hashable(values.take(pa.array(run[first]))) for values in found.keys.values()]
    columns["incident.id"] = content_ids(["incident", *(columns[name] for name in KEY)])
    named = ["finding", columns["rule.id"], *(columns[name] for name in KEY), *shared]
    if told_before is not None:
        columns["finding.first_seen"] = _begun_before(named, columns, *told_before)
    columns["@timestamp"] = columns["finding.first_seen"]
    columns["finding.id"] = content_ids([*named, _microseconds(columns["finding.first_seen"])])
    return conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("finding"))


def _ends(member: pa.RecordBatch, which: NDArray[np.int64], count: int) -> pa.Array:
    """Return the peers of the units of each finding, also of units that have several themselves."""
    several = member.column("destination.ip")
    owner = np.concatenate([which, which[several.value_parent_indices().to_numpy()]])
    ends = pa.concat_arrays([member.column("peer.ip"), several.flatten()])
    return distinct_lists(owner, count, ends, _MOST_LISTED)


def _microseconds(times: pa.Array) -> pa.Array:
    return times.cast(pa.int64()).cast(pa.string())


def _begun_before(
    named: Sequence[pa.Array | str], columns: Mapping[str, pa.Array], earlier: pa.RecordBatch, span: Span
) -> pa.Array:
    """Return when each finding began: as an earlier run told it of one that holds the beginning of this one.

    This is for findings that go on beyond the start of the span and may have begun out of view; a group has one at
    most.  Which of the earlier findings are of the same group, the ids tell: they are made of it and of the beginning.
    """
    told = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    start, last = (numbers(earlier.column(f"finding.{seen}_seen").cast(pa.int64())) for seen in ("first", "last"))
    begun = numbers(columns["finding.first_seen"].cast(pa.int64())).copy()
    goes_on = numbers(columns["finding.last_seen"].cast(pa.int64())) >= span.start
    one, place = _pairs(told, earlier, np.flatnonzero(goes_on & ~seen_whole(told, span)))
    holds = (start[place] < begun[one]) & (begun[one] <= last[place])
    one, place = one[holds], place[holds]
    ids = content_ids([
        *(part if isinstance(part, str) else part.take(pa.array(one)) for part in named),
        pa.array(start[place]).cast(pa.string()),
    ])  # fmt: skip
    same = np.asarray(pc.equal(ids, earlier.column("finding.id").take(pa.array(place))), dtype=bool)
    np.minimum.at(begun, one[same], start[place][same])
    return pa.array(begun).view(TIMESTAMP)


def _pairs(
    told: pa.RecordBatch, earlier: pa.RecordBatch, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of one of ``rows`` and an earlier finding of the same rule on the same entity."""
    columns = [pa.concat_arrays([one.column(name) for one in (earlier, told)]) for name in ("rule.id", "incident.id")]
    codes, _ = group_rows(columns)
    theirs, ours = codes[: earlier.num_rows], codes[earlier.num_rows :][rows]
    order = np.argsort(theirs, kind="stable")
    first = np.searchsorted(theirs[order], ours)
    lengths = np.searchsorted(theirs[order], ours, side="right") - first
    return np.repeat(rows, lengths), order[ranges(first, lengths)]


def _hashable(values: pa.Array) -> pa.Array:
    return values.cast(pa.binary() if pa.types.is_fixed_size_binary(values.type) else pa.string())


def _entities(member: pa.RecordBatch, run: NDArray[np.int64]) -> list[pa.Array]:
    """Return type, id, job and anchor of the entity that each member's finding is on."""
    count = int(run.max(initial=-1)) + 1
    own = [member.column(name) for name in KEY]
    codes, _ = group_rows(own)
    one = (max_by(run, count, codes) == min_by(run, count, codes))[run]
    uid = agreed(run, count, member.column("k8s.pod.uid"), null_agrees=False).take(pa.array(run))
    pod = agreed(run, count, member.column("sandbox.id"), null_agrees=False).take(pa.array(run))
    wide = pa.array(~one & np.asarray(uid.is_valid()) & np.asarray(pod.is_valid()))
    kind, name, job, anchor = own
    return [
        pc.if_else(wide, pa.scalar("sandbox"), kind), pc.if_else(wide, pod, name), job, pc.if_else(wide, uid, anchor),
    ]  # fmt: skip


def _evidence(member: pa.RecordBatch, which: NDArray[np.int64], count: int) -> pa.Array:
    """Return the first distinct events of each finding by (start, id)."""
    lists = member.column("finding.evidence")
    owner = which[lists.value_parent_indices().to_numpy()]
    events = lists.flatten()
    start, name = events.field("event.start"), events.field("event.id")
    _, distinct = group_rows([pa.array(owner), name])
    owner, events = owner[distinct], events.take(pa.array(distinct))
    times = numbers(start.take(pa.array(distinct)).cast(pa.int64()))
    place = rank_in_group(owner, times, ordinals(name.take(pa.array(distinct))))
    shown = np.flatnonzero(place < MOST_EVIDENCE)
    shown = shown[np.lexsort((place[shown], owner[shown]))]
    return lists_by(owner[shown], count, events.take(pa.array(shown)))


def _values(
    correlation: Correlation,
    member: pa.RecordBatch,
    which: NDArray[np.int64],
    earliest_first: NDArray[np.int64],
    peak: NDArray[np.int64],
) -> pa.Array:
    """Return the largest count of a window, and what the first hit of each rule kept.

    Args:
        correlation: which type of count it is.
        member: units.
        which: finding of each.
        earliest_first: units by finding and time.
        peak: count of each finding.
    """
    rules, _ = group_rows([member.column("rule.id")])
    pairs = (which * (int(rules.max(initial=0)) + 1) + rules)[earliest_first]
    firsts = earliest_first[np.unique(pairs, return_index=True)[1]]
    kept = member.column("finding.values").take(pa.array(firsts))
    counts = pc.binary_join_element_wise(f"{correlation.type}=", pa.array(peak).cast(pa.string()), "")
    owner = np.concatenate([np.arange(len(peak)), which[firsts][kept.value_parent_indices().to_numpy()]])
    return distinct_lists(owner, len(peak), pa.concat_arrays([counts, kept.flatten()]))


def _said(correlation: Correlation, count: int) -> dict[str, pa.Array]:
    """Return what the correlation's author says."""
    several = pa.list_(pa.string())
    texts = {
        "rule.id": correlation.id, "rule.name": correlation.name, "finding.title": correlation.title,
        "finding.severity": correlation.severity,
    }  # fmt: skip
    lists = {
        "rule.reference": sorted(correlation.references), "threat.technique.id": correlation.techniques,
        "threat.tactic.name": correlation.tactics, "recommendation": correlation.recommendation,
        "falsepositives": correlation.falsepositives,
    }  # fmt: skip
    return {name: pa.array([text] * count, pa.string()) for name, text in texts.items()} | {
        name: pa.array([list(values)] * count, several) for name, values in lists.items()
    }
