"""Bytes of a file as they were before it was compressed, piece by piece, also when it was cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_COMPRESSED_PIECE = 1 << 20
_ZSTD_PIECE = 1 << 16  # small, since its decompressor gives back all that a piece holds
_LARGEST_PIECE = 8 << 20
_GZIP_WINDOW = 31  # gzip header and trailer

_DAMAGED: Any = (isal_zlib.error, EOFError)  # typed as an instance where it is a class


class BrokenStreamError(Exception):
    """A compressed file is cut off or damaged; what came before it has been given."""


def is_compressed(start: bytes) -> bool:
    """Tell by its first bytes whether a file is compressed in a way that can be read."""
    return start.startswith((_GZIP, _ZSTD))


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a plain, gzip or zstd file in pieces of at most 8 MiB (zstd: as they come).

    Raises:
        BrokenStreamError: after the last piece that could be read.
    """
    start = file.read(_COMPRESSED_PIECE)
    if start.startswith(_GZIP):
        yield from _gzip(file, start)
    elif start.startswith(_ZSTD):
        yield from _zstd(file, start)
    else:
        while start:
            yield start
            start = file.read(_LARGEST_PIECE)


def _gzip(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Members may follow one another, and zero bytes the last one."""
    data, member = start, isal_zlib.decompressobj(_GZIP_WINDOW)
    try:
        while True:
            piece = member.decompress(data, _LARGEST_PIECE)
            if piece:
                yield piece
            if member.eof:
                rest = member.unused_data.lstrip(b"\0") or file.read(_COMPRESSED_PIECE).lstrip(b"\0")
                if not rest:
                    return
                data, member = rest, isal_zlib.decompressobj(_GZIP_WINDOW)
                continue
            data = member.unconsumed_tail or file.read(_COMPRESSED_PIECE)
            if not data:
                msg = "the gzip stream is cut off"
                raise BrokenStreamError(msg)
    except _DAMAGED as error:
        msg = f"the gzip stream is damaged: {error}"
        raise BrokenStreamError(msg) from error


def _zstd(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Frames may follow one another."""
    data, frame, inside = start, zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while data:
            for at in range(0, len(data), _ZSTD_PIECE):
                rest = data[at : at + _ZSTD_PIECE]
                while rest:
                    piece = frame.decompress(rest)
                    if piece:
                        yield piece
                    inside = not frame.eof
                    rest = frame.unused_data if frame.eof else b""
                    frame = zstandard.ZstdDecompressor().decompressobj() if frame.eof else frame
            data = file.read(_COMPRESSED_PIECE)
    except zstandard.ZstdError as error:
        msg = f"the zstd stream is damaged: {error}"
        raise BrokenStreamError(msg) from error
    if inside:
        msg = "the zstd stream is cut off"
        raise BrokenStreamError(msg)
