"""Consecutive runs over parts of a day leave what one run over the day leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import orjson
import pyarrow.parquet as pq
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from tests.scenarios.days import events_of, lines_of, with_events
from tests.scenarios.mornings import DAY, EVENTS, JOB, POOL, THIRDS, flow_of, pod_of, time_of, write_longer_morning

from agenttrail.errors import AgentTrailError
from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, build, run
from agenttrail.seams import Span
from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


def test_timelines_of_all_entities_add_up_over_thirds_as_well(morning: Path, tmp_path: Path) -> None:
    """Those of incidents are what they are without; so is everything else."""
    text = morning.read_text()
    every = morning.with_name("every.yml")
    every.write_text(text.replace("output: {", "output: {timeline: all, "))
    assert every.read_text() != text
    bounds = list(map(_of_morning, THIRDS))
    _run(every, tmp_path / "whole", bounds[0], bounds[-1])
    for part in pairwise(bounds):
        _run(every, tmp_path / "out", *part)
    _run(morning, tmp_path / "few", bounds[0], bounds[-1])
    whole, few = _left(tmp_path / "whole"), _left(tmp_path / "few")
    assert _differences(whole, _left(tmp_path / "out")) == {}
    assert _differences(whole | {"timeline": []}, few | {"timeline": []}) == {}
    with_incident = {orjson.loads(line)["incident.id"] for line in few["incidents"]}
    told = [(orjson.loads(entry)["incident.id"], entry) for entry in whole["timeline"]]
    assert sorted(entry for incident, entry in told if incident in with_incident) == few["timeline"]
    others = {orjson.loads(entry)["sandbox.id"] for incident, entry in told if incident not in with_incident}
    assert len(others) > 1


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


# -- correlations over more than one pod

_WIDE = """\
title: Anybody towards a peer
id: 11111111-1111-4111-8111-111111111111
name: anybody
status: test
level: informational
description: A connection.
logsource: {product: agenttrail, category: network}
detection:
  out: {network.initiator: workload, peer.port: 4444}
  condition: out
falsepositives: [none]
recommendation: Look.
tests:
  - {name: a, match: true, event: {network.initiator: workload, peer.port: 4444}}
  - {name: b, match: false, event: {network.initiator: peer, peer.port: 4444}}
---
title: Again and again, by whom ever
id: 22222222-2222-4222-8222-222222222222
status: test
level: medium
description: Two within ten minutes.
correlation:
  type: event_count
  rules: [anybody]
  group-by: [GROUP]
  timespan: 10m
  condition: {gte: 2}
falsepositives: [none]
recommendation: Look.
tests:
  - name: two
    match: true
    events:
      - {rule: anybody, event.start: 2026-03-02T00:00:00Z, GROUP: VALUE}
      - {rule: anybody, event.start: 2026-03-02T00:01:00Z, GROUP: VALUE}
  - name: one
    match: false
    events: [{rule: anybody, event.start: 2026-03-02T00:00:00Z, GROUP: VALUE}]
"""


def _relay(folder: Path, group_by: str, value: str, second: str) -> Path:
    """Write a job in which one pod is by turns with another, which ends, and then with a third one.

    Each of them alone is too rare for the correlation; together they go on for an hour.
    """
    pods = [pod_of("steady", "10.0.0.1"), pod_of("first", "10.0.0.2"), pod_of("second", "10.0.0.3")]
    pods[1]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = time_of(5_400)
    pods[2]["status"]["startTime"] = time_of(5_401)
    pods[2]["metadata"]["name"] = second
    (folder / "pods.json").write_text(json.dumps({"items": pods}))
    flows = [row for at in range(3_600, 7_200, 720) for row in flow_of("10.0.0.1", POOL, 4444, at, at + 1, 9, 9)]
    for at in range(3_960, 7_200, 720):
        flows += flow_of("10.0.0.2" if at < 5_400 else "10.0.0.3", POOL, 4444, at, at + 1, 9, 9)
    (folder / "flow.log").write_bytes(b"\n".join(flows) + b"\n")
    (folder / "rules").mkdir()
    (folder / "rules" / "wide.yml").write_text(_WIDE.replace("GROUP", group_by).replace("VALUE", value))
    job = JOB.format(events=EVENTS["flow"]).replace("output:", "rules: [./rules]\noutput:")
    (folder / "job.yml").write_text(job)
    return folder / "job.yml"


def test_what_goes_on_longer_than_anybody_looks_back_keeps_its_name(tmp_path: Path) -> None:
    """The first pod is out of view when the last run looks back; what its units held together is told as it was."""
    job = _relay(tmp_path, "peer.ip", POOL, "second")
    bounds = list(map(_of_morning, [0, 5_900, 6_400, 9_000]))
    _run(job, tmp_path / "whole", bounds[0], bounds[-1])
    whole = _by_id(tmp_path / "whole")
    assert sorted(one["entity.id"] for one in whole.values() if one["finding.severity"] == "medium") == [
        "first", "second", "steady",
    ]  # fmt: skip
    for part in [*pairwise(bounds), bounds[2:]]:
        _run(job, tmp_path / "out", *part)
    parts = _by_id(tmp_path / "out")
    assert parts.keys() == whole.keys()
    times = ("finding.first_seen", "finding.last_seen")
    assert [[one[name] for name in times] for one in parts.values()] == [
        [one[name] for name in times] for one in whole.values()
    ]
    incidents = [lines_of(tmp_path / name / "incidents.ndjson") for name in ("whole", "out")]
    assert [one["incident.id"] for one in incidents[0]] == [one["incident.id"] for one in incidents[1]]


def _by_id(out: Path) -> dict[str, dict[str, Any]]:
    return {one["finding.id"]: one for one in lines_of(out / "findings.ndjson")}


@pytest.mark.parametrize("seams", [[0, 5_900, 6_700, 9_000], [0, 4_000, 5_500, 6_100, 6_500, 9_000]])
def test_pods_of_one_name_are_looked_at_together_where_a_correlation_does(tmp_path: Path, seams: list[int]) -> None:
    """All pods are called by the names of their job or trajectory; here by one sandbox."""
    job = _relay(tmp_path, "sandbox.id", "steady", "first")
    pods = json.loads((tmp_path / "pods.json").read_text())
    for one in pods["items"]:
        one["metadata"]["name"] = "same"
    (tmp_path / "pods.json").write_text(json.dumps(pods))
    reports = [{"timestamp": DAY + at, "job_id": "job-1", "pod": "same", "step": at} for at in range(3_600, 7_300, 60)]
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, reports)) + "\n")
    job.write_text(job.read_text().replace(EVENTS["flow"], EVENTS["flow"] + "\n" + EVENTS["steps"]))
    bounds = list(map(_of_morning, seams))
    _run(job, tmp_path / "whole", bounds[0], bounds[-1])
    for part in pairwise(bounds):
        _run(job, tmp_path / "out", *part)
    assert len(lines_of(tmp_path / "whole" / "incidents.ndjson")) == 3
    entries = pq.read_table(tmp_path / "whole" / "timeline").to_pylist()
    steps = Counter(one["incident.id"] for one in entries if one["timeline.kind"] == "step")
    assert sorted(steps.values()) == [29, 30, 60]  # each those of its lifetime
    assert _differences(_left(tmp_path / "whole"), _left(tmp_path / "out")) == {}


# -- metadata that comes late


def test_what_is_known_of_an_address_later_takes_the_place_of_what_was_not(morning: Path, tmp_path: Path) -> None:
    """The first run knows no pods; the second tells of their addresses anew, and the first's word is gone."""
    folder = tmp_path / "job"
    folder.mkdir()
    for path in morning.parent.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    pods = (folder / "pods.json").read_text()
    (folder / "pods.json").write_text('{"items": []}')
    bounds = list(map(_of_morning, THIRDS))
    _run(folder / "job.yml", tmp_path / "out", *bounds[:2])
    assert "address" in {one["entity.type"] for one in _by_id(tmp_path / "out").values()}
    (folder / "pods.json").write_text(pods)
    for part in pairwise(bounds[1:]):
        _run(folder / "job.yml", tmp_path / "out", *part)
    _run(folder / "job.yml", tmp_path / "whole", bounds[0], bounds[-1])
    left, whole = _left(tmp_path / "out"), _left(tmp_path / "whole")
    del left["events"], whole["events"]  # those of the first third stay as they were attributed then
    assert _differences(whole, left) == {}


# -- what stands in the directory


def _broken(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def harm(out: Path) -> None:
        path = next(out.glob(name))
        path.write_bytes(change(path.read_bytes()))

    return harm


def _swapped(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([lines[1], lines[0], *lines[2:]])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_broken("findings.ndjson", lambda data: data[:-20]), "not valid JSON"),
        (_broken("findings.ndjson", lambda data: data + b"\n"), "not valid JSON"),
        (_broken("findings.ndjson", lambda data: b"[]\n" + data), ":1: not a finding: it is no JSON object"),
        (_broken("findings.ndjson", lambda data: b"\xff\n" + data), ":1: not valid JSON"),
        (
            _broken("findings.ndjson", lambda data: data.replace(b'"finding.severity":"', b'"finding.severity":"x')),
            ":1: not a finding: finding.severity is 'x",
        ),
        (
            _broken("findings.ndjson", lambda data: data.replace(b'"entity.anchor"', b'"no.anchor"')),
            ":1: not a finding: entity.anchor is missing",
        ),
        (
            _broken("findings.ndjson", lambda data: data.replace(b'"finding.last_seen":"2', b'"finding.last_seen":"x')),
            ":1: not a finding: finding.last_seen is not an RFC 3339 time",
        ),
        (_broken("findings.ndjson", _swapped), ":2: not as a run writes it"),
        (_broken("findings.ndjson", lambda data: data.splitlines(keepends=True)[0] + data), ":2: not as a run writes"),
        (_broken("incidents.ndjson", lambda data: data[:-20]), "incidents.ndjson"),
        (_broken("incidents.ndjson", _swapped), "incidents.ndjson:2: not as a run writes it"),
        (_broken("timeline/*.parquet", lambda data: data[:-9]), "not as a run writes it"),
        (_broken("events/*.parquet", lambda data: b"x" + data[:-9]), "not as a run writes it"),
        (_broken("run.json", lambda _: b"{}"), "does not say what the findings beside it cover"),
        (_broken("run.json", lambda _: b"[1]"), "does not say what the findings beside it cover"),
        (_broken("run.json", lambda data: data.replace(b'"covered": [', b'"covered": [5,')), "does not say what"),
        (_broken("run.json", lambda data: data[: data.index(b'"covered"')] + b'"covered": []}'), "does not say what"),
        (
            _broken(
                "run.json",
                lambda data: (
                    data[: data.index(b'"covered"')] + b'"covered": [["2026-03-02T02:00:00Z", "2026-03-02T01:00:00Z"]]}'
                ),
            ),
            "does not say what",
        ),
        (_broken("run.json", lambda data: data.replace(b"whole-story", b"another")), "holds what the job 'another'"),
        (lambda out: (out / "run.json").unlink(), "does not say what the findings beside it cover"),
    ],
)
def test_what_cannot_be_gone_on_with_is_told_and_left_alone(
    first_third: Path, morning: Path, tmp_path: Path, harm: Callable[[Path], None], told: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first_third, out)
    harm(out)
    before = _files(out)
    with pytest.raises(AgentTrailError) as raised:
        _run(morning, out, *map(_of_morning, THIRDS[1:3]))
    assert told in str(raised.value)
    assert str(out) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert _files(out) == before
    assert not (out / ".parts").exists()


@pytest.fixture(scope="module")
def first_third(morning: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a run over the first third of the morning left."""
    out = tmp_path_factory.mktemp("third") / "out"
    _run(morning, out, *map(_of_morning, THIRDS[:2]))
    return out


def test_rules_that_are_off_are_not_asked(morning: Path, tmp_path: Path) -> None:
    """What they found stays; only who looks may take it back."""
    first, second, _ = pairwise(map(_of_morning, THIRDS))
    _run(morning, tmp_path, *first)
    job = load_job(morning, output=str(tmp_path))
    off = tuple(replace(rule, off="not now") if "beacon" in rule.name else rule for rule in job.rules)
    run(replace(job, rules=off), RunOptions(start=second[0], stop=second[1]))
    assert [one["sandbox.id"] for one in _by_id(tmp_path).values() if "beacon" in one["rule.name"]] == ["fickle"]


def test_what_has_an_incident_keeps_its_timeline_when_its_rules_are_off(morning: Path, tmp_path: Path) -> None:
    """Nothing is found anew in the second part, and what was told of the first stays, and goes on."""
    first, second = pairwise(map(_of_morning, (0, 6_600, 9_000)))

    def kinds() -> Counter[str]:
        miner = next(one for one in lines_of(tmp_path / "incidents.ndjson") if one.get("sandbox.id") == "miner")
        entries = pq.read_table(tmp_path / "timeline").to_pylist()
        return Counter(one["timeline.kind"] for one in entries if one["incident.id"] == miner["incident.id"])

    _run(morning, tmp_path, *first)
    before = kinds()
    job = load_job(morning, output=str(tmp_path))
    off = tuple(replace(rule, off="not now") for rule in job.rules)
    none = tuple(replace(one, off="not now") for one in job.correlations)
    run(replace(job, rules=off, correlations=none), RunOptions(start=second[0], stop=second[1]))
    after = kinds()
    assert before["gpu"] > 40
    assert all(after[kind] >= count for kind, count in before.items())
    assert after["gpu"] > before["gpu"]


def test_a_correlation_that_stops_holding_is_taken_back(tmp_path: Path) -> None:
    """A thin conversation that ends with the GPUs at the seam, and goes on without them in the next part."""
    pod = pod_of("m", "10.0.0.1")
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = time_of(5 * 3_600)
    flows = [
        row for at in range(3_900, 4 * 3_600, 60) for row in flow_of("10.0.0.1", POOL, 443, at, at + 60, 900, 1_500)
    ]
    sample = 'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-m",pod="m",namespace="rl"}} {0} {1}'
    gpus = [
        sample.format(97 if 3_900 <= at < 6_300 else 2, (DAY + at) * 1_000).encode() for at in range(3_630, 17_990, 30)
    ]
    steps = [
        orjson.dumps({"job_id": "j", "timestamp": DAY + at, "pod": "m", "step": 7}) for at in range(3_600, 18_000, 60)
    ]
    for name, lines in (("flow.log", flows), ("spans.jsonl", []), ("gpus.prom", gpus), ("steps.jsonl", steps)):
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "pods.json").write_bytes(orjson.dumps({"items": [pod]}))
    (tmp_path / "job.yml").write_text(JOB.format(events="\n".join(EVENTS.values())))
    run(load_job(tmp_path / "job.yml", output=str(tmp_path / "whole")))
    _run(tmp_path / "job.yml", tmp_path / "parts", *map(_of_morning, (0, 6_600)))
    assert "impact/gpu-diversion" in {one["rule.name"] for one in _by_id(tmp_path / "parts").values()}
    for part in pairwise(map(_of_morning, (6_600, 10_800, 20_000))):
        _run(tmp_path / "job.yml", tmp_path / "parts", *part)
    assert _differences(_left(tmp_path / "whole"), _left(tmp_path / "parts")) == {}


def test_a_run_without_bounds_has_nothing_of_all_this_in_its_graph(morning: Path) -> None:
    """It costs nothing, and leaves what it always left."""

    class _Labels(PipelineVisitor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def visit_transform(self, node: AppliedPTransform) -> None:
            self.seen.add(node.full_label)

    graphs = []
    for span in (None, Span()):
        pipeline = beam.Pipeline()
        build(pipeline, load_job(morning), RunOptions(), span)
        labels = _Labels()
        pipeline.visit(labels)
        graphs.append(labels.seen)
    more = {"HearOf", "Settle", "ReadEarlier", "Say0", "Say1", "InSpan"}
    assert not {label.split("/")[0] for label in graphs[0]} & more
    assert {label.split("/")[0] for label in graphs[1]} >= more
