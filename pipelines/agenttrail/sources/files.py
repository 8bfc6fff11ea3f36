"""Files of raw lines, on any file system that Beam knows: found by glob, cut into ranges, read as blocks of lines."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from agenttrail.accounting import ACCOUNT, DEAD, Account
from agenttrail.errors import InputError
from agenttrail.parsing import Block, Headers, dead_letters
from agenttrail.sources.decompression import BrokenStreamError, is_compressed, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agenttrail.parsing import Format

BLOCK_BYTES = 16 << 20
"""Raw text in one block.  Half of it costs a tenth of the speed, half a MiB would cost half."""
RANGE_BYTES = 64 << 20
"""A plain file is read in ranges of this size, each by itself."""
WHOLE_FILES = 1 << 62
"""Size of ranges that no file fills."""
MOST_LINE_BYTES = 128 << 20
"""A longer line is cut up."""
MOST_DOCUMENT_BYTES = 1 << 30
_MARK = b"\xef\xbb\xbf"  # byte order mark, with which some exporters begin a file; it is no part of the first line


@dataclass(frozen=True)
class InputFile:
    """One file of a source.

    Attributes:
        path: where it lies.
        shown: what messages and evidence call it.
        size: bytes as stored.
        source: number of the job's source.
    """

    path: str
    shown: str
    size: int
    source: int


@dataclass(frozen=True)
class InputRange:
    """A stretch of a plain file, or a whole compressed one.

    Attributes:
        file: the file.
        start: the range holds the lines that begin at or after this byte of the stored file,
        stop: and before this one; None for a compressed file, which is read from its start to its end.
        header: header line in force at ``start``; None at the top of the file.
    """

    file: InputFile
    start: int
    stop: int | None
    header: bytes | None = None


@dataclass(frozen=True)
class Remains:
    """Bytes that are no line: the torn end of a damaged file, or a piece of an endless line."""

    data: bytes
    path: str
    offset: int
    source: int
    reason: str


def match(pattern: str) -> list[tuple[str, int]]:
    """Return path and size of the files that a glob names, sorted; folders are left out.

    Raises:
        InputError: the file system cannot be asked, or a pipe or device is among them.
    """
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # every file system has errors of its own
        msg = f"{pattern}: cannot be listed: {error}"
        raise InputError(msg) from error
    files = [file for file in found if FileSystems.get_scheme(file.path) or not Path(file.path).is_dir()]
    for file in files:
        _check_regular(file.path)
    return sorted((file.path, file.size_in_bytes) for file in files)


def _check_regular(path: str) -> None:
    """Refuse pipes and devices; what is not there or a folder is told by whoever opens it."""
    if FileSystems.get_scheme(path) is not None:
        return
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 - Beam's paths are text
    except OSError:
        return
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        msg = f"{path}: is no regular file: reading it may never end"
        raise InputError(msg)


def _open(path: str) -> BinaryIO:
    try:
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)  # type: ignore[no-any-return]
    except Exception as error:  # every file system has errors of its own
        msg = f"{path}: cannot be opened: {error}"
        raise InputError(msg) from error


def first_bytes(path: str, size: int) -> bytes:
    """Return the first ``size`` bytes of a file's content, fewer where it is shorter or damaged.

    Raises:
        InputError: it cannot be opened or read, or is a pipe or device.
    """
    _check_regular(path)
    held = b""
    with _open(path) as handle:
        try:
            for piece in pieces(handle):
                held += piece
                if len(held) >= size:
                    break
        except BrokenStreamError:
            pass
        except OSError as error:
            raise _unreadable(path, len(held), error) from error
    return held[:size]


def _unreadable(path: str, offset: int, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read at byte {offset}: {error}")


_BYTES_READ = [0]


def bytes_read() -> int:
    """Return how many bytes of lines this process has read so far: for telling people, not for the books."""
    return _BYTES_READ[0]


def plan_ranges(file: InputFile, headers: Headers | None, range_bytes: int = RANGE_BYTES) -> Iterator[InputRange]:
    """Cut a file into ranges that can be read each by itself.

    Where lines need a header, the file is looked through for header lines once, so that a range in its middle knows
    the one that is in force.
    """
    with _open(file.path) as handle:
        try:
            compressed = is_compressed(handle.read(4))
        except OSError as error:
            raise _unreadable(file.path, 0, error) from error
    if compressed:
        yield InputRange(file, 0, None)
        return
    starts = list(range(0, max(file.size, 1), range_bytes))
    in_force = _headers_at(file, starts, headers) if headers and len(starts) > 1 else [None] * len(starts)
    for start, header in zip(starts, in_force, strict=True):
        yield InputRange(file, start, min(start + range_bytes, file.size), header)


_GLANCE_BYTES = 1 << 20
"""Size of blocks in which header lines are looked for: they are looked at while they are still in the cache."""
_SMALL_BYTES = 1 << 18


def _headers_at(file: InputFile, starts: list[int], headers: Headers) -> list[bytes | None]:
    """Return the header line in force at each start: the last one that begins before it."""
    found: list[tuple[int, bytes]] = []
    top = True
    stop = file.size if _holds_beyond_top(file, headers.letter) else min(_GLANCE_BYTES, file.size)
    for block in _blocks(InputRange(file, 0, stop), _GLANCE_BYTES, None):
        if isinstance(block, Block):
            found += [(block.offset + offset, line) for offset, line in headers.find(block.data, top=top)]
            top = False
    in_force: list[bytes | None] = []
    for start in starts:
        before = [line for offset, line in found if offset < start]
        in_force.append(before[-1] if before else (None if start == 0 else b""))
    return in_force


def _holds_beyond_top(file: InputFile, letter: bytes) -> bool:
    """Tell whether a byte may stand in a file behind its first ``_GLANCE_BYTES``: local files are looked through."""
    if FileSystems.get_scheme(file.path) is not None:
        return True
    held = bytearray(_SMALL_BYTES)
    try:
        with Path(file.path).open("rb", buffering=0) as handle:
            handle.seek(_GLANCE_BYTES)
            while count := handle.readinto(held):
                if held.find(letter, 0, count) >= 0:
                    return True
    except OSError as error:
        raise _unreadable(file.path, _GLANCE_BYTES, error) from error
    return False


def read_blocks(part: InputRange, headers: Headers | None, block_bytes: int = BLOCK_BYTES) -> Iterator[Block | Remains]:
    """Read a range as blocks of whole lines of about ``block_bytes``; what is no line comes out as remains.

    The lines that a file's ranges give together are the lines of the file, wherever it was cut.
    """
    header = part.header
    for block in _blocks(part, block_bytes, header):
        if not isinstance(block, Block) or headers is None:
            yield block
            continue
        found = headers.find(block.data, top=header is None)
        yield Block(block.data, block.path, block.offset, header, block.source, bare=not found)
        header = found[-1][1] if found else header or b""


def _blocks(part: InputRange, block_bytes: int, header: bytes | None) -> Iterator[Block | Remains]:
    for block in _marked_blocks(part, block_bytes, header):
        if block.offset == 0 and isinstance(block, Block) and block.data.startswith(_MARK):
            yield replace(block, data=block.data[len(_MARK) :], offset=len(_MARK))
        else:
            yield block


def _marked_blocks(part: InputRange, block_bytes: int, header: bytes | None) -> Iterator[Block | Remains]:
    file = part.file
    with _open(file.path) as handle:
        offset, stop = part.start, part.stop
        if offset:
            try:
                handle.seek(offset - 1)
                offset += _skip_line(handle) - 1
            except OSError as error:
                raise _unreadable(file.path, offset, error) from error
        carry = b""
        broken = ""
        try:
            for piece in _pieces(handle, part, offset, block_bytes):
                whole, carry, done = _cut(carry, piece, offset, stop)
                if whole:
                    yield Block(whole, file.shown, offset, header, file.source)
                    offset += len(whole)
                if done:
                    return
                if len(carry) > MOST_LINE_BYTES:
                    yield Remains(
                        carry,
                        file.shown,
                        offset,
                        file.source,
                        f"a line longer than {MOST_LINE_BYTES >> 20} MiB, cut up",
                    )
                    offset, carry = offset + len(carry), b""
        except BrokenStreamError as error:
            broken = str(error)
        except OSError as error:
            raise _unreadable(file.path, offset, error) from error
        yield from _end(carry, offset, part, header, broken)


def _end(carry: bytes, offset: int, part: InputRange, header: bytes | None, broken: str) -> Iterator[Block | Remains]:
    """Yield what is left at the end of a file: lines, the last without a line end, or a torn line."""
    file = part.file
    if broken:
        last = carry.rfind(b"\n") + 1
        if last:
            yield Block(carry[:last], file.shown, offset, header, file.source)
        yield Remains(carry[last:], file.shown, offset + last, file.source, broken)
    elif carry:
        yield Block(carry, file.shown, offset, header, file.source)


def _pieces(handle: BinaryIO, part: InputRange, offset: int, size: int) -> Iterator[bytes]:
    """Read a range from ``offset`` on in pieces of about ``size``."""
    if part.stop is None:
        return _gathered(pieces(handle), size)
    if FileSystems.get_scheme(part.file.path) is None:
        return _pieces_of_lines(handle, offset, size, part.stop)
    return _plain_pieces(handle, offset, size)


def _plain_pieces(handle: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    handle.seek(offset)
    yield from _gathered(iter(lambda: handle.read(size), b""), size)


def _pieces_of_lines(handle: BinaryIO, offset: int, size: int, stop: int) -> Iterator[bytes]:
    """Read a local file in pieces that end where a line does, so that none has to be copied to be cut.

    To look where that is takes two seeks, which are dear where files come over a network.  What is read is cut as
    ever: a file that changes meanwhile, or a line without an end, gives pieces that end elsewhere.
    """
    while True:
        target = offset + size if offset >= stop else min(offset + size, stop)
        handle.seek(target - 1)
        beyond = len(handle.readline(MOST_LINE_BYTES + 1)) - 1
        handle.seek(offset)
        piece = handle.read(target + max(beyond, 0) - offset)
        if not piece:
            return
        offset += len(piece)
        yield piece


def _gathered(small: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Join small pieces to pieces of ``size`` and more; what came before a break is given before it is raised."""
    held: list[bytes] = []
    length = 0
    broken: BrokenStreamError | None = None
    try:
        for piece in small:
            held.append(piece)
            length += len(piece)
            if length >= size:
                yield b"".join(held)
                held, length = [], 0
    except BrokenStreamError as error:
        broken = error
    if held:
        yield b"".join(held)
    if broken is not None:
        raise broken


def _skip_line(handle: BinaryIO) -> int:
    """Read past the next line end; return how many bytes that was."""
    skipped = 0
    while piece := handle.read(1 << 16):
        at = piece.find(b"\n")
        if at >= 0:
            return skipped + at + 1
        skipped += len(piece)
    return skipped


def _cut(carry: bytes, piece: bytes, offset: int, stop: int | None) -> tuple[bytes, bytes, bool]:
    """Cut whole lines off ``carry``, which starts at ``offset`` and holds no line end, and the ``piece`` behind it.

    Returns:
        The lines, what is left, and whether the range is done.  Each byte is copied once.
    """
    start = offset + len(carry)
    if stop is not None and start + len(piece) >= stop:
        if offset >= stop:
            return b"", b"", True
        # the last line of the range is the one that begins before its stop; it may end beyond
        end = piece.find(b"\n", max(stop - 1 - start, 0)) + 1
        if end:
            return _together(carry, piece, end), b"", True
    last = piece.rfind(b"\n") + 1
    return (_together(carry, piece, last), piece[last:], False) if last else (b"", carry + piece, False)


def _together(carry: bytes, piece: bytes, end: int) -> bytes:
    return b"".join((carry, memoryview(piece)[:end])) if carry or end < len(piece) else piece


def read_document(file: InputFile) -> Block:
    """Read a whole file of metadata.

    Raises:
        InputError: it is empty, damaged, or larger than 1 GiB.
    """
    parts: list[bytes] = []
    size = 0
    with _open(file.path) as handle:
        try:
            for piece in pieces(handle):
                parts.append(piece)
                size += len(piece)
                if size > MOST_DOCUMENT_BYTES:
                    msg = f"{file.shown}: larger than {MOST_DOCUMENT_BYTES >> 30} GiB uncompressed; split it"
                    raise InputError(msg)
        except BrokenStreamError as error:
            msg = f"{file.shown}: {error} at byte {size} of its content"
            raise InputError(msg) from error
        except OSError as error:
            raise _unreadable(file.path, size, error) from error
    data = b"".join(parts).removeprefix(_MARK)
    if not data.strip():
        msg = f"{file.shown}: the file is empty"
        raise InputError(msg)
    return Block(data, file.shown, 0, None, file.source)


class _PlanRanges(beam.DoFn):
    def __init__(self, headers: Mapping[int, Headers | None], range_bytes: int) -> None:
        self._headers, self._range_bytes = headers, range_bytes

    def process(self, file: InputFile) -> Iterator[Any]:
        yield from plan_ranges(file, self._headers[file.source], self._range_bytes)
        yield beam.pvalue.TaggedOutput(ACCOUNT, Account.of(file.source, files=1))


class _ReadBlocks(beam.DoFn):
    def __init__(self, names: Mapping[int, str], headers: Mapping[int, Headers | None], block_bytes: int) -> None:
        self._names, self._headers, self._block_bytes = names, headers, block_bytes

    def process(self, part: InputRange) -> Iterator[Any]:
        started = time.thread_time()
        for block in read_blocks(part, self._headers[part.file.source], self._block_bytes):
            seconds = {"read": time.thread_time() - started}
            if isinstance(block, Block):
                _BYTES_READ[0] += len(block.data)
                yield block
                yield beam.pvalue.TaggedOutput(ACCOUNT, Account.of(block.source, seconds=seconds))
            else:
                yield beam.pvalue.TaggedOutput(DEAD, self._dead_letter(block))
                yield beam.pvalue.TaggedOutput(ACCOUNT, Account.of(block.source, lines=1, dead=1, seconds=seconds))
            started = time.thread_time()

    def _dead_letter(self, remains: Remains) -> pa.RecordBatch:
        original = pa.array([remains.data], pa.binary())
        return dead_letters(
            original,
            remains.path,
            np.array([remains.offset]),
            self._names[remains.source],
            pa.array([remains.reason]),
            "read",
        )


class ReadBlocks(beam.PTransform):
    """Files to blocks of whole lines; dead letters and accounts beside them.

    Every file is cut into ranges, the ranges are spread over the workers, and each is read by itself.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        formats: Mapping[int, Format],
        *,
        range_bytes: int = RANGE_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        """Read ``files``, whose sources have the ``formats``."""
        super().__init__()
        self._files = list(files)
        headers = {source: format_.headers for source, format_ in formats.items()}
        self._plan = _PlanRanges(headers, range_bytes)
        self._read = _ReadBlocks({source: format_.name for source, format_ in formats.items()}, headers, block_bytes)

    def expand(self, begin: beam.pvalue.PBegin) -> tuple[Any, Any, Any]:
        """Return blocks, dead letters and accounts."""
        planned = (
            begin
            | beam.Create(self._files)
            | "PlanRanges" >> beam.ParDo(self._plan).with_outputs(ACCOUNT, main="ranges")
        )
        read = (
            planned["ranges"]
            | beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(Block).with_outputs(DEAD, ACCOUNT, main="blocks")
        )
        accounts = (planned[ACCOUNT], read[ACCOUNT]) | beam.Flatten()
        return read["blocks"], read[DEAD], accounts


class ReadDocuments(beam.PTransform):
    """Files of metadata, each as one block."""

    def __init__(self, files: Sequence[InputFile]) -> None:
        """Read ``files``."""
        super().__init__()
        self._files = list(files)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Block]:
        """Return the documents."""
        return begin | beam.Create(self._files) | beam.Reshuffle() | beam.Map(read_document).with_output_types(Block)
