"""Whole batches: put together, cut, made plain, and written in the form that a shuffle moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence


def decoded(table: pa.Table) -> pa.Table:
    """Return ``table`` with dictionary columns turned into plain ones."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def as_one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table as a single batch, also an empty one.

    Raises:
        ValueError: a column is longer than the 2 GiB that fit into one.
    """
    combined = table.combine_chunks()
    if any(column.num_chunks > 1 for column in combined.columns):
        message = "a column of more than 2 GiB does not fit into one batch"
        raise ValueError(message)
    arrays = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in combined.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=combined.schema)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Put batches together whose columns may differ: absent ones are null, dictionaries become plain."""
    tables = [decoded(pa.Table.from_batches([batch])) for batch in batches]
    return as_one_batch(pa.concat_tables(tables, promote_options="default"))


def stacked(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Put batches of one origin together; as :func:`joined`, but words stay encoded where every batch encodes them."""
    if len(batches) == 1:
        return batches[0]
    names = dict.fromkeys(name for batch in batches for name in batch.schema.names)
    encoded = {
        name
        for name in names
        if all(pa.types.is_dictionary(batch.column(name).type) for batch in batches if name in batch.schema.names)
    }
    tables = []
    for batch in batches:
        columns = [_alike(batch.column(name), encoded=name in encoded) for name in batch.schema.names]
        tables.append(pa.Table.from_arrays(columns, names=batch.schema.names))
    return as_one_batch(pa.concat_tables(tables, promote_options="default").unify_dictionaries())


def _alike(column: pa.Array, *, encoded: bool) -> pa.Array:
    """Give dictionaries one type of index, or none."""
    if not pa.types.is_dictionary(column.type):
        return column
    if not encoded:
        return column.dictionary_decode()
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)
