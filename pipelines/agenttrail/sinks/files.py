"""The output directory, on any file system that Beam knows: parts by the workers, put together at the end."""

from __future__ import annotations

import errno
import glob
import heapq
import io
import os
import re
import shutil
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

import apache_beam as beam
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from agenttrail.columns.ids import content_id
from agenttrail.columns.json_text import json_lines, json_objects
from agenttrail.columns.secrets import scrub
from agenttrail.counters import count_letters
from agenttrail.errors import SinkError
from agenttrail.schema import ADDRESS, conform, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PARTS = ".parts"
EVENTS_ORDER, TIMELINE_ORDER = ("log.file.path", "log.offset"), ("incident.id", "@timestamp", "timeline.id")
"""How the rows of a file of events, and of one of timelines, are sorted."""
SORTED = ("incidents", "findings")
DEAD_LETTERS = "dead_letters"
EVENTS, TIMELINE = "events", "timeline"
REPORT = "report"
_FILES = (*(f"{name}.ndjson" for name in (*SORTED, DEAD_LETTERS)), "run.json")
_NOT_IN_EVENTS = ("event.id", "event.original", "network.community_id", "entity.type", "entity.id", "entity.anchor")
_PRIVATE = 0o600
_BUFFER = 1 << 20
_ESCAPED = [bytes([byte]) for byte in range(32) if byte not in b"\t\n\r"]  # six bytes each in JSON
_EVENTS_PART = re.compile(r"\d{3,}-[0-9a-f]{16}-\d{15,}\.parquet")
_NO_EVENTS = f"000-{'0' * 16}-{'0' * 15}.parquet"
FOLDERS = {
    EVENTS: (_EVENTS_PART, _NO_EVENTS, "event"),
    TIMELINE: (re.compile(r"timeline-\d{5,}\.parquet"), "timeline-00000.parquet", "timeline"),
}
"""Folders of an output directory: how the files that a run puts there are named, the empty one, and their record."""


_ADVICE: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there, or name another directory with --output"),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM), "let this user write there, or name another directory with --output"
    ),
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
"""What to do about a failure of the file system."""
_OTHERWISE = "check that the output directory exists, is writable and has space"


def cannot(path: str | Path, be: str, error: Exception) -> SinkError:
    """Return an error that says what cannot be done, why, and what to do.

    Args:
        path: of the file or folder.
        be: what it cannot be, such as "written".
        error: of whatever file system it is.
    """
    root = _root(error)
    why = root.strerror if isinstance(root, OSError) and root.strerror else _reason(error)
    return SinkError(
        f"{path}: cannot be {be}: {why}; {_ADVICE.get(getattr(root, 'errno', None), _OTHERWISE)}, and run again"
    )


def _root(error: BaseException) -> BaseException:
    """Return the failure that Beam wrapped: as the argument of another, or as one of its details by file."""
    details = getattr(error, "exception_details", None)
    wrapped = [*(details.values() if isinstance(details, dict) else ()), *error.args]
    return next((_root(one) for one in wrapped if isinstance(one, BaseException)), error)


def _reason(error: Exception) -> str:
    """Return what an error says; Beam keeps that of each file beside its own text."""
    details = getattr(error, "exception_details", None)
    return "; ".join(str(told) for told in list(details.values())[:3]) if isinstance(details, dict) else str(error)


def join(directory: str, *names: str) -> str:
    """Return a path below an output directory."""
    return FileSystems.join(directory, *names)  # type: ignore[no-any-return]


def is_local(path: str) -> bool:
    """Tell whether a path lies on this machine."""
    return FileSystems.get_scheme(path) is None


def create(path: str, *, private: bool = False) -> BinaryIO:
    """Open a file for writing; what stood there before is replaced.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        if private and is_local(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - Beam's paths are text
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE), "wb")
        return FileSystems.create(path, "application/octet-stream", CompressionTypes.UNCOMPRESSED)  # type: ignore[no-any-return]
    except Exception as error:  # every file system has errors of its own
        raise cannot(path, "written", error) from error


def write(path: str, data: bytes | memoryview, *, private: bool = False) -> None:
    """Write a whole file.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        with closing(create(path, private=private)) as file:
            file.write(data)
    except OSError as error:
        raise cannot(path, "written", error) from error


def remove(paths: Iterable[str]) -> None:
    """Remove files, and folders with all that is in them; a path is what it says, also where it looks like a glob.

    Raises:
        OSError: one is not there, or may not be removed.
    """
    for path in paths:
        if not is_local(path):
            FileSystems.delete([glob.escape(path)])
        elif Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink()


@contextmanager
def claimed(directory: str) -> Iterator[None]:
    """Hold an output directory for one run: two at once would put each other's parts together.

    Directories on other file systems than this machine's cannot be held, and are not.

    Raises:
        SinkError: another run holds it, or it cannot be made.
    """
    if not is_local(directory):
        yield
        return
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise cannot(directory, "used for output", error) from error
    try:
        _lock(held, directory)
        yield
    finally:
        os.close(held)


def _lock(held: int, directory: str) -> None:
    """Take hold of an open directory; whoever ends, however that is, lets go."""
    try:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        return
    except BlockingIOError as error:
        msg = f"{directory}: another run is writing there; wait for it, or name another directory with --output"
        raise SinkError(msg) from error


def is_output(path: str, directory: str) -> bool:
    """Tell whether a path is that of a file which runs write to an output directory, links followed."""
    if not is_local(path) or not is_local(directory):
        below = path.removeprefix(f"{directory.rstrip('/')}/").split("/") if path.startswith(directory) else []
    else:
        below = list(Path(os.path.relpath(os.path.realpath(path), os.path.realpath(directory))).parts)
    match below:
        case [name]:
            return name in _FILES
        case [folder, name] if folder in FOLDERS:
            return bool(FOLDERS[folder][0].fullmatch(name))
        case _:
            return below[:1] in ([PARTS], [REPORT])


def prepare(directory: str, *, events: bool = False) -> None:
    """Make an output directory ready for a run: away with the parts that a killed run left.

    Args:
        directory: the output directory.
        events: whether the run writes events, too.

    Raises:
        SinkError: it, or something in it, cannot be written; better told now than when all work is done.
    """
    _check_targets(directory, events=events)
    parts = join(directory, PARTS)
    try:
        if FileSystems.exists(parts) or (is_local(parts) and Path(parts).is_symlink()):
            remove([parts])
        FileSystems.mkdirs(parts)
    except Exception as error:  # every file system has errors of its own
        raise cannot(directory, "used for output", error) from error


def _check_targets(directory: str, *, events: bool) -> None:
    """Raise a SinkError where something stands in the place of a file or folder of the output.

    Other file systems than this machine's have no such obstacles, or tell of them in their own way.
    """
    if not is_local(directory):
        return
    root = Path(directory)
    for name in _FILES:
        if os.path.lexists(root / name) and not (root / name).is_file() and not (root / name).is_symlink():
            msg = f"{root / name}: cannot be written: it is no regular file; move it away, or name another directory"
            raise SinkError(msg)
    for kind, (named, _, _) in FOLDERS.items():
        if os.path.lexists(root / kind) and (events or kind != EVENTS):
            _check_folder(root / kind, named)


def _check_folder(folder: Path, named: re.Pattern[str]) -> None:
    try:
        with TemporaryFile(dir=folder):
            blocked = [entry.path for entry in os.scandir(folder) if named.fullmatch(entry.name)]
            blocked = [path for path in blocked if Path(path).is_dir()]
    except OSError as error:
        raise cannot(folder, f"used for {folder.name}", error) from error
    if blocked:
        msg = f"{blocked[0]}: cannot be written: it is a folder; move it away, or name another directory"
        raise SinkError(msg)


class _WriteSorted(beam.DoFn):
    """Writes the batches of one shard as a part whose lines are sorted by id, and says how many of each severity."""

    def __init__(self, directory: str, name: str) -> None:
        self._directory, self._name = directory, name

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[tuple[str, dict[str, int]]]:
        shard, batch = element
        path = join(self._directory, PARTS, f"{self._name}-{shard:05d}.ndjson")
        write(path, json_lines(batch))
        severities = pc.value_counts(batch.column(f"{self._name.removesuffix('s')}.severity")).to_pylist()
        yield path, {entry["values"]: entry["counts"] for entry in severities}


class WriteSorted(beam.PTransform):
    """(shard, batch of findings or incidents) to parts of the output directory; gives (path, counts by severity)."""

    def __init__(self, directory: str, name: str) -> None:
        """Write parts of ``name``: "findings" or "incidents"."""
        super().__init__()
        self._fn = _WriteSorted(directory, name)

    def expand(self, batches: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the parts."""
        return batches | beam.ParDo(self._fn)


def dead_letter_lines(batch: pa.RecordBatch) -> bytes:
    """Return dead letters as JSON lines: text as it is but for secrets, other bytes in base64."""
    originals = _scrubbed(batch.column("event.original"))
    names = [name for name in batch.schema.names if name != "event.original"]
    rest = json_objects(batch.select(names)).to_pylist()
    lines = []
    for original, members in zip(originals, rest, strict=True):
        text = _text(original)
        if text is not None:
            shown = {"event.original": text}
        else:
            shown = {"event.original": _base64(original), "event.original_encoding": "base64"}
        lines.append(orjson.dumps(shown)[:-1] + b"," + members[1:].encode())
    return b"".join(line + b"\n" for line in lines)


def _text(original: bytes) -> str | None:
    """Return an original as text; None where it is none, or where escapes would make it longer than base64 does."""
    if sum(map(original.count, _ESCAPED)) * 5 > len(original) // 3:
        return None
    try:
        return original.decode()
    except UnicodeDecodeError:
        return None


def _scrubbed(originals: pa.Array) -> list[bytes]:
    return list(scrub(originals).to_pylist())


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode("ascii")


class _WriteDeadLetters(beam.DoFn):
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def process(self, batch: pa.RecordBatch) -> Iterator[str]:
        *origin, offset = (
            batch.column(name)[0].as_py() for name in ("event.dataset", "log.file.path", "error.stage", "log.offset")
        )
        count_letters(batch)
        name = content_id(*origin)
        lines = dead_letter_lines(batch)
        # what has no offset is told apart by what it holds
        place = content_id(lines.decode()) if offset is None else f"{offset:020d}"
        path = join(self._directory, PARTS, f"{DEAD_LETTERS}-{name}-{place}.ndjson")
        write(path, lines, private=True)
        yield path


class WriteDeadLetters(beam.PTransform):
    """Batches of dead letters to parts of the output directory; gives their paths."""

    def __init__(self, directory: str) -> None:
        """Write below ``directory``."""
        super().__init__()
        self._fn = _WriteDeadLetters(directory)

    def expand(self, batches: beam.PCollection[pa.RecordBatch]) -> Any:
        """Return the parts."""
        return batches | beam.ParDo(self._fn)


def event_table(events: pa.RecordBatch, name: str = "event") -> pa.Table:
    """Return events, or rows of another record, as they are written to Parquet: addresses in canonical text."""
    from agenttrail.columns.addresses import format_addresses

    whole = conform(events, record(name))
    columns = {}
    fields = record(name).fields
    for field, column in zip(whole.schema.names, whole.columns, strict=True):
        if column.type == ADDRESS:
            columns[field] = format_addresses(column)
        elif name != "event" or field not in _NOT_IN_EVENTS:
            columns[field] = scrub(column) if fields[field].type == "text" else column
    return pa.table(columns)


def write_rows(path: str, rows: pa.RecordBatch, name: str = "event") -> None:
    """Write rows of a record as Parquet.

    Raises:
        SinkError: they cannot be written.
    """
    write_table(path, event_table(rows, name))


def write_table(path: str, table: pa.Table) -> None:
    """Write a table as Parquet.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        with closing(create(path)) as file:
            # without the Arrow schema, so that whoever reads enums finds plain text
            pq.write_table(table, file, compression="zstd", coerce_timestamps="us", store_schema=False)
    except OSError as error:
        raise cannot(path, "written", error) from error


class _WriteEvents(beam.DoFn):
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def process(self, element: tuple[int, pa.RecordBatch]) -> Iterator[str]:
        source, events = element
        place = events.slice(0, 1)
        path, offset = (place.column(name)[0].as_py() for name in ("log.file.path", "log.offset"))
        name = f"{source:03d}-{content_id(path)[:16]}-{offset:015d}.parquet"  # as _EVENTS_PART has it
        part = join(self._directory, PARTS, name)
        write_rows(part, events)
        yield part


class WriteEvents(beam.PTransform):
    """(source, attributed events) to Parquet parts of the output directory; gives their paths."""

    def __init__(self, directory: str) -> None:
        """Write below ``directory``."""
        super().__init__()
        self._fn = _WriteEvents(directory)

    def expand(self, events: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the parts."""
        return events | beam.ParDo(self._fn)


def _write_timeline(element: tuple[int, pa.RecordBatch], directory: str) -> str:
    shard, entries = element
    part = join(directory, PARTS, f"timeline-{shard:05d}.parquet")
    write_rows(part, entries, "timeline")
    return part


class WriteTimeline(beam.PTransform):
    """(shard, timeline) to Parquet parts of the output directory; gives their paths."""

    def __init__(self, directory: str) -> None:
        """Write below ``directory``."""
        super().__init__()
        self._directory = directory

    def expand(self, timelines: beam.PCollection[tuple[int, pa.RecordBatch]]) -> Any:
        """Return the parts."""
        return timelines | beam.Map(_write_timeline, self._directory)


def merge_sorted(parts: Iterable[str], target: str) -> None:
    """Put sorted parts together into one sorted file: every line begins with its id."""
    with ExitStack() as stack:
        files = [stack.enter_context(closing(open_to_read(part))) for part in sorted(parts)]
        # a line is longer than the usual buffers, each of which costs a call of the kernel
        large = [io.BufferedReader(file, _BUFFER) for file in files]  # type: ignore[type-var]
        with closing(io.BufferedWriter(create(target), _BUFFER)) as out:
            out.writelines(heapq.merge(*large))


def concatenate(parts: Iterable[str], target: str, *, private: bool = False) -> None:
    """Put parts together in the order of their names."""
    with closing(create(target, private=private)) as out:
        for part in sorted(parts):
            with closing(open_to_read(part)) as file:
                while piece := file.read(1 << 20):
                    out.write(piece)


def open_to_read(path: str) -> BinaryIO:
    """Open a file as it is."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)  # type: ignore[no-any-return]


def read_all(path: str) -> bytes:
    """Return a whole file of an output directory.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with closing(open_to_read(path)) as file:
            return file.read()
    except Exception as error:
        raise error if isinstance(error, OSError) else OSError(str(error)) from error


def publish(directory: str, name: str) -> None:
    """Let a finished file take the place of the one from an earlier run, at once.

    Raises:
        SinkError: it cannot.
    """
    finished, target = join(directory, PARTS, name), join(directory, name)
    try:
        if not is_local(target) and FileSystems.exists(target):
            remove([target])
        FileSystems.rename([finished], [target])
    except Exception as error:  # every file system has errors of its own
        raise cannot(target, "written", error) from error


def finish(directory: str, parts: dict[str, list[str]], *, events: bool, keep: frozenset[str] = frozenset()) -> None:
    """Turn the parts of a run into the files of the output directory.

    Args:
        directory: the output directory.
        parts: paths of the parts by kind: "incidents", "findings", "dead_letters", "events".
        events: whether the run wrote events; if not, those of an earlier run are left as they are.
        keep: paths of files with events of earlier runs that stay.

    Raises:
        SinkError: something cannot be written.
    """
    try:
        _finish(directory, parts, keep, events=events)
    except SinkError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise cannot(directory, "finished", error) from error


def _finish(directory: str, parts: dict[str, list[str]], keep: frozenset[str], *, events: bool) -> None:
    for name in SORTED:
        merge_sorted(parts.get(name, []), join(directory, PARTS, f"{name}.ndjson"))
    concatenate(parts.get(DEAD_LETTERS, []), join(directory, PARTS, f"{DEAD_LETTERS}.ndjson"), private=True)
    _check_targets(directory, events=events)  # again: a run takes long, and nothing is to be published by half
    for name in (*SORTED, DEAD_LETTERS):
        publish(directory, f"{name}.ndjson")
    _publish_folder(directory, TIMELINE, parts.get(TIMELINE, []))
    if events:
        _publish_folder(directory, EVENTS, parts.get(EVENTS, []), keep)


def found_in(directory: str, kind: str) -> list[str]:
    """Return the files in a folder of an output directory that runs put there, numbered ones by number."""
    folder = join(directory, kind)
    if not FileSystems.exists(folder):
        return []
    found = [file.path for file in FileSystems.match([join(glob.escape(folder), "*.parquet")])[0].metadata_list]
    ours = [path for path in found if FOLDERS[kind][0].fullmatch(path.rsplit("/", 1)[-1])]
    return sorted(ours, key=lambda path: (len(path), path))  # a number beyond five digits is longer, and larger


def _publish_folder(directory: str, kind: str, parts: list[str], keep: frozenset[str] = frozenset()) -> None:
    """Let the files of this run take the place of those of an earlier one but ``keep``; others in the folder stay."""
    _, nothing, name = FOLDERS[kind]
    folder = join(directory, kind)
    if not FileSystems.exists(folder):
        FileSystems.mkdirs(folder)
    if not parts and not keep:  # readers of an empty run, too, find a file with the columns
        parts = [join(directory, PARTS, nothing)]
        write_rows(parts[0], pa.RecordBatch.from_pylist([], record(name).arrow()), name)
    targets = [join(folder, part.rsplit("/", 1)[-1]) for part in parts]
    ours = set(found_in(directory, kind)) - keep
    stale = sorted(ours if not is_local(folder) else ours - set(targets))  # local files are replaced at once
    if stale:
        remove(stale)
    if parts:
        FileSystems.rename(parts, targets)


def clean_up(directory: str) -> None:
    """Remove the parts of a run."""
    parts = join(directory, PARTS)
    if FileSystems.exists(parts):
        remove([parts])
