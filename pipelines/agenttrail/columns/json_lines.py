"""Fields out of JSON lines: by their shape where they share one, else by pyarrow's reader, else by msgspec.

All three give the same for every line that they take; what one of them refuses (a comma inside a value, NaN, two
objects on a line) is left to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from agenttrail.columns.json_shape import Shape, find_shape, read_shaped
from agenttrail.columns.numbers import parse_integers
from agenttrail.columns.text import buffer_of, line_offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECES = 8  # of a block, when it cannot be read as a whole
_NEIGHBOURHOOD = 256  # lines that are read one by one around one that is refused
_DASH = ord("-")
_RETRY = 16  # blocks after which the fast way is tried again where it mostly failed
_SMALLEST_READ = 1 << 16


@dataclass(frozen=True)
class Fields:
    """The fields of a format's objects; in all of them the empty string and "-" count as missing.

    Attributes:
        text: keys of string fields; a number is taken as its digits.
        integers: keys of integer fields; text that spells an integer is taken.
    """

    text: tuple[str, ...]
    integers: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, text first."""
        return self.text + self.integers


@dataclass(frozen=True)
class Objects:
    """What was read: an array per key, null where a line was refused, and the refused lines with what is wrong."""

    columns: dict[str, pa.Array]
    refused: list[tuple[int, str]]
    malformed: dict[str, NDArray[np.bool_]]


class JsonLinesReader:
    """Reads the same fields from block after block; remembers which way worked last."""

    def __init__(self, fields: Fields) -> None:
        """Prepare both readers for ``fields``."""
        self.fields = fields
        text = [(key, pa.string()) for key in fields.text]
        # exporters write their numbers either all as text or all as numbers, mostly
        self._schemas = [
            pa.schema(text + [(key, type_) for key in fields.integers]) for type_ in (pa.string(), pa.int64())
        ]
        names = [f"f{index}" for index in range(len(fields.keys))]
        members = [(name, str | int | None, None) for name in names]
        self._decoder = msgspec.json.Decoder(
            msgspec.defstruct("Line", members, rename=dict(zip(names, fields.keys, strict=True)), gc=False)
        )
        self._getters = [attrgetter(name) for name in names]
        self._prefer_slow = False
        self._blocks = 0
        self._shape: Shape | None = None
        self._unshaped = False
        self._tries = 0

    def read(self, lines: pa.Array) -> Objects:
        """Read ``lines``: a binary array over one block, none of them blank, all valid UTF-8."""
        refused: list[tuple[int, str]] = []
        tables, order = self._read_shaped(lines, refused)
        columns, malformed = {}, {}
        for key in self.fields.keys:
            pieces = [self._typed(key, _one_chunk(table.column(key))) for table in tables]
            columns[key] = pa.concat_arrays([column for column, _ in pieces])
            bad = np.concatenate([bad for _, bad in pieces])
            if order is not None:
                columns[key], bad = columns[key].take(pa.array(order)), bad[order]
            if bad.any():
                malformed[key] = bad
        return Objects(columns, refused, malformed)

    def _read_shaped(
        self, lines: pa.Array, refused: list[tuple[int, str]]
    ) -> tuple[list[pa.Table], NDArray[np.int64] | None]:
        """Read lines of one shape by it, and the others as JSON; return the order that puts both together, if any."""
        self._tries += 1
        if self._unshaped and self._tries % _RETRY:
            return self._read_pieces(lines, refused), None
        if self._shape is None or self._unshaped:
            self._shape = find_shape(lines)
        if self._shape is None:
            self._unshaped = True
            return self._read_pieces(lines, refused), None
        fitting = read_shaped(lines, self._shape, {key: key in self.fields.integers for key in self.fields.keys})
        self._unshaped = len(fitting.rows) * 2 < len(lines)
        if not len(fitting.rows):
            return self._read_pieces(lines, refused), None
        nothing = pa.nulls(len(fitting.rows), pa.string())
        shaped = pa.table({key: fitting.columns.get(key, nothing) for key in self.fields.keys})
        if len(fitting.rows) == len(lines):
            return [shaped], None
        others = np.delete(np.arange(len(lines)), fitting.rows)
        told: list[tuple[int, str]] = []
        tables = self._read_pieces(lines.take(pa.array(others)), told)
        refused += [(int(others[row]), reason) for row, reason in told]
        return [shaped, *tables], np.argsort(np.concatenate([fitting.rows, others]))

    def _typed(self, key: str, column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
        if pa.types.is_string(column.type):
            column = _without_blanks(column)
        return parse_integers(column) if key in self.fields.integers else (column, np.zeros(len(column), dtype=bool))

    def _read_pieces(self, lines: pa.Array, refused: list[tuple[int, str]]) -> list[pa.Table]:
        """Read the block as a whole, or its pieces each the way that works for it."""
        self._blocks += 1
        if self._prefer_slow and self._blocks % _RETRY:
            return [self._read_slowly(lines, 0, refused)]
        table = self._read_fast(lines)
        if table is not None:
            self._prefer_slow = False
            return [table]
        step = max(len(lines) // _PIECES, _NEIGHBOURHOOD)
        tables, slow = [], 0
        for first in range(0, len(lines), step):
            piece = lines[first : first + step]
            table = self._read_fast(piece)
            slow += table is None
            tables.append(self._read_slowly(piece, first, refused) if table is None else table)
        self._prefer_slow = slow * 2 > len(tables)
        return tables

    def _read_fast(self, lines: pa.Array) -> pa.Table | None:
        data = buffer_of(lines)
        if not _one_object_a_line(lines) or _has_literal(data, b"NaN") or _has_literal(data, b"Inf"):
            return None
        for schema in tuple(self._schemas):
            try:
                table = json.read_json(
                    pa.BufferReader(data),
                    read_options=json.ReadOptions(use_threads=False, block_size=max(data.size + 1, _SMALLEST_READ)),
                    parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
                )
            except pa.ArrowInvalid:
                continue
            if table.num_rows == len(lines):
                self._schemas.sort(key=lambda known: known is not schema)
                return table
        return None

    def _read_slowly(self, lines: pa.Array, first: int, refused: list[tuple[int, str]]) -> pa.Table:
        """Read with msgspec, halving around what is refused down to single lines."""
        rows = self._decode(lines, first, refused)
        # One pass per field over the objects: the way for lines that pyarrow refuses, not for a clean block.
        columns = [pa.array([_text(value) for value in map(get, rows)], pa.string()) for get in self._getters]
        return pa.Table.from_arrays(columns, names=list(self.fields.keys))

    def _decode(self, lines: pa.Array, first: int, refused: list[tuple[int, str]]) -> list[Any]:
        try:
            rows: list[Any] = self._decoder.decode_lines(buffer_of(lines))
            if len(rows) == len(lines) and _one_object_a_line(lines):
                return rows
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if len(lines) > _NEIGHBOURHOOD:
            middle = len(lines) // 2
            return self._decode(lines[:middle], first, refused) + self._decode(lines[middle:], first + middle, refused)
        return [self._decode_line(lines[row : row + 1], first + row, refused) for row in range(len(lines))]

    def _decode_line(self, line: pa.Array, index: int, refused: list[tuple[int, str]]) -> object:
        try:
            return self._decoder.decode(line[0].as_py())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused.append((index, str(error)))
        except RecursionError:
            # nested beyond Python's stack; pyarrow, which has none, decides as it does where it reads whole blocks
            table = self._read_fast(line)
            if table is not None:
                return self._decoder.decode(msgspec.json.encode(table.to_pylist()[0]))
            refused.append((index, "the objects in the line are nested too deeply"))
        return self._decoder.decode(b"{}")


def _text(value: str | int | None) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _one_object_a_line(lines: pa.Array) -> bool:
    """Tell whether each line begins with { and ends with } - then no object reaches over a line end."""
    offsets = line_offsets(lines)
    data = np.frombuffer(lines.buffers()[2], dtype=np.uint8)
    last = offsets[1:] - 1
    last = last - (data[last] == 10)  # noqa: PLR2004 - newline
    last = last - (data[last] == 13)  # noqa: PLR2004 - carriage return
    return bool((data[offsets[:-1]] == ord("{")).all() and (data[last] == ord("}")).all())


def _has_literal(data: pa.Buffer, literal: bytes) -> bool:
    """Tell whether ``literal`` stands anywhere in ``data``; its first letter is rare in machine-written JSON."""
    raw = np.frombuffer(data, dtype=np.uint8)
    at = np.flatnonzero(raw[: max(len(raw) - len(literal) + 1, 0)] == literal[0])
    for distance, letter in enumerate(literal[1:], start=1):
        at = at[raw[at + distance] == letter]
    return bool(len(at))


def _without_blanks(column: pa.Array) -> pa.Array:
    """Return a string column with null for the empty string and for "-"."""
    offsets = line_offsets(column)
    lengths = np.diff(offsets)
    short = np.flatnonzero(lengths <= 1)
    if not len(short) or column.null_count == len(column):
        return column
    data = np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)
    dash = data.take(offsets[short], mode="clip") == _DASH if len(data) else np.zeros(len(short), dtype=bool)
    missing = np.zeros(len(column), dtype=bool)
    missing[short] = (lengths[short] == 0) | dash
    return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), column)
