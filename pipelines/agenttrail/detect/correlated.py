"""correlate_all(): all correlations of a job over the rows that its rules hit, chains of correlations included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.groups import column_codes, group_rows
from agenttrail.columns.offsets import offsets_of, ranges
from agenttrail.detect.correlate import Hits, Runs, correlate
from agenttrail.detect.correlations import key_type
from agenttrail.detect.derived import integers
from agenttrail.schema import TIMESTAMP, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation

_START = "event.start"


@dataclass(frozen=True)
class Matches:
    """The rows that one rule of a correlation matched.

    Attributes:
        rows: with ``event.start`` and what the correlation groups by or counts; an absent column is all null.
        row: the rows that matched; equal row numbers of one and the same batch are one event.
        rank: of each of ``rows``, its place among all by content.
    """

    rows: pa.RecordBatch
    row: NDArray[np.int64]
    rank: NDArray[np.int64]


@dataclass(frozen=True)
class Correlated:
    """What a correlation found.

    Attributes:
        runs: one per finding; its members are hits, see ``rows`` for what they stand for.
        keys: per run the values that its hits have in common, by the names in ``group_by``.
        offsets: the rows of run i stand at [offsets[i], offsets[i + 1]) of ``rows``.
        rows: distinct rows that a run rests on, by (time, rank); through chained correlations down to rows of logs.
    """

    runs: Runs
    keys: Mapping[str, pa.Array]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]


def correlate_all(
    correlations: Sequence[Correlation],
    rows: pa.RecordBatch,
    matched: Mapping[str, NDArray[np.int64]],
    rank: NDArray[np.int64],
) -> dict[str, Correlated]:
    """Return by id what each correlation that is on finds.

    A correlation that another one refers to gives it hits at the moments at which its condition holds: all of them for
    the temporal types, which ask whether something was so in a window; the first of each run for those that count.
    These hits know nothing but the values that their correlation groups by.

    Args:
        correlations: each after those that it refers to.
        rows: events, in columns of the event schema.
        matched: by rule id the rows that it matched.
        rank: place of each row among all by content; no two are equal.
    """
    found: dict[str, Correlated] = {}
    time, none = integers(rows, _START), np.empty(0, np.int64)
    for one in correlations:
        if one.off:
            continue
        chains = {
            place: (found[rule], *_as_matches(found[rule], one.type))
            for place, rule in enumerate(one.rules)
            if rule in found
        }
        matches = [
            chains[place][1] if place in chains else Matches(rows, matched.get(rule, none), rank)
            for place, rule in enumerate(one.rules)
        ]
        hits, keys = hits_of(one, matches)
        runs = correlate(one, hits)
        which, row = _rows_of(runs, matches, {place: (chain[0], chain[2]) for place, chain in chains.items()})
        if chains:
            order = np.lexsort((rank[row], time[row], which))
            which, row = which[order], row[order]
        keys = {name: column.take(pa.array(runs.group)) for name, column in keys.items()}
        found[one.id] = Correlated(runs, keys, *_distinct(which, row, len(runs.group)))
    return found


def hits_of(correlation: Correlation, matches: Sequence[Matches]) -> tuple[Hits, dict[str, pa.Array]]:
    """Return the hits of a correlation, and the values of each of their groups.

    A hit with a null among the values that are grouped by belongs to no group.  For ``event_count`` an event that
    several rules match is one hit.

    Args:
        correlation: what is grouped and counted.
        matches: of each of its rules.
    """
    rule = np.repeat(np.arange(len(matches)), [len(one.row) for one in matches])
    columns = [
        _joined(matches, [keys[place] for keys in correlation.keys]) for place in range(len(correlation.group_by))
    ]
    group, first = group_rows(columns) if columns else (np.zeros(len(rule), np.int64), np.zeros(1, np.int64))
    value = np.full(len(rule), -1)
    if correlation.values:
        counted = _joined(matches, correlation.values)
        value = np.where(np.asarray(counted.is_valid()), column_codes(counted)[0], -1)
    keys = {name: column.take(pa.array(first)) for name, column in zip(correlation.group_by, columns, strict=True)}
    for column in columns:
        group = np.where(np.asarray(column.is_valid()), group, -1)
    if correlation.type == "event_count":
        group = np.where(_first_of_event(matches, group), group, -1)
    time = np.concatenate([integers(one.rows, _START)[one.row] for one in matches])
    rank = np.concatenate([one.rank[one.row] for one in matches])
    return Hits(group, time, rule, value, rank), keys


def _joined(matches: Sequence[Matches], names: Sequence[str]) -> pa.Array:
    """Return one column of the hits of all rules; absent columns take the type of the others."""
    parts = [
        one.rows.column(place).take(pa.array(one.row))
        if (place := one.rows.schema.get_field_index(name)) >= 0
        else None
        for one, name in zip(matches, names, strict=True)
    ]
    type_ = next((key_type(part.type) for part in parts if part is not None), pa.string())
    return pa.concat_arrays(
        [
            pa.nulls(len(one.row), type_) if part is None else cast(part, type_)
            for one, part in zip(matches, parts, strict=True)
        ]
    )


def _first_of_event(matches: Sequence[Matches], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which hits are the first of their event in their group."""
    begins: dict[int, int] = {}
    rows = 0
    for one in matches:
        if id(one.rows) not in begins:
            begins[id(one.rows)] = rows
            rows += one.rows.num_rows
    event = np.concatenate([begins[id(one.rows)] + one.row for one in matches])
    again = np.flatnonzero((np.bincount(event, minlength=1) > 1)[event])
    order = again[np.lexsort((again, group[again], event[again]))]
    first = np.ones(len(group), dtype=bool)
    first[order[1:][(group[order[1:]] == group[order[:-1]]) & (event[order[1:]] == event[order[:-1]])]] = False
    return first


# -- chains


def _as_matches(inner: Correlated, type_: str) -> tuple[Matches, NDArray[np.int64]]:
    """Return the hits that a correlation gives to one that refers to it, and the run of each."""
    runs = inner.runs
    if type_.startswith("temporal"):
        run, time = np.repeat(np.arange(len(runs.group)), np.diff(runs.moment_offsets)), runs.moments
    else:
        run, time = np.arange(len(runs.group)), runs.fired
    keys = {name: column.take(pa.array(run)) for name, column in inner.keys.items()}
    columns = {**keys, _START: pa.array(time).view(TIMESTAMP)}
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return Matches(rows, np.arange(len(run)), np.zeros(len(run), np.int64)), run


def _rows_of(
    runs: Runs, matches: Sequence[Matches], inner: Mapping[int, tuple[Correlated, NDArray[np.int64]]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of a run and a row that it rests on; with no ``inner`` in the order of the members.

    Args:
        runs: what was found.
        matches: of each rule.
        inner: correlations among these rules: what they found, and the run of each of their rows.
    """
    rule = np.repeat(np.arange(len(matches)), [len(one.row) for one in matches])[runs.members]
    row = np.concatenate([one.row for one in matches])[runs.members]
    which = np.repeat(np.arange(len(runs.group)), np.diff(runs.offsets))
    if not inner:
        return which, row
    plain = ~np.isin(rule, list(inner))
    parts = [(which[plain], row[plain])]
    for place, (found, run_of) in inner.items():
        own = rule == place
        # many moments of one inner run are that run once
        width = len(found.runs.group) + 1
        pairs = np.unique(which[own] * width + run_of[row[own]])
        starts, lengths = found.offsets[:-1][pairs % width], np.diff(found.offsets)[pairs % width]
        parts.append((np.repeat(pairs // width, lengths), found.rows[ranges(starts, lengths)]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _distinct(
    which: NDArray[np.int64], row: NDArray[np.int64], runs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of each run without repeats, which stand side by side, and their offsets."""
    new = np.append(True, (which[1:] != which[:-1]) | (row[1:] != row[:-1]))[: len(row)]
    return offsets_of(np.bincount(which[new], minlength=runs)), row[new]
