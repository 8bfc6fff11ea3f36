"""What a log format gets and gives: blocks of raw lines in, events or leases out, and every line accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.text import constant, line_offsets, split_lines, trim_line_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from agenttrail.columns.json_lines import JsonLinesReader

EARLIEST = 946_684_800_000_000  # 2000-01-01 in microseconds; a time outside of these two is a broken clock
LATEST = 4_102_444_800_000_000  # 2100-01-01
MICROSECONDS = 1_000_000
_LAST_ASCII = 0x7F

DEAD_LETTER = pa.schema(
    [
        ("event.original", pa.binary()),
        ("log.file.path", pa.string()),
        ("log.offset", pa.int64()),
        ("event.dataset", pa.string()),
        ("error.stage", pa.string()),
        ("error.message", pa.string()),
    ]
)


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of one file, or messages of one partition; the last line of a file may lack its line end.

    Attributes:
        data: the raw bytes.
        path: the file, as messages and evidence name it.
        offset: where ``data`` starts in the uncompressed file, in bytes.
        header: the header line in force where the block starts, for formats that have one; None at the top of a file.
        source: number of the job's source that the file belongs to.
        numbers: where each line stands, one number a line, for sources that do not count bytes: the offsets of Kafka's
            messages, of which one may hold several lines.  None where lines stand at ``offset`` + their place in it.
        bare: whether it is known that none of its lines is a header: who reads a file looks for them anyway.
    """

    data: bytes
    path: str
    offset: int
    header: bytes | None = None
    source: int = 0
    numbers: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    bare: bool = False

    def places(self, lines: pa.Array) -> NDArray[np.int64]:
        """Return where each of the block's ``lines`` stands in its file or partition."""
        if self.numbers is not None:
            return self.numbers
        return line_offsets(lines)[:-1].astype(np.int64) + self.offset


@dataclass(frozen=True)
class Parsed:
    """What became of a block: ``lines`` = lines that gave an event + ``skipped`` + dead letters.

    Attributes:
        events: one row per event in the order of the lines; for metadata, one row per lease.
        dead: one row per line that gave none, in the shape of ``DEAD_LETTER``.
        lines: number of lines read; for metadata documents, of objects.  A line of several records of which some are
            refused counts as one, and each refused record beside it as one more.
        skipped: number of blank lines, comments and headers, and of lines that tell of other things; for metadata, of
            objects without an address.
        leases: what a format that gives both gives besides events; None where it gives none.
        without_zone: number of leases with a time that names no zone.
    """

    events: pa.RecordBatch
    dead: pa.RecordBatch
    lines: int
    skipped: int
    leases: pa.RecordBatch | None = None
    without_zone: int = 0

    @property
    def with_records(self) -> int:
        """Number of lines, or objects, that gave at least one event or lease."""
        return self.lines - self.skipped - int(self.dead.num_rows)


@dataclass(frozen=True)
class Headers:
    """How the header lines of a format are found.

    Attributes:
        find: returns offset and text of those in whole lines; ``top`` says whether these begin a file.
        letter: a byte that every header line holds that does not begin a file, and few other lines.
    """

    find: Callable[..., list[tuple[int, bytes]]]
    letter: bytes


@dataclass(frozen=True)
class Format:
    """One log or metadata format.

    Attributes:
        name: format id, which is also ``event.dataset``.
        gives: "events", "leases", or "both": events that tell of leases, too.
        parser: makes the parse function for one source from the source's settings.
        scopes: native columns that may serve as scope, and the event columns that they become.
        headers: how header lines are found, for formats whose lines need them.
        settings: keys of a source that this format understands besides ``format``, ``path`` and ``scope``.
        kind: what vouches for the records; two different kinds that agree raise an incident's severity.
        named: whether its events name the workload that they are about, instead of telling of two addresses.
    """

    name: str
    gives: str
    parser: Callable[[Mapping[str, object]], Callable[[Block], Parsed]]
    scopes: Mapping[str, str] = field(default_factory=dict)
    headers: Headers | None = None
    settings: frozenset[str] = field(default_factory=frozenset)
    kind: str = "flow log"
    named: bool = False


class Lines:
    """The lines of a block and what has become of each: still good, skipped, or refused for a reason.

    Attributes:
        lines: each with its line end.
        printable: whether there is nothing but printable ASCII in them.
    """

    def __init__(self, data: bytes) -> None:
        """Split ``data``; every line is good to begin with."""
        self.lines, self.printable = split_lines(pa.py_buffer(data))
        self._verdicts = np.zeros(len(self.lines), dtype=np.int16)
        self._reasons = ["", ""]  # 0: good, 1: skipped

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.lines)

    def line(self, row: int) -> bytes:
        """Return one line as it was read."""
        return bytes(self.lines[row].as_py())

    def skip(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> None:
        """Leave out ``rows`` that hold nothing to tell."""
        self._verdicts[rows] = 1

    def refuse(self, rows: NDArray[np.integer] | NDArray[np.bool_], reason: str) -> None:
        """Make dead letters of those of ``rows`` that are still good."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        chosen = self._verdicts[rows]
        chosen[chosen == 0] = self._reasons.index(reason)
        self._verdicts[rows] = chosen

    def good(self) -> NDArray[np.bool_]:
        """Return a mask of the lines that are still good."""
        fine: NDArray[np.bool_] = self._verdicts == 0
        return fine

    @property
    def skipped(self) -> int:
        """Number of skipped lines."""
        return int(np.count_nonzero(self._verdicts == 1))

    def dead_letters(self, block: Block, dataset: str) -> pa.RecordBatch:
        """Return the refused lines with their place and reason."""
        rows = np.flatnonzero(self._verdicts > 1)
        if not len(rows):
            return no_dead_letters()
        offsets = block.places(self.lines)[rows]
        originals = trim_line_ends(self.lines.take(pa.array(rows)))
        reasons = pa.array(self._reasons).take(pa.array(self._verdicts[rows]))
        return dead_letters(originals, block.path, offsets, dataset, reasons)


def sift(lines: Lines, data: bytes, *, delimited: bool = False) -> tuple[NDArray[np.int64], pa.Array]:
    """Skip blank lines and refuse lines that are no text; return the rows left and their lines.

    Where lines are ``delimited``, a carriage return inside a line is refused, too: CSV readers take it for a line end.
    """
    starts = line_offsets(lines.lines)
    raw = np.frombuffer(data, dtype=np.uint8)
    odd = np.flatnonzero(raw.take(starts[:-1]) <= ord(" "))  # a blank line begins with a blank or its own end
    lines.skip(odd[[not line.strip() for line in lines.lines.take(pa.array(odd)).to_pylist()]])
    if not lines.printable:
        _refuse_no_text(lines, data, delimited=delimited)
    good = lines.good()
    if good.all():
        return np.arange(len(lines)), lines.lines
    rows = np.flatnonzero(good)
    return rows, lines.lines.take(pa.array(rows))


def _refuse_no_text(lines: Lines, data: bytes, *, delimited: bool) -> None:
    """Refuse the lines with a byte that text does not hold."""
    starts, raw = line_offsets(lines.lines), np.frombuffer(data, dtype=np.uint8)
    if b"\0" in data:
        lines.refuse(np.searchsorted(starts, np.flatnonzero(raw == 0), side="right") - 1, "the line holds a NUL byte")
    if delimited and b"\r" in data:
        returns = np.flatnonzero(raw == ord("\r"))
        inside = returns[raw.take(returns + 1, mode="clip") != ord("\n")]
        inside = inside[inside != len(raw) - 1]
        lines.refuse(np.searchsorted(starts, inside, side="right") - 1, "the line holds a carriage return")
    if not is_utf8(data):
        high = np.unique(np.searchsorted(starts, np.flatnonzero(raw > _LAST_ASCII), side="right") - 1)
        broken = [not is_utf8(line) for line in lines.lines.take(pa.array(high)).to_pylist()]
        lines.refuse(high[broken], "the line is not valid UTF-8")


def read_objects(
    reader: JsonLinesReader, lines: Lines, rows: NDArray[np.int64], kept: pa.Array, lenient: tuple[str, ...] = ()
) -> dict[str, pa.Array]:
    """Read ``kept``, the lines of ``rows``, as JSON; refuse what is no object or holds a wrong type.

    In ``lenient`` integer fields other text counts as missing.
    """
    if not len(rows):
        return {
            key: pa.array([], pa.int64() if key in reader.fields.integers else pa.string())
            for key in reader.fields.keys
        }
    objects = reader.read(kept)
    for row, reason in objects.refused:
        lines.refuse(rows[[row]], reason)
    for name, bad in objects.malformed.items():
        if name not in lenient:
            lines.refuse(rows[bad], f"{name} is not an integer")
    return objects.columns


def is_utf8(data: bytes) -> bool:
    """Tell whether ``data`` is valid UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def no_dead_letters() -> pa.RecordBatch:
    """Return an empty batch of dead letters."""
    return pa.RecordBatch.from_arrays([pa.array([], type_) for type_ in DEAD_LETTER.types], schema=DEAD_LETTER)


def dead_letters(
    originals: pa.Array,
    path: str,
    offsets: NDArray[np.int64] | pa.Array,
    dataset: str,
    reasons: pa.Array,
    stage: str = "parse",
) -> pa.RecordBatch:
    """Return dead letters for ``originals`` at ``offsets`` of ``path``; null where a place is no offset."""
    count = len(originals)
    columns = [
        originals,
        constant(path, count).dictionary_decode(),
        pa.array(offsets, pa.int64()),
        constant(dataset, count).dictionary_decode(),
        constant(stage, count).dictionary_decode(),
        reasons,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DEAD_LETTER)


def event_batch(
    lines: Lines, block: Block, dataset: str, rows: NDArray[np.int64], columns: dict[str, pa.Array]
) -> pa.RecordBatch:
    """Put events together: the ``columns`` of ``rows`` that are still good, with their original and its place."""
    offsets = block.places(lines.lines)
    whole = len(rows) == len(lines)
    columns = {
        "event.dataset": constant(dataset, len(rows)),
        **columns,
        "event.original": lines.lines if whole else lines.lines.take(pa.array(rows)),
        "log.file.path": constant(block.path, len(rows)),
        "log.offset": pa.array(offsets if whole else offsets[rows]),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    kept = lines.good()[rows]
    return batch if kept.all() else batch.filter(pa.array(kept))
