"""A directory that grows: new files, lines appended to old ones, rotation, truncation, compressed parts that come late.

Files are told apart by what the file system numbers them, not by name, so that one that is renamed is read on where it
was left.  One that was never seen, but begins as one that vanished did, is taken for its copy: a part that was rotated
and compressed while nobody looked is read on, too.  What has been copied *and* is still there is read twice, and
dropped as duplicates further on; nothing is left out.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apache_beam.io.filesystems import FileSystems

from agenttrail.columns.text import shown_path
from agenttrail.errors import InputError
from agenttrail.sources.files import match
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import Standing
from agenttrail.sources.tails import Tail, identity
from agenttrail.telling import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenttrail.sources.stream import Piece, Sizes

_LOG = logging.getLogger(__name__)
_LOOK = 1.0  # seconds between two looks at what files there are
_GRACE = 10.0  # seconds without a new line after which a file that has left the directory has ended
_REMEMBERED = 600.0  # seconds for which a file that has vanished may come back as a copy
_MOST_OPEN = 256


@dataclass(frozen=True)
class GrowingFiles:
    """Local files that a glob names.

    Attributes:
        pattern: the glob.
        folder: left out of the names of files in messages and evidence.
    """

    pattern: str
    folder: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be watched.

        Raises:
            ValueError: the files are not on this machine.
        """
        if FileSystems.get_scheme(self.pattern) is not None:
            msg = "only files of this machine can be read as they grow"
            raise ValueError(msg)

    def open(self, source: int, sizes: Sizes, *, to_end: bool) -> GrowingReader:
        """Return a reader of the files."""
        return GrowingReader(self, source, sizes, to_end=to_end)


class GrowingReader:
    """Reads all files of a directory by turns; see :class:`~agenttrail.sources.stream.Reader`."""

    def __init__(self, files: GrowingFiles, source: int, sizes: Sizes, *, to_end: bool) -> None:
        """Look at the directory when reading begins."""
        self._files, self._source, self._sizes, self._to_end = files, source, sizes, to_end
        self._tails: dict[str, Tail] = {}
        self._asleep: dict[str, Position] = {}  # read to their end and closed, since there are many
        self._lost: dict[str, tuple[float, Position]] = {}  # no such file; since when
        self._wanted: Mapping[str, Position] | None = None  # to be gone on from, as long as nobody has looked
        self._gone: set[str] = set()
        self._looked = 0.0

    def go_to(self, positions: Mapping[str, Position]) -> None:
        """Read on from ``positions``; files are known again when they are looked at."""
        known = self._positions()
        if any(part not in known or known[part].at != position.at for part, position in positions.items()) or any(
            part not in positions and position.at for part, position in known.items()
        ):
            self.close()
            self._wanted = dict(positions)

    def _positions(self) -> dict[str, Position]:
        return {
            **(self._wanted or {}),
            **{part: position for part, (_, position) in self._lost.items()},
            **self._asleep,
            **{part: tail.position for part, tail in self._tails.items()},
        }

    def lose(self) -> None:
        """Forget where it stands."""
        self.close()

    def close(self) -> None:
        """Close all files."""
        for tail in self._tails.values():
            tail.close()
        self._tails, self._asleep, self._lost, self._gone = {}, {}, {}, set()
        self._wanted, self._looked = None, 0.0

    def read(self) -> Iterator[Piece]:
        """Yield a piece of each file that has enough, or whose first new line has waited long enough."""
        self._look()
        for tail in list(self._tails.values()):
            piece = tail.read(self._sizes, last=self._to_end or self._has_ended(tail))
            if piece is not None:
                yield piece

    def standing(self) -> Standing:
        """Tell how the files stand."""
        positions = self._positions()
        unread = {part for part, tail in self._tails.items() if tail.unread()}
        gone = frozenset(self._gone)
        self._gone = set()
        ended = self._to_end and all(tail.ended() for tail in self._tails.values())
        return Standing(positions, gone, frozenset(unread), ended=ended)

    def _look(self) -> None:
        """Look what files there are, and how large."""
        now = time.monotonic()
        if not self._looked or (not self._to_end and now - self._looked >= _LOOK):
            self._look_around()
            self._looked = now
        self._look_at_open_ones()
        self._put_to_sleep()

    def _look_at_open_ones(self) -> None:
        for tail in list(self._tails.values()):
            if tail.look():
                self._check(tail)

    def _look_around(self) -> None:
        there: dict[str, tuple[str, int]] = {}
        for path, size in match(self._files.pattern):
            try:
                there[identity(os.stat(path))] = path, size  # noqa: PTH116 - Beam's paths are text
            except FileNotFoundError:  # it went meanwhile
                continue
        self._look_at_open_ones()  # before new files are: one of them may be the copy of one that was truncated
        known: dict[str, Position] = dict(self._wanted or {})
        restarts, self._wanted = bool(known), None
        missing = set(known) - set(there) | set(self._asleep) - set(there)
        for part in missing:
            self._lost[part] = time.monotonic(), known.pop(part) if part in known else self._asleep.pop(part)
        self._lose_sight(there)
        for part, (path, size) in there.items():
            tail = self._tails.get(part)
            if tail is not None:
                tail.path, tail.left = path, None
            elif part not in self._asleep or (self._asleep[part].stored or self._asleep[part].at) != size:
                self._begin(path, known.get(part) or self._asleep.pop(part, None))
        if restarts:
            self._read_copies_again()
        self._find_elsewhere(missing & set(self._lost))

    def _read_copies_again(self) -> None:
        """Go back in files that have in them what was to be read again of one that is gone, or begins anew.

        A file may have been read on in its copy, beyond what a restart needs of it.  Of several that begin alike all
        are read again: what comes twice counts once.
        """
        for part, (_, lost) in list(self._lost.items()):
            copies = [tail for tail in self._tails.values() if tail.position.at > lost.at and tail.starts_as(lost)]
            for tail in copies:
                tail.take_over(lost)
            if copies:
                del self._lost[part]
                self._gone.add(part)

    def _begin(self, path: str, position: Position | None) -> None:
        """Open a file: one that is known, one that was known under another name, or a new one."""
        shown = shown_path(path.removeprefix(self._files.folder + os.sep) if self._files.folder else path)
        try:
            tail = Tail(path, shown, self._source, position or Position(0), to_end=self._to_end)
        except FileNotFoundError:
            return
        except OSError as error:
            msg = f"{shown}: cannot be opened: {error.strerror}"
            raise InputError(msg) from error
        if position is None:
            copied = [part for part, (_, lost) in self._lost.items() if tail.starts_as(lost)]
            if copied:
                _, lost = self._lost.pop(copied[0])
                self._gone.add(copied[0])
                tail.take_over(lost)
        self._lost.pop(tail.part, None)
        self._gone.discard(tail.part)
        self._tails[tail.part] = tail
        self._check(tail)

    def _check(self, tail: Tail) -> None:
        """Begin a file anew whose content is another: it was truncated, or its number was given to a new file."""
        if not tail.begins_anew():
            return
        shown, at = shown_path(tail.path), tail.position.at
        told = f"{shown}: was read up to byte {at} and now begins anew: it is read from its beginning"
        tell(_LOG, "file_began_anew", told, logging.WARNING, path=shown, read=at)
        self._lost[f"{tail.part}@{tail.position.at}"] = time.monotonic(), tail.position
        tail.start_anew()

    def _lose_sight(self, there: Mapping[str, tuple[str, int]]) -> None:
        """See which files have left the directory, and forget those that left long ago."""
        now = time.monotonic()
        for part, tail in list(self._tails.items()):
            if part in there:
                continue
            tail.left = tail.left or now
            if self._has_ended(tail) and not tail.unread() and not tail.holds_half_a_line():
                self._lost[part] = now, tail.position
                self._tails.pop(part).close()
        for part, (since, _) in list(self._lost.items()):
            if now - since > _REMEMBERED:
                del self._lost[part]
                self._gone.add(part)

    def _has_ended(self, tail: Tail) -> bool:
        """Tell whether a file that has left the directory will not grow any more."""
        return tail.left is not None and min(time.monotonic() - tail.left, tail.still()) > _GRACE

    def _find_elsewhere(self, missing: set[str]) -> None:
        """Look for files that have left the directory in the folders where they were: renamed, they may hold more."""
        for part in missing:
            _, position = self._lost[part]
            path = _renamed(position.path, part)
            if path:
                self._begin(path, position)
            if part in self._tails:
                self._tails[part].left = time.monotonic()
            else:
                shown, at = shown_path(position.path), position.at
                told = f"{shown}: was read up to byte {at} and is gone; what was written to it since was not read"
                tell(_LOG, "file_gone", told, logging.WARNING, path=shown, read=at)

    def _put_to_sleep(self) -> None:
        """Close files where many are open: those that have been read to their end longest ago."""
        if len(self._tails) <= _MOST_OPEN or self._to_end:
            return
        done = [tail for tail in self._tails.values() if not tail.unread() and not tail.holds_half_a_line()]
        for tail in sorted(done, key=Tail.still, reverse=True)[: len(self._tails) - _MOST_OPEN]:
            self._asleep[tail.part] = tail.position
            self._tails.pop(tail.part).close()


def _renamed(path: str, part: str) -> str:
    """Return what the file ``part`` is called now in the folder where it was; "" if it is not there."""
    try:
        for entry in Path(path).parent.iterdir():
            if identity(entry.stat()) == part:
                return str(entry)
    except (OSError, ValueError):  # the latter where a damaged safe point names what is no path
        pass
    return ""
