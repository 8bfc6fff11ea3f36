"""The event time that a stream has passed, told from how far each of its parts has come.

Judgement does not rest on it, since that is repeated as data come: it evicts state and proves that something did *not*
come.  So it may be late, but never early: it is the smallest over all parts of the time that each has reached, less the
disorder that is allowed for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.formats import FORMATS
from agenttrail.parsing import LATEST, MICROSECONDS, Block

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.parsing import Parsed
    from agenttrail.sources.positions import Position

TIMELESS = LATEST
"""Watermark of a source that tells no event time, such as metadata: it holds nobody up once it has been read."""
_SAMPLE_BYTES = 64 << 10
_FEW = 9
"""Lines of which a median is told: four of them may have any time."""


@dataclass(frozen=True)
class Pace:
    """How the watermark of a source moves.

    Attributes:
        disorder: how far a line may be behind the newest one of its part, in microseconds.  Where lines are shuffled by
            up to d either way, that is 2 d.
        quiet: seconds without anything new after which a part that has been read to its end is left out.
    """

    disorder: int = 240 * MICROSECONDS
    quiet: float = 30.0


def watermark(
    positions: Mapping[str, Position],
    unread: Collection[str],
    quiet: Collection[str],
    pace: Pace,
    now: int,
    rested: int = 0,
) -> int | None:
    """Return the event time that a source has passed, in microseconds; None where that cannot be told yet.

    Args:
        positions: of all parts.
        unread: parts that hold more than was read, known positions or not.
        quiet: parts that were read to their end, and from which nothing has come for a while.
        pace: of the source.
        now: the clock, in microseconds; a broken clock in a log does not take the watermark into the future.
        rested: for how long nothing has come, in microseconds.  Where all parts are quiet, the watermark goes on as
            fast as the clock does, whatever that shows: old data may be replayed.  So a source that has nothing to
            tell, such as a firewall that refuses nothing, does not keep the rows of all others.
    """
    if any(part not in positions or positions[part].newest is None for part in unread):
        return None
    newest = {part: position.newest for part, position in positions.items() if position.newest is not None}
    awake = [time for part, time in newest.items() if part not in quiet]
    reached = min(awake) if awake else max((time + rested for time in newest.values()), default=None)
    return None if reached is None else min(reached, now) - pace.disorder


class MedianTime:
    """Tells the event time that a part has reached: the median of a sample of its last lines, by the format's parser.

    The median is no later than the newest, so that the watermark is never early for it; and a few lines with a time far
    ahead, which whoever writes logs may write, do not move it.  The sample is 64 KiB, a sixteenth of a block; where
    that holds but few lines, as blocks of a stream that is slow do, those that came last before it count, too.
    """

    def __init__(self, format_: str, settings: Mapping[str, object]) -> None:
        """Read lines of a format by the parser that a source's ``settings`` make."""
        self._format, self._settings = format_, settings
        self._parse: Callable[[Block], Parsed] | None = None

    def __call__(self, block: Block, latest: Sequence[int] = ()) -> tuple[int | None, tuple[int, ...]]:
        """Return what a part has reached behind a block, and the times of its last lines then, all in microseconds.

        Args:
            block: of the part.
            latest: times of the last lines before it.

        Returns:
            For the first, None where too few lines tell a time: one alone may tell any.
        """
        found = self._starts(block)
        if len(found) < _FEW:
            found = np.concatenate([np.array(latest, np.int64), found])[-_FEW:]
        last = tuple(found[-_FEW:].tolist())
        middle = (len(found) - 1) // 2
        return (int(np.partition(found, middle)[middle]) if len(found) > 1 else None), last

    def _starts(self, block: Block) -> NDArray[np.int64]:
        """Return the event times of the last lines of a block."""
        if self._parse is None:
            self._parse = FORMATS[self._format].parser(self._settings)
        cut = max(len(block.data) - _SAMPLE_BYTES, 0)
        tail = block.data[block.data.find(b"\n", cut) + 1 :] if cut else block.data
        events = self._parse(Block(tail, block.path, 0, block.header, block.source)).events
        if not events.num_rows or "event.start" not in events.schema.names:
            return np.array([], np.int64)
        return events.column("event.start").cast(pa.int64()).drop_null().to_numpy()  # type: ignore[no-any-return]
