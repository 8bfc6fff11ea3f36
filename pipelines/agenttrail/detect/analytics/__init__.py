"""Analytics: derived events that stand for many others, one file each.

To add one over conversations: write the file after the pattern of a neighbour and list it here; state formula, source,
units and what is null when in the docstring of ``derive()``, and write the same thing row by row in ``tests/oracles``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.detect.analytics import (
    beacon,
    egress_volume,
    gpu_conversation,
    gpu_progress,
    long_connection,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from agenttrail.detect.derived import Derived

ANALYTICS: dict[str, Callable[[pa.RecordBatch], Derived]] = {
    "beacon": beacon.derive,
    "egress_volume": egress_volume.derive,
    "long_connection": long_connection.derive,
    "refusals": refusals.derive,
}
"""Analytics over conversations: ``derive(conversations)`` by the category that rules name in ``logsource``."""
TELEMETRY_ANALYTICS = {"gpu_progress": gpu_progress.derive}
"""Analytics over telemetry: ``derive(samples, progress)`` by category."""
JOINT_ANALYTICS = {"gpu_conversation": gpu_conversation.derive}
"""Analytics over what the others derived: ``derive(connections, busy, samples)`` by category."""
