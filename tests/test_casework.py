"""What casework counts of what it lets go of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from tests.formats.golden import parsed_sample

from agenttrail.accounting import ACCOUNT, EVICTED
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk
from agenttrail.casebook.terms import Terms
from agenttrail.seams import Span
from agenttrail.transforms.casework import Pacing, _Casework, _Ready

if TYPE_CHECKING:
    import pyarrow as pa

TERMS = Terms.of([], [], {"internal": ()}, {}, ["aws_vpc_flow"], Span())
DAY = 86_400_000_000


def _delivered(ready: _Ready, at: int, events: pa.RecordBatch) -> None:
    ready.desk.deliver(Delivery(0, "a", {"at": at}, {"at": at + 1}, events, begins=at == 0))


def _counted(ready: _Ready, judge: Any) -> tuple[int, int]:
    """Return how many rows an account says were let go of, and how many came too late."""
    casework = _Casework("run", lambda: ready.desk, 0, Pacing())
    accounts = [
        one.value
        for one in casework._judged(ready, judge, whole=True)  # noqa: SLF001 - what it yields is what it is for
        if getattr(one, "tag", "") == ACCOUNT
    ]
    late = sum(count for account in accounts for (_, what), count in account.counts.items() if what == "late")
    return sum(account.besides[EVICTED] for account in accounts), late


def test_rows_that_are_let_go_of_are_counted_and_those_that_come_too_late_are_not_among_them() -> None:
    events = parsed_sample("aws_vpc_flow").events
    ready = _Ready(Desk(TERMS))
    _delivered(ready, 0, events)
    assert _counted(ready, lambda desk: desk.judge()) == (0, 0)
    assert ready.desk.rows == events.num_rows > 0
    last = pc.max(events.column("event.start").cast("int64")).as_py()
    assert _counted(ready, lambda desk: desk.evict(last + 10 * DAY)) == (events.num_rows, 0)
    _delivered(ready, 1, events)
    assert _counted(ready, lambda desk: desk.evict(last + 20 * DAY)) == (0, events.num_rows)
    assert ready.desk.rows == 0
