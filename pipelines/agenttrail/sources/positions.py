"""How far a stream has been read: one position a part, together the one restriction of its source.

A source is never split by work, only cut off where it stands, to go on later: several restrictions of one unbounded
source lose windowed data on Prism, whose watermark is then that of the last bundle instead of the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import msgspec
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Position:
    """How far one part of a source has been read: a partition of a topic, or a file.

    Attributes:
        at: what is read next: offset of a message, or byte of a file's content before compression.
        header: the header line in force there, for formats that have one; None at the top of the part.
        newest: event time that the part has reached, in microseconds; None as long as none was seen.
        stop: where a bounded replay ends; None for a stream without an end.
        path: name of the file when it was last seen, bytes that are no UTF-8 written out; "" for what is none.
        mark: by what the beginning of a file is known again, whatever its name.
        stored: bytes of a compressed file, or version of a document, that have been read; 0 for what is neither.
        latest: event times of the last few lines, in microseconds: what ``newest`` is told from.
        fresh: whether nothing of it has been given yet: it has only been seen.
    """

    at: int
    header: bytes | None = None
    newest: int | None = None
    stop: int | None = None
    path: str = ""
    mark: str = ""
    stored: int = 0
    latest: tuple[int, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Progress:
    """The restriction of a source: positions of all its parts by name; ``done`` where no more is to be read."""

    positions: dict[str, Position] = field(default_factory=dict)
    done: bool = False


def to_json(positions: Mapping[str, Position]) -> bytes:
    """Return positions as JSON, to be written down as a safe point."""
    return msgspec.json.encode(dict(positions), order="sorted")


def from_json(data: bytes) -> dict[str, Position]:
    """Return the positions that :func:`to_json` was given.

    Raises:
        ValueError: they are damaged.
    """
    return msgspec.json.decode(data, type=dict[str, Position])


class ProgressTracker(RestrictionTracker):
    """Takes claims of a whole new progress, made before what lies in between is given on.

    Runners read what stands in here from another thread, and may cut the source off at any time: what is claimed is
    then done, the rest is left for later, and no further claim is granted.
    """

    def __init__(self, progress: Progress) -> None:
        """Go on from ``progress``."""
        self._progress = progress
        self._cut = False

    def current_restriction(self) -> Progress:
        """Return what has been claimed so far."""
        return self._progress

    def try_claim(self, position: Progress) -> bool:
        """Claim everything before ``position``; False where the source has been cut off before it."""
        if self._cut:
            return False
        self._progress = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Progress, Progress] | None:
        """Cut the source off where it stands; shares of the work are not given away."""
        if fraction_of_remainder != 0 or self._cut or self._progress.done:
            return None
        self._cut = True
        rest, self._progress = self._progress, Progress(self._progress.positions, done=True)
        return self._progress, rest

    def check_done(self) -> None:
        """Raise ValueError where reading ended before it was done or cut off: data would be lost."""
        if not self._progress.done:
            msg = f"a source was left before its end, at {self._progress}"
            raise ValueError(msg)

    def current_progress(self) -> RestrictionProgress:
        """Return half: how much is to come, nobody knows.

        As a fraction, since Beam replaces an amount of completed work by bytes written, which may be no number.
        """
        return RestrictionProgress(fraction=0.5)

    def is_bounded(self) -> bool:
        """Return False: a replay ends, too, but is read as a stream is."""
        return False


class ProgressCoder(beam.coders.Coder):
    """Moves progress as JSON."""

    def encode(self, value: Progress) -> bytes:
        """Return progress as bytes."""
        return msgspec.json.encode(value)

    def decode(self, encoded: bytes) -> Progress:
        """Return the progress that :meth:`encode` was given."""
        return msgspec.json.decode(encoded, type=Progress)

    def is_deterministic(self) -> bool:
        """Return False: the order of parts may differ."""
        return False


class OneProgress(RestrictionProvider):
    """Begins a source at its start positions, as one restriction."""

    def initial_restriction(self, element: Progress) -> Progress:
        """Return the element: where to begin."""
        return element

    def create_tracker(self, restriction: Progress) -> ProgressTracker:
        """Return a tracker of ``restriction``."""
        return ProgressTracker(restriction)

    def split(self, element: Progress, restriction: Progress) -> Iterator[Progress]:  # noqa: ARG002 - Beam's names
        """Yield the restriction as a whole."""
        yield restriction

    def restriction_size(self, element: Progress, restriction: Progress) -> int:  # noqa: ARG002 - Beam's names
        """Return 1: all sources weigh the same."""
        return 1

    def restriction_coder(self) -> Any:
        """Return the coder of progress."""
        return ProgressCoder()

    def truncate(self, element: Progress, restriction: Progress) -> Progress | None:  # noqa: ARG002 - Beam's names
        """Return None: to drain is to stop here."""
        return None
