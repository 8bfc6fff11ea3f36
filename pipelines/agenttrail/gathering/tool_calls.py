"""Tool calls, and what came after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.asof import last_before
from agenttrail.detect.signals import DIGEST, digest_words
from agenttrail.gathering.shard import with_columns
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.gathering.shard import Shard

EXECUTE_TOOL = "execute_tool"
_SECOND = 1_000_000
_CALL = ("gen_ai.tool.name", "gen_ai.tool.call.id")


@dataclass(frozen=True)
class ToolCalls:
    """Every tool call of a shard, for what came after.

    Attributes:
        calls: their rows, by time.
        rows: where each stands in the shard.
        workload: of each.
        start: of each.
    """

    calls: pa.RecordBatch
    rows: NDArray[np.int64]
    workload: NDArray[np.int64]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, shard: Shard) -> ToolCalls:
        """Return the tool calls among the rows of a shard."""
        rows = shard.are("gen_ai.operation.name", EXECUTE_TOOL)
        rows = rows[np.lexsort((digest_words(shard.rows.column(DIGEST))[rows], shard.start()[rows]))]
        return cls(shard.rows.take(pa.array(rows)), rows, shard.workload[rows], shard.start()[rows])

    def named(
        self,
        events: pa.RecordBatch,
        workload: NDArray[np.int64],
        start: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> pa.RecordBatch:
        """Name beside each event the tool call before it in the same workload, and how long before it that began.

        Logs of flows count whole seconds, rounded down: what starts at a whole second may have started up to a second
        later, and the call before it within that second (then the time between is told as 0).  What stands at one of
        the ``rows`` of the shard that are tool calls is named by that call, also where another one started at the same
        time.
        """
        if not len(self.start):
            return events
        latest = np.where(start % _SECOND == 0, start + _SECOND - 1, start)
        call = last_before(workload, latest, self.workload, self.start)
        if rows is not None:
            place = np.argsort(self.rows)
            own = place[np.minimum(np.searchsorted(self.rows[place], rows), len(place) - 1)]
            call = np.where(self.rows[own] == rows, own, call)
        none = call < 0
        index = pa.array(call, mask=none)
        columns = {name: self.calls.column(name).take(index) for name in _CALL if name in self.calls.schema.names}
        begun = self.start[np.maximum(call, 0)]
        columns["gen_ai.tool.call.start"] = pa.array(begun, mask=none).cast(TIMESTAMP)
        columns["gen_ai.tool.call.gap"] = pa.array(np.maximum(start - begun, 0) / _SECOND, mask=none)
        return with_columns(events, columns)
