"""What holds for every analytic."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tests.detect.analytics.conversations import batch_of

from agenttrail.detect import analytics
from agenttrail.detect.analytics import (
    ANALYTICS,
    JOINT_ANALYTICS,
    TELEMETRY_ANALYTICS,
    gpu_conversation,
    gpu_progress,
    long_connection,
)
from agenttrail.schema import arrow_type, cast, record


def test_every_file_is_an_analytic_listed_by_its_name() -> None:
    files = {path.stem for path in Path(analytics.__file__).parent.glob("*.py")} - {"__init__"}
    listed = {**ANALYTICS, **TELEMETRY_ANALYTICS, **JOINT_ANALYTICS}
    assert set(listed) == files
    assert all(derive.__module__.rpartition(".")[2] == name for name, derive in listed.items())


@pytest.mark.parametrize("name", [*ANALYTICS, *TELEMETRY_ANALYTICS, *JOINT_ANALYTICS])
def test_columns_are_fields_of_events(name: str) -> None:
    if name in ANALYTICS:
        derived = ANALYTICS[name](batch_of([]))
    else:
        nothing = pa.RecordBatch.from_pydict({})
        derived, _ = gpu_progress.derive(nothing, nothing)
        if name in JOINT_ANALYTICS:
            derived = gpu_conversation.derive(long_connection.derive(batch_of([])), derived, nothing).gpus
    fields = record("event").fields
    for column in derived.events.schema:
        if column.name != "entity":
            plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            wanted = arrow_type(fields[column.name])
            assert plain == (wanted.value_type if pa.types.is_dictionary(wanted) else wanted), column.name
            assert cast(derived.events.column(column.name), wanted).type == wanted
