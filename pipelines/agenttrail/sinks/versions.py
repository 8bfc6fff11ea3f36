"""The output directory of a stream: a line for every version of what is said; of one id the last holds.

Files are appended, so that whatever ends the process leaves what was written: a line without an end is cut off at the
next start.  That something does not hold any more is a line, too: ``{"finding.id": …, "superseded": true}``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa

from agenttrail.columns.json_text import json_lines, json_objects
from agenttrail.documents import read_records
from agenttrail.errors import SinkError
from agenttrail.schema import record
from agenttrail.sinks.files import DEAD_LETTERS, TIMELINE, cannot, dead_letter_lines, is_local, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.casebook.ledger import Changes

SAFE_POINT = "safe_point.json"
"""Stands beside the output of a stream: from where its sources are read again."""
SUPERSEDED = "superseded"
_KINDS = {"finding": "findings.ndjson", "incident": "incidents.ndjson"}
_PRIVATE = 0o600
_PUBLIC = 0o644


@dataclass(frozen=True)
class Stored:
    """What stands in the output directory of a stream.

    Attributes:
        findings: in the shape of the finding record, without evidence.
        incidents: ids.
        gone_findings: ids of those that held once.
        gone_incidents: likewise.
        safe_point: as it was written last; None where none was.
    """

    findings: pa.RecordBatch
    incidents: tuple[str, ...]
    gone_findings: tuple[str, ...]
    gone_incidents: tuple[str, ...]
    safe_point: bytes | None


def last_versions(path: Path, kind: str) -> tuple[dict[str, bytes], set[str]]:
    """Return the last line of each finding or incident of a file that holds, and the ids of those that do not.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no version.
    """
    standing: dict[str, bytes] = {}
    gone: set[str] = set()
    for line in _whole_lines(path):
        id_, superseded = _version(line, kind)
        standing.pop(id_, None)
        if superseded:
            gone.add(id_)
        else:
            standing[id_] = line
            gone.discard(id_)
    return standing, gone


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _version(line: bytes, kind: str) -> tuple[str, bool]:
    told = orjson.loads(line)
    id_ = told.get(f"{kind}.id") if isinstance(told, dict) else None
    if id_ is None:
        msg = f"not a {kind}"
        raise ValueError(msg)
    return str(id_), told.get(SUPERSEDED) is True


class Versions:
    """Writes what a stream says to its output directory."""

    def __init__(self, directory: str) -> None:
        """Write below ``directory``, which is local: what is appended to must be a file.

        Raises:
            SinkError: it is not.
        """
        if not is_local(directory):
            msg = f"{directory}: a stream appends to files, which only a local directory has; name one with --output"
            raise SinkError(msg)
        self._directory = Path(directory)

    def begin(self) -> Stored:
        """Put in order what an earlier run left, and return it.

        Raises:
            SinkError: it cannot be read or written.
        """
        try:
            (self._directory / TIMELINE).mkdir(parents=True, exist_ok=True)
            return self._compacted()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise cannot(self._directory, "gone on with", error) from error

    def _compacted(self) -> Stored:
        gone: dict[str, tuple[str, ...]] = {}
        standing: dict[str, dict[str, bytes]] = {}
        for kind, name in _KINDS.items():
            standing[kind], old = last_versions(self._directory / name, kind)
            gone[kind] = tuple(sorted(old))
            tombs = [_tomb(kind, id_) for id_ in gone[kind]]
            lines = [standing[kind][id_] for id_ in sorted(standing[kind])]
            self._replace(name, b"".join([*lines, *tombs]))
        self._replace(f"{DEAD_LETTERS}.ndjson", b"".join(self._dead_letters()), private=True)
        safe_point = self._directory / SAFE_POINT
        findings = read_records(pa.array(line.decode() for line in standing["finding"].values()), record("finding"))
        return Stored(
            findings, tuple(sorted(standing["incident"])), gone["finding"], gone["incident"],
            safe_point.read_bytes() if safe_point.exists() else None,
        )  # fmt: skip

    def _dead_letters(self) -> dict[bytes, None]:
        """Return each dead letter once: what is read again leaves its own again."""
        return dict.fromkeys(_whole_lines(self._directory / f"{DEAD_LETTERS}.ndjson"))

    def _replace(self, name: str, data: bytes, *, private: bool = False) -> None:
        path = self._directory / name
        part = path.with_name(f".{name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, _PRIVATE if private else _PUBLIC), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def append(self, changes: Changes) -> None:
        """Write what is said otherwise; once this returns it is on disk.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            if changes.timeline.num_rows:
                self._append_timeline(changes.timeline)
            for kind, batch, gone in (
                ("finding", changes.findings, changes.gone_findings),
                ("incident", changes.incidents, changes.gone_incidents),
            ):
                lines = json_lines(json_objects(batch)) if batch.num_rows else b""
                self._append(_KINDS[kind], lines + b"".join(_tomb(kind, id_) for id_ in gone.to_pylist()))
        except OSError as error:
            raise cannot(self._directory, "written", error) from error

    def _append(self, name: str, data: bytes, *, private: bool = False) -> None:
        if not data:
            return
        flags, mode = os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE if private else _PUBLIC
        with os.fdopen(os.open(self._directory / name, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _append_timeline(self, entries: pa.RecordBatch) -> None:
        """Write whole timelines of incidents as a file of their own: of an incident's, that in the last file holds."""
        folder = self._directory / TIMELINE
        numbers = [int(path.stem.removeprefix("timeline-")) for path in folder.glob("timeline-*.parquet")]
        path = folder / f"timeline-{max(numbers, default=-1) + 1:05d}.parquet"
        part = folder / f".{path.stem}-{os.getpid()}.part"
        write_rows(str(part), entries, "timeline")
        part.replace(path)

    def dead(self, letters: pa.RecordBatch) -> None:
        """Write dead letters.

        Raises:
            SinkError: they cannot be written.
        """
        try:
            self._append(f"{DEAD_LETTERS}.ndjson", dead_letter_lines(letters), private=True)
        except OSError as error:
            raise cannot(self._directory, "written", error) from error

    def safe(self, safe_point: bytes) -> None:
        """Write down from where to read again: everything that came before is written everywhere.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self._replace(SAFE_POINT, safe_point)
        except OSError as error:
            raise cannot(self._directory, "written", error) from error

    def tell(self, name: str, data: bytes) -> None:
        """Write a small file whole, such as ``run.json``.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self._replace(name, data)
        except OSError as error:
            raise cannot(self._directory, "written", error) from error


def _tomb(kind: str, id_: str) -> bytes:
    return orjson.dumps({f"{kind}.id": id_, SUPERSEDED: True}) + b"\n"
