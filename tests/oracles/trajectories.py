"""Which trajectory holds an address at a moment, straight from leases and spans."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def of_one_pod(lease: Row, span: Row) -> bool:
    """Tell whether a span speaks of the lease's pod: by the most that the span knows, within one scope."""
    if None not in (span["lease.scope"], lease["lease.scope"]) and span["lease.scope"] != lease["lease.scope"]:
        return False
    if span["k8s.pod.uid"] is not None:
        return bool(span["k8s.pod.uid"] == lease["k8s.pod.uid"])
    if span["sandbox.id"] is None or span["sandbox.id"] != lease["sandbox.id"]:
        return False
    return span["k8s.namespace.name"] in (None, lease["k8s.namespace.name"])


def trajectory_at(lease: Row, spans: list[Row], time: int) -> str | None:
    """Return the trajectory that is known to run in the lease's pod at ``time``."""
    if lease["trajectory.id"] is not None:
        return str(lease["trajectory.id"])
    running = {
        span["trajectory.id"]
        for span in spans
        if of_one_pod(lease, span) and span["start"] <= time and (span["end"] is None or time < span["end"])
    }
    return running.pop() if len(running) == 1 else None
