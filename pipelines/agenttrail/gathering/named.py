"""Events that name their workload: which of them matter, and what they report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.batches import joined
from agenttrail.detect.analytics.gpu_conversation import TENSOR
from agenttrail.detect.analytics.gpu_progress import METRIC
from agenttrail.gathering.shard import are, column
from agenttrail.gathering.tool_calls import EXECUTE_TOOL
from agenttrail.schema import TIMESTAMP, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.plan import Plan

TOOL_CALL = "tool_call"
_STEP = "training.step"
_REPORT = {"event.start": TIMESTAMP, _STEP: pa.int64(), "sandbox.id": pa.string(), "job.id": pa.string()}


def select_named(events: pa.RecordBatch, plan: Plan) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the rows of events that name their workload that matter, and per rule of ``plan`` the rows that it hits.

    What matters is every tool call, at which alone rules look, and every sample of how much a GPU and its tensor cores
    are used.
    """
    called = np.flatnonzero(are(events, "event.action", EXECUTE_TOOL))
    hits = [called[found] for found in plan.run(events.take(pa.array(called)))] if len(called) else []
    sampled = np.flatnonzero(are(events, "metric.name", METRIC) | are(events, "metric.name", TENSOR))
    return np.sort(np.concatenate([called, sampled])), hits or [called for _ in plan.rules]


def may_matter_named(events: pa.RecordBatch) -> NDArray[np.int64]:
    """Return the rows of events that name their workload that say anything: those that may matter, and reports."""
    matters = are(events, "event.action", EXECUTE_TOOL)
    for metric in (METRIC, TENSOR):
        matters |= are(events, "metric.name", metric)
    if _STEP in events.schema.names:
        matters |= np.asarray(events.column(_STEP).is_valid(), dtype=bool)
    return np.flatnonzero(matters)


def progress_of(events: pa.RecordBatch) -> pa.RecordBatch | None:
    """Return the reports of training progress among events; None where there are none."""
    if _STEP not in events.schema.names:
        return None
    told = events.filter(events.column(_STEP).is_valid())
    columns = [cast(column(told, name), type_) for name, type_ in _REPORT.items()]
    return pa.RecordBatch.from_arrays(columns, names=list(_REPORT)) if told.num_rows else None


def reports(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return all reports of training progress as one batch."""
    return joined(batches) if batches else pa.RecordBatch.from_arrays([pa.array([], TIMESTAMP)], names=["event.start"])
