"""One file that is read as it grows: plain text line by line, what is compressed once it is whole."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from agenttrail.columns.text import shown_path
from agenttrail.parsing import Block
from agenttrail.sources.decompression import BrokenStreamError, is_compressed, pieces
from agenttrail.sources.files import MOST_LINE_BYTES, Remains
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.sources.stream import Sizes

PIECE_BYTES = 4 << 20
"""A file that holds much is read by so much at a time, by turns with the others."""
SETTLED = 2.0
"""Seconds that a compressed file must have been as it is: it is no use while it is being written."""
PATIENCE = 60.0
"""Seconds after which one that ends too early is taken as it is."""
_MARKED_BYTES = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def identity(status: os.stat_result) -> str:
    """Return what tells a file whatever its name: the name of its part."""
    return f"{status.st_dev:x}-{status.st_ino:x}"


def mark_of(start: bytes, at: int) -> str:
    """Return by what a file is known again that begins with ``start`` and has been read up to ``at``: "" for 0."""
    marked = start[: min(at, _MARKED_BYTES)]
    return f"{len(marked)}:{hashlib.blake2b(marked, digest_size=12).hexdigest()}" if marked else ""


class _TornError(Exception):
    """A compressed file ends too early; ``rest`` is what stands behind its last whole line."""

    def __init__(self, why: str, rest: bytes) -> None:
        super().__init__(why)
        self.rest = rest


class _Handle:
    """A place of its own in an open file, whose name may mean another file by now."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place = descriptor, 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._place)
        self._place += len(data)
        return data

    def seek(self, place: int) -> None:
        self._place = place


class Tail:
    """One file, kept open: it is read to its end even if it is renamed or removed meanwhile."""

    def __init__(self, path: str, shown: str, source: int, position: Position, *, to_end: bool) -> None:
        """Go on from ``position``.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path, self._shown, self._source, self._to_end = path, shown, source, to_end
        self.file: BinaryIO = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by close
        status = os.fstat(self.file.fileno())
        self.part, self.position = identity(status), position
        self.compressed = is_compressed(self._at(0, 4))
        self.left: float | None = None  # when it was found to have left the directory, if it has
        self._stop = position.stop if position.stop is not None else (status.st_size if to_end else None)
        self._size, self._written = status.st_size, status.st_mtime_ns
        # seconds by the clock that are long past, or ahead, do not matter: it is looked at for the first time
        self._changed = time.monotonic() - max(time.time() - status.st_mtime, 0)
        self._waits: float | None = None  # since when there is something to be read
        self._halves = -1  # size of the file at which it ended with half a line
        self._flow: Iterator[tuple[bytes, bool]] | None = None  # what is compressed, in the middle of it
        self._broken = -1  # size at which a compressed file ended too early
        self.position = self._placed(position.at, position.stored)

    def close(self) -> None:
        """Close the file."""
        self._flow = None
        self.file.close()

    def go_to(self, position: Position) -> None:
        """Go on from ``position``."""
        if position.at != self.position.at or position.stored != self.position.stored:
            self._flow = None
            self._halves = -1
            self.position = position

    def look(self) -> bool:
        """Look how large the file is now, and tell whether it has changed."""
        status = os.fstat(self.file.fileno())
        state = status.st_size, status.st_mtime_ns
        if state == (self._size, self._written):
            return False
        self._size, self._written = state
        self._changed, self._flow = time.monotonic(), None
        self.compressed = is_compressed(self._at(0, 4))
        return True

    def begins_anew(self) -> bool:
        """Tell whether other content stands where the file has been read, as after a truncation."""
        position = self.position
        if self.compressed or not (position.at or position.mark):
            return False
        return self._size < position.at or not self.starts_as(position)

    def start_anew(self) -> None:
        """Read from the beginning."""
        self._halves, self._waits = -1, None
        self.position = replace(self.position, mark="")
        self.position = self._placed(0, 0)

    def take_over(self, position: Position) -> None:
        """Go on from where the file that this one is a copy of was left."""
        stored = position.stored if self.compressed and position.stored == self._size else 0
        self.position = replace(position, path=shown_path(self.path), stop=self._stop, stored=stored)

    def starts_as(self, position: Position) -> bool:
        """Tell whether the file's content begins as what was read up to ``position`` did."""
        length = position.mark.partition(":")[0]
        marked = int(length) if length.isdecimal() and len(length) <= len(str(_MARKED_BYTES)) else 0
        return bool(marked) and mark_of(self._start(marked), marked) == position.mark

    def unread(self) -> bool:
        """Tell whether the file holds more, half a line at its end left aside."""
        if self.compressed:
            return self.position.stored != self._size
        return self.position.at < self._end() and self._halves != self._size

    def ended(self) -> bool:
        """Tell whether a bounded replay has all of the file."""
        return not self.unread() if self.compressed else self.position.at >= self._end()

    def holds_half_a_line(self) -> bool:
        """Tell whether the file ends with something that is no whole line."""
        return not self.compressed and self.position.at < self._end()

    def still(self) -> float:
        """Return for how many seconds the file has been as it is."""
        return time.monotonic() - self._changed

    def read(self, sizes: Sizes, *, last: bool) -> Piece | None:
        """Return the next piece where enough has come, or it has waited long enough; None otherwise.

        Args:
            sizes: how much is enough.
            last: nothing more will come, so that half a line at the end is a line.
        """
        if self.compressed:
            return self._next_of_compressed(sizes, last=last)
        waiting = self._end() - self.position.at
        if waiting <= 0 or (self._halves == self._size and not last):
            self._waits = None
            return None
        now = time.monotonic()
        self._waits = now if self._waits is None else self._waits
        if waiting < sizes.block_bytes and now - self._waits < sizes.block_seconds and not last:
            return None
        self._waits = None
        return self._next_lines(last=last)

    def _end(self) -> int:
        return self._size if self._stop is None else min(self._size, self._stop)

    def _next_lines(self, *, last: bool) -> Piece | None:
        at, end, size = self.position.at, self._end(), PIECE_BYTES
        while True:
            data = self._at(at, min(size, end - at))
            cut = data.rfind(b"\n") + 1
            if cut or size >= MOST_LINE_BYTES or at + len(data) >= end:
                break
            size *= 4
        if cut:
            return self._lines(data[:cut])
        if len(data) >= MOST_LINE_BYTES:
            return self._remains(data, _too_long())
        if last and data:
            return self._lines(data)
        self._halves = self._size
        return None

    def _lines(self, data: bytes, stored: int = 0) -> Piece:
        before, at = self.position, self.position.at
        self.position = self._placed(at + len(data), stored, data)
        if not at:  # a restart that reads it again is to know it again, too
            before = replace(before, mark=self.position.mark)
        skipped = len(_BYTE_ORDER_MARK) if at == 0 and data.startswith(_BYTE_ORDER_MARK) else 0
        block = Block(data[skipped:], self._shown, at + skipped, None, self._source)
        return Piece(self.part, block, before, self.position, top=at == 0)

    def _remains(self, data: bytes, reason: str, stored: int = 0) -> Piece:
        before = self.position
        self.position = self._placed(before.at + len(data), stored, data)
        return Piece(self.part, Remains(data, self._shown, before.at, self._source, reason), before, self.position)

    def _placed(self, at: int, stored: int, data: bytes = b"") -> Position:
        """Return the position ``at`` with the mark of the file; ``data`` has been read last."""
        before = self.position
        if before.mark and (at == before.at or before.at >= _MARKED_BYTES):
            mark = before.mark if at or at == before.at else ""
        elif self.compressed:
            mark = mark_of(data if data and not before.at else self._start(_MARKED_BYTES), at)
        else:
            mark = mark_of(self._at(0, _MARKED_BYTES), at)
        return Position(at, stop=self._stop, path=shown_path(self.path), mark=mark, stored=stored)

    def _next_of_compressed(self, sizes: Sizes, *, last: bool) -> Piece | None:
        if not self.unread() or (self._flow is None and not (last or self.still() >= SETTLED)):
            return None
        hopeless = last or self.still() >= PATIENCE
        if self._broken == self._size and not hopeless:
            return None
        if self._flow is None:
            self._flow = self._decompressed(self.position.at, sizes.block_bytes)
        try:
            data, more = next(self._flow, (b"", False))
        except _TornError as torn:
            self._flow, self._broken = None, self._size
            return self._remains(torn.rest, str(torn), self._size) if hopeless else None
        stored = 0 if more else self._size
        if len(data) >= MOST_LINE_BYTES and b"\n" not in data:
            return self._remains(data, _too_long(), stored)
        if data:
            return self._lines(data, stored)
        self.position = self._placed(self.position.at, stored)
        return None

    def _decompressed(self, at: int, size: int) -> Iterator[tuple[bytes, bool]]:
        """Yield whole lines of the content from ``at`` on, and whether there is more; the last may lack its line end.

        So does what is ``MOST_LINE_BYTES`` long without one, such as a bomb: it is not held as a whole.

        Raises:
            _TornError: after the last whole line before it is damaged or cut off.
        """
        held, ready, cut = bytearray(), b"", 0  # whole lines in held end at cut
        try:
            for piece in self._content(at):
                end = piece.rfind(b"\n") + 1
                cut = len(held) + end if end else cut
                held += piece
                if len(held) - cut >= MOST_LINE_BYTES:
                    if ready or cut:
                        yield ready + bytes(held[:cut]), True
                    yield bytes(held[cut:]), True
                    held, ready, cut = bytearray(), b"", 0
                elif cut >= size:
                    if ready:
                        yield ready, True
                    held, ready, cut = held[cut:], bytes(held[:cut]), 0
        except BrokenStreamError as error:
            if ready or cut:
                yield ready + bytes(held[:cut]), True
            raise _TornError(str(error), bytes(held[cut:])) from error
        yield ready + bytes(held), False

    def _content(self, at: int) -> Iterator[bytes]:
        """Yield the content from ``at`` on, through a handle of its own."""
        skipped = 0
        for piece in pieces(cast("BinaryIO", _Handle(self.file.fileno()))):
            if skipped + len(piece) > at:
                yield piece[max(at - skipped, 0) :]
            skipped += len(piece)

    def _start(self, size: int) -> bytes:
        """Return the first bytes of the content."""
        if not self.compressed:
            return self._at(0, size)
        held = b""
        try:
            for piece in self._content(0):
                held += piece
                if len(held) >= size:
                    break
        except BrokenStreamError:
            pass
        return held[:size]

    def _at(self, offset: int, size: int) -> bytes:
        return os.pread(self.file.fileno(), size, offset)


def _too_long() -> str:
    return f"a line longer than {MOST_LINE_BYTES >> 20} MiB, cut up"
