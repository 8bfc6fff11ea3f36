"""As-of joins: for each row the latest other row of the same key that is not later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns.ordering import order_by

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1


def last_before(
    keys: NDArray[np.int64], times: NDArray[np.int64], other_keys: NDArray[np.int64], other_times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return per row the last of the others with its key at or before its time; -1 where there is none.

    Of others with one key and time it is the last in their order.
    """
    count = len(other_keys)
    if not count:
        return np.full(len(keys), NONE, dtype=np.int64)
    order = order_by(other_keys, other_times)
    # the others come first among equals, so that each row finds those of its own time behind it
    kind = np.repeat(np.array([0, 1]), [count, len(keys)])
    merged = order_by(np.concatenate([other_keys[order], keys]), np.concatenate([other_times[order], times]), kind)
    seen = np.maximum.accumulate(np.where(merged < count, np.arange(len(merged)), NONE))
    is_row = merged >= count
    place, rows = seen[is_row], merged[is_row] - count
    found = np.full(len(keys), NONE, dtype=np.int64)
    found[rows] = np.where(place >= 0, order[merged[np.maximum(place, 0)] % count], NONE)
    same = found >= 0
    same[same] = other_keys[found[same]] == keys[same]
    return np.where(same, found, NONE)
