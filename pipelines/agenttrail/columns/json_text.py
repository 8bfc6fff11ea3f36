"""Columns as JSON: one object a row, with flat dotted keys, made a column at a time.

Nulls and empty lists are left out.  What is read back is what went in: text is escaped, so nothing in it can end its
string.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import format_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MANY, _REPEATED = 1_024, 16  # values looked at, and how often each must stand there for the words to be looked up
_SECOND, _DAY = 1_000_000, 86_400_000_000  # microseconds
_NONE = pa.scalar(None, pa.string())
_MUST_ESCAPE = r'["\\\x00-\x1f\x7f]'


def json_objects(batch: pa.RecordBatch | pa.StructArray, names: Sequence[str] | None = None, end: str = "") -> pa.Array:
    """Return each row of a batch, or each struct of an array, as the text of a JSON object.

    Args:
        batch: columns of text, numbers, booleans, times (UTC), 16-byte addresses, lists of those, and structs.
        names: the columns to take, in this order; all by default.
        end: what stands after each object.
    """
    if isinstance(batch, pa.StructArray):
        fields = dict(zip((field.name for field in batch.type), batch.flatten(), strict=True))
    else:
        fields = dict(zip(batch.schema.names, batch.columns, strict=True))
    count = len(batch) if isinstance(batch, pa.StructArray) else batch.num_rows
    wanted = {name: fields[name] for name in (names or fields) if fields[name].null_count < count}
    if not wanted:
        return pa.array([f"{{}}{end}"] * count, pa.string())
    return _joined_in_one_go(wanted, end) or _joined_member_by_member(wanted, end)


def _joined_in_one_go(columns: Mapping[str, pa.Array], end: str) -> pa.Array | None:
    """Return the objects, made without a copy per member; None where the first column has nulls: each needs a comma."""
    parts: list[pa.Array | str] = ["{"]  # constants and columns in turn
    for place, (name, column) in enumerate(columns.items()):
        key = ("," if place else "") + orjson.dumps(name).decode() + ":"
        opening, values, closing = _enclosed(column)
        if not values.null_count:
            parts[-1] += key + opening
            parts += [values, closing]
        elif place:
            parts += [pc.binary_join_element_wise(key + opening, values, closing, ""), ""]
        else:
            return None
    parts[-1] += "}" + end
    parts = [part for part in parts if not isinstance(part, str) or part]
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def _joined_member_by_member(columns: Mapping[str, pa.Array], end: str) -> pa.Array:
    members = [_member(name, column) for name, column in columns.items()]
    if members[0].null_count:
        # pyarrow 25 drops a row whose parts are all null from the join; an empty part keeps it
        nothing = pc.is_null(pc.coalesce(*members))
        members[0] = pc.if_else(nothing, "", members[0])
    joined = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    return pc.binary_join_element_wise("{", joined, "}" + end, "")


def _member(name: str, column: pa.Array) -> pa.Array:
    """Return ``"name":value`` per row, null where there is no value."""
    return pc.binary_join_element_wise(orjson.dumps(name).decode() + ":", json_values(column), "")


def json_values(column: pa.Array) -> pa.Array:
    """Return each value of a column as JSON text; null where there is none, or an empty list."""
    opening, values, closing = _enclosed(column)
    return pc.binary_join_element_wise(opening, values, closing, "") if opening else values


def _enclosed(column: pa.Array) -> tuple[str, pa.Array, str]:
    """Return what stands before and after each value, and between them the value; null where there is none."""
    if pa.types.is_list(column.type):
        return "[", _listed(column), "]"
    if pa.types.is_struct(column.type):
        objects = json_objects(column)
        return "", pc.if_else(column.is_valid(), objects, _NONE) if column.null_count else objects, ""
    text = _text(column)
    return ("", column.cast(pa.string()), "") if text is None else ('"', text, '"')


def _text(column: pa.Array) -> pa.Array | None:
    """Return what stands between the quotes, escaped; None where the values are no text in JSON."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        words = _text(column.dictionary)
        return None if words is None else words.take(column.indices)
    if pa.types.is_string(type_):
        return _escaped(column)
    if pa.types.is_fixed_size_binary(type_):
        return format_addresses(column)
    return _times(column) if pa.types.is_timestamp(type_) else None


def _escaped(column: pa.Array) -> pa.Array:
    if len(column) > _MANY and len(column.slice(0, _MANY).unique()) < _MANY // _REPEATED:
        encoded = column.dictionary_encode()
        return _escaped(encoded.dictionary).take(encoded.indices)
    special = pc.fill_null(pc.match_substring_regex(column, _MUST_ESCAPE), fill_value=False)
    if not pc.any(special).as_py():
        return column
    encoded = column.filter(special).dictionary_encode()
    escaped = pa.array([orjson.dumps(value).decode()[1:-1] for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(column, special, escaped.take(encoded.indices))


def _times(column: pa.Array) -> pa.Array:
    """Return ISO 8601 in UTC with as many decimals as needed: none, three or six."""
    encoded = column.cast(pa.timestamp("us")).cast(pa.int64()).dictionary_encode()
    micros = np.asarray(encoded.dictionary, dtype=np.int64)
    days, of_day = np.divmod(micros, _DAY)
    seconds, parts = np.divmod(of_day, _SECOND)
    day = pa.array(days).dictionary_encode()
    dates = pc.strftime(day.dictionary.cast(pa.int32()).cast(pa.date32()).cast(pa.timestamp("s")), "%Y-%m-%dT")
    text = [dates.take(day.indices), _times_of_day().take(pa.array(seconds))]
    if parts.any():
        decimals = pa.array(parts + _SECOND).cast(pa.string())
        millis = pc.utf8_slice_codeunits(decimals, 1, 4)
        exact = pc.if_else(pa.array(parts % 1000 == 0), millis, pc.utf8_slice_codeunits(decimals, 1))
        text.append(pc.if_else(pa.array(parts == 0), "", pc.binary_join_element_wise(".", exact, "")))
    return pc.binary_join_element_wise(*text, "Z", "").take(encoded.indices)


@functools.cache
def _times_of_day() -> pa.Array:
    """Return the text of every second of a day."""
    return pc.strftime(pa.array(np.arange(_DAY // _SECOND)).cast(pa.timestamp("s")), "%H:%M:%S")


def _listed(column: pa.ListArray) -> pa.Array:
    """Return the entries of each list with commas between them; null where there are none."""
    values = json_values(column.flatten())
    offsets = np.concatenate([[0], np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(column), 0)))])
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)
    joined = pc.binary_join(lists, ",")
    filled = np.diff(offsets) > 0
    return joined if filled.all() else pc.if_else(pa.array(filled), joined, _NONE)


def json_lines(batch: pa.RecordBatch) -> memoryview:
    """Return a batch as the bytes of a file with one JSON object a line, as they lie in the memory of a column."""
    if not batch.num_rows:
        return memoryview(b"")
    lines = json_objects(batch, end="\n")
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32, count=len(lines) + 1, offset=lines.offset * 4)
    return memoryview(data)[bounds[0] : bounds[-1]]
