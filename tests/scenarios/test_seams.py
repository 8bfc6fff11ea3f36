"""Consecutive runs over parts of a day leave what one run over the day leaves."""

from __future__ import annotations

import hashlib
import stat
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest
from tests.scenarios.days import events_of, lines_of, with_events
from tests.scenarios.mornings import DAY, THIRDS, write_longer_morning

from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Job = tuple[Path, list[int]]

pytestmark = pytest.mark.xdist_group("seams")
_SECOND = 1_000_000


def _left(out: Path) -> dict[str, list[Any]]:
    """Return what runs left, but for how it is spread over files."""
    events, timeline = events_of(out), pq.read_table(out / "timeline")
    return {
        **{name: (out / f"{name}.ndjson").read_bytes().splitlines() for name in ("findings", "incidents")},
        "dead_letters": sorted((out / "dead_letters.ndjson").read_bytes().splitlines()),
        "events": sorted(orjson.dumps(row) for row in events.to_pylist()),
        "timeline": sorted(orjson.dumps(row) for row in timeline.to_pylist()),
    }


def _differences(one: dict[str, list[Any]], other: dict[str, list[Any]]) -> dict[str, Any]:
    """Return of each kind how many rows only one and only the other has, with examples."""
    told = {}
    for name, rows in one.items():
        mine, theirs = set(rows) - set(other[name]), set(other[name]) - set(rows)
        if mine or theirs or len(rows) != len(other[name]):
            told[name] = (len(mine), len(theirs), sorted(mine)[:2], sorted(theirs)[:2])
    return told


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*") if path.name != "run.json"}


def _run(job: Path, out: Path, start: int | None, stop: int | None) -> dict[str, Any]:
    run(load_job(job, output=str(out)), RunOptions(start=start, stop=stop))
    summary: dict[str, Any] = orjson.loads((out / "run.json").read_bytes())
    return summary


def _of_morning(second: int) -> int:
    return (DAY + second) * _SECOND


# -- a simulated day


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return the job of a simulated day that one run has been over, and the bounds of its thirds."""
    folder = tmp_path_factory.mktemp("day")
    seed = int.from_bytes(hashlib.sha256(b"agenttrail, seams").digest()[:4])
    simulate(folder, agents=12, hours=6.0, seed=seed)
    job = with_events(folder)
    run(load_job(job))
    times = [int(time.timestamp() * 1e6) for time in events_of(folder / "out").column("event.start").to_pylist()]
    first, last = min(times), max(times) + 1
    return job, [first, first + (last - first) // 3, first + (last - first) * 2 // 3, last]


def test_thirds_of_a_simulated_day_leave_what_one_run_leaves(day: Job, tmp_path: Path) -> None:
    """In one directory; what entities that live across a seam have is told anew."""
    job, bounds = day
    told = [_run(job, tmp_path / "out", *third) for third in pairwise(bounds)]
    whole = _left(job.parent / "out")
    assert _differences(whole, _left(tmp_path / "out")) == {}
    assert told[-1]["findings"] == len(whole["findings"])
    assert told[-1]["incidents"] == len(whole["incidents"])
    assert min(one["findings_of_earlier_runs"]["replaced"] for one in told[1:]) > 0
    assert sum(one["total"]["in_range"] for one in told) == len(whole["events"])


# -- a morning made by hand


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the job of a morning with a beacon that turns out to be none; one run has been over it."""
    job = write_longer_morning(tmp_path_factory.mktemp("morning"))
    run(load_job(job))
    return job


@pytest.mark.parametrize(
    "seams",
    [
        THIRDS,
        [-90_000, 0, 3_601, 3_900, 4_800, 5_399, 5_400, 7_100, 7_200, 9_000],
        [-90_000, 7_201, 9_000],
    ],
    ids=["thirds", "many", "end"],
)
def test_consecutive_runs_leave_what_one_run_leaves(morning: Path, tmp_path: Path, seams: list[int]) -> None:
    """Tool calls, GPUs, steps, conversations and days across the seams; the union in one directory."""
    bounds = list(map(_of_morning, seams))
    _run(morning, tmp_path / "whole", bounds[0], bounds[-1])
    told = [_run(morning, tmp_path / "out", *part) for part in pairwise(bounds)]
    whole = _left(tmp_path / "whole")
    assert min(map(len, whole.values())) > 0
    assert _differences(whole, _left(tmp_path / "out")) == {}
    assert stat.S_IMODE((tmp_path / "out" / "dead_letters.ndjson").stat().st_mode) == 0o600
    assert told[-1]["covered"] == [[_text(bounds[0]), _text(bounds[-1])]]
    assert (told[-1]["start"], told[-1]["end"]) == (_text(bounds[-2]), _text(bounds[-1]))
    assert told[-1]["findings"] == len(whole["findings"]) == sum(told[-1]["findings_by_severity"].values())
    assert told[-1]["incidents"] == len(whole["incidents"]) == sum(told[-1]["incidents_by_severity"].values())


def _text(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1e6, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def test_a_run_without_bounds_and_one_over_all_time_leave_the_same(morning: Path, tmp_path: Path) -> None:
    _run(morning, tmp_path, _of_morning(-90_000), None)
    assert _differences(_left(morning.parent / "out"), _left(tmp_path)) == {}


def test_a_finding_that_does_not_come_up_again_is_gone(morning: Path, tmp_path: Path) -> None:
    """Even connections are a beacon until uneven ones follow; its incident goes with it."""
    first, second, third = pairwise(map(_of_morning, THIRDS))
    _run(morning, tmp_path, *first)
    beacons = [one for one in lines_of(tmp_path / "findings.ndjson") if "beacon" in one["rule.name"]]
    assert [one["sandbox.id"] for one in beacons] == ["fickle"]
    incident = beacons[0]["incident.id"]
    assert incident in {one["incident.id"] for one in lines_of(tmp_path / "incidents.ndjson")}
    assert _run(morning, tmp_path, *second)["findings_of_earlier_runs"]["superseded"] == 1
    for name in ("findings", "incidents"):
        assert beacons[0]["finding.id"] not in (tmp_path / f"{name}.ndjson").read_text()
    assert incident not in {one["incident.id"] for one in lines_of(tmp_path / "incidents.ndjson")}
    assert incident not in pq.read_table(tmp_path / "timeline").column("incident.id").to_pylist()
    assert _run(morning, tmp_path, *third)["findings_of_earlier_runs"]["superseded"] == 0


def test_a_part_run_again_changes_nothing(morning: Path, tmp_path: Path) -> None:
    """Byte for byte: what was told of later times is read again with it."""
    bounds = list(map(_of_morning, THIRDS))
    for part in pairwise(bounds):
        _run(morning, tmp_path, *part)
    before = _files(tmp_path)
    told = _run(morning, tmp_path, *bounds[1:3])
    assert _files(tmp_path) == before
    assert told["findings_of_earlier_runs"]["added"] == told["findings_of_earlier_runs"]["superseded"] == 0
    assert told["covered"] == [[_text(bounds[0]), _text(bounds[-1])]]
    # of a run without bounds, too
    _run(morning, tmp_path / "unbounded", None, None)
    before = _files(tmp_path / "unbounded")
    assert _run(morning, tmp_path / "unbounded", *bounds[1:3])["covered"] == [[None, None]]
    assert _differences(_left(morning.parent / "out"), _left(tmp_path / "unbounded")) == {}


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1), (1, 0, 2)])
def test_the_order_of_runs_changes_nothing(morning: Path, tmp_path: Path, order: Sequence[int]) -> None:
    bounds = list(map(_of_morning, THIRDS))
    parts = list(pairwise(bounds))
    for place in order:
        _run(morning, tmp_path / "out", *parts[place])
    _run(morning, tmp_path / "whole", bounds[0], bounds[-1])
    assert _differences(_left(tmp_path / "whole"), _left(tmp_path / "out")) == {}


def test_runs_into_directories_of_their_own_add_up(morning: Path, tmp_path: Path) -> None:
    """Of one id the later finding counts, and nothing else is left but what turned out to be nothing.

    Each is told by the run in which its last event lies.
    """
    bounds = list(map(_of_morning, THIRDS))
    _run(morning, tmp_path / "whole", bounds[0], bounds[-1])
    whole = {one["finding.id"]: one for one in lines_of(tmp_path / "whole" / "findings.ndjson")}
    union: dict[str, dict[str, Any]] = {}
    for number, part in enumerate(pairwise(bounds)):
        told = _run(morning, tmp_path / str(number), *part)
        assert told["covered"] == [[_text(time) for time in part]]
        found = lines_of(tmp_path / str(number) / "findings.ndjson")
        last = [one["finding.last_seen"] for one in found]
        assert _text(part[0]) <= min(last)
        assert max(last) < _text(part[1])
        union |= {one["finding.id"]: one for one in found}
    assert [one["sandbox.id"] for id_, one in union.items() if id_ not in whole] == ["fickle"]
    assert {id_: one for id_, one in union.items() if id_ in whole} == whole


def test_what_starts_at_a_seam_is_the_later_runs(morning: Path, tmp_path: Path) -> None:
    """And nobody else's: times are half-open."""
    bounds = list(map(_of_morning, THIRDS))
    seam = datetime.fromtimestamp(DAY + THIRDS[1], UTC)
    for number, part in enumerate(pairwise(bounds[:3])):
        _run(morning, tmp_path / str(number), *part)
    before, after = (events_of(tmp_path / str(number)).column("event.start").to_pylist() for number in (0, 1))
    assert max(before) < seam
    assert min(after) == seam
    alone = [one for one in lines_of(tmp_path / "1" / "findings.ndjson") if one["entity.id"] == "10.0.0.9"]
    assert {one["event.count"] for one in alone} == {6}
