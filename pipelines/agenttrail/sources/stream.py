"""Streams as blocks of raw lines: one source, one restriction, whatever it reads from.

What a stream reads from is a :class:`Reader`: Kafka, a directory that grows, documents that are read again when they
change.  Blocks are those of the batch reader, so that everything behind stays as it is.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Duration, Timestamp

from agenttrail.accounting import ACCOUNT, DEAD, Account
from agenttrail.parsing import Block, dead_letters
from agenttrail.sources.positions import OneProgress, Position, Progress
from agenttrail.sources.watermarks import TIMELESS, Pace, watermark
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agenttrail.parsing import Headers
    from agenttrail.sources.files import Remains

    Reached = Callable[[Block, Sequence[int]], tuple[int | None, tuple[int, ...]]]

ARRIVALS = "arrivals"
_AGAIN = 0.2
"""Seconds until a source that had nothing is asked again.

The wait is left to the runner: Prism keeps a processor busy as long as a bundle is being processed, whatever it does.
What the runner does not wait is waited here: Flink knows whole seconds only, and none once its own sources are through.
"""


@dataclass(frozen=True)
class Sizes:
    """How much is gathered before it goes on.

    Attributes:
        block_bytes: a block of this size goes on at once,
        block_seconds: and a smaller one when its first line has waited for so long.
        bundle_bytes: the runner gets its turn when this much has been read,
        bundle_seconds: or when so long has passed.
    """

    block_bytes: int = 1 << 20
    block_seconds: float = 1.0
    bundle_bytes: int = 8 << 20
    bundle_seconds: float = 1.0


@dataclass(frozen=True)
class Piece:
    """What a reader gives.

    Attributes:
        part: name of the part that it comes from.
        content: lines, without the header in force; or what is no line.
        before: position where it begins,
        after: and the one behind it; ``header`` and ``newest`` are filled in by the stream.
        top: whether it begins a part, or one that begins anew: no header is in force.
    """

    part: str
    content: Block | Remains
    before: Position
    after: Position
    top: bool = False


@dataclass(frozen=True)
class Standing:
    """How a reader stands between two rounds.

    Attributes:
        positions: of all parts that it knows, behind what it has given.
        gone: parts that will give nothing more and need no position.
        unread: parts that hold more, known positions or not; what cannot be told counts as unread.
        ended: whether a bounded replay has been read to its end.
    """

    positions: Mapping[str, Position]
    gone: frozenset[str]
    unread: frozenset[str]
    ended: bool


class Reader(Protocol):
    """Reads one source; lives as long as its process, so that what was fetched ahead is not fetched again."""

    def go_to(self, positions: Mapping[str, Position]) -> None:
        """Read on from ``positions``, parts that are not among them from their beginning."""

    def read(self) -> Iterator[Piece]:
        """Yield what has come, without waiting for more; the caller has claimed a piece when it asks for the next."""

    def lose(self) -> None:
        """Forget where it stands: what was given last was not taken."""

    def standing(self) -> Standing:
        """Tell how it stands after a round."""

    def close(self) -> None:
        """Let go of files and connections."""


class StreamSpec(Protocol):
    """Says what to read: a value that travels to the worker, where it opens the reader."""

    def open(self, source: int, sizes: Sizes, *, to_end: bool) -> Reader:
        """Return a reader of source number ``source``; ``to_end``: it ends with what is there when it begins."""


@dataclass(frozen=True)
class Arrival:
    """A block, and where in its source it stands; without lines where a part has been read to its end for now.

    Attributes:
        block: lines.
        part: name of its part: ``topic/partition``, or what tells a file.
        before: position where the block begins: a restart from it reads the block again.
        after: position behind it: a restart from it goes on after the block.
        begins: whether its part is read from here on, and not from where it was left.
        ends: whether nothing more will come of its part, such as a file that was removed.
    """

    block: Block
    part: str
    before: Position
    after: Position
    begins: bool = False
    ends: bool = False


class _Shared:
    """The readers of this process, one a source and pipeline, whichever thread asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Any, tuple[Reader, threading.Lock, int]] = {}

    def hold(self, key: Any, opened: Callable[[], Reader]) -> None:
        with self._lock:
            reader, lock, count = self._held.get(key) or (opened(), threading.Lock(), 0)
            self._held[key] = reader, lock, count + 1

    def of(self, key: Any) -> tuple[Reader, threading.Lock]:
        reader, lock, _ = self._held[key]
        return reader, lock

    def release(self, key: Any) -> None:
        with self._lock:
            reader, lock, count = self._held.pop(key)
            if count > 1:
                self._held[key] = reader, lock, count - 1
                return
        with lock:
            reader.close()


_READERS = _Shared()


@dataclass(frozen=True)
class Reading:
    """What the DoFn needs to know, in one value that is the key of its reader, too."""

    source: int
    name: str
    spec: StreamSpec
    sizes: Sizes
    pace: Pace
    to_end: bool
    run: str


class ReadStream(beam.DoFn):
    """Start positions to arrivals; dead letters and accounts beside them."""

    def __init__(self, reading: Reading, headers: Headers | None, newest: Reached | None) -> None:
        """Read what ``reading`` says; see :class:`BlocksOf`."""
        self._reading, self._headers, self._newest = reading, headers, newest
        self._last: dict[str, float] = {}
        self._up: set[str] = set()
        self._not_before = 0.0

    def setup(self) -> None:
        """Open the reader, or share the one that another thread has opened."""
        told = self._reading
        _READERS.hold(told, lambda: told.spec.open(told.source, told.sizes, to_end=told.to_end))

    def teardown(self) -> None:
        """Let go of the reader."""
        _READERS.release(self._reading)

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(
        self,
        _start: Progress,
        tracker: Any = beam.DoFn.RestrictionParam(OneProgress()),  # noqa: B008 - how Beam asks for it
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008 - as above
    ) -> Iterator[Any]:
        """Read for a second or so, then let the runner have its turn."""
        time.sleep(max(self._not_before - time.monotonic(), 0))
        reader, lock = _READERS.of(self._reading)
        positions = dict(tracker.current_restriction().positions)
        sizes, until, size = self._reading.sizes, time.monotonic() + self._reading.sizes.bundle_seconds, 0
        with lock:
            reader.go_to(positions)
            while True:
                had = size
                for piece in () if HALT.asked else reader.read():
                    begins = _begins(piece.before, positions.get(piece.part))
                    content, before, positions[piece.part] = self._placed(piece, positions.get(piece.part))
                    if not tracker.try_claim(Progress(dict(positions))):
                        reader.lose()
                        return
                    size += len(content.data)
                    # no row that is in time is older than the watermark that held before it
                    held = estimator.current_watermark() or MIN_TIMESTAMP
                    block = content if isinstance(content, Block) else self._nothing(piece.part, before)
                    yield TimestampedValue(Arrival(block, piece.part, before, positions[piece.part], begins), held)
                    if not isinstance(content, Block):
                        yield from self._refused(content, held)
                standing = reader.standing()
                standing = replace(standing, ended=standing.ended or HALT.asked)
                known = dict(positions)
                positions |= {part: _seen(part, standing, positions.get(part)) for part in standing.positions}
                gone = {part: positions.pop(part) for part in standing.gone & positions.keys()}
                if not tracker.try_claim(Progress(dict(positions), done=standing.ended)):
                    reader.lose()
                    return
                for notice in (*self._read_up(known, standing), *self._ended(gone)):
                    yield TimestampedValue(notice, estimator.current_watermark() or MIN_TIMESTAMP)
                self._advance(estimator, positions, standing)
                if standing.ended:
                    return
                if size == had or size >= sizes.bundle_bytes or time.monotonic() > until:
                    wait = 0 if size > had else _AGAIN
                    self._not_before = time.monotonic() + wait
                    tracker.defer_remainder(Duration(wait))
                    return

    def _read_up(self, positions: Mapping[str, Position], standing: Standing) -> Iterator[Arrival]:
        """Yield once for each part that it has been read to its end, and with no name once that all have been.

        Whoever waits for what had come before a restart then knows that no more of it will: it may be gone by now.
        """
        if HALT.asked or (standing.unread and not standing.positions):
            return  # it was not read, or cannot be asked
        up = {*positions, *standing.positions, *([] if standing.unread else [""])} - standing.unread - self._up
        for part in sorted(up):
            known, found = positions.get(part), standing.positions.get(part)
            here = _told(found, known) if found is not None else known or Position(0)
            self._up.add(part)
            if not part:
                TALLY.read_up.add(self._reading.source)
            yield Arrival(self._nothing(part, here), part, here, here, _begins(here, known))

    def _ended(self, gone: Mapping[str, Position]) -> Iterator[Arrival]:
        """Yield once for each part of which nothing more will come."""
        for part, here in gone.items():
            self._up.discard(part)
            self._last.pop(part, None)
            yield Arrival(self._nothing(part, here), part, here, here, ends=True)

    def _placed(self, piece: Piece, known: Position | None) -> tuple[Block | Remains, Position, Position]:
        """Return the piece with the header in force, and the positions before and behind it with what they lack."""
        self._last[piece.part] = time.monotonic()
        before = _told(piece.before, known)
        content, header = piece.content, None if piece.top else before.header
        newest, latest = before.newest, before.latest
        if isinstance(content, Block):
            if self._headers is not None:
                content = replace(content, header=header)
                found = self._headers.find(content.data, top=header is None)
                header = found[-1][1] if found else header or b""
            if self._newest is not None:
                # it may go back: what many lines told wrongly does not last longer than they do
                reached, latest = self._newest(replace(content, header=header), latest)
                newest = newest if reached is None else reached
        return content, before, replace(piece.after, header=header, newest=newest, latest=latest)

    def _nothing(self, part: str, at: Position) -> Block:
        """Return a block without lines."""
        return Block(b"", part, at.at, at.header, self._reading.source)

    def _refused(self, content: Remains, held: Timestamp) -> Iterator[Any]:
        """Yield what is no line as a dead letter."""
        letter = dead_letters(
            pa.array([content.data], pa.binary()),
            content.path,
            np.array([content.offset]),
            self._reading.name,
            pa.array([content.reason]),
            "read",
        )
        yield beam.pvalue.TaggedOutput(DEAD, TimestampedValue(letter, held))
        account = Account.of(self._reading.source, lines=1, dead=1)
        yield beam.pvalue.TaggedOutput(ACCOUNT, TimestampedValue(account, held))

    def _advance(self, estimator: Any, positions: Mapping[str, Position], standing: Standing) -> None:
        if standing.ended:
            estimator.set_watermark(MAX_TIMESTAMP)
            return
        if self._newest is None:
            passed = None if standing.unread else TIMELESS
        else:
            clock = time.monotonic()
            still = {
                part
                for part in positions
                if part not in standing.unread
                and (self._reading.to_end or clock - self._last.setdefault(part, clock) > self._reading.pace.quiet)
            }
            rested = 0.0 if self._reading.to_end else clock - max((self._last[part] for part in still), default=clock)
            now = time.time_ns() // 1000
            passed = watermark(positions, standing.unread, still, self._reading.pace, now, int(rested * 1e6))
        held = estimator.current_watermark()
        if passed is not None and (held is None or Timestamp(micros=passed) > held):
            estimator.set_watermark(Timestamp(micros=passed))


def _begins(found: Position, known: Position | None) -> bool:
    """Tell whether a part is read from another place than it was left at."""
    return known is None or known.fresh or known.at != found.at


def _seen(part: str, standing: Standing, known: Position | None) -> Position:
    """Return the position of a part that a reader has seen; of one that holds more nothing may have been given yet."""
    fresh = part in standing.unread and (known is None or known.fresh)
    return replace(_told(standing.positions[part], known), fresh=fresh)


def _told(found: Position, known: Position | None) -> Position:
    """Return the position that a reader tells, with what only the stream knows of that part."""
    if known is None:
        return found
    header = known.header if found.at else None
    return replace(found, header=header, newest=known.newest, latest=known.latest, fresh=known.fresh)


class BlocksOf(beam.PTransform):
    """One stream as arrivals of blocks, with dead letters and accounts beside them (``DEAD``, ``ACCOUNT``)."""

    def __init__(  # noqa: PLR0913 - all but the first three have their defaults
        self,
        source: int,
        name: str,
        spec: StreamSpec,
        *,
        headers: Headers | None = None,
        newest: Reached | None = None,
        start: Mapping[str, Position] | None = None,
        to_end: bool = False,
        pace: Pace | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        """Say what to read.

        Args:
            source: number of the job's source.
            name: format id, for dead letters.
            spec: what to read from.
            headers: of the format.
            newest: event time that a part has reached behind a block, such as
                :class:`~agenttrail.sources.watermarks.MedianTime`; None for a source that tells none, such as metadata:
                its watermark holds nobody up once everything has been read that was there at first.
            start: positions to go on from; parts that are not among them are read from their beginning.
            to_end: end with what is there at the beginning; the watermark then goes to the end of time.
            pace: how the watermark moves.
            sizes: how much is gathered before it goes on.
        """
        super().__init__()
        self.reading = Reading(
            source, name, spec, sizes or Sizes(), pace or Pace(), to_end=to_end, run=str(time.time_ns())
        )
        self._headers, self._newest, self._start = headers, newest, dict(start or {})

    def expand(self, begin: beam.pvalue.PBegin) -> Any:
        """Return the outputs by tag; the main one is ``ARRIVALS``."""
        read = ReadStream(self.reading, self._headers, self._newest)
        return (
            begin
            | beam.Create([Progress(self._start)], reshuffle=False)
            | "Read" >> beam.ParDo(read).with_output_types(Arrival).with_outputs(DEAD, ACCOUNT, main=ARRIVALS)
        )
