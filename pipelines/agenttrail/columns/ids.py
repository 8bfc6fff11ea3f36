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
        columns: strings, bytes or dictionaries of them, of equal length; a ``str`` stands for a constant column.

    Returns:
        A column of 16 bytes a row.  Each value goes in with its length, so values cannot run into each other; null
        differs from "".
    """
    length = next(len(column) for column in columns if not isinstance(column, str))
    if not length:
        return pa.array([], pa.binary(ID_BYTES))
    parts = _run_together([part for column in columns for part in _sized(column)])
    joined = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary()))
    rows = joined.to_pylist() if isinstance(joined, pa.Array) else [joined.as_py()] * length
    # what no kernel offers: half a microsecond a row, for evidence only; to make each hash anew takes longer
    fresh, digests = hashlib.blake2b(digest_size=ID_BYTES).copy, []
    for row in rows:
        hash_ = fresh()
        hash_.update(row)
        digests.append(hash_.digest())
    return pa.Array.from_buffers(pa.binary(ID_BYTES), length, [None, pa.py_buffer(b"".join(digests))])


def _run_together(parts: Sequence[pa.Array | bytes]) -> list[pa.Array | pa.Scalar]:
    """Return parts with neighbours that are the same in all rows as one."""
    together: list[pa.Array | bytes] = []
    for part in parts:
        if together and isinstance(part, bytes) and isinstance(together[-1], bytes):
            together[-1] += part
        else:
            together.append(part)
    return [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in together]


def _sized(column: pa.Array | str) -> list[pa.Array | bytes]:
    """Return length, colon and value of each row, as parts to be joined; as one where all rows have the same."""
    if isinstance(column, str):
        return [_of_all(column.encode())]
    if pa.types.is_dictionary(column.type) and column.dictionary.null_count:
        column = column.dictionary_decode()
    if column.null_count == len(column):
        return [_OF_NULL]
    if pa.types.is_dictionary(column.type):
        if len(column.dictionary) == 1 and not column.null_count:
            return [_of_all(column.dictionary.cast(pa.binary())[0].as_py())]
        column = column.dictionary_decode()
    binary = column.cast(pa.binary())
    length = pc.binary_length(binary)
    if pc.max(length).as_py() < len(_LENGTHS):
        size = _LENGTHS.take(length)
    else:
        size = pc.binary_join_element_wise(length.cast(pa.string()).cast(pa.binary()), b"", b":")
    if not column.null_count:
        return [size, binary]
    return [pc.coalesce(size, pa.scalar(_OF_NULL, pa.binary())), pc.coalesce(binary, pa.scalar(b"", pa.binary()))]


def _of_all(value: bytes) -> bytes:
    return b"%d:%s" % (len(value), value)


_OF_NULL = b"-:"
_LENGTHS = pa.array([b"%d:" % length for length in range(1 << 12)], pa.binary())
"""To take one of these is quicker than to write a number."""


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
    parts = b"".join(_OF_NULL if value is None else _of_all(value.encode()) for value in values)
    return hashlib.blake2b(parts, digest_size=ID_BYTES).hexdigest()


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
