"""Spans, GPU counters and reports of steps of a simulated day: there or missing, as truth says."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from itertools import pairwise
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.simulate.simulated import Day, lines, parsed, whole_spans

from agenttrail.columns.secrets import scrub
from agenttrail.simulate import simulate

_UTIL = "DCGM_FI_DEV_GPU_UTIL"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Return a day of the usual size."""
    directory = tmp_path_factory.mktemp("day")
    truth = simulate(directory, seed=13)
    return Day(directory, truth, pq.read_table(directory / "truth" / "records.parquet").to_pylist())


@pytest.fixture(scope="module")
def told(day: Day) -> dict[str, list[dict[str, Any]]]:
    """Return the events of the telemetry by dataset, as the program's parsers read them."""
    names = ("event.start", "event.end", "event.action", "sandbox.id", "job.id", "trajectory.id", "metric.name",
             "metric.value", "gpu.id", "training.step", "gen_ai.tool.call.id")  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one, source in parsed(day):
        if source["path"].startswith(("otlp", "dcgm", "training")):
            known = [name for name in names if name in one.events.schema.names]
            columns = [one.events.column(name).to_pylist() for name in known]
            found[source["format"]] += [dict(zip(known, row, strict=True)) for row in zip(*columns, strict=True)]
    return found


def _at(text: str | None, day: Day) -> float:
    return datetime.fromisoformat(text or day.truth.end).timestamp()


def _by_pod(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["sandbox.id"]].append(row)
    return found


def test_telemetry_comes_late_twice_and_broken(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    for dataset, rows in told.items():
        counts = day.truth.records[dataset]
        assert min(counts[kind] for kind in ("duplicates", "broken", "blank")) >= 3
        assert counts["telemetry"] > 50 * counts["broken"]
        starts = [row["event.start"] for row in rows]
        assert sum((before - after).total_seconds() > 20 for before, after in pairwise(starts)) > 3


def test_a_third_of_the_sandboxes_have_gpus_and_stay_longer(day: Day) -> None:
    with_gpus = [one for one in day.truth.sandboxes if one["gpus"]]
    assert 0.2 < len(with_gpus) / len(day.truth.sandboxes) < 0.47
    assert {one["gpus"] for one in with_gpus} <= set(range(1, 9))
    for one in day.truth.sandboxes:
        if one["end"]:
            stay = _at(one["end"], day) - _at(one["start"], day)
            assert 1_200 <= stay <= 7_200 if one["gpus"] else 180 <= stay <= 2_400


def test_what_is_missing_is_missing_and_nothing_else(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    found = {
        "spans": _by_pod(told["otlp_spans"]), "gpu": _by_pod(told["dcgm_prometheus"]),
        "steps": _by_pod(told["training_progress"]),
    }  # fmt: skip
    missing = Counter(kind for one in day.truth.sandboxes for kind in one["missing"])
    assert missing["spans"] >= 5
    assert missing["gpu"] >= 1
    assert missing["steps"] >= 1
    for one in day.truth.sandboxes:
        if (
            min(_at(one["end"], day), _at(day.truth.end, day)) - max(_at(one["start"], day), _at(day.truth.start, day))
            < 90
        ):
            continue
        for kind, by_pod in found.items():
            expected = kind not in one["missing"] and (kind == "spans" or one["gpus"] > 0)
            assert (one["sandbox.id"] in by_pod) == expected, (kind, one)


def test_trajectories_are_known_through_labels_or_spans(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    """About a quarter of the pods carry no label of their episode; the span of the trajectory outlasts them."""
    spans = {one["trajectory.id"]: one for one in told["otlp_spans"] if one["event.action"] == "trajectory"}
    labelled = {}
    for path in day.directory.glob("k8s/*.json"):
        for pod in orjson.loads(path.read_bytes())["items"]:
            labelled[pod["metadata"]["name"]] = "sandbox.example.org/episode-id" in pod["metadata"]["labels"]
    bare = 0
    for one in day.truth.sandboxes:
        span = spans.get(one["trajectory.id"])
        assert labelled[one["sandbox.id"]] or span, one
        bare += not labelled[one["sandbox.id"]]
        if span:
            assert span["sandbox.id"] == one["sandbox.id"]
            assert span["event.start"].timestamp() < _at(one["start"], day)
            assert not one["end"] or span["event.end"].timestamp() > _at(one["end"], day)
    assert 0.15 < bare / len(day.truth.sandboxes) < 0.35


def test_tool_calls_of_a_sandbox_follow_one_another(told: dict[str, list[dict[str, Any]]]) -> None:
    calls = [one for one in told["otlp_spans"] if one["event.action"] == "execute_tool"]
    for rows in _by_pod(calls).values():
        spans = sorted({(one["event.start"], one["event.end"], one["gen_ai.tool.call.id"]) for one in rows})
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert len(calls) > 3_000


def test_calls_that_look_worse_than_they_are_come_about(day: Day) -> None:
    """In clean sandboxes; what tells there is nothing that a miner or a tunnel says."""
    guilty = {one["sandbox.id"] for one in day.truth.behaviours}
    clean = [
        str(span["said"].get("gen_ai.tool.call.arguments"))
        for _, spans in whole_spans(day)
        for span in spans
        if span["pod"] not in guilty
    ]
    text = "\n".join(clean)
    for words in ("grep -rn stratum src/", "cat ssh-notes.md", "man ssh", "git log --grep=xmrig", "ssh -L"):
        assert words in text
    assert "stratum+" not in text
    assert "ssh -fN -R" not in text


def test_secrets_are_in_the_spans_and_the_scrubber_knows_their_shapes(day: Day) -> None:
    raw = [line for line, _ in whole_spans(day)]
    assert len(day.truth.secrets) >= 20
    assert len(set(day.truth.secrets)) == len(day.truth.secrets)
    together = b"\n".join(raw)
    assert all(secret.encode() in together for secret in day.truth.secrets)
    cleaned = "\n".join(scrub(pa.array([line.decode() for line in raw])).to_pylist())
    assert [secret for secret in day.truth.secrets if secret in cleaned] == []


def test_gpus_stay_at_an_address_and_some_stand_under_their_exporter(
    day: Day, told: dict[str, list[dict[str, Any]]]
) -> None:
    text = b"\n".join(line for place, line in lines(day).items() if place[0].startswith("dcgm"))
    assert b'exported_pod="sandbox-' in text
    assert b',pod="sandbox-' in text
    assert b" 9223372036854775794 " in text
    users = defaultdict(set)
    for one in told["dcgm_prometheus"]:
        assert one["sandbox.id"].startswith(("sandbox-", "shell-", "web-", "build-", "notebook-"))
        users[one["gpu.id"]].add(one["sandbox.id"])
    assert max(map(len, users.values())) > 1


def test_diverted_gpus_are_hot_and_no_step_is_made(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    """From seconds after the login to the end; before or after it the sandbox trains."""
    samples, reports = _by_pod(told["dcgm_prometheus"]), _by_pod(told["training_progress"])
    diversions = [one for one in day.truth.behaviours if one["kind"] == "gpu_diversion"]
    assert diversions
    for one in diversions:
        start, end = _at(one["start"], day) + 9, _at(one["end"], day) - 1
        hot = [
            row for row in samples[one["sandbox.id"]]
            if row["metric.name"] == _UTIL and start <= row["event.start"].timestamp() <= end
        ]  # fmt: skip
        gpus = next(row["gpus"] for row in day.truth.sandboxes if row["sandbox.id"] == one["sandbox.id"])
        assert min(row["metric.value"] for row in hot) >= 80
        assert len({row["gpu.id"] for row in hot}) == gpus
        assert len({row["event.start"] for row in hot}) >= (end - start) / 31 - 1
        rows = sorted((row["event.start"].timestamp(), row["training.step"]) for row in reports[one["sandbox.id"]])
        within = [step for at, step in rows if start - 9 <= at <= end]
        assert len(set(within)) == 1
        assert len(within) >= (end - start) / 91
        assert rows[-1][0] > end - 95


def test_clean_sandboxes_train_evaluate_and_idle(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    """There are minutes of hot GPUs with steps and without, and of cold ones; heartbeats go on all the time."""
    guilty = {one["sandbox.id"] for one in day.truth.behaviours}
    samples, reports = _by_pod(told["dcgm_prometheus"]), _by_pod(told["training_progress"])
    seen: Counter[tuple[bool, bool]] = Counter()
    for pod in reports.keys() & samples.keys() - guilty:
        if not pod.startswith("sandbox-"):
            continue
        uses = defaultdict(list)
        for row in samples[pod]:
            if row["metric.name"] == _UTIL:
                uses[int(row["event.start"].timestamp() // 60)].append(row["metric.value"])
        rows = sorted({(row["event.start"].timestamp(), row["training.step"]) for row in reports[pod]})
        assert max((after[0] - before[0] for before, after in pairwise(rows)), default=0) < 95
        stepped = {int(after[0] // 60) for before, after in pairwise(rows) if after[1] > before[1]}
        for minute, values in uses.items():
            seen[sum(values) / len(values) >= 60, minute in stepped] += 1
    assert seen[True, True] > 500
    assert seen[True, False] > 100
    assert seen[False, False] > 100


def test_trainers_step_restart_and_say_so_twice(day: Day, told: dict[str, list[dict[str, Any]]]) -> None:
    """Steps go back now and then, each is a span, too, and a job reports under a pod or none."""
    streams = defaultdict(list)
    for row in told["training_progress"]:
        if row["job.id"]:
            streams[row["job.id"], row["sandbox.id"]].append((row["event.start"], row["training.step"]))
    assert len(streams) >= 2
    back = 0
    for rows in streams.values():
        ordered = [step for _, step in sorted(rows)]
        back += any(after < before for before, after in pairwise(ordered))
        assert len(set(ordered)) > 100
    spans = {
        (row["sandbox.id"], row["training.step"])
        for row in told["otlp_spans"]
        if row["event.action"] == "pipeline_step"
    }
    steps = {step for rows in streams.values() for _, step in rows}
    assert len(spans) > 300
    assert {step for _, step in spans} <= steps
    assert back >= 1
    assert not any(_at(day.truth.end, day) < row["event.start"].timestamp() for row in told["training_progress"])
