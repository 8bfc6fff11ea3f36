"""Leases cut at trajectories: every moment of every lease names what the spans name, and nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.trajectories import of_one_pod, trajectory_at

from agenttrail.schema import TIMESTAMP, conform, record
from agenttrail.trajectories import cut

_HELD = ("lease.address", "lease.scope", "sandbox.id", "k8s.namespace.name", "k8s.pod.uid")
_T0 = 1_772_409_600_000_000
_NAMES = st.sampled_from(["pod-a", "pod-b"])
_NAMESPACES = st.sampled_from(["rl", "eval"])


_SCOPES = st.sampled_from(["vpc-a", "vpc-a", "vpc-b"])


@st.composite
def _lease(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(st.integers(0, 8))
    return {
        "lease.address": bytes(15) + bytes([draw(st.integers(1, 3))]),
        "start": start, "end": draw(st.none() | st.integers(start, 12)),
        "sandbox.id": draw(_NAMES), "k8s.namespace.name": draw(st.none() | _NAMESPACES),
        "k8s.pod.uid": draw(st.none() | st.sampled_from(["u1", "u2"])),
        "trajectory.id": draw(st.none() | st.none() | st.just("label")),
        "lease.scope": draw(st.none() | _SCOPES),
    }  # fmt: skip


@st.composite
def _span(draw: st.DrawFn) -> dict[str, Any]:
    start = draw(st.integers(-1, 10))
    return {
        "start": start, "end": draw(st.none() | st.integers(start, 13)), "sandbox.id": draw(st.none() | _NAMES),
        "k8s.namespace.name": draw(st.none() | _NAMESPACES), "trajectory.id": draw(st.sampled_from(["t1", "t2", "t3"])),
        "k8s.pod.uid": draw(st.none() | st.none() | st.sampled_from(["u1", "u2"])),
        "lease.scope": draw(st.none() | _SCOPES),
    }  # fmt: skip


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name in (
        "lease.address",
        "sandbox.id",
        "k8s.namespace.name",
        "k8s.pod.uid",
        "trajectory.id",
        "lease.id",
        "lease.scope",
    ):
        columns[name] = pa.array(
            [row.get(name) for row in rows], pa.binary(16) if name == "lease.address" else pa.string()
        )
    for name in ("start", "end"):
        times = [None if row[name] is None else _T0 + row[name] * 1_000_000 for row in rows]
        columns[f"lease.{name}"] = pa.array(times, pa.int64()).cast(TIMESTAMP)
    return conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("lease"))


def _seconds(column: pa.Array) -> list[int | None]:
    return [None if time is None else (time - _T0) // 1_000_000 for time in column.cast(pa.int64()).to_pylist()]


@given(st.lists(_lease(), min_size=1, max_size=4), st.lists(_span(), max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=max(settings().max_examples, 800), deadline=None)
def test_every_moment_of_a_lease_names_what_the_spans_name(
    leases: list[dict[str, Any]], spans: list[dict[str, Any]], random: Any
) -> None:
    """Pieces cover their lease without gap or overlap, in whatever order the spans come."""
    for place, lease in enumerate(leases):
        lease["lease.id"] = f"{place:032x}"
    found, unmet = cut(_batch(leases), _batch(spans))
    shuffled = random.sample(spans, len(spans))
    assert cut(_batch(leases), _batch(shuffled))[0].equals(found)
    assert unmet == sum(not any(of_one_pod(lease, span) for lease in leases) for span in spans)
    pieces = found.to_pylist()
    for piece, start, end in zip(
        pieces, _seconds(found.column("lease.start")), _seconds(found.column("lease.end")), strict=True
    ):
        piece |= {"start": start, "end": end}
    for lease in leases:
        own = [
            piece for piece in pieces
            if all(piece[name] == lease[name] for name in _HELD)
            and (lease["trajectory.id"] is None or piece["trajectory.id"] == lease["trajectory.id"])
        ]  # fmt: skip
        for time in range(lease["start"], 14 if lease["end"] is None else lease["end"]):
            named = {
                piece["trajectory.id"] for piece in own
                if piece["start"] <= time and (piece["end"] is None or time < piece["end"])
            }  # fmt: skip
            assert trajectory_at(lease, spans, time) in named
    covered = sum(
        (14 if end is None else end) - start
        for piece in pieces
        if (start := piece["start"]) is not None
        for end in [piece["end"]]
    )
    assert covered == sum((14 if lease["end"] is None else lease["end"]) - lease["start"] for lease in leases)
