"""Pods about which something is told only after their samples went: a stream that lets go ends as one that does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from tests.test_casebook import _Kept, _terms, _without_place

from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint
from agenttrail.documents import read_records
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import may_matter_named
from agenttrail.job_files import load_job
from agenttrail.parsing import Block
from agenttrail.schema import record
from agenttrail.transforms.casework import Opening
from agenttrail.transforms.parsing import with_scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agenttrail.job_files import Job

_BASE = 1_772_409_600  # seconds: 2026-03-02
_MINUTE, _HOUR = 60, 3_600
_BLOCK = 2 * _HOUR
_JOB = {
    "name": "by-hand",
    "events": [
        {"format": "dcgm_prometheus", "path": "gpu.prom", "scope": "vpc-1"},
        {"format": "training_progress", "path": "told.jsonl", "scope": "vpc-1"},
    ],
    "leases": [{"format": "address_leases", "path": "leases.jsonl", "scope": "vpc-1"}],
}
_Lines = list[tuple[int, str]]
"""When each line comes, in seconds of the day, and it."""


def _text(second: int) -> str:
    return datetime.fromtimestamp(_BASE + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _samples(begin: int, end: int, busy: int, **labels: str) -> _Lines:
    """Return a sample a minute of a GPU that is busy up to a time."""
    named = ",".join(f'{name}="{value}"' for name, value in {"gpu": "0", "Hostname": "n1", **labels}.items())
    return [
        (at, f"DCGM_FI_DEV_GPU_UTIL{{{named}}} {95 if at < busy else 10} {(_BASE + at) * 1000}")
        for at in range(begin + 5, end, _MINUTE)
    ]


def _reports(begin: int, end: int, still: range, *, since: int = 0, **who: str) -> _Lines:
    """Return a report a minute of one step more, but while no step is made; ``since`` is the first step."""
    lines, step = [], since
    for at in range(begin + 10, end, _MINUTE):
        step += at not in still
        lines.append((at, json.dumps({"timestamp": _text(at), "step": step, **who})))
    return lines


def _lease(at: int, start: int = 0, end: int | None = None, **more: str) -> tuple[int, str]:
    told = {"address": "10.0.0.1", "sandbox": "p1", "job": "J", "uid": "U1", **more}
    return at, json.dumps({**told, "start": _text(start), "end": None if end is None else _text(end)})


_EVALUATES = range(_HOUR, _HOUR + 30 * _MINUTE)
_POD = {"pod": "p1", "namespace": "ns", "pod_uid": "U1"}
_OTHER = _samples(30 * _MINUTE, 24 * _HOUR, 0, pod="p2", namespace="ns", pod_uid="U2", UUID="GPU-2")
_OTHER_LEASE = _lease(0, address="10.0.0.9", sandbox="p2", job="K", uid="U2")
_DAY = _samples(30 * _MINUTE, 24 * _HOUR, 3 * _HOUR, **_POD)
_TOLD = _reports(30 * _MINUTE, 24 * _HOUR, _EVALUATES, job_id="J")
_SLURM = _samples(30 * _MINUTE, 3 * _HOUR, 3 * _HOUR, hpc_job="J")
_AGAIN = _samples(20 * _HOUR, 22 * _HOUR, 22 * _HOUR, pod="p3", namespace="ns", pod_uid="U3")


@pytest.mark.parametrize(
    ("samples", "reports", "leases", "summed", "found"),
    [
        pytest.param(_DAY, _TOLD, [_lease(0)], 1, 1, id="a pod that lives on"),
        pytest.param(
            _DAY, _TOLD, [_lease(0), _lease(13 * _HOUR, trajectory="T")], 1, 1, id="an episode is told of hours later"
        ),
        pytest.param(
            _samples(30 * _MINUTE, 10 * _HOUR, 3 * _HOUR, **_POD), _TOLD,
            [_lease(0), _lease(20 * _HOUR, end=20 * _HOUR)], 1, 1, id="it ends long after its last sample",
        ),
        pytest.param(
            _DAY, _TOLD,
            [_lease(0), _lease(5 * _HOUR, end=5 * _HOUR), _lease(5 * _HOUR, 5 * _HOUR, address="10.0.0.2")], 0, 1,
            id="it changes its address",
        ),
        pytest.param(
            _DAY, _TOLD + _reports(14 * _HOUR, 24 * _HOUR, range(0), job_id="J", pod="p1"), [_lease(0)], 1, 0,
            id="it comes to report by itself, so that what others told of its job says nothing",
        ),
        pytest.param(
            _SLURM, _reports(30 * _MINUTE, 3 * _HOUR, _EVALUATES, job_id="J"), [_lease(0)], 0, 1,
            id="a job without pods ends",
        ),
        pytest.param(
            _AGAIN,
            _reports(30 * _MINUTE, 2 * _HOUR, range(0), job_id="J")
            + _reports(20 * _HOUR, 22 * _HOUR, range(0), since=20, job_id="J"),
            [_lease(20 * _HOUR, 20 * _HOUR, address="10.0.0.3", sandbox="p3", uid="U3")], 0, 1,
            id="a job goes on from a checkpoint once nothing of it had been there",
        ),
    ],
)  # fmt: skip
def test_it_ends_as_if_nothing_had_been_let_go_of(
    tmp_path: Path, samples: _Lines, reports: _Lines, leases: _Lines, summed: int, found: int
) -> None:
    lines = {"gpu.prom": [*samples, *_OTHER], "told.jsonl": reports, "leases.jsonl": [*leases, _OTHER_LEASE]}
    for name, some in lines.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for _, line in sorted(some)))
    (tmp_path / "job.yml").write_text(yaml.safe_dump(_JOB))
    job = load_job(str(tmp_path / "job.yml"), output=str(tmp_path / "out"))
    deliveries = _deliveries(job, lines)
    whole, _ = _ended(job, deliveries, lets_go=False)
    assert len(whole) == found
    assert _ended(job, deliveries) == (whole, summed)
    assert _ended(job, deliveries, restart=12 * _HOUR) == (whole, summed)


def _deliveries(job: Job, lines: Mapping[str, _Lines]) -> list[tuple[int, Delivery]]:
    """Return the lines of two hours of each file together, and leases one by one, as they come."""
    out = []
    for number, (name, some) in enumerate(lines.items()):
        format_ = FORMATS[job.sources[number].format]
        parse = format_.parser(job.sources[number].settings)
        each = 1 if format_.gives == "leases" else _BLOCK
        blocks: dict[int, list[str]] = {}
        for at, line in sorted(some):
            blocks.setdefault(at // each, []).append(line)
        for begin, (slot, block) in enumerate(sorted(blocks.items())):
            data = "".join(f"{line}\n" for line in block).encode()
            told = parse(Block(data, name, begin, None, number, np.full(len(block), begin))).events
            told = with_scope(told, job.sources[number])
            place = {"at": begin}, {"at": begin + 1}
            if format_.gives == "leases":
                one = Delivery(number, name, *place, None, told, begins=begin == 0)
            else:
                one = Delivery(number, name, *place, told.take(pa.array(may_matter_named(told))), begins=begin == 0)
            out.append((slot * each + (each if each > 1 else 0), one))
    return sorted(out, key=lambda one: (one[0], -one[1].source, one[1].before["at"]))


def _ended(
    job: Job, deliveries: Sequence[tuple[int, Delivery]], *, lets_go: bool = True, restart: int | None = None
) -> tuple[dict[str, Any], int]:
    """Return the findings that a stream leaves, and of how many there are sums."""
    kept, desk = _Kept(), Desk(_terms(job))
    for number, (at, one) in enumerate(deliveries):
        if restart is not None and at > restart:
            desk, restart = _again(job, desk, kept, deliveries[:number]), None
        desk.deliver(one)
        if lets_go and one.source == 0:  # samples come behind the reports of the same time
            kept.hear(desk.evict((_BASE + at - 15 * _MINUTE) * 1_000_000))
    kept.hear(desk.judge())
    assert desk.late() == []
    sums = desk._book.sums.findings  # noqa: SLF001 - nobody else asks
    return _without_place(kept.findings), sums.num_rows


def _again(job: Job, desk: Desk, kept: _Kept, before: Sequence[tuple[int, Delivery]]) -> Desk:
    """Return a desk that goes on after a restart, to which all has come again that is needed."""
    kept.hear(desk.judge())
    safe_point, sums = desk.safe_point().to_json(), desk.sums()
    told = pa.array([json.dumps(one) for one in kept.findings.values()], pa.string())
    opening = Opening(
        _terms(job), safe_point, frozenset([2]), read_records(told, record("finding")), tuple(kept.incidents), sums
    )
    again, since = opening(), SafePoint.from_json(safe_point)
    for _, one in before:
        if one.leases is not None or one.before["at"] >= since.begins(one.source, one.part):
            again.deliver(one)
    assert not again.behind
    return again
