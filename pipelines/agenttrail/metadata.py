"""What the metadata formats share: times in text, and rows of leases as a batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from agenttrail.parsing import EARLIEST, LATEST, dead_letters
from agenttrail.schema import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_time(text: str, name: str) -> int:
    """Return the microseconds since 1970 of an RFC 3339 time; without an offset it is UTC.

    Raises:
        ValueError: ``text`` is no time, or lies outside of the years 2000 to 2100; ``name`` is what it was to be.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError as error:
        msg = f"{name} is not an RFC 3339 time"
        raise ValueError(msg) from error
    moment = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    micros = (moment - _EPOCH) // _MICROSECOND
    if not EARLIEST <= micros < LATEST:
        msg = f"{name} lies outside of the years 2000 to 2100"
        raise ValueError(msg)
    return micros


def lacks_zone(text: str) -> bool:
    """Tell whether a time that parse_time() reads says nothing of its zone."""
    return datetime.fromisoformat(text.strip()).tzinfo is None


def lease_batch(rows: Sequence[Mapping[str, Any]], path: str) -> pa.RecordBatch:
    """Return leases read from ``path`` as a batch; times are microseconds, addresses 16 bytes."""
    schema = record("lease").arrow()
    columns = [
        pa.array(
            [path] * len(rows) if field.name == "log.file.path" else [row.get(field.name) for row in rows], field.type
        )
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def dead_rows(rows: Sequence[tuple[bytes, str]], path: str, dataset: str) -> pa.RecordBatch:
    """Return dead letters for objects of a metadata file: original and reason, which names the place."""
    originals = pa.array([raw for raw, _ in rows], pa.binary())
    reasons = pa.array([reason for _, reason in rows], pa.string())
    return dead_letters(originals, path, pa.nulls(len(rows), pa.int64()), dataset, reasons)
