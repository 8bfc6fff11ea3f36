"""What a rule saw is kept with what was found: exact where it can be, rounded, cut and scrubbed where it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.detect.expressions import And, Match, Not, Op, Or
from agenttrail.detect.kept_values import DIGITS, LONGEST, asked_fields, by_begin, rounded, values_of
from agenttrail.schema import ENUM, TIMESTAMP

if TYPE_CHECKING:
    from random import Random

_FIELDS = ("connection.duration", "connection.count", "network.transport", "peer.port")


_Row = tuple[int, float | None, int, str | None, int | None]


def _events(rows: list[_Row]) -> pa.RecordBatch:
    start, duration, count, transport, port = (list(column) for column in zip(*rows, strict=True))
    columns = {
        "event.start": pa.array(start, pa.int64()).view(TIMESTAMP),
        "connection.duration": pa.array(duration, pa.float64()),
        "connection.count": pa.array(count, pa.int64()),
        "network.transport": pa.array(transport, pa.string()).cast(ENUM),
        "peer.port": pa.array(port, pa.int32()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def test_fields_are_those_of_all_parts_of_a_condition() -> None:
    """Those under not, and the other of two that are compared; the original line is none."""
    condition = And((
        Match("b", Op.MORE, 1), Not(Match("c", Op.EXISTS, value=True)), Match("", Op.CONTAINS, "x"),
        Or((Match("a", Op.FIELD, "d"), Match("event.original", Op.CONTAINS, "y"), Match("b", Op.LESS, 9))),
    ))  # fmt: skip
    assert asked_fields(condition) == ("a", "b", "c", "d")


def test_values_stand_in_order_and_absent_ones_are_left_out() -> None:
    """A null, and a column that is not there, are no value; zero is one."""
    events = _events([(0, 1 / 3, 0, "tcp", None), (1, None, 7, None, 22)])
    assert values_of(events, (*_FIELDS, "beacon.score")).to_pylist() == [
        ["connection.duration=0.333333333", "connection.count=0", "network.transport=tcp"],
        ["connection.count=7", "peer.port=22"],
    ]
    assert values_of(events, ("beacon.score",)).to_pylist() == [[], []]
    assert values_of(events.slice(0, 0), _FIELDS).to_pylist() == []


def test_addresses_are_as_rules_see_them() -> None:
    """Not as sixteen bytes."""
    address = bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 7])
    events = pa.RecordBatch.from_arrays([pa.array([address], pa.binary(16))], names=["peer.ip"])
    assert values_of(events, ("peer.ip",)).to_pylist() == [["peer.ip=198.51.100.7"]]


def test_secrets_are_scrubbed_and_long_values_cut() -> None:
    """A secret at the cut is whole when it is looked for."""
    key = "AKIAIOSFODNN7EXAMPLE"
    texts = [f"key {key}", "é" * 1000, "x" * (LONGEST - 12) + " " + key]
    events = pa.RecordBatch.from_arrays([pa.array(texts)], names=["event.action"])
    first, second, third = (kept for (kept,) in values_of(events, ("event.action",)).to_pylist())
    assert "[REDACTED]" in first
    assert second == "event.action=" + "é" * LONGEST
    assert all("AKIA" not in kept for kept in (first, second, third))


@given(st.lists(st.none() | st.floats(), max_size=20))
def test_fractions_keep_nine_digits(drawn: list[float | None]) -> None:
    """As Python writes them with so many."""
    for value, near in zip(drawn, rounded(pa.array(drawn, pa.float64())).to_pylist(), strict=True):
        if value is None or value != value:  # noqa: PLR0124 - NaN
            assert near is None or near != near  # noqa: PLR0124 - NaN
        elif 1e-12 < abs(value) < 1e30:  # beyond, powers of ten are not exact
            assert np.isclose(near, float(f"{value:.{DIGITS - 1}e}"), rtol=10.0 ** (1 - DIGITS), atol=0)
            assert len(repr(near).partition("e")[0].replace(".", "").strip("-0")) <= DIGITS
        elif value in (0.0, float("inf"), float("-inf")):
            assert near == value


_ROWS = st.tuples(
    st.integers(0, 2), st.sampled_from([None, 0.5, 2.0]), st.integers(0, 2), st.sampled_from([None, "tcp", "udp"]),
    st.sampled_from([None, 22, 443]),
)  # fmt: skip


@given(st.lists(_ROWS, min_size=1, max_size=8), st.randoms(use_true_random=False), st.integers(1, 8))
def test_what_fired_first_depends_neither_on_order_nor_on_bounds(rows: list[_Row], dice: Random, cut: int) -> None:
    """Of what begins together the values decide."""

    def first(some: list[_Row]) -> list[list[str]]:
        events = _events(some)
        ordered = events.take(pa.array(by_begin(events, np.arange(len(some)), _FIELDS)))
        return list(values_of(ordered, _FIELDS).to_pylist())

    shuffled = dice.sample(rows, len(rows))
    assert first(shuffled) == first(rows)
    events = _events(shuffled)
    parts = [values_of(events.slice(at, cut), _FIELDS) for at in range(0, len(rows), cut)]
    assert pa.concat_arrays(parts).to_pylist() == values_of(events, _FIELDS).to_pylist()
