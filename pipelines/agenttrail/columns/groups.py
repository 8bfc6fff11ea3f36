"""Grouping of rows: which rows agree in some columns, and what a group's rows add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.numbers import numbers
from agenttrail.columns.ordering import firsts, order_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MOST_CODES, _NEVER = 1 << 62, (1 << 63) - 1
_SPARSE = 16  # places of a table per row, from which on sorting is quicker


def column_codes(column: pa.Array) -> tuple[NDArray[np.int64], int]:
    """Number the distinct values of a column; null is a value of its own.  Returns codes per row and their count."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if _of_few_words(column):
        words, many = column_codes(column.dictionary)
        return np.append(words, many)[numbers(column.indices, len(words))], many + 1
    if pa.types.is_integer(column.type) and not column.null_count and len(column):
        values = numbers(column)
        low = int(values.min())
        many = int(values.max()) - low + 1
        if many <= _SPARSE * len(values):  # they number themselves
            return values - low, many
    encoded = pc.dictionary_encode(_plain(column), null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def group_rows(columns: Sequence[pa.Array]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group rows that agree in every column.

    Args:
        columns: arrays of equal length.

    Returns:
        The group of each row, 0-based, and the first row of each group.
    """
    codes, count = column_codes(columns[0])
    for column in columns[1:]:
        more, many = column_codes(column)
        if count * max(many, 1) >= _MOST_CODES:
            codes = np.unique(codes, return_inverse=True)[1]
            count = len(codes)
        codes, count = codes * many + more, count * many
    which, found = group_codes(codes, count)
    first = np.empty(len(found), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which) - 1, -1, -1)
    return which, first


def group_codes(codes: NDArray[np.int64], space: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct ones of ``codes``, all in [0, space), in ascending order.

    Returns:
        The number of each row's code, and the codes by number.  Where there are not many more codes than rows a table
        of them is quicker than sorting, eight times so; else those that differ are sorted, which are fewer.
    """
    if space > _SPARSE * len(codes):
        encoded = pa.array(codes).dictionary_encode()
        found = encoded.dictionary.to_numpy()
        order = np.argsort(found)
        place = np.empty(len(found), dtype=np.int64)
        place[order] = np.arange(len(found))
        return place.take(encoded.indices.to_numpy()), found[order]
    used = np.zeros(space, dtype=bool)
    used[codes] = True
    found = np.flatnonzero(used)
    numbered = np.empty(space, dtype=np.int64)
    numbered[found] = np.arange(len(found))
    return numbered[codes], found


def rank_in_group(groups: NDArray[np.int64], *order: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return each row's 0-based place within its group when rows are sorted by ``order`` (most significant first)."""
    rows = order_by(groups, *order)
    ordered = groups[rows]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(rows) else np.empty(0, np.intp)
    place = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[rows] = place
    return ranks


def sum_by(groups: NDArray[np.int64], count: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the exact integer sum of ``values`` per group."""
    out = np.zeros(count, dtype=np.int64)
    np.add.at(out, groups, values)
    return out


def min_by(groups: NDArray[np.int64], count: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smallest of ``values`` per group."""
    out = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(out, groups, values)
    return out


def max_by(groups: NDArray[np.int64], count: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the largest of ``values`` per group."""
    out = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(out, groups, values)
    return out


def ordinals(column: pa.Array) -> NDArray[np.int64]:
    """Number the values of a column in ascending order, equal ones alike and null last."""
    if _of_few_words(column):
        words = ordinals(column.dictionary)
        return np.append(words, len(words))[numbers(column.indices, len(words))]
    encoded = _plain(column).dictionary_encode()
    ranks = np.empty(len(encoded.dictionary) + 1, dtype=np.int64)
    ranks[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(encoded.dictionary))
    ranks[-1] = len(encoded.dictionary)
    places = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
    return ranks.take(places, mode="wrap")


def _of_few_words(column: pa.Array) -> bool:
    """Tell whether to look at each word of a dictionary once is less than to look at each row."""
    if not pa.types.is_dictionary(column.type):
        return False
    return len(column.dictionary) <= len(column) and not column.dictionary.null_count


def _valid(column: pa.Array) -> pa.Array:
    """Tell which rows are not null, by their index or by the word it points at."""
    if pa.types.is_dictionary(column.type) and column.dictionary.null_count:
        return column.dictionary_decode().is_valid()
    return column.is_valid()


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def distinct_lists(groups: NDArray[np.int64], count: int, column: pa.Array, most: int | None = None) -> pa.Array:
    """Return per group the sorted distinct values of ``column`` without nulls, at most ``most`` of them."""
    order = ordinals(column)
    rows = np.flatnonzero(np.asarray(_valid(column)))
    order = order[rows]
    width = int(order.max(initial=0)) + 1
    rows = rows[_one_of_each(groups[rows] * width + order, count * width)]
    if most is not None:
        owner = groups[rows]
        place = np.arange(len(rows)) - np.searchsorted(owner, owner)
        rows = rows[place < most]
    return lists_by(groups[rows], count, _plain(column.take(pa.array(rows))))


def _one_of_each(pairs: NDArray[np.int64], space: int) -> NDArray[np.int64]:
    """Return a row of each distinct one of ``pairs``, all in [0, space), in ascending order of these."""
    if space > _SPARSE * len(pairs):
        return firsts(pairs)[1]
    row = np.full(space, -1)
    row[pairs] = np.arange(len(pairs))  # any row does: they are equal
    return row[row >= 0]


def smallest_by(groups: NDArray[np.int64], count: int, column: pa.Array) -> pa.Array:
    """Return per group the smallest value that is not null; null where there is none.  No group may be empty."""
    order = order_by(groups, ordinals(column))
    return _plain(column.take(pa.array(order[np.searchsorted(groups[order], np.arange(count))])))


def latest_by(groups: NDArray[np.int64], count: int, times: pa.Array) -> pa.Array:
    """Return per group the latest of some times; null where one of them is: what has not ended ends later than all."""
    micros = numbers(times.cast(pa.int64()), _NEVER)
    latest = max_by(groups, count, micros)
    return pa.array(latest, mask=latest == _NEVER).cast(times.type)


def lists_by(groups: NDArray[np.int64], count: int, values: pa.Array) -> pa.Array:
    """Return the list array whose i-th list holds the ``values`` of group i; ``groups`` must ascend."""
    offsets = np.searchsorted(groups, np.arange(count + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def agreed(groups: NDArray[np.int64], count: int, column: pa.Array, *, null_agrees: bool) -> pa.Array:
    """Return per group the one value of ``column`` that all its rows share, null where they differ.

    Args:
        groups: group of each row.
        count: number of groups.
        column: the values.
        null_agrees: whether a null row leaves the word to the others; else it makes the group's value null.
    """
    encoded = _plain(column).dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)).astype(np.int64)
    highest = max_by(groups, count, codes)
    unknown = np.iinfo(np.int64).max if null_agrees else -1
    lowest = min_by(groups, count, np.where(codes < 0, unknown, codes))
    same = (highest >= 0) & (lowest == highest)
    return encoded.dictionary.take(pa.array(np.where(same, highest, 0), mask=~same))
