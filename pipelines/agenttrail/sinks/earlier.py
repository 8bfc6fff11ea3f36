"""What earlier runs left in an output directory: read back by a run that goes on where they ended, and carried over."""

from __future__ import annotations

import hashlib
from contextlib import closing
from io import BufferedReader
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.numbers import numbers
from agenttrail.documents import read_records
from agenttrail.errors import InputError, SinkError, shortened
from agenttrail.incident_shapes import checked
from agenttrail.incidents.scoring import LEVELS
from agenttrail.metadata import parse_time
from agenttrail.schema import conform, record
from agenttrail.seams import EVER, Interval, within
from agenttrail.sinks import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrail.seams import Span

INCIDENTS = "incidents"
"""Tag of the incidents of earlier runs."""
_LINES = 2_000  # held at once; a finding has up to 20 original lines
_BUFFER = 1 << 20
_ID_WIDTH = 32
_NEEDED = (
    "finding.id", "incident.id", "finding.severity", "finding.first_seen", "finding.last_seen", "rule.id",
    "entity.type", "entity.id", "entity.anchor", "event.count",
)  # fmt: skip
_LAST = "z-earlier"
"""Ends the names of parts that are carried over: they come after all others."""


def covered(directory: str, job: str) -> tuple[Interval, ...]:
    """Return what the runs that left an output directory have told, in microseconds; nothing where there were none.

    Args:
        directory: the output directory.
        job: name of the job that is to go on there.

    Raises:
        InputError: what lies there cannot be gone on with.
        SinkError: it is another job's.
    """
    if not FileSystems.exists(files.join(directory, "findings.ndjson")):
        return ()
    path = files.join(directory, "run.json")
    try:
        summary = orjson.loads(files.read_all(path))
        name, intervals = summary["job"], summary.get("covered", [[None, None]])
        told = [_interval(*one) for one in intervals]
        if not told or any(start > stop for start, stop in told):
            raise ValueError(f"covered: {intervals}")  # noqa: EM102, TRY003, TRY301 - told below
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        msg = (
            f"{path}: does not say what the findings beside it cover: {shortened(str(error), 100)}; "
            "run without --start and --end to replace them, or name another directory with --output"
        )
        raise InputError(msg) from error
    if name != job:
        msg = (
            f"{directory}: holds what the job {shortened(repr(name), 100)} found, and this is {job!r}; "
            "name another directory with --output"
        )
        raise SinkError(msg)
    return tuple(sorted(told))


def _interval(start: str | None, stop: str | None) -> Interval:
    return (
        -EVER if start is None else parse_time(start, "covered"),
        EVER if stop is None else parse_time(stop, "covered"),
    )


# -- read back


class ReadEarlier(beam.PTransform):
    """The findings of earlier runs as one batch, without evidence; id and severity of their incidents beside it."""

    def __init__(self, directory: str) -> None:
        """Read from an output directory, which may be empty."""
        super().__init__()
        self._fn = _ReadEarlier(directory)

    def expand(self, begin: Any) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn).with_output_types(pa.RecordBatch)
        return begin.pipeline | beam.Create([None]) | "Read" >> outputs.with_outputs(INCIDENTS, main="findings")


class _ReadEarlier(beam.DoFn):
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def process(self, _: None) -> Iterator[Any]:
        yield read_findings(self._directory)
        yield beam.pvalue.TaggedOutput(INCIDENTS, read_incidents(self._directory))


def read_findings(directory: str) -> pa.RecordBatch:
    """Return the findings of an output directory in the shape of their record, without evidence.

    Raises:
        InputError: they are not as a run writes them; says where.
    """
    path = files.join(directory, "findings.ndjson")
    of = record("finding")
    batches = [conform(pa.RecordBatch.from_arrays([], names=[]), of)]
    last = b""
    for number, lines in _lines(path):
        try:
            batch = read_records(pa.array(lines, pa.binary()).cast(pa.string()), of)
        except pa.ArrowInvalid:
            batch = None
        if batch is None or not _is_sound(batch, lines):
            raise _told(path, number, lines, "finding")
        last = _check_order(path, number, [last, *(_id_of(line, "finding") for line in lines)])
        batches.append(batch)
    return as_one_batch(pa.Table.from_batches(batches)).drop_columns(["finding.evidence"])


def read_incidents(directory: str) -> pa.RecordBatch:
    """Return ``incident.id`` and ``incident.severity`` of the incidents of an output directory.

    Raises:
        InputError: they are not as a run writes them; says where.
    """
    path = files.join(directory, "incidents.ndjson")
    ids, severities, last = [], [], b""
    for number, lines in _lines(path):
        last = _check_order(path, number, [last, *(_id_of(line, "incident") for line in lines)])
        for place, line in enumerate(lines, start=number):
            incident = checked(_parsed(line, f"{path}:{place}"), "incident", f"{path}:{place}")
            ids.append(incident["incident.id"])
            severities.append(incident["incident.severity"])
    columns = [pa.array(ids, pa.string()), pa.array(severities, pa.string())]
    return pa.RecordBatch.from_arrays(columns, names=["incident.id", "incident.severity"])


def _lines(path: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield lines, without their ends, and the number of the first of them; none where there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    if not FileSystems.exists(path):
        return
    number, held = 1, []
    try:
        with closing(files.open_to_read(path)) as file:
            for line in BufferedReader(file, _BUFFER):  # type: ignore[type-var]
                held.append(line.removesuffix(b"\n"))
                if len(held) == _LINES:
                    yield number, held
                    number, held = number + len(held), []
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}"
        raise InputError(msg) from error
    if held:
        yield number, held


def _id_of(line: bytes, kind: str) -> bytes:
    """Return the id that a line begins with; "" for none."""
    prefix = b'{"%s.id":"' % kind.encode()
    end = len(prefix) + _ID_WIDTH
    return line[len(prefix) : end] if line.startswith(prefix) and line[end : end + 1] == b'"' else b""


def _check_order(path: str, number: int, ids: list[bytes]) -> bytes:
    """Return the last of ``ids``, the first of which stands before line ``number``, once they are known to ascend."""
    rises = np.array(ids, dtype="S32")
    wrong = np.flatnonzero(rises[1:] <= rises[:-1])
    if len(wrong):
        msg = f"{path}:{number + int(wrong[0])}: not as a run writes it: lines begin with their ids, and are sorted"
        raise InputError(msg)
    return ids[-1]


def _is_sound(batch: pa.RecordBatch, lines: list[bytes]) -> bool:
    """Tell whether what was read of lines is what they say, and has all that incidents are made of."""
    if batch.num_rows != len(lines) or any(batch.column(name).null_count for name in _NEEDED):
        return False
    ids = pa.array([_id_of(line, "finding") for line in lines], pa.binary()).cast(pa.string())
    severe = pc.is_in(batch.column("finding.severity"), value_set=pa.array(LEVELS))
    return bool(ids.equals(batch.column("finding.id")) and pc.all(severe).as_py())


def _told(path: str, number: int, lines: list[bytes], kind: str) -> InputError:
    """Return what is wrong with the first wrong one of some lines."""
    try:
        for place, line in enumerate(lines, start=number):
            document = checked(_parsed(line, f"{path}:{place}"), kind, f"{path}:{place}")
            missing = [name for name in _NEEDED if document.get(name) is None]
            if missing:
                return InputError(f"{path}:{place}: not a {kind}: {missing[0]} is missing")
    except InputError as error:
        return error
    return InputError(f"{path}:{number}: lines from here on are not as a run writes them")


def _parsed(line: bytes, place: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        msg = f"{place}: not valid JSON: {error.msg}"
        raise InputError(msg) from error


# -- carried over


def carry_over(
    directory: str, parts: dict[str, list[str]], span: Span, gone: dict[str, pa.Array], *, events: bool
) -> frozenset[str]:
    """Add to the parts of a run what stays of earlier ones.

    Args:
        directory: the output directory.
        parts: paths of the parts by kind, which are added to.
        span: what the run is over.
        gone: ids of the "findings" that do not stay, and of the "incidents" that do not.
        events: whether the run writes events.

    Returns:
        Paths of the files that stay where they are.

    Raises:
        InputError: what earlier runs left is not as they left it.
        SinkError: something cannot be written.
    """
    for name in files.SORTED:
        _carry_lines(directory, name, parts, _Others(name.removesuffix("s"), gone[name]))
    written = parts[files.DEAD_LETTERS]
    again = frozenset(_digest(line) for part in written for _, lines in _lines(part) for line in lines)
    _carry_lines(directory, files.DEAD_LETTERS, parts, lambda line: _digest(line) not in again, private=True)
    _carry_timeline(directory, parts, gone["incidents"])
    return _carry_events(directory, parts, span) if events else frozenset()


class _Others:
    """Tells which lines begin with other ids than some."""

    def __init__(self, kind: str, ids: pa.Array) -> None:
        self._kind, self._ids = kind, frozenset(ids.cast(pa.binary()).to_pylist())

    def __call__(self, line: bytes) -> bool:
        return _id_of(line, self._kind) not in self._ids


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _carry_lines(
    directory: str, name: str, parts: dict[str, list[str]], stays: Callable[[bytes], bool], *, private: bool = False
) -> None:
    path = files.join(directory, files.PARTS, f"{name}-{_LAST}.ndjson")
    with closing(files.create(path, private=private)) as out:
        for _, lines in _lines(files.join(directory, f"{name}.ndjson")):
            out.writelines(line + b"\n" for line in lines if stays(line))
    parts[name].append(path)


def _carry_timeline(directory: str, parts: dict[str, list[str]], gone: pa.Array) -> None:
    """Carry over the entries of the incidents that stay, and of entities without one that the run did not look at.

    What a run tells of an entity is told as a whole, so that it takes the place of all that was told of it.
    """
    again = [_table(path).column("incident.id").unique() for path in parts[files.TIMELINE]]
    gone = pa.concat_arrays([gone, *again]).unique()
    for path in files.found_in(directory, files.TIMELINE):
        table = _table(path)
        try:
            stays = pc.invert(pc.is_in(table.column("incident.id"), value_set=gone))
            _add(directory, parts[files.TIMELINE], path, table.filter(stays), files.TIMELINE_ORDER)
        except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise _not_ours(path, error) from error


def _carry_events(directory: str, parts: dict[str, list[str]], span: Span) -> frozenset[str]:
    """Carry over the events outside of the span; return the files that are left alone."""
    alone = set()
    own = {part.rsplit("/", 1)[-1] for part in parts[files.EVENTS]}
    for path in files.found_in(directory, files.EVENTS):
        try:
            first, last = _times(path)
            if first >= span.start and last < span.stop:
                continue
            if (last < span.start or first >= span.stop) and path.rsplit("/", 1)[-1] not in own:
                alone.add(path)
                continue
            table = _table(path)
            inside = within(numbers(as_one_batch(table.select(["event.start"])).column(0).cast(pa.int64())),
                            [(span.start, span.stop)])  # fmt: skip
            _add(directory, parts[files.EVENTS], path, table.filter(pa.array(~inside)), files.EVENTS_ORDER)
        except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise _not_ours(path, error) from error
    return frozenset(alone)


def _times(path: str) -> Interval:
    """Return first and last start of the events of a file, without reading them where the file tells."""
    metadata = _opened(path).metadata
    place = metadata.schema.names.index("event.start")
    groups = [metadata.row_group(number).column(place).statistics for number in range(metadata.num_row_groups)]
    if all(group is not None and group.has_min_max for group in groups):
        bounds = [pa.array([group.min, group.max], pa.timestamp("us", "UTC")).cast(pa.int64()) for group in groups]
        times = [time for bound in bounds for time in bound.to_pylist()]
    else:
        times = _table(path).column("event.start").cast(pa.int64()).to_pylist()
    return (min(times), max(times)) if times else (EVER, -EVER)


def _add(directory: str, parts: list[str], path: str, kept: pa.Table, order: tuple[str, ...]) -> None:
    """Add rows that stay to the part that takes the place of their file."""
    if not kept.num_rows:
        return
    part = files.join(directory, files.PARTS, path.rsplit("/", 1)[-1])
    if part in parts:
        kept = pa.concat_tables([kept, _table(part)], promote_options="default")
    else:
        parts.append(part)
    files.write_table(part, kept.sort_by([(name, "ascending") for name in order]))


def _opened(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(files.read_all(path)) if not files.is_local(path) else path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _not_ours(path, error) from error


def _table(path: str) -> pa.Table:
    try:
        with closing(_opened(path)) as file:
            return file.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise _not_ours(path, error) from error


def _not_ours(path: str, error: Exception) -> InputError:
    return InputError(f"{path}: not as a run writes it: {shortened(str(error), 200)}; move it away")
