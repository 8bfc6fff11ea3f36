"""Incidents and findings of an output directory, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.errors import InputError
from agenttrail.incident_shapes import checked
from agenttrail.sinks.files import join, read_all

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
