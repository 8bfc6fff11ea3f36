"""Progress of training jobs, as JSON lines whose names the job file gives: when, which job and pod, which step.

A training loop writes such a line for every step.  ``columns`` of the source says where each thing stands; where it is
left out, the names are those of ``DEFAULTS``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from agenttrail.columns.text import constant
from agenttrail.metadata import parse_time
from agenttrail.parsing import EARLIEST, LATEST, Block, Format, Lines, Parsed, event_batch, sift
from agenttrail.paths import Step, parse_path
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

DATASET = "training_progress"
DEFAULTS = {
    "time": "timestamp",
    "job.id": "job_id",
    "sandbox.id": "pod",
    "step": "step",
    "rate": "tokens_per_second",
}
"""Where each thing stands; ``columns`` of a source takes the place of all of them."""
_REQUIRED = ("time", "step")
_TIME_UNITS = (1_000_000, 1_000, 1)  # microseconds of a second, millisecond, microsecond; then come nanoseconds
_LARGEST = 1 << 63


class _RefusedError(ValueError):
    """One line cannot be used; the message says why."""


@dataclass(frozen=True)
class _Place:
    """Where a thing stands in a line.

    Attributes:
        name: as the job file has it, and a key of the object before it is anything else.
        path: the path into the object that the name spells; empty where it spells none.
    """

    name: str
    path: tuple[Step, ...]

    @classmethod
    def of(cls, name: str) -> _Place:
        try:
            return cls(name, parse_path(name))
        except ValueError:
            return cls(name, ())

    def find(self, record: Mapping[str, Any]) -> Any:
        """Return what stands there; None for nothing, the empty string and "-"."""
        found: Any = record.get(self.name)
        if found is None and len(self.path) > 1:
            found = record
            for step in self.path:
                if isinstance(found, dict):
                    found = found.get(step)
                else:
                    inside = isinstance(found, list) and isinstance(step, int) and step < len(found)
                    found = found[step] if inside else None
        return None if found in ("", "-") else found


class Parser:
    """Parses block after block of one source."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Read the things that ``columns`` maps to names.

        Raises:
            ValueError: one of ``columns`` is unknown, or a required one is missing.
        """
        unknown = [name for name in columns if name not in DEFAULTS]
        if unknown:
            msg = f"columns: unknown {', '.join(map(repr, unknown))}; known are {', '.join(DEFAULTS)}"
            raise ValueError(msg)
        missing = [name for name in _REQUIRED if not columns.get(name)]
        if missing:
            msg = f"columns: {' and '.join(map(repr, missing))} must be mapped to a name in the log"
            raise ValueError(msg)
        self._places = {name: _Place.of(place) for name, place in columns.items() if place}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Parser:
        """Make the parser that a source's settings ask for; see ``__init__``."""
        columns = settings.get("columns")
        return cls(DEFAULTS if columns is None else columns)

    def __call__(self, block: Block) -> Parsed:
        """Turn a block of JSON lines into events.

        A time is ISO 8601 (UTC where it names no offset) or a number of seconds, milliseconds, microseconds or
        nanoseconds since 1970: of these only one lies in the years 2000 to 2100.  Names of jobs and pods may be
        numbers, and numbers may be text.  A line is read by itself, in Python: there is one for each step of a job.
        """
        lines = Lines(block.data)
        rows, kept = sift(lines, block.data)
        read = [self._read(lines, row, raw) for row, raw in zip(rows.tolist(), kept.to_pylist(), strict=True)]
        events = event_batch(lines, block, DATASET, rows, self._columns(read, rows))
        return Parsed(events, lines.dead_letters(block, DATASET), len(lines), lines.skipped)

    def _read(self, lines: Lines, row: int, raw: bytes) -> dict[str, Any]:
        """Return what stands in a line by name; nothing where the line is refused."""
        try:
            record = _loads(raw)
            return {name: _READERS[name](place.find(record), place.name) for name, place in self._places.items()}
        except _RefusedError as error:
            lines.refuse(np.array([row]), str(error))
            return {}

    def _columns(self, read: list[dict[str, Any]], rows: NDArray[np.int64]) -> dict[str, pa.Array]:
        times = pa.array([found.get("time") for found in read], pa.int64()).fill_null(0).cast(TIMESTAMP)
        columns: dict[str, pa.Array] = {
            "event.start": times,
            "event.end": times,
            "event.action": constant(DATASET, len(rows)),
            "training.step": pa.array([found.get("step") for found in read], pa.int64()),
        }
        for name, column, type_ in (
            ("rate", "training.rate", pa.float64()),
            ("job.id", "job.id", pa.string()),
            ("sandbox.id", "sandbox.id", pa.string()),
        ):
            if name in self._places:
                columns[column] = pa.array([found.get(name) for found in read], type_)
        return columns


def _loads(raw: bytes) -> Mapping[str, Any]:
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        record = _loads_with_nan(raw, error)
    if not isinstance(record, dict):
        msg = "not a JSON object"
        raise _RefusedError(msg)
    return record


def _loads_with_nan(raw: bytes, error: orjson.JSONDecodeError) -> object:
    """Read a line with NaN or Infinity in it: Python's own writer makes such lines when a loss diverges."""
    msg = f"not valid JSON: {error.msg}"
    if b"NaN" in raw or b"Infinity" in raw:
        try:
            return json.loads(raw, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            msg = "not valid JSON, also where NaN is allowed"
    raise _RefusedError(msg) from error


def _time(value: Any, name: str) -> int:
    """Return microseconds."""
    if value is None:
        msg = f"the record has no time: {name} is missing"
        raise _RefusedError(msg)
    number = _number(value)
    if number is None and isinstance(value, str):
        try:
            return parse_time(value, name)
        except (ValueError, OverflowError) as error:
            raise _RefusedError(str(error)) from error
    if number is None:
        msg = f"{name} is neither ISO 8601 nor a number"
        raise _RefusedError(msg)
    for unit in _TIME_UNITS:
        if EARLIEST <= number * unit < LATEST:
            return math.floor(number * unit + 0.5) if isinstance(number, float) else number * unit
    if EARLIEST <= number // 1_000 < LATEST:
        return int(number // 1_000)
    msg = f"{name} lies outside of the years 2000 to 2100"
    raise _RefusedError(msg)


def _number(value: Any) -> int | float | None:
    """Return a finite number below 2^64, also out of text; integers stay what they are."""
    if isinstance(value, str):
        text = value.strip()
        if not text.isascii() or "_" in text or len(text) > 40:  # noqa: PLR2004 - longer ones are no measurement
            return None
        try:
            value = int(text)
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < _LARGEST * 2 else None  # NaN is not below anything


def _step(value: Any, name: str) -> int:
    number = _number(value)
    if value is None or number is None or number != int(number) or not 0 <= number < _LARGEST:
        msg = f"{name} is missing" if value is None else f"{name} is not a whole number from 0"
        raise _RefusedError(msg)
    return int(number)


def _rate(value: Any, name: str) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("nan", "null", "none")):
        return None
    number = _number(value)
    if number is None:
        msg = f"{name} is not a number"
        raise _RefusedError(msg)
    return float(number)


def _name(value: Any, name: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        msg = f"{name} is not text"
        raise _RefusedError(msg)
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which only Python's reader lets through
        msg = f"{name} is not valid Unicode"
        raise _RefusedError(msg) from error
    return text


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "time": _time,
    "job.id": _name,
    "sandbox.id": _name,
    "step": _step,
    "rate": _rate,
}

FORMAT = Format(
    name=DATASET,
    gives="events",
    parser=Parser.from_settings,
    settings=frozenset({"columns"}),
    kind="training progress",
    named=True,
)
