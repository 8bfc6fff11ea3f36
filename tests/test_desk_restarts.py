"""Whenever a desk is ended, in whatever order blocks came, from its safe point on all is read that is needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint
from agenttrail.casebook.terms import Terms
from agenttrail.columns.numbers import numbers
from agenttrail.schema import conform, record
from agenttrail.seams import Span

TERMS = Terms.of([], [], {"internal": ()}, {}, ["aws_vpc_flow"], Span())
PARTS = ("a", "b")


@dataclass(frozen=True)
class _Log:
    """Lines of some parts: of each whether it may matter; and at which lines a run cuts them into blocks.

    Attributes:
        matter: by part, of each line.
        runs: seed of the order and the cuts of each run, and how many blocks come until it is ended.
    """

    matter: dict[str, list[bool]]
    runs: list[tuple[int, int]]

    def blocks(self, since: SafePoint, dice: Random) -> list[Delivery]:
        """Return what a run reads that goes on from a safe point, shuffled."""
        blocks = []
        for part, lines in self.matter.items():
            known = since.needed.get("0", {}).get(part)
            first = 0 if known is None else int(known["at"])
            inner = [line for line in range(first + 1, len(lines)) if dice.random() < 0.4]
            bounds = [first, *inner, len(lines)] if first < len(lines) else []
            for begin, end in pairwise(bounds):
                begins = known is None and begin == 0
                blocks.append(
                    Delivery(0, part, {"at": begin}, {"at": end}, self._rows(part, begin, end), begins=begins)
                )
        dice.shuffle(blocks)
        return blocks

    def _rows(self, part: str, begin: int, end: int) -> pa.RecordBatch | None:
        times = [self.time(part, line) for line in range(begin, end) if self.matter[part][line]]
        start = pa.array(times, pa.timestamp("us", "UTC"))
        rows = conform(pa.record_batch({"event.start": start, "event.end": start}), record("event"))
        return rows if times else None

    def time(self, part: str, line: int) -> int:
        """Return when a line happened: no two at once."""
        return 1_772_409_600_000_000 + line * 60_000_000 + PARTS.index(part) * 1_000_000

    def held_by(self, desk: Desk) -> list[int]:
        """Return the times of the rows that a desk holds."""
        told = [Delivery.unpacked(data).events for data in desk.packed()]
        return sorted(
            time
            for rows in told
            if rows is not None
            for time in numbers(rows.column("event.start").cast(pa.int64())).tolist()
        )


_LOGS = st.builds(
    _Log,
    st.fixed_dictionaries({part: st.lists(st.booleans(), min_size=1, max_size=9) for part in PARTS}),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 8)), min_size=1, max_size=4),
)


@given(_LOGS)
def test_nothing_is_passed_over_whenever_it_is_ended(log: _Log) -> None:
    since = SafePoint()
    for seed, number in log.runs:
        desk = Desk(TERMS, since)
        for block in log.blocks(since, Random(seed))[:number]:
            desk.deliver(block)
        desk.judge()
        since = SafePoint.from_json(desk.safe_point().to_json())
    last = Desk(TERMS, since)
    for block in log.blocks(since, Random(0)):
        last.deliver(block)
    assert not last.behind
    last.judge()
    wanted = [log.time(part, line) for part, lines in log.matter.items() for line, one in enumerate(lines) if one]
    assert log.held_by(last) == sorted(wanted)
    told = last.safe_point()
    assert {part: place["at"] for part, place in told.read.get("0", {}).items()} == {
        part: len(lines) for part, lines in log.matter.items()
    }
    assert told.ahead == {}
