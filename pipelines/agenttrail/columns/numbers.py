"""Integers out of text, a column at a time, telling which rows hold none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import present

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPACES = " \t"


def parse_integers(text: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Turn a string column into int64; integer columns pass.

    Returns:
        The integers (null where the text is null or no integer) and a mask of the rows whose text is no integer.  What
        counts as one is what pyarrow.csv takes for one, so that a cell means the same whichever way it was read.
    """
    nothing = np.zeros(len(text), dtype=bool)
    if pa.types.is_integer(text.type):
        return text, nothing
    try:
        return text.cast(pa.int64()), nothing
    except pa.ArrowInvalid:
        return _parse_row_by_row_where_odd(pc.utf8_trim(text, _SPACES))


def _parse_row_by_row_where_odd(text: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    plain = pc.fill_null(pc.match_substring_regex(text, "^-?[0-9]{1,18}$"), fill_value=False)
    values = pc.if_else(plain, text, pa.scalar(None, pa.string())).cast(pa.int64())
    odd = np.flatnonzero(present(text) & ~np.asarray(plain.to_numpy(zero_copy_only=False), dtype=bool))
    bad = np.zeros(len(text), dtype=bool)
    encoded = text.take(pa.array(odd)).dictionary_encode()
    distinct = [_integer(cell) for cell in encoded.dictionary]
    codes = encoded.indices.to_numpy()
    bad[odd] = np.array([value is None for value in distinct], dtype=bool)[codes]
    mended = pa.array(distinct, pa.int64()).take(encoded.indices)
    mask = np.zeros(len(text), dtype=bool)
    mask[odd] = True
    return (pc.replace_with_mask(values, pa.array(mask), mended) if len(odd) else values), bad


def _integer(cell: pa.Scalar) -> int | None:
    try:
        value = cell.cast(pa.int64()).as_py()
    except pa.ArrowInvalid:
        return None
    return None if value is None else int(value)


def numbers(column: pa.Array, missing: int = 0) -> NDArray[np.int64]:
    """Return an integer column as int64 with ``missing`` for null, without a copy where there is none."""
    if column.null_count:
        column = pc.fill_null(column, missing)
    values: NDArray[np.int64] = column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return values


def narrowed(values: NDArray[np.int64]) -> pa.Array:
    """Return integers in the smallest type that holds them all: half the bytes and less of what waits or travels."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for type_ in (np.int8, np.int16, np.int32):
        if np.iinfo(type_).min <= low and high <= np.iinfo(type_).max:
            return pa.array(values.astype(type_))
    return pa.array(values)
