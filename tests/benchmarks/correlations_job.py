"""What correlations cost: every type over the conversations of many groups, grouped by a name in text.

Prints a line of JSON: CPU seconds and findings by type, without the making of the input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import pyarrow as pa

from agenttrail.detect.correlated import correlate_all
from agenttrail.detect.correlations import Correlation
from agenttrail.schema import TIMESTAMP

SEED = 7
DAY = 86_400_000_000
MINUTE = 60_000_000
TYPES = {
    "event_count": ("gte", 6),
    "value_count": ("gte", 5),
    "temporal": ("gte", 2),
    "temporal_ordered": ("gte", 2),
}
"""Condition of each: what holds for few of all windows."""


def conversations(count: int, groups: int) -> tuple[pa.RecordBatch, dict[str, np.ndarray], np.ndarray]:
    """Return conversations, the rows that each of two rules matched, and their rank by content."""
    dice = np.random.default_rng(SEED)
    names = pa.array([f"sandbox-{number:08d}" for number in range(groups)], pa.string())
    columns = {
        "event.start": pa.array(1_772_409_600_000_000 + dice.integers(0, DAY, count)).view(TIMESTAMP),
        "sandbox.id": names.take(pa.array(dice.integers(0, groups, count))),
        "peer.port": pa.array(dice.integers(1, 1_024, count).astype(np.int32)),
    }
    rule = dice.random(count) < 0.5
    matched = {"first": np.flatnonzero(rule), "second": np.flatnonzero(~rule)}
    return pa.RecordBatch.from_pydict(columns), matched, dice.permutation(count)


def correlation(type_: str) -> Correlation:
    """Return a correlation of the two rules within half an hour, by sandbox."""
    counted = ("peer.port",) * 2 if type_ == "value_count" else ()
    return Correlation(
        id=type_, name=type_, title=type_, level="low", type=type_, rules=("first", "second"),
        group_by=("sandbox.id",), keys=(("sandbox.id",),) * 2, timespan=30 * MINUTE, condition=TYPES[type_],
        values=counted,
    )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=5_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    given = parser.parse_args()
    rows, matched, rank = conversations(given.conversations, given.groups)
    seconds, findings = {}, {}
    for type_ in TYPES:
        started = time.process_time()
        found = correlate_all([correlation(type_)], rows, matched, rank)[type_]
        seconds[type_] = round(time.process_time() - started, 3)
        findings[type_] = len(found.runs.group)
    sys.stdout.write(json.dumps({"seconds": seconds, "findings": findings}) + "\n")


if __name__ == "__main__":
    main()
