"""Whatever the order, the batching and the watermarks: within lateness a stream ends where the batch run does."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream as Script
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.streams.arrivals import as_files, last_versions, over_the_wire, without_places

from agenttrail import jobs
from agenttrail.accounting import DEAD
from agenttrail.columns.json_text import json_objects
from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.parsing import LATEST, Block
from agenttrail.simulate import simulate
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import Arrival
from agenttrail.streams.graph import terms_of
from agenttrail.transforms.casework import SAID, Casework, Opening, Pacing
from agenttrail.transforms.sifting import Sift

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from agenttrail.casebook.desk import Desk
    from agenttrail.casebook.ledger import Changes
    from agenttrail.job_files import Job

_SEED = 5
_FORMATS = ("alibaba_vpc_flow", "alibaba_cloud_firewall", "otlp_spans")
_MINUTE = 60_000_000
_KEEP = 10 * _MINUTE
_NEVER = 1e9  # seconds
_LATER = 2 * 10**9  # seconds since 1970: by then has come what is due soon, and what never is has not
_EXAMPLES = 75 if os.environ.get("HYPOTHESIS_PROFILE") == "acceptance" else 2
_AS_DRAWN = [Phase.explicit, Phase.reuse, Phase.generate]  # some seconds each: looking for a smaller one takes too long
_RUNS = count()
_SAID: dict[int, list[Any]] = {}
"""What was said, and the dead letters, by number of the example: its functions run in this process."""


@dataclass(frozen=True)
class Line:
    """A line of a day.

    Attributes:
        source: number of the job's source.
        data: with its line end.
        begin: when what it tells of began, in microseconds.
    """

    source: int
    data: bytes
    begin: int


@dataclass(frozen=True)
class SmallDay:
    """A few hundred lines, and what the batch run on them leaves."""

    job: Job
    lines: list[Line]
    findings: dict[str, Any]
    incidents: dict[str, Any]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDay]:
    """Give what happened to the sandboxes of a simulated hour that did something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agenttrail.casebook.book._LONGEST_RECORD", 0)  # the day is shorter
        day = _small_day(tmp_path_factory.mktemp("day"))
        assert len(day.incidents) > 1
        assert len({one["rule.name"] for one in day.findings.values()}) > 3
        yield day


def _small_day(folder: Path) -> SmallDay:
    simulate(folder, agents=1, hours=1, seed=_SEED)
    told = yaml.safe_load((folder / "job.yml").read_text())
    told["events"] = [entry for entry in told["events"] if entry["format"] in _FORMATS]
    (folder / "job.yml").write_text(yaml.safe_dump(told, sort_keys=False))
    wire = over_the_wire(folder, _SEED, beyond=0)
    marks = [f'"{address}"'.encode() for address in _guilty(folder)]
    flows = {number for number, entry in enumerate(told["events"]) if entry["format"] != "otlp_spans"}
    lines = [line for line in wire.lines if line.source not in flows or any(mark in line.data for mark in marks)]
    path = as_files(folder, replace(wire, lines=lines), folder / "batch")
    jobs.run(load_job(str(path), output=str(folder / "out")))
    job = load_job(str(path), output=str(folder / "unused"))
    all_lines = [one for number in range(len(job.sources)) for one in _begun(job, number, lines)]
    return SmallDay(job, all_lines, *(last_versions(folder / "out", kind) for kind in ("finding", "incident")))


def _guilty(folder: Path) -> set[str]:
    """Return the addresses of the pods whose agents did something."""
    sandboxes = json.loads((folder / "truth.json").read_text())["sandboxes"]
    wanted = {one["k8s.pod.uid"] for one in sandboxes if one["behaviour"]}
    pods = [pod for path in (folder / "k8s").glob("*.json") for pod in json.loads(path.read_text())["items"]]
    return {pod["status"]["podIP"] for pod in pods if pod["metadata"]["uid"] in wanted}


def _begun(job: Job, number: int, lines: list[Any]) -> Iterator[Line]:
    """Yield the lines of a source, with when each began; one that tells no time began at the beginning of time."""
    parse = FORMATS[job.sources[number].format].parser(job.sources[number].settings)
    for line in lines:
        if line.source == number:
            parsed = parse(Block(line.data + b"\n", "-", 0, None, number))
            batches = [batch for batch in (parsed.events, parsed.leases) if batch is not None]
            starts = [
                start
                for batch in batches
                for name in ("event.start", "lease.start")
                if name in batch.schema.names
                for start in batch.column(name).cast(pa.int64()).to_pylist()
            ]
            yield Line(number, line.data + b"\n", min((start or 0 for start in starts), default=0))


@dataclass(frozen=True)
class Piece:
    """A block on its way, and when the first of its lines began."""

    arrival: Arrival
    begin: int


def _pieces(dice: Random, lines: list[Line], disorder: int) -> list[Piece]:
    """Return lines as blocks of any size, of two parts a source, each part out of order by so much."""
    parts: dict[tuple[int, str], list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.begin + dice.randrange(disorder + 1)):
        parts.setdefault((line.source, f"{line.source}/{dice.randrange(2)}"), []).append(line)
    pieces = []
    for (source, part), mine in parts.items():
        at, first = 0, 0
        while first < len(mine):
            some = mine[first : first + dice.choice((60, 200, len(mine)))]
            data = b"".join(line.data for line in some)
            block = Block(data, part, at, None, source)
            arrival = Arrival(block, part, Position(at), Position(at + len(data)), begins=at == 0)
            pieces.append(Piece(arrival, min(line.begin for line in some)))
            at, first = at + len(data), first + len(some)
    return pieces


def _script(dice: Random, job: Job, pieces: list[Piece]) -> Script:
    """Return the blocks with watermarks that let everything be in time, and the clock going on meanwhile."""
    # sifted beforehand: the runner packs functions up for every element, which takes longer than all else
    sift: Any = Sift(job.sources, job.rules, job.lists, 24 * 60 * _MINUTE)._fn  # noqa: SLF001
    script, passed, late = Script(), 0, False
    for number, piece in enumerate(pieces):
        at = Timestamp(micros=passed)
        told = [one for one in sift.process(piece.arrival) if isinstance(one, tuple)]
        script.add_elements([TimestampedValue(delivery, at) for delivery in told])
        least = min((other.begin for other in pieces[number + 1 :]), default=0) + _KEEP
        if least > passed and dice.random() < 0.5:
            passed = dice.choice((least, dice.randrange(passed, least)))
            script.advance_watermark_to(Timestamp(micros=passed))
        if dice.random() < 0.2:
            script.advance_processing_time(1 if late else _LATER)  # its clock begins in 1970
            late = True
    return script.advance_watermark_to_infinity()


_OPENINGS: dict[int, Opening] = {}
"""What makes a desk, by number of the example: a runner packs functions up again and again."""


def _opened(run: int) -> Desk:
    return _OPENINGS[run]()


class _Keep(beam.DoFn):
    def __init__(self, run: int) -> None:
        self._run = run

    def process(self, said: Any) -> Iterator[None]:
        _SAID[self._run].append(said)
        yield from ()


def _said(day: SmallDay, script: Script, pacing: Pacing) -> list[Any]:
    """Return what is said of a script, and the dead letters."""
    run, job = next(_RUNS), day.job
    _SAID[run], _OPENINGS[run] = [], Opening(terms_of(job))
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming", "--allow_unsafe_triggers"])
    pipeline = beam.Pipeline(options=options)
    deliveries = pipeline | script | beam.Map(tuple).with_output_types(tuple[int, bytes])
    cased = deliveries | Casework(f"any-{os.getpid()}-{run}", partial(_opened, run), _KEEP, pacing)
    for name, what in (("Said", cased[SAID]), ("Late", cased[DEAD])):
        _ = what | name >> beam.ParDo(_Keep(run))
    pipeline.run(test_runner_api=False).wait_until_finish()
    del _OPENINGS[run]
    return _SAID.pop(run)


def _left(changes: list[Changes], kind: str) -> dict[str, Any]:
    """Return what holds of findings or incidents in the end, without places in logs."""
    held: dict[str, Any] = {}
    for one in changes:
        told = map(json.loads, json_objects(getattr(one, f"{kind}s")).to_pylist())
        held |= {document[f"{kind}.id"]: without_places(document) for document in told}
        for gone in getattr(one, f"gone_{kind}s").to_pylist():
            held.pop(gone)
    return held


def test_what_tells_no_time_does_not_hold_up_what_is_known_of_it(day: SmallDay) -> None:
    """Blocks come before their source has told a time, as of the end of time where it never does, and as they are."""
    dice = random.Random(_SEED)
    pieces = sorted(_pieces(dice, day.lines, 0), key=lambda piece: piece.begin)
    sift: Any = Sift(day.job.sources, day.job.rules, day.job.lists, 24 * 60 * _MINUTE)._fn  # noqa: SLF001 - as above
    told = [one for piece in pieces for one in sift.process(piece.arrival) if isinstance(one, tuple)]
    begin = max(piece.begin for piece in pieces)
    times = [MIN_TIMESTAMP, *(Timestamp(micros=one) for one in (begin, LATEST, begin + 1, begin + 5 * _MINUTE, LATEST))]
    script = Script()
    for delivery, time in zip(told, times, strict=False):
        script.add_elements([TimestampedValue(delivery, time)])
        if begin <= time.micros < LATEST:
            script.advance_watermark_to(Timestamp(micros=time.micros + 2 * _MINUTE))
    script.advance_processing_time(_LATER)
    said = _said(day, script.advance_watermark_to_infinity(), _LETS_GO)
    told_ = [one for one in said if not isinstance(one, pa.RecordBatch)]
    passed = [one.passed for one in sorted(told_, key=lambda one: one.number)]
    assert passed == sorted(passed, key=lambda one: one or 0)
    assert passed[0] is None
    # a minute for each block that comes, as far as the watermark is
    assert {begin + one * _MINUTE for one in (1, 2, 3, 4)} <= set(passed)
    assert not any(one < begin or one > LATEST for one in passed if one is not None)


_AT_ONCE = Pacing(urgent=0, all=0, share=_NEVER, evict=_NEVER)
_URGENT = Pacing(urgent=0, all=0.5, share=_NEVER, evict=0)
_LETS_GO = Pacing(urgent=0, all=0, share=_NEVER, evict=0)
_AT_THE_END = Pacing(urgent=_NEVER, all=_NEVER, share=1, evict=_NEVER)


@pytest.mark.parametrize("pacing", [_AT_ONCE, _URGENT, _LETS_GO, _AT_THE_END])
@given(
    dice=st.randoms(use_true_random=False),
    disorder=st.sampled_from([0, 5 * _MINUTE, 120 * _MINUTE]),
)
@settings(max_examples=_EXAMPLES, phases=_AS_DRAWN, deadline=None, suppress_health_check=list(HealthCheck))
def test_within_lateness_the_end_is_that_of_the_batch_run(
    day: SmallDay, dice: Random, disorder: int, pacing: Pacing
) -> None:
    pieces = _pieces(dice, day.lines, disorder)
    pieces.sort(key=lambda piece: piece.begin + dice.randrange(disorder + 1))
    said = _said(day, _script(dice, day.job, pieces), pacing)
    late = [one for one in said if isinstance(one, pa.RecordBatch)]
    assert [line for letters in late for line in letters.column("event.original").to_pylist()] == []
    changes = [one.changes for one in sorted(said, key=lambda one: one.number)]
    assert _left(changes, "finding") == day.findings
    assert _left(changes, "incident") == day.incidents
