"""Tags of outputs, and what every step has in common."""

from __future__ import annotations

import time
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from agenttrail.columns.memory import keep_freed_memory

LEASES = "leases"
"""Tag of the leases that events tell of."""
UNITS = "units"
"""Tag of what correlations look at."""
TIMELINE = "timeline"
"""Tag of entries of timelines."""
ROLLED = "rolled"
"""Tag of egress to listed peers, rolled up."""
PROGRESS = "progress"
"""Tag of reports of training progress."""
SEEN = "seen"
"""Tag of the entities that a run over a span of time looked at."""


class Timed(beam.DoFn):
    """A DoFn that keeps freed memory and counts its CPU seconds."""

    stage = ""

    def setup(self) -> None:
        """Prepare the process."""
        keep_freed_memory()

    def _started(self) -> float:
        return time.thread_time()

    def _seconds(self, started: float) -> dict[str, float]:
        return {self.stage: time.thread_time() - started}


def at_the_end(told: Any) -> Any:
    """Return an output as one of the end of time, for what is no element's."""
    window = GlobalWindow()
    if isinstance(told, beam.pvalue.TaggedOutput):
        return beam.pvalue.TaggedOutput(told.tag, WindowedValue(told.value, window.max_timestamp(), [window]))
    return WindowedValue(told, window.max_timestamp(), [window])
