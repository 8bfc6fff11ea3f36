"""A desk tells from where to read again, and waits for what had come before a restart."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tests.formats.golden import parsed_sample

from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint, name_of
from agenttrail.casebook.ledger import Changes
from agenttrail.casebook.terms import Terms
from agenttrail.columns.numbers import numbers
from agenttrail.gathering.observed import distinct
from agenttrail.schema import conform, record
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


def _begun(source: int, part: str, begin: int, end: int, **more: Any) -> Delivery:
    return Delivery(source, part, _place(begin), _place(end, **more), begins=True)


def _read_up(source: int, part: str, at: int = 0, *, begins: bool = False) -> Delivery:
    return Delivery(source, part, _place(at), _place(at), begins=begins)


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"needed":', b'{"needed": [], "read": {}, "start": null}',
        b'{"needed": {"x": {}}, "read": {}, "start": null}', b'{"needed": {"0": null}, "read": {}, "start": null}',
        b'{"needed": {"0": {"a": null}}, "read": {}, "start": null}',
        b'{"needed": {"0": {"a": {"at": -1}}}, "read": {}, "start": null}',
        b'{"needed": {"0": {"a": {}}}, "read": {}, "start": null}',
        b'{"needed": {}, "read": {"0": {"a": {"at": "x"}}}, "start": null}',
        b'{"needed": {}, "read": {}, "start": "x"}', b'{"needed": {}, "read": {}, "start": 1e18}',
        b'{"needed": {}, "read": {}, "start": 9000000000000000000}',
        b'{"needed": {}, "read": {}, "start": null, "ahead": null}',
        b'{"needed": {}, "read": {}, "start": null, "ahead": {"0": {"a": [[1]]}}}',
        b'{"needed": {}, "read": {}, "start": null, "ahead": {"0": {"a": [["a", "b"]]}}}',
        b'{"needed": {}, "read": {}, "start": null, "ahead": {"0": {"a": 5}}}',
        b'{"needed": {}, "read": {}, "start": null, "sums": "sums-../../x"}',
        b'{"needed": {}, "read": {}, "start": null, "lacks": "x"}',
    ],
)  # fmt: skip
def test_a_damaged_safe_point_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a safe point: "):
        SafePoint.from_json(damaged)


def test_a_safe_point_is_what_was_written() -> None:
    told = SafePoint(
        {"0": {"a": _place(5, path="x")}}, {"0": {"a": _place(9)}}, 7, {"0": {"a": [[9, 12]]}}, name_of(b"sums"), 5
    )
    assert SafePoint.from_json(told.to_json()) == told
    assert SafePoint.from_json(b'{"needed": {}, "read": {}, "start": null}') == SafePoint()


def test_it_is_behind_until_all_has_come_again() -> None:
    desk = _after_restart()
    assert desk.behind
    desk.deliver(_block(0, "a", 10, 15))
    desk.deliver(_block(0, "a", 15, 20))
    assert desk.behind  # its metadata has not been read
    desk.deliver(_begun(1, "pods", 0, 0, stored=1))
    assert not desk.behind
    assert desk.safe_point().read["0"] == {"a": _place(20), "b": _place(30)}


@pytest.mark.parametrize(
    "told",
    [
        [_begun(0, "a", 90, 99)],  # what was before is gone
        [_read_up(0, "a", 90, begins=True)],  # all of it
        [_read_up(0, "a", 10)],  # the part as a whole
        [_read_up(0, "")],  # the source knows nothing of it
    ],
)
def test_it_does_not_wait_for_what_is_gone(told: list[Delivery]) -> None:
    desk = _after_restart()
    desk.deliver(_begun(1, "pods", 0, 0, stored=1))
    for delivery in told:
        assert desk.behind
        desk.deliver(delivery)
    assert not desk.behind


def test_it_does_not_wait_for_a_source_that_the_job_does_not_name_any_more() -> None:
    since = SafePoint({"7": {"a": _place(10)}}, {"7": {"a": _place(20)}})
    assert not Desk(TERMS, since, frozenset([1])).behind


def test_blocks_that_overtake_each_other_are_one_in_the_end() -> None:
    desk = Desk(TERMS)
    for begin, end in ((9, 12), (5, 9)):
        desk.deliver(_block(0, "a", begin, end))
    assert desk.safe_point().needed == {}
    desk.deliver(_begun(0, "a", 0, 5))
    assert desk.safe_point().needed == {"0": {"a": _place(12)}}


def test_after_a_restart_no_block_is_passed_over() -> None:
    desk = _after_restart()
    desk.deliver(_begun(1, "pods", 0, 0, stored=1))
    desk.deliver(_block(0, "a", 15, 25))
    assert desk.behind
    assert desk.safe_point().needed["0"]["a"] == _place(10)
    desk.deliver(_block(0, "a", 10, 15))
    assert not desk.behind
    assert desk.safe_point().needed["0"]["a"] == _place(25)


def test_a_desk_that_is_made_of_its_state_goes_on_like_the_first() -> None:
    desk = Desk(TERMS)
    for delivery in (_begun(0, "a", 3, 5), _block(0, "a", 9, 12)):
        desk.deliver(delivery)
    other = Desk(TERMS)
    for data in desk.packed():
        other.deliver(Delivery.unpacked(data))
    for one in (desk, other):
        one.deliver(_block(0, "a", 5, 9))
        assert one.safe_point().read == {"0": {"a": _place(12)}}


def _start(minute: int) -> int:
    return 1_772_409_600_000_000 + minute * 60_000_000


def _flow(*minutes: int, at: list[int] | None = None) -> pa.RecordBatch:
    """Return flows that began so many minutes into a day, and where they stand."""
    start = pa.array(map(_start, minutes), pa.timestamp("us", "UTC"))
    columns = {"event.start": start, "event.end": start}
    if at is not None:
        columns["log.offset"] = pa.array(at)
    return conform(pa.record_batch(columns), record("event"))


def test_what_had_overtaken_others_before_a_restart_is_not_late_after_it() -> None:
    """Blocks of which an earlier one is missing yet are judged all the same."""
    first = Desk(TERMS)
    for begin, end, minute in ((0, 10, 0), (20, 30, 1), (40, 50, 2900)):
        at = _place(begin), _place(end)
        first.deliver(Delivery(0, "a", *at, _flow(minute), begins=begin == 0))
    first.judge()
    first.evict(_start(2890))
    since = SafePoint.from_json(first.safe_point().to_json())
    assert since.needed["0"]["a"] == _place(10)
    second = Desk(TERMS, since)
    for begin, end, minute in ((10, 20, 2), (20, 25, 1), (25, 30, 1), (30, 40, 3), (40, 50, 2900)):
        second.deliver(Delivery(0, "a", _place(begin), _place(end), _flow(minute)))
    second.judge()
    late = [time for _, rows in second.late() for time in numbers(rows.column("event.start").cast(pa.int64())).tolist()]
    assert sorted(late) == [_start(2), _start(3)]


def test_what_comes_first_after_a_restart_is_late_also_in_a_block_with_what_had_come() -> None:
    since = SafePoint({"0": {"a": _place(10)}}, {"0": {"a": _place(20)}}, _start(2890), {"0": {"a": [[30, 40]]}})
    desk = Desk(TERMS, since)
    rows = _flow(1, 2, 3, 4, at=[15, 25, 35, 45])
    desk.deliver(Delivery(0, "a", _place(10), _place(50), rows))
    desk.judge()
    ((_, late),) = desk.late()
    assert numbers(late.column("log.offset")).tolist() == [25, 45]


def test_a_part_whose_beginning_was_overtaken_is_read_from_there_after_a_restart() -> None:
    """What its later blocks hold says where these begin, not where the part does."""
    desk = Desk(TERMS)
    desk.deliver(Delivery(0, "a", _place(10), _place(20), _flow(1)))
    told = desk.safe_point()
    assert (told.needed, told.read) == ({}, {})
    again = Desk(TERMS, told)
    assert again.behind
    again.deliver(Delivery(0, "a", _place(0), _place(10), _flow(0), begins=True))
    assert again.behind
    again.deliver(Delivery(0, "a", _place(10), _place(20), _flow(1)))
    assert not again.behind
    again.judge()
    assert again.safe_point().needed == {"0": {"a": _place(0)}}


def test_blocks_ahead_of_others_are_not_forgotten_with_the_rows_of_theirs() -> None:
    desk = Desk(TERMS)
    desk.deliver(Delivery(0, "a", _place(10), _place(20), _flow(1)))
    desk.judge()
    other = Desk(TERMS)
    for data in desk.packed():
        other.deliver(Delivery.unpacked(data))
    other.deliver(_begun(0, "a", 0, 10))
    assert other.safe_point().read == {"0": {"a": _place(20)}}


def test_a_desk_that_is_made_of_its_state_remembers_what_it_let_go_of() -> None:
    """Otherwise it would tell a restart to look again at what is held no more, and let what is late through."""
    desk = Desk(TERMS)
    for begin, minute in ((0, 0), (10, 2900)):
        desk.deliver(Delivery(0, "a", _place(begin), _place(begin + 10), _flow(minute), begins=begin == 0))
    desk.evict(_start(2890))
    other = Desk(TERMS)
    for data in desk.packed():
        other.deliver(Delivery.unpacked(data))
    assert other.rows == desk.rows == 1
    for one in (desk, other):
        assert one.safe_point().start == _start(2890)
        one.deliver(Delivery(0, "a", _place(20), _place(30), _flow(3)))
        one.judge()
        assert len(one.late()) == 1


def test_what_a_list_of_pods_does_not_name_any_more_is_known_after_a_restart() -> None:
    pods = parsed_sample("kubernetes_pods").events
    desk = Desk(TERMS, documents=frozenset([1]))
    told = 0
    for version in (pods, pods.slice(0, 1), pods):
        desk.deliver(Delivery(1, "pods", _place(0), _place(0), None, version, begins=True))
        desk.judge(urgent=True)
        told += version.num_rows
    assert _leases(desk) == told > pods.num_rows
    desk.judge()
    since = desk.safe_point()
    beside = desk.sums()
    assert beside is not None
    assert since.sums == name_of(beside)
    again = Desk(TERMS, since, frozenset([1]), frozenset([1]))
    again.deliver(Delivery.unpacked(beside))
    assert again.safe_point().sums == since.sums  # also before anything is judged
    again.deliver(Delivery(1, "pods", _place(0), _place(0), None, pods.slice(0, 1), begins=True))
    again.judge()
    assert distinct(again._book._observed).num_rows == pods.num_rows  # noqa: SLF001 - to count them
    assert again.safe_point().sums == since.sums


def _leases(desk: Desk) -> int:
    """Return how many leases a desk knows, those that say the same as others among them."""
    return sum(leases.num_rows for leases in desk._book._observed)  # noqa: SLF001 - to count them


def test_leases_that_are_told_again_by_their_source_are_not_kept_for_a_restart() -> None:
    desk = Desk(TERMS)
    desk.deliver(Delivery(1, "topic", _place(0), _place(9), None, parsed_sample("kubernetes_pods").events, begins=True))
    desk.judge()
    assert desk.sums() is None


def _found(seen: int) -> pa.RecordBatch:
    """Return a finding that was seen last then, in microseconds, of no evidence."""
    told = [{"finding.id": "f" * 32, "incident.id": "1" * 32, "rule.id": "x", "finding.last_seen": seen}]
    return conform(pa.RecordBatch.from_pylist(told), record("finding")).drop_columns(["finding.evidence"])


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(("source", "begin", "lacks"), [(0, 10, False), (0, 15, True), (0, 0, True), (1, 0, False)])
def test_what_was_said_is_doubted_where_everything_has_come_again_alone(
    source: int, begin: int, monkeypatch: pytest.MonkeyPatch, *, lacks: bool, moved: bool
) -> None:
    """A part that begins behind what is needed has lost lines; one that begins before it is another, or a copy."""
    since = SafePoint({str(source): {"a": _place(10)}}, {str(source): {"a": _place(20)}})
    doubted: list[Any] = []
    monkeypatch.setattr("agenttrail.casebook.book.Casebook.doubt", lambda _, workloads: doubted.append(workloads))
    desk = Desk(TERMS, since, frozenset([1]))
    desk.remember(_found(777), ["1" * 32])
    desk.deliver(_begun(source, "a", begin, 25))
    if moved:  # to another worker, before anything was judged
        packed = [Delivery.unpacked(data) for data in desk.packed()]
        desk = Desk(TERMS, since, frozenset([1]))
        desk.remember(_found(777), ["1" * 32])
        for delivery in packed:
            desk.deliver(delivery)
    assert not desk.behind
    gone = desk.judge().gone_findings
    assert desk.safe_point().lacks == (777 if lacks else None)
    assert len(doubted) == (0 if lacks else 1)
    assert gone.to_pylist() == []
    again = Desk(TERMS, SafePoint.from_json(desk.safe_point().to_json()), frozenset([1]))
    again.remember(_found(777), ["1" * 32])
    again.deliver(_begun(source, "a", 25 if source == 0 else 0, 25))
    monkeypatch.undo()
    assert again.judge().gone_findings.to_pylist() == ([] if lacks else ["f" * 32])
    assert again.safe_point().lacks == (777 if lacks else None)


def test_the_first_time_after_a_restart_everything_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def judge(_: Any, *, urgent: bool = False) -> Changes:
        asked.append(urgent)
        return Changes.none()

    monkeypatch.setattr("agenttrail.casebook.book.Casebook.judge", judge)
    desk = _after_restart()
    desk.remember(_found(777), ["1" * 32])
    desk.judge(urgent=True)
    desk.judge(urgent=True)
    assert asked == [False, True]


def test_a_part_of_which_nothing_more_comes_is_forgotten_with_its_rows() -> None:
    """Files are removed for ever; where a row of one is held it is needed, whether it can be had or not."""
    desk = Desk(TERMS)
    desk.deliver(Delivery(0, "a", _place(0), _place(9), _flow(0), begins=True))
    desk.deliver(_begun(0, "b", 0, 9))
    desk.deliver(Delivery(0, "b", _place(9), _place(9), ends=True))
    desk.deliver(Delivery(0, "a", _place(9), _place(9), ends=True))
    desk.judge()
    assert desk.safe_point().needed == {"0": {"a": _place(0)}}
    moved = Desk(TERMS)
    for data in desk.packed():
        moved.deliver(Delivery.unpacked(data))
    for one in (desk, moved):
        one.judge()
        one.evict(_start(0) + 40 * 86_400_000_000)
        assert one.safe_point().needed == one.safe_point().read == {}
    desk.deliver(_begun(0, "b", 0, 5))
    desk.deliver(Delivery(0, "b", _place(9), _place(9), ends=True))
    assert desk.safe_point().read == {"0": {"b": _place(5)}}  # that it ends has overtaken its last block
    desk.deliver(_block(0, "b", 5, 9))
    assert desk.safe_point().read == {}
