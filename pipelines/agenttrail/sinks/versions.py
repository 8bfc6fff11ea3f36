"""The output directory of a stream: a line for every version of what is said; of one id the last holds.

Files are appended, so that whatever ends the process leaves what was written: a line without an end is cut off at the
next start.  That something does not hold any more is a line, too: ``{"finding.id": …, "superseded": true}``.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agenttrail.casebook.desk import SafePoint, name_of
from agenttrail.columns.json_text import json_lines
from agenttrail.documents import read_records
from agenttrail.errors import SinkError
from agenttrail.schema import record
from agenttrail.sinks.files import (
    DEAD_LETTERS,
    TIMELINE,
    cannot,
    dead_letter_lines,
    event_table,
    found_in,
    is_local,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenttrail.casebook.ledger import Changes

SAFE_POINT = "safe_point.json"
"""Stands beside the output of a stream: from where its sources are read again."""
SUPERSEDED = "superseded"
_KINDS = {"finding": "findings.ndjson", "incident": "incidents.ndjson"}
_CALLED = {"finding": "a finding", "incident": "an incident"}
_SUMS = "sums-*.bin"
_MANY_TIMELINES = 256
"""Files of timelines that become one: a new one is written whenever any timeline is told otherwise."""
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
        safe_point: as it was written last.
        sums: what it may name, by name, see ``Desk.sums``.
    """

    findings: pa.RecordBatch
    incidents: tuple[str, ...]
    gone_findings: tuple[str, ...]
    gone_incidents: tuple[str, ...]
    safe_point: bytes
    sums: Mapping[str, bytes] = field(default_factory=dict)


def last_versions(path: Path, kind: str) -> tuple[dict[str, bytes], set[str]]:
    """Return the last line of each finding or incident of a file that holds, and the ids of those that do not.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no version.
    """
    standing: dict[str, bytes] = {}
    gone: set[str] = set()
    for number, line in enumerate(_whole_lines(path), start=1):
        id_, superseded = _version(line, kind, f"line {number} of {path.name}")
        standing.pop(id_, None)
        if superseded:
            gone.add(id_)
        else:
            standing[id_] = line
            gone.discard(id_)
    return standing, gone


def standing_lines(path: Path, kind: str) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of each line of a file that holds, also while it is written.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is no version.
    """
    last: dict[str, int] = {}
    with path.open("rb") as file:
        number = 0
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                id_, superseded = _version(line, kind, f"line {number}")
                last[id_] = 0 if superseded else number
        wanted = set(last.values()) - {0}
        file.seek(0)
        for place, line in enumerate(islice(file, number), start=1):
            if place in wanted:
                yield place, line


def is_stream(directory: str) -> bool:
    """Tell whether an output directory is a stream's: of one id the last line holds."""
    return is_local(directory) and (Path(directory) / SAFE_POINT).exists()


def refuse_stream(directory: str) -> None:
    """Refuse a directory for a batch run.

    Raises:
        SinkError: it is a stream's, which would go on with what a batch run left.
    """
    if is_stream(directory):
        msg = f"{directory}: a stream writes there; name another directory with --output, or add --streaming"
        raise SinkError(msg)


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _version(line: bytes, kind: str, place: str) -> tuple[str, bool]:
    """Return the id that a line tells of, and whether that does not hold any more.

    Raises:
        ValueError: it is no version; says which line, and why.
    """
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        msg = f"{place} is not valid JSON: {error.msg}"
        raise ValueError(msg) from error
    id_ = told.get(f"{kind}.id") if isinstance(told, dict) else None
    if not isinstance(id_, str):
        msg = f"{place} is not a version of {_CALLED[kind]}"
        raise ValueError(msg)  # noqa: TRY004 - the file is damaged
    return id_, told.get(SUPERSEDED) is True


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
        safe_point = self._directory / SAFE_POINT
        left = [name for name in _KINDS.values() if (self._directory / name).exists()]
        if left and not safe_point.exists():
            msg = f"{self._directory}: holds {left[0]} of a batch run; name another directory with --output"
            raise SinkError(msg)
        try:
            (self._directory / TIMELINE).mkdir(parents=True, exist_ok=True)
            timelines = (self._directory / TIMELINE).glob(".timeline-*.part")
            for part in (*timelines, *self._directory.glob(f".{_SUMS}.part")):  # of a run that was killed
                part.unlink()
            if not safe_point.exists():  # before anything else is: it tells that all that follows is a stream's
                self._replace(SAFE_POINT, SafePoint().to_json())
            return self._compacted()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise cannot(self._directory, "gone on with", error) from error

    def finish(self) -> dict[str, dict[str, int]]:
        """Leave what a batch run leaves, once everything is written everywhere: each id once, and what holds alone.

        Returns:
            How many findings and incidents there are of each severity.

        Raises:
            SinkError: it cannot be read or written.
        """
        counted: dict[str, dict[str, int]] = {}
        try:
            for kind, name in _KINDS.items():
                standing, _ = last_versions(self._directory / name, kind)
                self._replace(name, b"".join(standing[id_] for id_ in sorted(standing)))
                # what was damaged by hand has none, and is told by whoever reads it
                severities = Counter(str(orjson.loads(line).get(f"{kind}.severity", "")) for line in standing.values())
                counted[f"{kind}s"] = dict(sorted(severities.items()))
            self._one_timeline(list(standing))
            self._replace(f"{DEAD_LETTERS}.ndjson", b"".join(self._dead_letters()), private=True)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise cannot(self._directory, "finished", error) from error
        return counted

    def _one_timeline(self, incidents: list[str]) -> None:
        """Put the last timeline of each of these incidents into one file."""
        paths = self._timelines()
        wanted, kept = set(incidents), []
        for path in reversed(paths):
            table = pq.read_table(path)
            ids = table.column("incident.id").cast(pa.string())
            mine = pc.is_in(ids, value_set=pa.array(sorted(wanted), pa.string()))
            kept.append(table.filter(mine))
            wanted -= set(ids.unique().to_pylist())
        if len(paths) < 2 and sum(map(len, kept)) == sum(pq.read_metadata(path).num_rows for path in paths):  # noqa: PLR2004 - one is as it is to be
            return
        rows = pa.concat_tables(kept, promote_options="default")
        order = [("incident.id", "ascending"), ("@timestamp", "ascending"), ("timeline.id", "ascending")]
        self._append_timeline(rows.sort_by(order))
        for path in paths:
            path.unlink()

    def _compacted(self) -> Stored:
        gone: dict[str, tuple[str, ...]] = {}
        standing: dict[str, dict[str, bytes]] = {}
        for kind, name in _KINDS.items():
            standing[kind], old = last_versions(self._directory / name, kind)
            gone[kind] = tuple(sorted(old))
            tombs = [_tomb(kind, id_) for id_ in gone[kind]]
            lines = [standing[kind][id_] for id_ in sorted(standing[kind])]
            self._replace(name, b"".join([*lines, *tombs]))
        self._one_timeline(list(standing["incident"]))
        self._replace(f"{DEAD_LETTERS}.ndjson", b"".join(self._dead_letters()), private=True)
        safe_point = self._directory / SAFE_POINT
        findings = read_records(pa.array(line.decode() for line in standing["finding"].values()), record("finding"))
        sums = {path.name: path.read_bytes() for path in self._directory.glob(_SUMS)}
        return Stored(
            findings, tuple(sorted(standing["incident"])), gone["finding"], gone["incident"], safe_point.read_bytes(),
            sums,
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
                self._append_timeline(event_table(changes.timeline, "timeline"))
            for kind, batch, gone in (
                ("finding", changes.findings, changes.gone_findings),
                ("incident", changes.incidents, changes.gone_incidents),
            ):
                tombs = [_tomb(kind, id_) for id_ in gone.to_pylist()]
                self._append(_KINDS[kind], b"".join([json_lines(batch), *tombs]))
            if changes.timeline.num_rows and len(self._timelines()) > _MANY_TIMELINES:
                standing, _ = last_versions(self._directory / _KINDS["incident"], "incident")
                self._one_timeline(list(standing))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise cannot(self._directory, "written", error) from error

    def _append(self, name: str, data: bytes, *, private: bool = False) -> None:
        if not data:
            return
        flags, mode = os.O_WRONLY | os.O_APPEND | os.O_CREAT, _PRIVATE if private else _PUBLIC
        with os.fdopen(os.open(self._directory / name, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _append_timeline(self, entries: pa.Table) -> None:
        """Write whole timelines of incidents as a file of their own: of an incident's, that in the last file holds."""
        folder = self._directory / TIMELINE
        last = [int(path.stem.removeprefix("timeline-")) for path in self._timelines()[-1:]]
        path = folder / f"timeline-{max(last, default=-1) + 1:05d}.parquet"
        part = folder / f".{path.stem}-{os.getpid()}.part"
        write_table(str(part), entries)
        part.replace(path)

    def _timelines(self) -> list[Path]:
        """Return the files of timelines in the order in which they were written."""
        return [Path(path) for path in found_in(str(self._directory), TIMELINE)]

    def dead(self, letters: pa.RecordBatch) -> None:
        """Write dead letters.

        Raises:
            SinkError: they cannot be written.
        """
        try:
            self._append(f"{DEAD_LETTERS}.ndjson", dead_letter_lines(letters), private=True)
        except OSError as error:
            raise cannot(self._directory, "written", error) from error

    def safe(self, safe_point: bytes, sums: bytes | None = None) -> None:
        """Write down from where to read again: everything that came before is written everywhere.

        Args:
            safe_point: as JSON.
            sums: what it names, which stands before it does.

        Raises:
            SinkError: it cannot be written.
        """
        name = name_of(sums)
        try:
            if sums is not None and name is not None and not (self._directory / name).exists():
                self._replace(name, sums, private=True)
            self._replace(SAFE_POINT, safe_point)
            for path in self._directory.glob(_SUMS):
                if path.name != name:
                    path.unlink()
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
