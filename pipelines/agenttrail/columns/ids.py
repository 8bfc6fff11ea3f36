"""Ids made of content, and hashes that spread rows over shards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ID_BYTES = 16
"""128 bits: no two contents of one deployment share an id by chance, and none can be made to by who writes the log."""


def content_digests(columns: Sequence[pa.Array | str]) -> pa.Array:
    """Hash every row's values to 16 bytes.

    Args:
        columns: string or binary arrays of equal length; a ``str`` stands for a constant column.

    Returns:
        A column of 16 bytes a row.  Each value goes in with its length, so values cannot run into each other; null
        differs from "".
    """
    length = next(len(column) for column in columns if not isinstance(column, str))
    if not length:
        return pa.array([], pa.binary(ID_BYTES))
    rows = pc.binary_join_element_wise(
        *(part for column in columns for part in _sized(column)), pa.scalar(b"", pa.binary())
    )
    # what no kernel offers: half a microsecond a row, for evidence only; to make each hash anew takes a third more
    fresh, digests = hashlib.blake2b(digest_size=ID_BYTES).copy, []
    for row in rows.to_pylist():
        hash_ = fresh()
        hash_.update(row)
        digests.append(hash_.digest())
    return pa.Array.from_buffers(pa.binary(ID_BYTES), length, [None, pa.py_buffer(b"".join(digests))])


def _sized(column: pa.Array | str) -> list[pa.Array | pa.Scalar]:
    """Return length, colon and value of each row, as parts to be joined."""
    if isinstance(column, str):
        value = column.encode()
        return [pa.scalar(b"%d:%s" % (len(value), value), pa.binary())]
    binary = column.cast(pa.binary())
    length = pc.binary_length(binary).cast(pa.string()).cast(pa.binary())
    return [
        pc.coalesce(length, pa.scalar(b"-", pa.binary())),
        pa.scalar(b":", pa.binary()),
        pc.coalesce(binary, pa.scalar(b"", pa.binary())),
    ]


def hexadecimal(digests: pa.Array) -> pa.Array:
    """Return a column of fixed-size bytes as lower-case hexadecimal text; nulls stay null."""
    width = digests.type.byte_width
    raw = np.frombuffer(digests.buffers()[1], dtype=np.uint8)[
        digests.offset * width : (digests.offset + len(digests)) * width
    ]
    text = _HEXADECIMAL[raw].view(np.uint8)
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * (2 * width)
    out = pa.Array.from_buffers(pa.string(), len(digests), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    return pc.if_else(digests.is_valid(), out, pa.scalar(None, pa.string())) if digests.null_count else out


_HEXADECIMAL = np.array([int.from_bytes(b"%02x" % byte, "little") for byte in range(256)], dtype="<u2")


def content_ids(columns: Sequence[pa.Array | str]) -> pa.Array:
    """Hash every row's values to a 32-digit hexadecimal id; see :func:`content_digests`."""
    return hexadecimal(content_digests(columns))


def content_id(*values: str | None) -> str:
    """Return the id that :func:`content_ids` gives to one row of ``values``."""
    return str(content_ids([pa.array([value], pa.string()) for value in values])[0].as_py())


def spread(*words: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Mix 64-bit words of each row into one that is evenly spread (SplitMix64's finaliser, chained)."""
    mixed = np.zeros(len(words[0]), dtype=np.uint64)
    for word in words:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + word.astype(np.uint64)
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed
