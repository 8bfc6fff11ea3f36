"""What a stream leaves is what the batch run on the same lines leaves, but for the places where evidence stood."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.sinks.documents import client_of, sources, tidy, until
from tests.streams.arrivals import (
    Wire,
    as_directories,
    as_files,
    as_topics,
    grow,
    last_versions,
    over_the_wire,
    without_places,
)

from agenttrail import jobs, streams
from agenttrail.halting import HALT
from agenttrail.job_files import load_job
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import setup
from agenttrail.sources.stream import Sizes
from agenttrail.tally import TALLY
from agenttrail.transforms.casework import Pacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server
    from tests.services.kafka import Kafka

SEED = 12
QUICK = Pacing(urgent=0.3, all=1.0, share=0.9, evict=2.0)
SMALL = Sizes(block_bytes=1 << 16)


@dataclass
class Day:
    """A day over the wire, and what a batch run of it leaves.

    Attributes:
        folder: where it was simulated.
        wire: how it comes.
        findings: that the batch run leaves.
        incidents: likewise.
    """

    folder: Path
    wire: Wire
    findings: dict[str, Any]
    incidents: dict[str, Any]

    @property
    def too_late(self) -> set[str]:
        """Return the lines that come later than is allowed."""
        return {line.data.decode() for line in self.wire.lines if line.too_late}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    simulate(folder, agents=2, hours=4, seed=SEED)
    wire = over_the_wire(folder, SEED)
    path = as_files(folder, wire, folder / "batch")
    out = folder / "out-batch"
    jobs.run(load_job(str(path), output=str(out)))
    day = Day(folder, wire, last_versions(out, "finding"), last_versions(out, "incident"))
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


def _check_files(out: Path, day: Day) -> None:
    assert last_versions(out, "finding") == day.findings
    assert last_versions(out, "incident") == day.incidents
    letters = [json.loads(line) for line in (out / "dead_letters.ndjson").read_text().splitlines()]
    assert {one["event.original"] for one in letters if one["error.stage"] == "late"} == day.too_late


def _check_indices(client: Elasticsearch, prefix: str, out: Path) -> None:
    """What Elasticsearch holds is what the files do."""
    for kind in ("finding", "incident"):
        lines = map(json.loads, (out / f"{kind}s.ndjson").read_text().splitlines())
        written = {one[f"{kind}.id"]: one for one in lines if not one.get("superseded")}
        held = sources(client, f"{prefix}-{kind}s")
        assert held.keys() == written.keys()
        wrong = [id_ for id_, one in written.items() if _plain(held[id_]) != _plain(one)]
        assert wrong == []


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in without_places(document).items() if not name.startswith("triage.")}


@pytest.mark.usefixtures("prism")
def test_topics_on_prism_into_elasticsearch(
    day: Day, kafka: Kafka, indices: tuple[Elasticsearch, dict[str, str]], tmp_path: Path
) -> None:
    client, elasticsearch = indices
    path = as_topics(day.folder, day.wire, tmp_path, kafka, SEED)
    path.write_text(path.read_text().replace("directory: out", f"directory: out\n  elasticsearch: {elasticsearch}"))
    job = load_job(path, streaming=True)
    options = streams.StreamOptions(to_end=True, pacing=QUICK, sizes=SMALL)
    summary = streams.run(job, job.streams, options)
    out = tmp_path / "out"
    _check_files(out, day)
    _check_indices(client, elasticsearch["prefix"], out)
    assert json.loads((out / "safe_point.json").read_text())["start"] is not None
    assert summary["findings"] == len(day.findings)
    assert summary["total"]["lines"] == len(day.wire.lines) + 2 * len(day.wire.headers)
    assert summary["total"]["late"] == sum(line.too_late for line in day.wire.lines)


def _read(events: int) -> int:
    """Return the lines of the first sources that were read."""
    return sum(TALLY.account.counts[source, "lines"] for source in range(events))


@pytest.mark.usefixtures("prism")
def test_files_that_grow_meanwhile_on_prism(day: Day, tmp_path: Path) -> None:
    path = as_directories(day.folder, day.wire, tmp_path)
    job = load_job(path, streaming=True)
    events = sum(type(stream).__name__ == "GrowingFiles" for stream in job.streams.values())

    def write() -> None:
        grow(day.wire, tmp_path, events, seconds=10)
        flows = [line for line in day.wire.lines if line.source < events]
        until(lambda: _read(events) >= len(flows))
        sleep(4)  # a document is looked at once a second, and read when it has been as it is for another
        HALT.ask()

    thread = threading.Thread(target=write)
    thread.start()
    streams.run(job, job.streams, streams.StreamOptions(pacing=QUICK, sizes=SMALL))
    thread.join()
    _check_files(tmp_path / "out", day)
