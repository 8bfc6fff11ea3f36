"""The rows of a shard, and whom they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import column_codes
from agenttrail.columns.numbers import numbers
from agenttrail.columns.ordering import firsts
from agenttrail.detect.signals import HOLDER
from agenttrail.entities import WORKLOAD_DIGEST
from agenttrail.schema import cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.detect.signals import Signals


@dataclass(frozen=True)
class Shard:
    """The rows of a shard and what is known of each.

    Attributes:
        rows: all distinct rows that matter.
        holders: whom they are about.
        holder: place of each row's holder.
        workload: number of each row's workload.
    """

    rows: pa.RecordBatch
    holders: pa.RecordBatch
    holder: NDArray[np.int64]
    workload: NDArray[np.int64]

    @classmethod
    def of(cls, signals: Signals) -> Shard:
        """Return the rows of merged signals."""
        holder = numbers(signals.rows.column(HOLDER))
        workload = column_codes(signals.holders.column(WORKLOAD_DIGEST))[0][holder]
        return cls(signals.rows, signals.holders, holder, workload)

    def workloads(self) -> tuple[NDArray[np.int64], pa.Array]:
        """Return the numbers of all workloads, ascending, and the digest of each."""
        numbers_, first = firsts(self.workload)
        return numbers_, self.holders.column(WORKLOAD_DIGEST).take(pa.array(self.holder[first]))

    def start(self) -> NDArray[np.int64]:
        """Return when each row's event starts."""
        return numbers(self.rows.column("event.start").cast(pa.int64()))

    def are(self, name: str, word: str | None = None) -> NDArray[np.int64]:
        """Return the rows that have the column ``name``, or ``word`` in it."""
        if name not in self.rows.schema.names:
            return np.empty(0, dtype=np.int64)
        column = self.rows.column(name)
        known = column.is_valid() if word is None else pc.fill_null(pc.equal(column, word), fill_value=False)
        return np.flatnonzero(np.asarray(known))


def column(rows: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column; an absent one is all null."""
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, pa.string()) if index < 0 else rows.column(index)


def with_columns(batch: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Return a batch with further columns, or with others in the place of some."""
    kept = {name: batch.column(index) for index, name in enumerate(batch.schema.names)} | columns
    return pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))


def are(events: pa.RecordBatch, name: str, word: str) -> NDArray[np.bool_]:
    """Tell which rows have a word in a column of words."""
    equal = pc.equal(cast(column(events, name), pa.string()), word)
    return np.asarray(pc.fill_null(equal, fill_value=False), dtype=bool)
