"""Rows kept by the workload that they are about, so that those of a few workloads are replaced without the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.batches import as_one_batch
from agenttrail.detect.signals import digest_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_FEW = 8
"""So many parts are no harm; more become one."""


@dataclass(frozen=True)
class _Part:
    """Rows that were put in together.

    Attributes:
        rows: of any one shape.
        whose: digest of the workload of each.
        stand: whether nothing has taken the place of each; changes.
    """

    rows: pa.RecordBatch
    whose: NDArray[np.bytes_]
    stand: NDArray[np.bool_]


class Shelves:
    """Rows of one shape; what is replaced only goes once there are many parts."""

    def __init__(self) -> None:
        """Begin with empty ones."""
        self._parts: list[_Part] = []

    def replace(self, touched: pa.Array, rows: pa.RecordBatch, whose: pa.Array) -> None:
        """Put rows in the place of all that is kept of the ``touched`` workloads.

        Args:
            touched: digests of workloads.
            rows: of some of these.
            whose: digest of the workload of each row.
        """
        words = digest_words(touched)
        for part in self._parts:
            part.stand[np.isin(part.whose, words)] = False
        if rows.num_rows:
            self._parts.append(_Part(rows, digest_words(whose), np.ones(rows.num_rows, dtype=bool)))
        if len(self._parts) > _FEW:
            stand = [part.stand for part in self._parts]
            whose_ = np.concatenate([part.whose[kept] for part, kept in zip(self._parts, stand, strict=True)])
            every = self.everything()
            self._parts = [] if every is None else [_Part(every, whose_, np.ones(every.num_rows, dtype=bool))]

    def of(self, workloads: pa.Array, columns: Sequence[str] | None = None) -> pa.RecordBatch | None:
        """Return the rows of some workloads, or some of their columns; None where there are none."""
        words = digest_words(workloads)
        return self._those([part.stand & np.isin(part.whose, words) for part in self._parts], columns)

    def everything(self) -> pa.RecordBatch | None:
        """Return all rows; None where there are none."""
        return self._those([part.stand for part in self._parts], None)

    def workloads(self) -> NDArray[np.bytes_]:
        """Return the digest of each workload of which there are rows, sorted."""
        words = [part.whose[part.stand] for part in self._parts]
        return np.unique(np.concatenate([np.empty(0, dtype="S16"), *words]))

    def _those(self, chosen: list[NDArray[np.bool_]], columns: Sequence[str] | None) -> pa.RecordBatch | None:
        found = []
        for part, mask in zip(self._parts, chosen, strict=True):
            if mask.any():
                rows = part.rows if columns is None else part.rows.select(list(columns))
                found.append(rows if mask.all() else rows.take(pa.array(np.flatnonzero(mask))))
        if not found:
            return None
        tables = [pa.Table.from_batches([one]) for one in found]
        return found[0] if len(found) == 1 else as_one_batch(pa.concat_tables(tables, promote_options="default"))
