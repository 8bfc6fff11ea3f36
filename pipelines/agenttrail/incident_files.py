"""Incidents, findings and timelines of an output directory, read back."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.json_text import json_objects
from agenttrail.errors import InputError, shortened
from agenttrail.incident_shapes import checked
from agenttrail.metadata import parse_time
from agenttrail.parsing import EARLIEST, LATEST
from agenttrail.schema import record
from agenttrail.sinks.files import TIMELINE, found_in, join, open_to_read, read_all
from agenttrail.sinks.versions import is_stream, standing_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Document = dict[str, Any]


def read_incidents(directory: str) -> list[Document]:
    """Return the incidents of an output directory.

    Raises:
        InputError: it is none.
    """
    return [checked(incident, "incident", place) for place, incident in _lines(directory, "incidents.ndjson")]


def read_findings(directory: str, incident: str) -> list[Document]:
    """Return the findings of one incident.

    Raises:
        InputError: they cannot be read.
    """
    return [
        checked(finding, "finding", place)
        for place, finding in _lines(directory, "findings.ndjson")
        if not isinstance(finding, dict) or finding.get("incident.id") == incident
    ]


def read_timeline(directory: str, incident: str) -> list[Document]:
    """Return the timeline of one incident, by time and id; empty where none is stored.

    Raises:
        InputError: it cannot be read.
    """
    entries: list[Document] = []
    try:
        paths, stream = found_in(directory, TIMELINE), is_stream(directory)
        for path in reversed(paths):
            entries += [checked(entry, "timeline", path) for entry in _entries(path, incident)]
            if stream and entries:  # each of its files has whole timelines, the last of which holds
                break
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        msg = f"{join(directory, TIMELINE)}: cannot be read as a timeline: {shortened(str(error))}"
        raise InputError(msg) from error
    return sorted(entries, key=lambda entry: (parse_time(entry["@timestamp"], "time"), entry["timeline.id"]))


def _entries(path: str, incident: str) -> list[Document]:
    import pyarrow.parquet as pq

    # in this thread: a process that shows something and ends must not have others that still run
    table = pq.ParquetFile(pa.BufferReader(read_all(path))).read(use_threads=False)
    table = table.filter(pc.equal(table.column("incident.id"), incident))
    if not table.num_rows:
        return []
    return [orjson.loads(text) for text in json_objects(as_one_batch(table)).to_pylist()]


def timeline_schema() -> pa.Schema:
    """Return the columns of timelines as they are read: addresses as text."""
    fields = record("timeline").fields
    arrow = record("timeline").arrow()
    return pa.schema([pa.field(one.name, pa.string()) if fields[one.name].type == "ip" else one for one in arrow])


def timelines(directory: str, incidents: Collection[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the timelines of several incidents, each by time and id; every file is read once, in columns.

    Args:
        directory: an output directory.
        incidents: ids; one without a timeline does not come up.

    Yields:
        Id and entries, in the columns of :func:`timeline_schema`.

    Raises:
        InputError: they cannot be read.
    """
    wanted = pa.array(sorted(incidents), pa.string())
    try:
        paths = found_in(directory, TIMELINE)
        last = {id_: path for path in paths for id_ in _told_in(path, wanted)}
        waiting: dict[str, list[pa.Table]] = {}
        stream = is_stream(directory)
        for path in paths:
            here = [id_ for id_, place in last.items() if place == path]
            rows = _wanted_rows(path, pa.array(here, pa.string()) if stream else wanted)
            for id_ in pc.unique(rows.column("incident.id")).to_pylist():
                waiting.setdefault(id_, []).append(rows.filter(pc.equal(rows.column("incident.id"), id_)))
            for id_ in [id_ for id_ in waiting if last[id_] == path]:
                yield id_, as_one_batch(pa.concat_tables(waiting.pop(id_)).sort_by(_BY_TIME))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        msg = f"{join(directory, TIMELINE)}: cannot be read as a timeline: {shortened(str(error))}"
        raise InputError(msg) from error


_BY_TIME = [("@timestamp", "ascending"), ("timeline.id", "ascending")]


def _told_in(path: str, wanted: pa.Array) -> list[str]:
    """Return which of some incidents a file tells of."""
    import pyarrow.parquet as pq

    ids = pq.ParquetFile(pa.BufferReader(read_all(path))).read(["incident.id"], use_threads=False).column(0)
    unique = pc.unique(ids.cast(pa.string()))
    return unique.filter(pc.is_in(unique, wanted)).to_pylist()  # type: ignore[no-any-return]


def _wanted_rows(path: str, wanted: pa.Array) -> pa.Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(read_all(path)))
    schema = timeline_schema()
    kept = []
    for batch in file.iter_batches(use_threads=False):
        rows = batch.filter(pc.is_in(batch.column("incident.id").cast(pa.string()), wanted))
        kept.append(pa.Table.from_batches([_shaped(rows, schema)]))
    rows = pa.concat_tables(kept) if kept else schema.empty_table()
    _check_rows(rows)
    return rows


def _shaped(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.schema.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _check_rows(rows: pa.Table) -> None:
    """Raise a ValueError where columns are not what a timeline has."""
    for name in ("timeline.id", "@timestamp", "timeline.kind"):
        if rows.column(name).null_count:
            msg = f"{name} is missing"
            raise ValueError(msg)
    for name in ("@timestamp", "event.end"):
        span = pc.min_max(rows.column(name).cast(pa.int64())).as_py()
        if span["min"] is not None and not EARLIEST <= span["min"] <= span["max"] < LATEST:
            msg = f"{name} lies outside of the years 2000 to 2100"
            raise ValueError(msg)
    if not pc.all(pc.is_finite(rows.column("gpu.utilization").drop_null()), min_count=0).as_py():
        msg = "gpu.utilization is no number"
        raise ValueError(msg)


def finding_lines(directory: str) -> Iterator[tuple[str, bytes]]:
    """Yield place and text of each finding of an output directory.

    Raises:
        InputError: they cannot be read.
    """
    path = join(directory, "findings.ndjson")
    try:
        if is_stream(directory):
            yield from ((f"{path}:{number}", line) for number, line in standing_lines(Path(path), "finding"))
            return
        with closing(open_to_read(path)) as file:
            # a line is longer than the usual buffers
            for number, line in enumerate(io.BufferedReader(file, 1 << 20), start=1):  # type: ignore[type-var]
                yield f"{path}:{number}", line
    except Exception as error:
        if isinstance(error, InputError):
            raise
        raise _unreadable(path, directory, error) from error


def read_holders(directory: str, leases: Collection[str]) -> dict[str, Document]:
    """Return of each of some leases a finding that it alone proves; nothing of those that prove none alone.

    Raises:
        InputError: findings cannot be read.
    """
    found: dict[str, Document] = {}
    wanted = {lease: lease.encode(errors="replace") for lease in leases}
    for place, line in finding_lines(directory):
        for lease in [lease for lease, text in wanted.items() if text in line]:
            finding = orjson.loads(line)
            if finding.get("attribution.lease_id") == [lease]:
                found[lease] = checked(finding, "finding", place)
                del wanted[lease]
        if not wanted:
            break
    return found


def _unreadable(path: str, directory: str, error: Exception) -> InputError:
    told = getattr(error, "strerror", None) or error
    return InputError(f"{path}: cannot be read: {told}; is {directory} the output directory of a run?")


def _lines(directory: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield place and document of each line."""
    path = join(directory, name)
    try:
        if is_stream(directory):
            lines = list(standing_lines(Path(path), name.removesuffix("s.ndjson")))
        else:
            lines = list(enumerate(read_all(path).splitlines(), start=1))
    except (OSError, ValueError) as error:
        raise _unreadable(path, directory, error) from error
    for number, line in lines:
        try:
            yield f"{path}:{number}", orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{path}:{number}: not valid JSON: {error.msg}"
            raise InputError(msg) from error
