"""Lines of raw text: where they start, what they hold, and how they are shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NEWLINE = 10
_PIECE = 1 << 19  # bytes


def split_lines(block: pa.Buffer) -> tuple[pa.Array, bool]:
    """Return the lines of ``block``, and whether all but line ends is printable ASCII: one look answers both.

    Args:
        block: less than 2 GiB of text; the last line may lack its line end.

    Returns:
        A binary array over the same memory, in which each line keeps its line end; and the answer.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    ends = _unprintable(data)
    at_end = data[ends] == _NEWLINE
    printable_only = bool(at_end.all())
    ends = ends if printable_only else ends[at_end]
    count = len(ends) + int(bool(len(data)) and data[-1] != _NEWLINE)
    offsets = np.zeros(count + 1, dtype=np.int32)
    offsets[1 : len(ends) + 1] = ends
    offsets[1 : len(ends) + 1] += 1
    offsets[-1] = len(data)
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), block]), printable_only


def _unprintable(data: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return where no printable ASCII stands: looked at by pieces, whose answers never leave the processor's cache."""
    answers, found = np.empty(min(len(data), _PIECE), dtype=bool), []
    for begin in range(0, len(data), _PIECE):
        # as signed numbers, what is no ASCII is negative
        piece = data[begin : begin + _PIECE].view(np.int8)
        places = np.flatnonzero(np.less(piece, ord(" "), out=answers[: len(piece)]))
        places += begin
        found.append(places)
    return np.concatenate(found) if found else np.empty(0, dtype=np.intp)


def line_offsets(lines: pa.Array) -> NDArray[np.int32]:
    """Return where each line of :func:`split_lines` starts in its block, and where the last one ends."""
    return np.frombuffer(lines.buffers()[1], dtype=np.int32, count=len(lines) + 1, offset=lines.offset * 4)


def buffer_of(lines: pa.Array) -> pa.Buffer:
    """Return the memory of consecutive lines, without a copy."""
    offsets = line_offsets(lines)
    data = lines.buffers()[2]
    return data.slice(int(offsets[0]), int(offsets[-1] - offsets[0])) if data is not None else pa.py_buffer(b"")


def trim_line_ends(lines: pa.Array) -> pa.Array:
    r"""Return a copy of consecutive lines without the ``\n`` or ``\r\n`` at their end."""
    bounds = line_offsets(lines).astype(np.int64)
    data = np.frombuffer(lines.buffers()[2] or b"", dtype=np.uint8)[bounds[0] : bounds[-1]]
    if not len(data):
        return lines
    bounds -= bounds[0]
    ends = bounds[1:].copy()
    kept = np.ones(len(data), dtype=bool)
    for end_byte in (_NEWLINE, 13):
        last = ends - 1
        at_end = (last >= bounds[:-1]) & (data.take(last, mode="clip") == end_byte)
        kept[last[at_end]] = False
        ends -= at_end
    offsets = np.zeros(len(bounds), dtype=np.int32)
    np.cumsum(ends - bounds[:-1], out=offsets[1:])
    return pa.Array.from_buffers(pa.binary(), len(lines), [None, pa.py_buffer(offsets), pa.py_buffer(data[kept])])


def constant(value: str | None, count: int) -> pa.Array:
    """Return a column of ``count`` times ``value``, as a dictionary of one."""
    indices = pa.array(np.zeros(count, dtype=np.int8), mask=np.full(count, value is None) if value is None else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value or ""], pa.string()))


def choose(codes: NDArray[np.integer], words: Sequence[str]) -> pa.Array:
    """Return a column of ``words[code]``, null where the code is negative, as a dictionary of ``words``."""
    missing = codes < 0
    indices = pa.array(codes.astype(np.int8), mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(words), pa.string()))


def printable(text: str) -> str:
    r"""Return ``text`` with everything that a terminal or reader could take for a command shown as an escape.

    Control characters, line ends, bidirectional overrides and other invisible characters come out as ``\xNN`` or
    ``\uNNNN``.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shown_path(path: str) -> str:
    r"""Return a path as text that can be written anywhere; bytes in it that are no UTF-8 come out as ``\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
