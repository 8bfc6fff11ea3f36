"""All that was observed of leases, made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail import leases as leases_
from agenttrail.columns.batches import joined
from agenttrail.schema import conform, record
from agenttrail.trajectories import cut

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


def resolved(observed: Iterable[pa.RecordBatch]) -> tuple[pa.RecordBatch, int | None]:
    """Return the leases that observations make, cut where trajectories begin and end in their pods.

    Args:
        observed: in the shape of the lease record, or with fewer columns; those without an address are trajectories.

    Returns:
        The leases, sorted by id, and the number of trajectories that met none; None where there are no trajectories.
    """
    batches = [conform(batch, record("lease")) for batch in observed]
    held = [batch.filter(batch.column("lease.address").is_valid()) for batch in batches]
    spans = [batch.filter(batch.column("lease.address").is_null()) for batch in batches]
    leases = leases_.resolve(held)
    if not any(batch.num_rows for batch in spans):
        return leases, None
    return cut(leases, joined(spans))
