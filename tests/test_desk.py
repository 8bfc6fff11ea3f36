"""A desk tells from where to read again, and waits for what had come before a restart."""

from __future__ import annotations

from typing import Any

import pytest

from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint
from agenttrail.casebook.terms import Terms
from agenttrail.seams import Span

TERMS = Terms.of([], [], {"internal": ()}, {}, ["aws_vpc_flow", None], Span())
"""Of a source of flows, 0, and one of metadata, 1, which is read from the top after a restart."""


def _place(at: int, **more: Any) -> dict[str, Any]:
    return {"at": at, **more}


def _after_restart() -> Desk:
    since = SafePoint(
        needed={"0": {"a": _place(10), "b": _place(30)}, "1": {"pods": _place(0)}},
        read={"0": {"a": _place(20), "b": _place(30)}, "1": {"pods": _place(0)}},
    )
    return Desk(TERMS, since, frozenset([1]))


def _block(source: int, part: str, begin: int, end: int, **more: Any) -> Delivery:
    return Delivery(source, part, _place(begin), _place(end, **more))


def _read_up(source: int, part: str, at: int = 0) -> Delivery:
    return Delivery(source, part, _place(at), _place(at))


def test_it_is_behind_until_all_has_come_again() -> None:
    desk = _after_restart()
    assert desk.behind
    desk.deliver(_block(0, "a", 10, 15))
    desk.deliver(_block(0, "a", 15, 20))
    assert desk.behind  # its metadata has not been read
    desk.deliver(_block(1, "pods", 0, 0, stored=1))
    assert not desk.behind
    assert desk.safe_point().read["0"] == {"a": _place(20), "b": _place(30)}


@pytest.mark.parametrize(
    "told",
    [
        [_block(0, "a", 90, 99)],  # what was before is gone
        [_read_up(0, "a", 90)],  # all of it
        [_read_up(0, "a", 10)],  # the part as a whole
        [_read_up(0, "")],  # the source knows nothing of it
    ],
)
def test_it_does_not_wait_for_what_is_gone(told: list[Delivery]) -> None:
    desk = _after_restart()
    desk.deliver(_block(1, "pods", 0, 0, stored=1))
    for delivery in told:
        assert desk.behind
        desk.deliver(delivery)
    assert not desk.behind


def test_blocks_that_overtake_each_other_are_one_in_the_end() -> None:
    desk = Desk(TERMS)
    for begin, end in ((0, 5), (9, 12), (5, 9)):
        desk.deliver(_block(0, "a", begin, end))
    assert desk.safe_point().needed == {"0": {"a": _place(12)}}
