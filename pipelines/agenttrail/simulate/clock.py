"""The clock of the simulated day: seconds since its midnight, and what they are called elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

EPOCH = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp())
"""Start of every simulated day, in seconds since 1970."""
HOUR = 3_600


def moment(second: float | None) -> str | None:
    """Return a second of the day as Kubernetes writes times; None for None."""
    if second is None:
        return None
    return datetime.fromtimestamp(EPOCH + int(second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(second: float) -> str:
    """Return an instant of the day to the millisecond, in RFC 3339."""
    whole, rest = divmod(millis(second), 1_000)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:03d}Z"


def millis(second: float) -> int:
    """Return an instant of the day in milliseconds since 1970."""
    return EPOCH * 1_000 + round(second * 1_000)


def hour_name(hour: int) -> str:
    """Return what files call the how-manieth hour of the day."""
    return datetime.fromtimestamp(EPOCH + hour * HOUR, UTC).strftime("%Y-%m-%dT%H")
