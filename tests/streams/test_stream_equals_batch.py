"""What a stream leaves is what the batch run on the same lines leaves, but for the places where evidence stood."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from apache_beam.runners.worker import sdk_worker
from tests.sinks.documents import client_of, tidy, until
from tests.streams.arrivals import as_directories, as_topics, grow
from tests.streams.kills import Day, day_of, in_elasticsearch
from tests.streams.quick import QUICK, SMALL

from agenttrail.job_files import load_job
from agenttrail.sinks.elasticsearch import setup
from agenttrail.streams import graph
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.beam_servers import BeamServer
    from tests.services.elasticsearch import Elasticsearch as Server
    from tests.services.kafka import Kafka

SEED = 12


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    day = day_of(tmp_path_factory.mktemp("day"), SEED)
    assert day.incidents
    assert day.too_late
    return day


@pytest.fixture
def indices(elasticsearch: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Elasticsearch, dict[str, str]]]:
    """Give a client and the settings of a job, for indices of the test's own."""
    prefix = f"t{uuid4().hex[:12]}"
    client = client_of(elasticsearch, monkeypatch)
    setup(client, prefix=prefix)
    yield client, {"url": elasticsearch.url, "prefix": prefix}
    tidy(client, prefix)


@pytest.mark.usefixtures("prism")
def test_topics_on_prism_into_elasticsearch(
    day: Day, kafka: Kafka, indices: tuple[Elasticsearch, dict[str, str]], tmp_path: Path, splits: list[str]
) -> None:
    assert _unlike(day, kafka, indices, tmp_path) == []
    assert splits == []


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the splits of bundles that a runner asks for: Prism miscounts those with timers."""
    asked: list[str] = []
    split = sdk_worker.SdkWorker.process_bundle_split

    def counted(worker: Any, request: Any, instruction_id: str) -> Any:
        asked.append(instruction_id)
        return split(worker, request, instruction_id)

    monkeypatch.setattr(sdk_worker.SdkWorker, "process_bundle_split", counted)
    return asked


def test_topics_on_flink_into_elasticsearch(
    day: Day, kafka: Kafka, indices: tuple[Elasticsearch, dict[str, str]], tmp_path: Path, flink: BeamServer
) -> None:
    """And it ends: Flink waits for whatever is set when its sources are through."""
    name = f"day-{uuid4().hex}"
    assert _unlike(day, kafka, indices, tmp_path, *flink.stream_options(name)) == []
    assert flink.states(name) == ["DONE"]


def _unlike(
    day: Day, kafka: Kafka, indices: tuple[Elasticsearch, dict[str, str]], folder: Path, *flags: str
) -> list[str]:
    """Run the day from topics; return what is not as a batch run leaves it."""
    client, elasticsearch = indices
    path = as_topics(day.folder, day.wire, folder, kafka, SEED)
    path.write_text(path.read_text().replace("directory: out", f"directory: out\n  elasticsearch: {elasticsearch}"))
    job = load_job(path, streaming=True)
    given_up = threading.Timer(240, HALT.fail, [TimeoutError("the stream did not end")])
    given_up.start()
    try:
        summary = graph.run(job, job.streams, graph.StreamOptions(to_end=True, pacing=QUICK, sizes=SMALL, flags=flags))
    finally:
        given_up.cancel()
    assert summary["findings"] == len(day.findings)
    assert summary["total"]["lines"] == len(day.wire.lines) + 2 * len(day.wire.headers)
    assert summary["total"]["late"] == sum(line.too_late for line in day.wire.lines)
    return [*day.unlike(folder / "out"), *in_elasticsearch(client, elasticsearch["prefix"], folder / "out")]


def _read(events: int) -> int:
    """Return the lines of the first sources that were read."""
    return sum(TALLY.account.counts[source, "lines"] for source in range(events))


@pytest.mark.usefixtures("prism")
def test_files_that_grow_meanwhile_on_prism(day: Day, tmp_path: Path) -> None:
    path = as_directories(day.folder, day.wire, tmp_path)
    job = load_job(path, streaming=True)
    events = sum(type(stream).__name__ == "GrowingFiles" for stream in job.streams.values())

    def write() -> None:
        try:
            grow(day.wire, tmp_path, events, seconds=10)
            flows = [line for line in day.wire.lines if line.source < events]
            until(lambda: _read(events) >= len(flows), 240)
            sleep(4)  # a document is looked at once a second, and read when it has been as it is for another
        finally:
            HALT.ask()  # also where what was written is never read, which the comparison tells

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        graph.run(job, job.streams, graph.StreamOptions(pacing=QUICK, sizes=SMALL))
        written.result()
    assert day.unlike(tmp_path / "out") == []
    # a list of pods names those that run now: a restart knows the others, too
    pods = list(tmp_path.glob("*/document.json"))
    for document in pods:
        first, *others = document.read_bytes().splitlines(keepends=True)
        assert others
        document.write_bytes(first)
    HALT.begin()
    graph.run(job, job.streams, graph.StreamOptions(to_end=True, pacing=QUICK, sizes=SMALL))
    assert day.unlike(tmp_path / "out") == []
