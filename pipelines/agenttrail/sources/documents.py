"""Documents of metadata that are read again, whole, whenever they change: a list of pods, a table of leases.

They tell no event time.  After a restart they are read from the start again, whatever positions say; what they have
told and do not tell any more stands beside the safe point.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenttrail.columns.text import shown_path
from agenttrail.errors import InputError
from agenttrail.sources.files import InputFile, match, read_document
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import Piece, Standing
from agenttrail.sources.tails import identity
from agenttrail.telling import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenttrail.sources.stream import Sizes

_LOG = logging.getLogger(__name__)
_LOOK = 1.0  # seconds between two looks
_SETTLED = 1.0  # seconds that a changed document must have been as it is: it may still be being written
_LONGEST = 10.0  # seconds after which one that never rests, such as a watch of pods, is read as it is


@dataclass(frozen=True)
class RereadDocuments:
    """Local files that a glob names, each one document.

    Attributes:
        pattern: the glob.
        folder: left out of the names of files in messages and evidence.
    """

    pattern: str
    folder: str = ""

    def open(self, source: int, sizes: Sizes, *, to_end: bool) -> DocumentReader:  # noqa: ARG002 - as every source
        """Return a reader of the documents."""
        return DocumentReader(self, source, to_end=to_end)


@dataclass
class _Seen:
    """What is known of one document.

    Attributes:
        path: of the file.
        state: text that tells a version from others.
        since: when that was seen first,
        news: and when it was first seen to be other than what was given.
        given: which state was given; "" for none.
        versions: how many were.
    """

    path: str
    state: str
    since: float
    news: float
    given: str = ""
    versions: int = 0


class DocumentReader:
    """Gives documents that are new or have changed; see :class:`~agenttrail.sources.stream.Reader`."""

    def __init__(self, documents: RereadDocuments, source: int, *, to_end: bool) -> None:
        """Look for documents when reading begins."""
        self._documents, self._source, self._to_end = documents, source, to_end
        self._seen: dict[str, _Seen] = {}
        self._looked = 0.0

    def go_to(self, positions: Mapping[str, Position]) -> None:
        """Read again what was not taken: the versions in ``positions`` are counted in this process only."""
        for path, seen in self._seen.items():
            position = positions.get(self._shown(path))
            if position is None or position.stored != seen.versions:
                seen.given = ""

    def lose(self) -> None:
        """Give everything again."""
        for seen in self._seen.values():
            seen.given = ""

    def close(self) -> None:
        """Forget everything."""
        self._seen = {}

    def read(self) -> Iterator[Piece]:
        """Yield each document that is new, or has changed and stayed so for a second, or goes on changing for ten.

        One that cannot be read, such as one that is empty so far, is told of and waited for; in a bounded replay,
        which has no later, it is an error, as in batch.

        Raises:
            InputError: a replay finds a document that cannot be read.
        """
        now = time.monotonic()
        if self._looked and (self._to_end or now - self._looked < _LOOK):
            return
        self._look(now)
        self._looked = now
        for seen in list(self._seen.values()):
            if seen.given == seen.state or not (self._to_end or not seen.versions or _rests(seen, now)):
                continue
            shown = self._shown(seen.path)
            try:
                block = read_document(InputFile(seen.path, shown, 0, self._source))
            except InputError as error:
                if self._to_end:
                    raise
                told = f"{error}; waiting until it changes"
                tell(_LOG, "document_unreadable", told, logging.WARNING, path=shown, reason=error)
                seen.given = seen.state
                continue
            before = self._position(seen)
            seen.given, seen.versions = seen.state, seen.versions + 1
            yield Piece(shown, block, before, self._position(seen), top=True)

    def standing(self) -> Standing:
        """Tell which documents have changed and were not given yet."""
        unread = {self._shown(seen.path) for seen in self._seen.values() if seen.given != seen.state}
        positions = {self._shown(seen.path): self._position(seen) for seen in self._seen.values()}
        ended = self._to_end and bool(self._looked) and not unread
        return Standing(positions, frozenset(), frozenset(unread), ended=ended)

    def _position(self, seen: _Seen) -> Position:
        return Position(0, path=shown_path(seen.path), stored=seen.versions)

    def _shown(self, path: str) -> str:
        folder = self._documents.folder
        return shown_path(path.removeprefix(folder + os.sep) if folder else path)

    def _look(self, now: float) -> None:
        there = {}
        for path, _ in match(self._documents.pattern):
            try:
                status = os.stat(path)  # noqa: PTH116 - Beam's paths are text
            except FileNotFoundError:  # it went meanwhile
                continue
            there[path] = f"{identity(status)} {status.st_size} {status.st_mtime_ns}"
        for path in set(self._seen) - set(there):
            del self._seen[path]  # what it told stays told
        for path, state in there.items():
            seen = self._seen.get(path)
            if seen is None:
                self._seen[path] = _Seen(path, state, now, now)
            elif seen.state != state:
                seen.news = now if seen.given == seen.state else seen.news
                seen.state, seen.since = state, now


def _rests(seen: _Seen, now: float) -> bool:
    return now - seen.since >= _SETTLED or now - seen.news >= _LONGEST
