"""read_records(): JSON documents back into the columns that they were made of."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.json as pj

from agenttrail.columns.addresses import parse_addresses
from agenttrail.columns.dictionaries import decoded
from agenttrail.schema import ADDRESS, ENUM, TIMESTAMP, Record, arrow_type, conform


def read_records(documents: pa.Array, of: Record) -> pa.RecordBatch:
    """Return flat JSON documents of this program as a batch in the shape of a record type.

    Args:
        documents: strings, one JSON object each, as ``json_objects`` makes them.
        of: the record type; members that it does not know are left out, and so are lists of objects.

    Raises:
        pa.ArrowInvalid: a document is not what ``json_objects`` makes.
    """
    types = {name: arrow_type(field) for name, field in of.fields.items() if field.type != "object"}
    data = "\n".join(documents.to_pylist()).encode()
    if not data:
        return conform(pa.RecordBatch.from_arrays([], names=[]), of)
    schema = pa.schema([(name, _as_read(type_)) for name, type_ in types.items()])
    table = pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    columns = [_as_was(table.column(name).combine_chunks(), type_) for name, type_ in types.items()]
    return conform(pa.RecordBatch.from_arrays(columns, names=list(types)), of)


def _as_read(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):
        return pa.list_(_as_read(type_.value_type))
    return pa.string() if type_ in (ADDRESS, TIMESTAMP, ENUM) else type_


def _as_was(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_list(type_):
        values = _as_was(column.flatten(), type_.value_type)
        offsets = pa.array([0, *column.value_lengths().fill_null(0).to_numpy().cumsum()], pa.int32())
        return pa.ListArray.from_arrays(offsets, values, mask=column.is_null())
    if type_ == ADDRESS:
        return decoded(parse_addresses(column)[0])
    return column if type_ == ENUM else column.cast(type_)
