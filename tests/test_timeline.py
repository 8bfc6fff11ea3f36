"""Minutes of egress agree with a row-by-row oracle, whatever the order of the rows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail import timeline
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from random import Random

Row = dict[str, Any]
DAY = 1_772_409_600_000_000
SENSORS = [("aws_vpc_flow", "eni-1"), ("alibaba_cloud_firewall", None), ("zeek", "tap")]

_ROWS = st.lists(
    st.fixed_dictionaries({
        "incident": st.sampled_from(["a", "b"]), "second": st.integers(0, 240), "conversation": st.integers(-1, 4),
        "sensor": st.sampled_from(SENSORS), "outcome": st.sampled_from(["success", "failure", None]),
        "view": st.sampled_from([0, 0, 0, 86_887]), "ingress": st.booleans(),
        "source": st.integers(0, 1 << 40), "destination": st.integers(0, 99) | st.none(),
    }),
    max_size=30,
)  # fmt: skip


def _batch(rows: list[Row]) -> pa.RecordBatch:
    """Return rows; a conversation is of one incident and one peer."""
    columns: dict[str, pa.Array] = {name: pa.nulls(len(rows), pa.string()) for name in timeline.WHOM}
    columns |= {
        "incident.id": pa.array([_whose(row) for row in rows], pa.string()),
        "event.start": pa.array([DAY + row["second"] * 1_000_000 for row in rows], pa.int64()).view(TIMESTAMP),
        "peer.ip": pa.array([bytes(15) + bytes([_peer(row)]) for row in rows], pa.binary(16)),
        "peer.port": pa.array([443] * len(rows), pa.int32()),
        "network.direction": pa.array(["ingress" if row["ingress"] else "egress" for row in rows], pa.string()),
        "event.dataset": pa.array([row["sensor"][0] for row in rows], pa.string()),
        "observer.name": pa.array([row["sensor"][1] for row in rows], pa.string()),
        "event.outcome": pa.array([row["outcome"] for row in rows], pa.string()),
        "source.bytes": pa.array([row["source"] for row in rows], pa.int64()),
        "destination.bytes": pa.array([row["destination"] for row in rows], pa.int64()),
        timeline.CONVERSATION: pa.array([row["conversation"] for row in rows], pa.int64()),
        timeline.VIEW: pa.array([row.get("view", 0) for row in rows], pa.int64()),
    }  # fmt: skip
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _talk(row: Row) -> tuple[int, Any]:
    """Return the minute of a row, and what its bytes count once in."""
    minute = row["second"] // 60
    return minute, row["conversation"] if row["conversation"] >= 0 else ("alone", _whose(row), minute, _peer(row))


def _stopped(rows: list[Row], row: Row) -> bool:
    """Tell whether one of the sensors let nothing pass of a row's conversation in its minute."""
    minute = row["second"] // 60
    same = [one for one in rows if (one["second"] // 60, one["conversation"]) == (minute, row["conversation"])]
    verdicts: dict[Any, set[str]] = defaultdict(set)
    for one in same:
        verdicts[one["sensor"]].add(one["outcome"])
    return any("failure" in told and "success" not in told for told in verdicts.values())


def _whose(row: Row) -> str:
    return row["incident"] if row["conversation"] < 0 else "ab"[row["conversation"] % 2]


def _peer(row: Row) -> int:
    return max(int(row["conversation"]), 0)


def _sent(row: Row) -> tuple[int, int]:
    pair = row["source"], row["destination"] or 0
    return pair[::-1] if row["ingress"] else pair


def _look(row: Row) -> tuple[str, str, int]:
    """Return the sensor that counted a row, and its view; what belongs to no conversation has none."""
    dataset, observer = row["sensor"]
    return dataset, observer or "", row.get("view", 0) if row["conversation"] >= 0 else 0


def _expected(rows: list[Row]) -> list[tuple[Any, ...]]:
    of_sensor: dict[Any, dict[tuple[str, str, int], list[int]]] = defaultdict(dict)
    for row in rows:
        _, talk = _talk(row)
        counted = of_sensor[talk].setdefault(_look(row), [0, 0])
        for side, sent in enumerate(_sent(row)):
            counted[side] += sent
    minutes: dict[Any, list[Any]] = defaultdict(lambda: [0, 0, False, False, 0])
    for row in rows:
        minute, talk = _talk(row)
        told = minutes[_whose(row), minute, _peer(row)]
        sums = of_sensor[talk]
        for side, sent in enumerate(_sent(row)):
            best = min(sums, key=lambda sensor: (-sums[sensor][side], sensor))
            told[side] += sent if best == _look(row) else 0
        stopped = row["conversation"] >= 0 and _stopped(rows, row)
        told[2] |= row["outcome"] == "success" and not stopped
        told[3] |= row["outcome"] == "failure"
        told[4] += 1
    return sorted(
        (*key, up, down, "success" if passed else "failure" if blocked else None, count)
        for key, (up, down, passed, blocked, count) in minutes.items()
    )


def _told(entries: pa.RecordBatch) -> list[tuple[Any, ...]]:
    names = "source.bytes", "destination.bytes", "event.outcome", "event.count"
    columns = (
        entries.column("incident.id").to_pylist(),
        [(at - DAY) // timeline.MINUTE for at in entries.column("@timestamp").cast(pa.int64()).to_pylist()],
        [peer[-1] for peer in entries.column("peer.ip").to_pylist()],
        *(entries.column(name).to_pylist() for name in names),
    )
    return sorted(zip(*columns, strict=True))


@given(_ROWS, st.randoms(use_true_random=False))
def test_minutes_of_egress_agree_with_an_oracle(rows: list[Row], random: Random) -> None:
    expected = _expected(rows)
    assert _told(timeline.egress(_batch(rows))) == expected
    random.shuffle(rows)
    assert _told(timeline.egress(_batch(rows))) == expected


def test_what_one_sensor_let_through_and_the_next_one_stopped_is_blocked() -> None:
    row = {"incident": "a", "second": 5, "conversation": 0, "ingress": False, "source": 700, "destination": None}
    rows = [row | {"sensor": SENSORS[0], "outcome": "success"}, row | {"sensor": SENSORS[1], "outcome": "failure"}]
    (told,) = _told(timeline.egress(_batch(rows)))
    assert told[3:6] == (700, 0, "failure")


def test_bytes_of_a_conversation_count_once_where_sensors_cut_it_differently() -> None:
    row = {"incident": "a", "conversation": 0, "ingress": False, "outcome": "success", "destination": 0}
    whole = row | {"second": 5, "sensor": SENSORS[0], "source": 900}
    parts = [row | {"second": 60 * minute, "sensor": SENSORS[2], "source": 300} for minute in (0, 1, 2)]
    assert sum(told[3] for told in _told(timeline.egress(_batch([whole, *parts])))) == 900
