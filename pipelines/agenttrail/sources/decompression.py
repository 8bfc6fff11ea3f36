"""Bytes of a file as they were before it was compressed, piece by piece, also when it was cut off."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FIRST_SKIPPED, _SKIPPED = 0x50, b"\x2a\x4d\x18"
_COMPRESSED_PIECE = 1 << 20
_ZSTD_PIECE = 1 << 12  # small, since its decompressor gives back all that a piece holds: some thousand times as much
_LARGEST_PIECE = 8 << 20
_SALVAGE_STEP = 1 << 14
_GZIP_WINDOW = 31  # gzip header and trailer

_DAMAGED: Any = (isal_zlib.error, EOFError)  # typed as an instance where it is a class


class BrokenStreamError(Exception):
    """A compressed file is cut off or damaged; what came before it has been given."""


def is_compressed(start: bytes) -> bool:
    """Tell by its first bytes whether a file is compressed in a way that can be read."""
    return start.startswith(_GZIP) or _is_zstd(start)


def _is_zstd(start: bytes) -> bool:
    """A file may begin with a frame to be skipped, as parallel compressors write them."""
    return start.startswith(_ZSTD) or (start[1:4] == _SKIPPED and _FIRST_SKIPPED <= start[0] < _FIRST_SKIPPED + 16)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of a plain, gzip or zstd file in pieces of at most 8 MiB (zstd: as they come).

    Raises:
        BrokenStreamError: after the last piece that could be read.
    """
    start = file.read(_COMPRESSED_PIECE)
    if start.startswith(_GZIP):
        yield from _gzip(file, start)
    elif _is_zstd(start):
        yield from _zstd(file, start)
    else:
        while start:
            yield start
            start = file.read(_LARGEST_PIECE)


def _gzip(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Members may follow one another, and zero bytes the last one."""
    data, member, given = start, isal_zlib.decompressobj(_GZIP_WINDOW), 0
    try:
        while True:
            piece = member.decompress(data, _LARGEST_PIECE)
            if piece:
                yield piece
                given += len(piece)
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
        yield from _salvaged(file, lambda: zlib.decompressobj(_GZIP_WINDOW), given)
        msg = f"the gzip stream is damaged: {error}"
        raise BrokenStreamError(msg) from error


def _fresh_frame() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


def _zstd(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Frames may follow one another, and zero bytes the last one."""
    data, frame, inside, given = start, _fresh_frame(), False, 0
    try:
        while data:
            for at in range(0, len(data), _ZSTD_PIECE):
                rest = data[at : at + _ZSTD_PIECE]
                while rest := rest if inside else rest.lstrip(b"\0"):
                    piece = frame.decompress(rest)
                    if piece:
                        yield piece
                        given += len(piece)
                    inside = not frame.eof
                    rest = frame.unused_data if frame.eof else b""
                    frame = _fresh_frame() if frame.eof else frame
            data = file.read(_COMPRESSED_PIECE)
    except zstandard.ZstdError as error:
        yield from _salvaged(file, _fresh_frame, given)
        msg = f"the zstd stream is damaged: {error}"
        raise BrokenStreamError(msg) from error
    if inside:
        msg = "the zstd stream is cut off"
        raise BrokenStreamError(msg)


def _salvaged(file: BinaryIO, fresh: Callable[[], Any], given: int) -> Iterator[bytes]:
    """Yield what stands between the first ``given`` bytes of a damaged file's content and the damage.

    A decompressor gives nothing of the step in which it comes upon damage.  So the file is read once more to find that
    step, and then again to take it byte by byte.
    """
    good = 0
    for step in (_SALVAGE_STEP, 1):
        file.seek(0)
        decoder, at, passed = fresh(), 0, 0
        try:
            while data := file.read(_SALVAGE_STEP if at < good else step):
                piece, decoder = _fed(decoder, data, fresh)
                at += len(data)
                passed += len(piece)
                if step == 1 and passed > given:
                    yield piece[max(len(piece) - (passed - given), 0) :]
                    given = passed
        except (zlib.error, zstandard.ZstdError):
            good = at


def _fed(decoder: Any, data: bytes, fresh: Callable[[], Any]) -> tuple[bytes, Any]:
    """Feed ``data`` to a decompressor; return what it gives, and the one to feed next."""
    pieces_ = []
    while data:
        pieces_.append(decoder.decompress(data))
        data, decoder = (decoder.unused_data.lstrip(b"\0"), fresh()) if decoder.eof else (b"", decoder)
    return b"".join(pieces_), decoder
