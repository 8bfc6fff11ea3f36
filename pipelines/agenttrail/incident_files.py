"""Incidents and findings of an output directory, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.errors import InputError
from agenttrail.sinks.files import join, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, Any]


def read_incidents(directory: str) -> list[Document]:
    """Return the incidents of an output directory.

    Raises:
        InputError: it is none.
    """
    return list(_lines(directory, "incidents.ndjson"))


def read_findings(directory: str, incident: str) -> list[Document]:
    """Return the findings of one incident."""
    return [finding for finding in _lines(directory, "findings.ndjson") if finding.get("incident.id") == incident]


def _lines(directory: str, name: str) -> Iterator[Document]:
    path = join(directory, name)
    try:
        data = read_all(path)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror or error}; is {directory} the output directory of a run?"
        raise InputError(msg) from error
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{path}:{number}: not valid JSON: {error.msg}"
            raise InputError(msg) from error
