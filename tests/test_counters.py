"""What a batch run counts, as the runner tells it."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from agenttrail import jobs
from agenttrail.counters import NAMESPACE
from agenttrail.job_files import load_job
from agenttrail.simulate import simulate
from agenttrail.sinks import files as sink

if TYPE_CHECKING:
    from pathlib import Path


class Run(NamedTuple):
    """What a run says of itself: its metrics by name, and the files of its output directory."""

    counted: Counter[str]
    summary: dict[str, Any]
    findings: list[dict[str, Any]]
    letters: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the job of a simulated day on the in-process runner."""
    folder = tmp_path_factory.mktemp("counters") / "day"
    simulate(folder, agents=2, hours=1, seed=5)
    job = load_job(folder / "job.yml", output=str(folder / "out"))
    sink.prepare(str(job.directory), events=False)
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    jobs.build(pipeline, job, jobs.RunOptions())
    result = pipeline.run()
    result.wait_until_finish()
    counted: Counter[str] = Counter()
    for metric in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        counted[metric.key.metric.name] += metric.committed
    summary = json.loads((folder / "out" / "run.json").read_text())
    return Run(counted, summary, *(_lines(folder / "out" / f"{name}.ndjson") for name in ("findings", "dead_letters")))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_counters_are_the_books_of_the_run(run: Run) -> None:
    """Events by attribution status among them."""
    total = run.summary["total"]
    assert {name: run.counted[name] for name in total} == total
    assert min(total[name] for name in ("lines", "events", "dead", "attributed", "ambiguous", "unattributed")) > 0


def test_a_rule_hits_as_often_as_it_has_findings(run: Run) -> None:
    hits = _below(run.counted, "rule_hits.")
    assert hits == Counter(finding["rule.id"] for finding in run.findings)
    assert len(hits) > 3


def test_findings_are_counted_by_whose_they_are(run: Run) -> None:
    whose = [(one.get("attribution.status"), one.get("attribution.level")) for one in run.findings]
    assert _below(run.counted, "findings.") == Counter(".".join(filter(None, one)) for one in whose)


def test_dead_letters_are_counted_by_stage(run: Run) -> None:
    assert _below(run.counted, "dead_letters.") == Counter(letter["error.stage"] for letter in run.letters)
    assert run.letters


def _below(counted: Counter[str], prefix: str) -> Counter[str]:
    return Counter({name.removeprefix(prefix): count for name, count in counted.items() if name.startswith(prefix)})
