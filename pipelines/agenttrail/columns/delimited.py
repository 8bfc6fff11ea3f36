"""Cells out of delimited lines, with pyarrow's CSV reader; what does not fit costs itself, not its block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import csv

from agenttrail.columns.numbers import parse_integers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SMALLEST_READ = 1 << 16


@dataclass(frozen=True)
class Layout:
    """How the lines of one stretch of a file are made.

    Attributes:
        names: the columns in their order.
        delimiter: one character; there are no quotes.
        null: text of a missing value.
    """

    names: tuple[str, ...]
    delimiter: str = " "
    null: str = "-"


@dataclass(frozen=True)
class Cells:
    """What was read from a stretch of lines.

    Attributes:
        columns: one array per wanted column that the layout has; integers are int64, all else strings.
        rows: which line each row came from, ascending, counting the lines that are not empty.
        misfits: lines with too many or too few cells, and how many each has.
        malformed: per integer column, the rows whose cell is no integer (the array is null there).
    """

    columns: dict[str, pa.Array]
    rows: NDArray[np.int64]
    misfits: list[tuple[int, int]]
    malformed: dict[str, NDArray[np.bool_]]


def read_delimited(data: pa.Buffer, layout: Layout, wanted: Mapping[str, pa.DataType]) -> Cells:
    """Read the ``wanted`` columns of valid UTF-8 ``data`` that the ``layout`` has.

    A cell that is no integer makes the typed read fail as a whole; the block is then read as text and only the columns
    that hold such a cell are looked through.
    """
    types = {name: type_ for name, type_ in wanted.items() if name in layout.names}
    misfits: list[tuple[int, int]] = []
    try:
        table = _read(data, layout, types, misfits)
    except pa.ArrowInvalid:
        misfits.clear()
        as_text = {name: pa.string() if pa.types.is_integer(type_) else type_ for name, type_ in types.items()}
        table = _read(data, layout, as_text, misfits)
    columns = {name: _one_chunk(table.column(name)) for name in types}
    malformed = {}
    for name, type_ in types.items():
        if pa.types.is_integer(type_) and not pa.types.is_integer(columns[name].type):
            columns[name], bad = parse_integers(columns[name])
            if bad.any():
                malformed[name] = bad
    return Cells(columns, _kept_rows(table.num_rows, misfits), misfits, malformed)


def _read(
    data: pa.Buffer, layout: Layout, types: Mapping[str, pa.DataType], misfits: list[tuple[int, int]]
) -> pa.Table:
    def note(row: csv.InvalidRow) -> str:
        misfits.append((row.number - 1, row.actual_columns))
        return "skip"

    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False, column_names=layout.names, block_size=max(data.size + 1, _SMALLEST_READ)
        ),
        parse_options=csv.ParseOptions(delimiter=layout.delimiter, quote_char=False, invalid_row_handler=note),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[layout.null],
            strings_can_be_null=True, check_utf8=False,
        ),
    )  # fmt: skip


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _kept_rows(count: int, misfits: list[tuple[int, int]]) -> NDArray[np.int64]:
    if not misfits:
        return np.arange(count)
    kept = np.ones(count + len(misfits), dtype=bool)
    kept[[row for row, _ in misfits]] = False
    return np.flatnonzero(kept)
