"""Rows kept by the workload that they are about, so that those of a few workloads are replaced without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import as_one_batch
from agenttrail.entities import shards

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNT = 64
_WHOSE = "workload"
"""Column of the shelves only: digest of the workload."""


class Shelves:
    """Rows of any one shape, on shelves by the first bytes of the digest of their workload."""

    def __init__(self) -> None:
        """Begin with empty ones."""
        self._shelves: dict[int, pa.Table] = {}

    def replace(self, touched: pa.Array, rows: pa.RecordBatch, whose: pa.Array) -> None:
        """Put rows in the place of all that is kept of the ``touched`` workloads.

        Args:
            touched: digests of workloads.
            rows: of some of these.
            whose: digest of the workload of each row.
        """
        new = pa.Table.from_batches([rows]).append_column(_WHOSE, whose)
        shelf = shards(whose, _COUNT) if len(whose) else np.empty(0, dtype=np.int64)
        for number in np.union1d(shards(touched, _COUNT), shelf).tolist() if len(touched) else ():
            parts = [new.filter(pa.array(shelf == number))]
            if (old := self._shelves.get(number)) is not None:
                parts.append(old.filter(pc.invert(pc.is_in(old.column(_WHOSE), value_set=touched))))
            together = pa.concat_tables(
                [part for part in parts if part.num_rows] or parts[:1], promote_options="default"
            )
            if together.num_rows:
                self._shelves[number] = together.combine_chunks()
            else:
                self._shelves.pop(number, None)

    def of(self, workloads: pa.Array) -> pa.RecordBatch | None:
        """Return the rows of some workloads; None where there are none."""
        if not len(workloads):
            return None
        wanted = [self._shelves.get(number) for number in np.unique(shards(workloads, _COUNT)).tolist()]
        found = [one.filter(pc.is_in(one.column(_WHOSE), value_set=workloads)) for one in wanted if one is not None]
        return _one([one for one in found if one.num_rows])

    def everything(self) -> pa.RecordBatch | None:
        """Return all rows; None where there are none."""
        return _one(list(self._shelves.values()))

    def workloads(self) -> pa.Array:
        """Return the digest of each workload of which there are rows."""
        return pa.concat_arrays([pa.array([], pa.binary(16)), *self._of_each()]).unique()

    def _of_each(self) -> Iterator[pa.Array]:
        for one in self._shelves.values():
            yield from one.column(_WHOSE).chunks


def _one(tables: list[pa.Table]) -> pa.RecordBatch | None:
    if not tables:
        return None
    return as_one_batch(pa.concat_tables(tables, promote_options="default").drop_columns([_WHOSE]))
