"""Incidents, findings and timelines of an output directory, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.json_text import json_objects
from agenttrail.errors import InputError, shortened
from agenttrail.incident_shapes import checked
from agenttrail.metadata import parse_time
from agenttrail.sinks.files import TIMELINE, found_in, join, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    entries = []
    try:
        for path in found_in(directory, TIMELINE):
            entries += [checked(entry, "timeline", path) for entry in _entries(path, incident)]
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


def _lines(directory: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield place and document of each line."""
    path = join(directory, name)
    try:
        data = read_all(path)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}; is {directory} the output directory of a run?"
        raise InputError(msg) from error
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield f"{path}:{number}", orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{path}:{number}: not valid JSON: {error.msg}"
            raise InputError(msg) from error
