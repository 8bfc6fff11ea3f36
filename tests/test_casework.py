"""What casework counts of what it lets go of, and when it does what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pytest
from apache_beam.utils.timestamp import Timestamp
from tests.formats.golden import parsed_sample

from agenttrail.accounting import ACCOUNT, EVICTED
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, Said
from agenttrail.casebook.ledger import Changes
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


def test_what_it_takes_to_write_what_is_said_makes_judging_everything_rarer() -> None:
    ready = _Ready(Desk(TERMS))
    casework = _Casework("run", lambda: ready.desk, 0, Pacing())
    for one in casework._judged(ready, lambda desk: desk.judge(), whole=True):  # noqa: SLF001 - as above
        if isinstance(one, Said):
            time.sleep(0.3)  # the steps behind this one have it before the next is asked for
    assert ready.cost >= 0.3


class _Bag(list[bytes]):
    """State of Beam's, by hand: a bag, a value and timers."""

    add = list.append

    def read(self) -> list[bytes]:
        return list(self)

    def write(self, _: object) -> None:
        pass

    def set(self, _: object) -> None:
        pass


@pytest.mark.parametrize("what", ["leases that are read again", "blocks of which nothing matters"])
def test_the_bag_holds_little_more_than_what_is_held(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of pods is read again whenever it changes, and of most blocks no row may matter."""
    monkeypatch.setattr("agenttrail.transforms.casework._SPARE", 20_000)
    monkeypatch.setattr("agenttrail.transforms.casework._DESKS", {})
    leases = parsed_sample("kubernetes_pods").events
    bag, casework = _Bag(), _Casework("run", lambda: Desk(TERMS), 0, Pacing(urgent=1e9))
    most = []
    for number in range(600):
        told = leases if what.startswith("leases") else None
        delivery = Delivery(0, "a", {"at": number}, {"at": number + 1}, None, told, begins=number == 0)
        list(casework._delivered(0, delivery.packed(), bag, _Bag(), (_Bag(),) * 3, Timestamp(micros=1)))  # noqa: SLF001
        most.append(sum(map(len, bag)))
    once = len(Delivery(0, "a", {"at": 0}, {"at": 1}, None, leases).packed())
    assert max(most) < 20_000 + 5 * once
    desk = Desk(TERMS)
    for data in bag.read():
        desk.deliver(Delivery.unpacked(data))
    assert desk.safe_point().read == {"0": {"a": {"at": 600}}}
    held = sum(one.num_rows for _, _, one in desk._book.contents() if one is not None)  # noqa: SLF001 - to count them
    assert held == (leases.num_rows if what.startswith("leases") else 0)


@pytest.mark.parametrize(("all_", "calls"), [(0.0, ["evict", "all"]), (1e9, ["urgent", "urgent"])])
def test_rows_are_let_go_of_where_everything_is_judged(
    all_: float, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two turns, of which the second comes too soon to let go of anything again."""
    ready, done = _Ready(Desk(TERMS)), []
    ready.passed, ready.evicted = 0, -1e9

    def does(what: str) -> Changes:
        done.append(what)
        return Changes.none()

    monkeypatch.setattr(Desk, "judge", lambda _, *, urgent=False: does("urgent" if urgent else "all"))
    monkeypatch.setattr(Desk, "evict", lambda _, __: does("evict"))
    casework = _Casework("run", lambda: ready.desk, 0, Pacing(urgent=0, all=all_, share=1e9, evict=60))
    for _ in range(2):
        list(casework._turn(ready))  # noqa: SLF001 - as above
    assert done == calls
