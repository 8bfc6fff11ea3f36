"""Leases in plain form, for any inventory that has no format of its own: CSV with a header, or JSON lines.

Columns are the fields of the lease record (``agenttrail formats`` lists them), with or without ``lease.`` in front, or
by their short names (agent, trajectory, sandbox, job, host, namespace, uid); ``address`` and ``start`` are needed, an
empty ``end`` means that the lease lasts.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.addresses import address
from agenttrail.errors import InputError
from agenttrail.metadata import dead_rows, lacks_zone, lease_batch, parse_time
from agenttrail.parsing import Block, Format, Parsed
from agenttrail.schema import record

if TYPE_CHECKING:
    from collections.abc import Iterator

DATASET = "address_leases"
_FIELDS = {
    name.removeprefix("lease."): name for name in record("lease").fields if name not in ("lease.id", "log.file.path")
}
_NEEDED = ("address", "start")
_SHORT = {
    "agent": "gen_ai.agent.id", "trajectory": "trajectory.id", "sandbox": "sandbox.id", "job": "job.id",
    "host": "host.name", "namespace": "k8s.namespace.name", "uid": "k8s.pod.uid",
}  # fmt: skip
"""Names that people give these columns."""
_COLUMNS = [{name: short for short, name in _SHORT.items()}.get(name, name) for name in _FIELDS]
"""Each field by the name that the README gives it."""
_SLIP = 0.8  # how alike a slip of the pen is to what was meant


@dataclass(frozen=True)
class Parser:
    """Parses the files of one source.

    Attributes:
        scope: the scope of leases that name none.
    """

    scope: str | None = None

    def __call__(self, block: Block) -> Parsed:
        """Turn one whole file into leases; ``lines`` counts rows, and a CSV header as a skipped one.

        Raises:
            InputError: the file is broken as a whole.
        """
        rows: list[dict[str, Any]] = []
        dead: list[tuple[bytes, str]] = []
        as_json = block.data.lstrip()[:1] == b"{"
        count = skipped = int(not as_json)
        without_zone = 0
        for line, raw, item in _json_rows(block) if as_json else _csv_rows(block):
            count += 1
            try:
                rows.append(self._lease(item))
                without_zone += _lacks_zone(item)
            except ValueError as error:
                dead.append((raw, f"line {line}: {error}"))
        leases, letters = lease_batch(rows, block.path), dead_rows(dead, block.path, DATASET)
        return Parsed(leases, letters, count, skipped, without_zone=without_zone)

    def _lease(self, item: object) -> dict[str, Any]:
        if not isinstance(item, dict):
            raise ValueError(item)  # noqa: TRY004 - one reason among others for a dead letter
        given = {key: None if value in ("", None) else str(value) for key, value in item.items()}
        missing = [name for name in _NEEDED if given.get(name) is None]
        if missing:
            msg = f"{missing[0]} is missing"
            raise ValueError(msg)
        lease: dict[str, Any] = {name: given.get(short) for short, name in _FIELDS.items()}
        lease["lease.scope"] = lease["lease.scope"] or self.scope
        lease["lease.address"] = _address(lease["lease.address"])
        lease["lease.start"] = parse_time(lease["lease.start"], "start")
        lease["lease.end"] = parse_time(lease["lease.end"], "end") if lease["lease.end"] else None
        if lease["lease.end"] is not None and lease["lease.end"] < lease["lease.start"]:
            msg = "end lies before start"
            raise ValueError(msg)
        return lease


def _lacks_zone(item: Any) -> bool:
    """Tell whether a lease has a time that does not say which zone it is of."""
    return any(lacks_zone(str(item[name])) for name in ("start", "end") if item.get(name))


def _address(text: str) -> bytes:
    try:
        return address(text.strip())
    except ValueError as error:
        msg = "address is not an IP address"
        raise ValueError(msg) from error


def _csv_rows(block: Block) -> Iterator[tuple[int, bytes, object]]:
    """Yield line number, original and cells by column of each row; in place of cells that do not fit, why.

    Every line is read by itself, so that a quote which is never closed costs its line only.
    """
    try:
        lines = block.data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        msg = f"{block.path}: not valid UTF-8 at byte {error.start}"
        raise InputError(msg) from error
    csv.field_size_limit(max(len(block.data), csv.field_size_limit()))
    header = _cells(lines[0].rstrip("\r"))
    names = [_field_name(name.strip()) for name in header] if isinstance(header, list) else [str(header)]
    wrong = [name for name in names if name not in _FIELDS] + [
        f"{name} (missing)" for name in _NEEDED if name not in names
    ]
    if wrong:
        told = ", ".join(map(repr, wrong))
        msg = f"{block.path}:1: not a header of address leases: {told}; the columns are {', '.join(_COLUMNS)}"
        raise InputError(msg)
    for number, line in enumerate(lines[1:], start=2):
        text = line.rstrip("\r")
        if not text.strip():
            continue
        cells = _cells(text)
        if isinstance(cells, list) and len(cells) != len(names):
            cells = "the number of cells is not that of the header"
        yield number, text.encode(), dict(zip(names, cells, strict=True)) if isinstance(cells, list) else cells


def _cells(line: str) -> list[str] | str:
    """Return the cells of one line, or why it has none."""
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        return f"not a line of CSV: {error}"


def _field_name(name: str) -> str:
    """Return the field that a column or key names: its own name, the short one, or one with ``lease.`` in front."""
    return _SHORT.get(name, name.removeprefix("lease."))


def _json_rows(block: Block) -> Iterator[tuple[int, bytes, object]]:
    """Yield line number, original and object of each line; in place of what is none, why."""
    for number, line in enumerate(block.data.split(b"\n"), start=1):
        if line.strip():
            try:
                item = orjson.loads(line)
            except orjson.JSONDecodeError:
                item = "not a JSON object"
            yield number, line.strip(), _object(item)


def _object(item: object) -> object:
    """Return an object by our names, or why it is none: a key that looks like a slip would lose its value."""
    if not isinstance(item, dict):
        return item if isinstance(item, str) and item.startswith("not a") else "not a JSON object"
    named = {_field_name(str(key)): value for key, value in item.items()}
    for key in named.keys() - _FIELDS.keys():
        if close := difflib.get_close_matches(key, _FIELDS, n=1, cutoff=_SLIP):
            return f"unknown key {key[:100]!r}; did you mean {close[0]}?"
    return named


FORMAT = Format(
    name=DATASET,
    gives="leases",
    parser=lambda settings: Parser(settings.get("scope")),  # type: ignore[arg-type] # checked by the job schema
)
