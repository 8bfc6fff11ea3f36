"""What a run over a part of time looks at, says, and leaves standing: any runs add up to one."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.oracles.seams import Event, Finding, detect, one_run

from agenttrail.attribute_named import NameTable, attribute_named
from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.ids import content_ids, hexadecimal
from agenttrail.entities import ENTITY_DIGEST, KEY, WORKLOAD_DIGEST, name_holders
from agenttrail.leases import resolve
from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.seams import Interval, Living, Span, heard_of, looked_at, merged, said, seen_of, settle, within

_T0 = 1_772_409_600  # 2026-03-02T00:00:00Z
_SECOND = 1_000_000
_DAYS = 3 * 86_400
_RULES = pa.array(["all", "even", "odd"])


def _time(second: int | None) -> int | None:
    return None if second is None else (_T0 + second) * _SECOND


def _batch(rows: list[dict[str, Any]], **types: pa.DataType) -> pa.RecordBatch:
    columns = {name.replace("__", "."): type_ for name, type_ in types.items()}
    arrays = [
        pa.array([row.get(name) for row in rows], pa.int64() if type_ == TIMESTAMP else type_).cast(type_)
        for name, type_ in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _world(dice: Random) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return leases of pods with and without uid, some of one name, and events of these, of hosts and of nobody."""
    leases: list[dict[str, Any]] = []
    for number in range(dice.randrange(1, 7)):
        start = dice.randrange(_DAYS)
        pod: dict[str, Any] = {
            "sandbox.id": f"s{dice.randrange(4)}",
            "lease.start": _time(start),
            "job.id": dice.choice(["j", None]),
        }
        if dice.random() < 0.6:
            pod["k8s.pod.uid"] = f"u{number}"
        for _ in range(dice.choice([1, 1, 2])):  # several addresses, perhaps not for the same time
            end = dice.choice([None, start + dice.randrange(1, _DAYS)])
            trajectory = dice.choice([None, f"t{dice.randrange(3)}"])
            address = bytes(15) + bytes([len(leases)])
            leases.append(pod | {"lease.end": _time(end), "trajectory.id": trajectory, "lease.address": address})
    said_of: list[dict[str, Any]] = [
        *({name: one.get(name) for name in ("sandbox.id", "k8s.pod.uid")} for one in leases),
        {"host.name": "h"}, {"sandbox.id": "unheard of"}, {"job.id": "j"}, {},
    ]  # fmt: skip
    events = [dice.choice(said_of) | {"event.start": _time(dice.randrange(_DAYS + 9_000))} for _ in range(40)]
    text = pa.string()
    names = {"sandbox__id": text, "k8s__pod__uid": text, "job__id": text}
    held = _batch(leases, **names, trajectory__id=text, lease__start=TIMESTAMP, lease__end=TIMESTAMP,
                  lease__address=pa.binary(16))  # fmt: skip
    return resolve([conform(held, record("lease"))]), _batch(events, **names, host__name=text, event__start=TIMESTAMP)


def _detected(events: pa.RecordBatch) -> tuple[list[Event], pa.RecordBatch]:
    """Return the events as the oracle knows them, and whom they are about."""
    holders, which = name_holders(events)
    entity = hexadecimal(holders.column(ENTITY_DIGEST)).to_pylist()
    seconds = events.column("event.start").cast(pa.int64()).to_pylist()
    return [(entity[who], time // _SECOND) for who, time in zip(which.tolist(), seconds, strict=True)], holders


def _findings(found: list[Finding], holders: pa.RecordBatch) -> pa.RecordBatch:
    place = {digest: row for row, digest in enumerate(hexadecimal(holders.column(ENTITY_DIGEST)).to_pylist())}
    row = pa.array([place[one[1]] for one in found], pa.int64())
    columns = {name: holders.column(name).take(row) for name in (*KEY, "k8s.pod.uid")}
    columns["rule.id"], columns["incident.id"] = (pa.array([one[at] for one in found], pa.string()) for at in (0, 1))
    columns["finding.id"] = content_ids([columns["rule.id"], columns["incident.id"]])
    for name, at in (("finding.first_seen", 2), ("finding.last_seen", 3)):
        columns[name] = pa.array([one[at] * _SECOND for one in found], pa.int64()).cast(TIMESTAMP)
    columns["event.count"] = pa.array([one[4] for one in found], pa.int64())
    return conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("finding"))


def _rows(findings: pa.RecordBatch) -> list[Finding]:
    times = [
        [time // _SECOND for time in findings.column(f"finding.{seen}_seen").cast(pa.int64()).to_pylist()]
        for seen in ("first", "last")
    ]
    columns = [findings.column(name).to_pylist() for name in ("rule.id", "incident.id", "event.count")]
    return sorted(zip(columns[0], columns[1], *times, columns[2], strict=True))


@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(-10_000, _DAYS + 20_000), min_size=2, max_size=6, unique=True),
    st.sampled_from([0, 0, 3_600, 40_000]),
    st.sampled_from([0, 2]),
)
@example(1_590_482, [74_785, 170_355], 0, 0)  # a record names a pod whose lease has ended
def test_runs_over_parts_add_up_to_one_run(seed: int, seams: list[int], look_back: int, tolerance: int) -> None:
    """Whatever the seams, in whatever order, some of them twice; whatever rules take back."""
    dice = Random(seed)
    leases, events = _world(dice)
    table = NameTable.build(leases, tolerance * _SECOND)
    raw, events = events, attribute_named(events, table)
    bounds = sorted(seams)
    parts = list(pairwise(bounds))
    parts += dice.sample(parts, 1)
    dice.shuffle(parts)
    stored, covered = _findings([], _detected(events)[1]), tuple[Interval, ...]()
    for start, stop in parts:
        span = Span(
            _time(start) or 0, _time(stop) or 0, look_back * _SECOND, tolerance * _SECOND, covered=covered,
            names=("sandbox.id",) if seed % 2 else (),
        )  # fmt: skip
        view = looked_at(events, Living.of(table.leases.resolutions, span, [heard_of(raw, span)]), span)
        if view.num_rows:
            rows, holders = _detected(view)
            found, seen = said(_findings(detect(rows), holders), span), seen_of(holders).column(WORKLOAD_DIGEST)
        else:
            found, seen = stored.slice(0, 0), pa.array([], pa.binary(16))
        settled = settle(stored, found.column("finding.id"), seen, _RULES, span)
        stored = as_one_batch(pa.Table.from_batches([found, stored.filter(pa.array(settled.stand))]))
        covered = span.told
    assert list(covered) == [(_time(bounds[0]), _time(bounds[-1]))]
    assert _rows(stored) == one_run(_detected(events)[0], _T0 + bounds[0], _T0 + bounds[-1])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=8))
def test_intervals_are_put_together(drawn: list[tuple[int, int]]) -> None:
    """They hold what they held before, are sorted, and neither overlap nor adjoin."""
    intervals = [(start, start + length) for start, length in drawn]
    together = merged(intervals)
    times = np.arange(-1, 50)
    assert within(times, together).tolist() == [any(a <= time < b for a, b in intervals) for time in times.tolist()]
    assert all(one[1] < other[0] for one, other in pairwise(together))


_HALF_PAST = Span(start=(_T0 + 86_400 + 1_800) * _SECOND, look_back=3_600 * _SECOND, tolerance=2 * _SECOND)
"""From half past midnight on; looks back into the day before."""


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        ({"host.name": "h", "event.start": _time(-1)}, False),
        ({"host.name": "h", "event.start": _time(0)}, True),  # the whole of that day, since it is one entity
        ({"k8s.pod.uid": "gone", "event.start": _time(84_000)}, False),  # although within that day
        ({"k8s.pod.uid": "near", "event.start": _time(-50_000)}, True),  # back to its beginning
        ({"k8s.pod.uid": "lives", "event.start": _time(-50_000)}, True),
        ({"k8s.pod.uid": "unknown", "sandbox.id": "s", "event.start": _time(-50_000)}, True),  # nobody knows its end
        ({"k8s.pod.uid": "lives", "event.start": _time(90_000)}, True),
    ],
)
def test_occupancies_are_looked_at_as_a_whole_or_not_at_all(event: dict[str, Any], *, kept: bool) -> None:
    """By the end of their leases, with what clocks may be apart; hosts by the day."""
    text = pa.string()
    ends = {"gone": 84_597, "near": 84_599, "lives": None}
    leases = [
        {"k8s.pod.uid": uid, "sandbox.id": uid, "lease.start": _time(-60_000), "lease.end": _time(end),
         "lease.address": bytes(16)} for uid, end in ends.items()
    ]  # fmt: skip
    held = _batch(leases, sandbox__id=text, k8s__pod__uid=text, lease__start=TIMESTAMP, lease__end=TIMESTAMP,
                  lease__address=pa.binary(16))  # fmt: skip
    table = NameTable.build(resolve([conform(held, record("lease"))]))
    rows = _batch([event], sandbox__id=text, k8s__pod__uid=text, host__name=text, event__start=TIMESTAMP)
    events = attribute_named(rows, table)
    living = Living.of(table.leases.resolutions, _HALF_PAST)
    assert looked_at(events, living, _HALF_PAST).num_rows == kept


def test_rules_that_were_not_on_and_later_findings_are_left_alone() -> None:
    """A stored finding goes only if all that it rests on was looked at by a rule that is on."""
    row = _batch([{"host.name": "h", "event.start": _time(90_000)}], host__name=pa.string(), event__start=TIMESTAMP)
    holders = _detected(attribute_named(row, NameTable.build(resolve([]))))[1]
    entity = hexadecimal(holders.column(ENTITY_DIGEST))[0].as_py()
    at = _T0 + 90_000
    stored = _findings(
        [("all", entity, at, at, 1), ("off", entity, at, at, 1), ("odd", entity, at, at + 9, 1)], holders
    )
    nobody, seen = pa.array([], pa.string()), holders.column(WORKLOAD_DIGEST)
    span = Span(start=(at - 9) * _SECOND, stop=(at + 5) * _SECOND)
    settled = settle(stored, nobody, seen, _RULES, span)
    assert settled.superseded.tolist() == [True, False, False]
    assert settled.in_view.all()
    # a correlation over several entities has been seen whole from the start of the span only
    wide = Span(start=(at + 1) * _SECOND, correlations={"all": False, "odd": True}, look_back=_SECOND)
    assert settle(stored, nobody, seen, _RULES, wide).superseded.tolist() == [False, False, True]
