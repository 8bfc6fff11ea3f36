"""What a stream tells while it runs: metrics to whoever asks, and a line for whatever comes about."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.streams.arrivals import Wire, over_the_wire
from tests.streams.kills import Day, Stage

from agenttrail.simulate import simulate
from agenttrail.streams.exposition import OF_SOURCES

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.kafka import Kafka

HOSTILE = b'h0stile"} 1\nagenttrail_lines_total{source="h0stile"} \x1b]0;h0stile\x07'
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LAG: tuple[str, tuple[tuple[str, str], ...]] = ("agenttrail_watermark_lag_seconds", ())
FIRST_WORDS = "WARNING:root:apitools not found"
"""What Beam says when it is imported before there is a command line, as it is for these tests alone."""


@dataclass
class Ran:
    """A stream that ran until it was told to end.

    Attributes:
        scrapes: what its metrics were, one after the other.
        pages: the same as they came.
        lines: that it wrote to standard error.
        summary: its run.json.
        url: where the metrics were.
        status: that it returned.
        letters: stages of its dead letters.
    """

    scrapes: list[Samples] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    status: int = -1
    letters: list[str] = field(default_factory=list)

    @property
    def told(self) -> list[dict[str, Any]]:
        """Return the lines as objects."""
        return [json.loads(line) for line in self.lines if not line.startswith(FIRST_WORDS)]

    def events(self, scrape: int = -1) -> float:
        """Return how many events had been read at the time of a scrape."""
        samples = self.scrapes[scrape].items()
        return sum(value for (name, _), value in samples if name == "agenttrail_events_total")

    def scrape(self) -> Samples:
        """Ask for the metrics."""
        with urlopen(self.url, timeout=10) as answer:  # noqa: S310 - of our own process
            self.pages.append(answer.read().decode())
        families = text_string_to_metric_families(self.pages[-1])
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }
        self.scrapes.append(samples)
        return samples


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)  # noqa: PERF402 - each is looked at when it comes


def _wait(true: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _follow(ran: Ran, process: subprocess.Popen[str], more: Callable[[], None]) -> None:
    """Ask for the metrics until everything was read and judged, and ``more`` came; then let the stream end."""
    _wait(lambda: any("metrics_served" in line for line in ran.lines), process)
    ran.url = next(one for one in ran.told if one["event"] == "metrics_served")["url"]
    _wait(lambda: ran.scrape()["agenttrail_caught_up", ()] == 1, process)
    _wait(lambda: ran.scrape()["agenttrail_findings", ()] > 0, process)
    more()
    _wait(lambda: LAG in ran.scrape(), process)
    _wait(lambda: ran.scrape() and ran.events() == ran.events(-2), process)
    process.send_signal(signal.SIGTERM)
    with suppress(OSError):
        while ran.scrape()["agenttrail_draining", ()] == 0:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, kafka: Kafka, prism: Path) -> Ran:  # noqa: ARG001 - it must be there
    """Return what a stream told in which everything came about, hostile lines among what it read."""
    folder, found = tmp_path_factory.mktemp("tells"), Ran()
    simulate(folder / "day", agents=2, hours=2, seed=12)
    wire = over_the_wire(folder / "day", 12)
    first, rest = wire.lines[: len(wire.lines) // 2], wire.lines[len(wire.lines) // 2 :]
    stage = Stage(Day(folder / "day", Wire(first, wire.headers), {}, {}), folder, kafka, None, "stage")
    job = yaml.safe_load((stage.folder / "job.yml").read_text())
    topics = [entry["kafka"]["topic"] for entry in (*job["events"], *job["leases"])]
    for topic in topics[: len(job["events"])]:
        kafka.produce(topic, [HOSTILE], 1)

    def more() -> None:
        for number, topic in enumerate(topics):
            kafka.produce(topic, [line.data for line in rest if line.source == number])

    with stage.start("--metrics-port", "0", "--log-format", "json") as process:
        assert process.stderr is not None
        reading = threading.Thread(target=_read, args=(process.stderr, found.lines))
        reading.start()
        try:
            _follow(found, process, more)
            found.status = process.wait(timeout=60)
        finally:
            if found.status == -1:
                process.terminate()
            reading.join()
    out = stage.folder / "out"
    found.summary = json.loads((out / "run.json").read_text())
    letters = (out / "dead_letters.ndjson").read_text().splitlines()
    found.letters = [json.loads(line)["error.stage"] for line in letters]
    return found


def test_what_is_counted_grows_while_a_stream_runs(ran: Ran) -> None:
    assert ran.status == 0
    for name in [key for key in ran.scrapes[-1] if key[0].endswith("_total")]:
        counted = [samples.get(name, 0.0) for samples in ran.scrapes]
        assert counted == sorted(counted), name
    events = {ran.events(number) for number in range(len(ran.scrapes))}
    up = next(number for number, samples in enumerate(ran.scrapes) if samples["agenttrail_caught_up", ()])
    assert len(events) > 2
    assert ran.events(up) < ran.events()
    assert [samples["agenttrail_draining", ()] for samples in (ran.scrapes[0], ran.scrapes[-1])] == [0, 1]


def test_in_the_end_it_is_what_the_books_say(ran: Ran) -> None:
    last = ran.scrapes[-1]
    for number, books in enumerate(ran.summary["sources"]):
        labels = ("format", books["format"]), ("source", str(number))
        counted = {what: last[f"agenttrail_{name}_total", labels] for what, (name, _) in OF_SOURCES.items()}
        assert counted == {what: books.get(what, 0) for what in OF_SOURCES}
    assert ran.summary["total"]["late"] > 10
    stages = {key[1][0][1]: value for key, value in last.items() if key[0] == "agenttrail_dead_letters_total"}
    assert {stage: count for stage, count in stages.items() if count} == Counter(ran.letters)
    assert set(ran.letters) == {"parse", "late"}


def test_every_finding_is_a_hit_of_its_rule_once(ran: Ran) -> None:
    last = ran.scrapes[-1]
    hits = sum(value for key, value in last.items() if key[0] == "agenttrail_rule_hits_total")
    whose = sum(value for key, value in last.items() if key[0] == "agenttrail_attributions_total")
    assert hits == whose >= last["agenttrail_findings", ()] > 5
    assert last["agenttrail_attributions_total", (("level", "trajectory"), ("status", "attributed"))] > 5
    assert last["agenttrail_incidents", ()] > 0
    assert abs(last["agenttrail_last_written_timestamp_seconds", ()] - time.time()) < 600


def test_what_logs_hold_is_in_no_metric_and_in_no_line(ran: Ran) -> None:
    assert ran.summary["total"]["dead"] >= 8
    assert not [page for page in ran.pages if "h0stile" in page]
    assert not [line for line in ran.lines if "h0stile" in line]


def test_every_line_on_standard_error_is_an_object_that_says_when(ran: Ran) -> None:
    events = [one["event"] for one in ran.told]
    assert [one for one in events if one != "progress"] == [
        "metrics_served", "started", "caught_up", "draining", "ended",
    ]  # fmt: skip
    times = [datetime.fromisoformat(one["timestamp"]) for one in ran.told]
    assert times == sorted(times)
    assert {time.utcoffset() for time in times} == {timedelta(0)}
    assert {one["level"] for one in ran.told} == {"info"}


def test_the_lines_say_what_ran_and_how_it_ended(ran: Ran) -> None:
    told = {one["event"]: one for one in ran.told}
    assert told["started"]["runner"] == "PrismRunner"
    assert told["started"]["safe_point"] is None
    assert told["started"]["sources"] == [source["format"] for source in ran.summary["sources"]]
    assert 0 < told["caught_up"]["lines"] < told["draining"]["lines"] == ran.summary["total"]["lines"]
    assert told["draining"]["watermark_lag_seconds"] > 0
    for name in ("findings", "incidents", "rows_held", "total"):
        assert told["ended"][name] == ran.summary[name]


def test_the_watermark_is_that_of_the_lines(ran: Ran) -> None:
    passed = datetime.fromtimestamp(time.time() - ran.scrapes[-1][LAG], UTC)
    assert datetime(2026, 3, 1, 23, tzinfo=UTC) < passed < datetime(2026, 3, 2, 3, tzinfo=UTC)


def test_metrics_end_with_the_run(ran: Ran) -> None:
    with pytest.raises(URLError):
        ran.scrape()
