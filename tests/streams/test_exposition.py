"""The metrics of a stream, as Prometheus reads them."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from agenttrail.accounting import EVICTED, Account
from agenttrail.cli import main
from agenttrail.job_files import Job, load_job
from agenttrail.streams.exposition import EndpointError, Exposition, served
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = 'h0stile"} 1\nx{a="\x1b'
JOB = """\
name: day
events:
  - {format: aws_vpc_flow, path: "a/*.log"}
  - {format: alibaba_vpc_flow, path: "b/*.jsonl"}
leases:
  - {format: kubernetes_pods, path: pods.json}
output: {directory: out}
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Return a job, before anything of it runs."""
    (tmp_path / "pods.json").write_text("[]")
    (tmp_path / "job.yml").write_text(JOB)
    TALLY.begin([], [])
    HALT.begin()
    return load_job(tmp_path / "job.yml", streaming=True)


def _page(job: Job) -> str:
    registry = CollectorRegistry()
    registry.register(Exposition(job))
    page: bytes = generate_latest(registry)  # type: ignore[no-untyped-call] # not annotated
    return page.decode()


def _samples(job: Job) -> dict[str, dict[tuple[str, ...], float]]:
    """Return what the strict parser reads of the metrics: values by name and by the values of its labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(_page(job)):  # type: ignore[no-untyped-call] # not annotated
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_counts_of_sources_go_by_number_and_format(job: Job) -> None:
    TALLY.add(Account.of(0, lines=7, dead=2, events=5, late=1))
    TALLY.add(Account.of(1, lines=4, skipped=1, may_matter=2))
    TALLY.add(Account.of(2, leases=3, bytes=90))
    found = _samples(job)
    rows = [("0", "aws_vpc_flow"), ("1", "alibaba_vpc_flow"), ("2", "kubernetes_pods")]
    for name, values in {
        "lines": [7, 4, 0], "dead_lines": [2, 0, 0], "events": [5, 0, 0], "late_events": [1, 0, 0],
        "skipped_lines": [0, 1, 0], "kept_events": [0, 2, 0], "leases": [0, 0, 3], "read_bytes": [0, 0, 90],
    }.items():  # fmt: skip
        counted = {frozenset(labels): value for labels, value in found[f"agenttrail_{name}_total"].items()}
        assert counted == {frozenset(row): value for row, value in zip(rows, values, strict=True)}, name


def test_the_state_of_a_stream_is_told(job: Job) -> None:
    assert _samples(job)["agenttrail_watermark_lag_seconds"] == {}
    TALLY.begin(["a", "b"], ["c"])
    TALLY.rows, TALLY.passed, TALLY.written, TALLY.retries = 12, 1_000_000, 2_500_000, 4
    TALLY.add_letters("late", 3)
    TALLY.add(Account(besides=Counter({EVICTED: 9}), written=Counter({("findings", "created"): 6})))
    HALT.ask()
    found = _samples(job)
    HALT.begin()
    told = {
        "rows_held": 12, "findings": 2, "incidents": 1, "last_written_timestamp_seconds": 2.5, "draining": 1,
        "caught_up": 0, "evicted_rows_total": 9, "elasticsearch_retries_total": 4,
    }  # fmt: skip
    assert {name: found[f"agenttrail_{name}"][()] for name in told} == told
    assert found["agenttrail_watermark_lag_seconds"][()] > 1e9
    assert found["agenttrail_dead_letters_total"] == {("elasticsearch",): 0, ("late",): 3, ("parse",): 0, ("read",): 0}
    assert found["agenttrail_elasticsearch_documents_total"] == {("findings", "created"): 6}
    TALLY.read_up |= {0, 1, 2}
    assert _samples(job)["agenttrail_caught_up"][()] == 1


def test_hits_are_of_the_rules_of_the_job_alone(job: Job) -> None:
    """Each that runs is there from the beginning; one that is off is not."""
    off = [rule.id for rule in job.rules if rule.off]
    on = [rule.id for rule in job.rules if not rule.off] + [one.id for one in job.correlations if not one.off]
    assert off
    TALLY.add(Account(hits=Counter({on[0]: 2, HOSTILE: 5})))
    hits = _samples(job)["agenttrail_rule_hits_total"]
    counted = {rule: value for labels, value in hits.items() for rule in labels if rule in {*on, *off}}
    assert counted == dict.fromkeys(on, 0) | {on[0]: 2}
    assert len(hits) == len(on)


def test_what_stands_in_logs_is_no_label(job: Job) -> None:
    hostile = Counter({HOSTILE: 5})
    TALLY.add(Account(unknown_scopes=hostile, coverage=hostile, hits=hostile))
    TALLY.add_letters(HOSTILE, 1)
    assert "h0stile" not in _page(job)


def test_metrics_are_served_until_the_end(job: Job) -> None:
    """With those of the process, as text and as OpenMetrics."""
    with served(job, "127.0.0.1", 0) as (address, port):
        url = f"http://{address}:{port}/metrics"
        with urlopen(url, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = answer.read().decode()
        asked = Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert 'agenttrail_run_info{job="day"' in text
    assert "\nprocess_resident_memory_bytes " in text
    with socket.create_server((address, port)):
        pass


def test_a_port_in_use_is_refused_before_anything_begins(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(job.path).parent)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["run", job.path, "--streaming", "--metrics-port", str(port)]) == 1
    told = f"metrics cannot be served at 127.0.0.1 port {port}: Address already in use; name another --metrics-port"
    assert told in capsys.readouterr().err
    assert not Path(str(job.directory)).exists()


@pytest.mark.parametrize("address", ["192.0.2.1", "no such host", "nowhere.invalid"])
def test_an_address_that_is_not_of_this_machine_is_refused(job: Job, address: str) -> None:
    with pytest.raises(EndpointError, match=f"metrics cannot be served at {address} port 0: "), served(job, address, 0):
        pass


def test_the_readme_explains_every_metric(job: Job) -> None:
    """And no other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(agenttrail_\w+)`(?: by ([\w, `]+))? \|", text, re.MULTILINE)
    explained = {name: tuple(re.findall(r"\w+", labels)) for name, labels in rows}
    TALLY.add(Account(written=Counter({("findings", "created"): 6}), seconds=Counter({"parse": 1.0})))
    TALLY.add(Account(whose=Counter({("attributed", "sandbox"): 1})))
    there = {}
    for family in Exposition(job).collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        there[name] = tuple(family.samples[0].labels) if family.samples else ()
    assert explained == there
