"""A simulated day as it comes over the wire: each line at a time of its own, some late, some twice."""

from __future__ import annotations

import gzip
import math
import random
from dataclasses import dataclass, field
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.kafka import Kafka

    from agenttrail.job_files import Job

SECOND = 1_000_000
MINUTE = 60 * SECOND


@dataclass(frozen=True)
class Line:
    """A line on its way.

    Attributes:
        at: when it comes, in microseconds.
        source: number of the job's source.
        data: without a line end.
        again: whether it has come before.
        too_late: whether it comes later than is allowed.
    """

    at: int
    source: int
    data: bytes
    again: bool = False
    too_late: bool = False


@dataclass
class Wire:
    """A day on its way.

    Attributes:
        lines: in the order in which they come.
        headers: header line by source, for sources that have one.
        documents: names of the job's sources that are read as a whole, by number.
    """

    lines: list[Line]
    headers: dict[int, bytes] = field(default_factory=dict)


def over_the_wire(folder: Path, seed: int, *, beyond: float = 0.004) -> Wire:
    """Return the lines of a simulated day, shuffled by two minutes either way.

    One in a hundred is up to ten minutes late, one in a hundred comes twice, pods are told of five minutes after they
    have begun, and ``beyond`` of the flows come after an hour.
    """
    dice = random.Random(seed)
    job = load_job(str(folder / "job.yml"), output=str(folder / "unused"))
    wire = Wire([])
    for number in range(len(job.sources)):
        texts, times, tells = _timed(job, number, wire)
        end = max(times, default=0)
        flows = FORMATS[job.sources[number].format].gives == "events" and not FORMATS[job.sources[number].format].named
        for text, time, telling in zip(texts, times, tells, strict=True):
            # what tells of no event, such as a header that comes again, is never late
            too_late = flows and bool(text) and dice.random() < beyond and time < end - 90 * MINUTE and telling
            wire.lines.append(
                Line(_arrival(dice, job, number, time, too_late=too_late), number, text, too_late=too_late)
            )
            if dice.random() < 0.01 and not too_late:
                wire.lines.append(Line(wire.lines[-1].at + dice.randrange(200 * SECOND), number, text, again=True))
    wire.lines.sort(key=lambda line: line.at)
    return wire


def _arrival(dice: random.Random, job: Job, number: int, time: int, *, too_late: bool) -> int:
    format_ = FORMATS[job.sources[number].format]
    if too_late:
        return time + 60 * MINUTE
    if format_.gives == "leases":
        return time + 5 * MINUTE
    if format_.gives == "both":
        return time + dice.randrange(2 * MINUTE)
    if dice.random() < 0.01:
        return time + dice.randrange(2 * MINUTE, 10 * MINUTE)
    return time + dice.randrange(-2 * MINUTE, 2 * MINUTE)


def _timed(job: Job, number: int, wire: Wire) -> tuple[list[bytes], list[int], list[bool]]:
    """Return the lines of a source, when each happened, and whether it tells that; others like the one before them."""
    format_ = FORMATS[job.sources[number].format]
    parse = format_.parser(job.sources[number].settings)
    texts: list[bytes] = []
    times: list[int] = []
    tells: list[bool] = []
    for file in (file for file in job.files if file.source == number):
        data = _content(file.path)
        if format_.gives == "leases":
            data = _objects(data)
        header = None
        if format_.headers is not None:
            found = format_.headers.find(data, top=True)
            header = found[0][1]
            wire.headers[number] = header.rstrip(b"\r\n")
            data = data[data.index(b"\n") + 1 :]
        parsed = parse(Block(data, file.path, 0, header, number))
        known = _known_times(parsed.events, parsed.leases)
        offset, last = 0, min(known.values(), default=0)
        for line in data.splitlines(keepends=True):
            last = known.get(offset, last)
            texts.append(line.rstrip(b"\r\n"))
            times.append(last)
            tells.append(offset in known)
            offset += len(line)
    return texts, times, tells


def _known_times(events: pa.RecordBatch, leases: pa.RecordBatch | None) -> dict[int, int]:
    """Return by offset of a line when what it tells had ended."""
    known: dict[int, int] = {}
    for batch in (one for one in (events, leases) if one is not None and "log.offset" in one.schema.names):
        names = [
            name for name in ("event.end", "event.start", "lease.end", "lease.start") if name in batch.schema.names
        ]
        if batch is events and "lease.start" in batch.schema.names:
            names = ["lease.start"]
        ends = pc.coalesce(*(batch.column(name).cast(pa.int64()) for name in names))
        for offset, time in zip(batch.column("log.offset").to_pylist(), ends.to_pylist(), strict=True):
            known[offset] = max(known.get(offset, 0), time or 0)
    return known


def _content(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - paths of a job are text
        data = file.read()
    return gzip.decompress(data) if path.endswith(".gz") else data


def _objects(data: bytes) -> bytes:
    """Return the items of a list document, one a line."""
    import orjson

    told = orjson.loads(data)
    return b"".join(orjson.dumps(item) + b"\n" for item in told["items"])


def as_files(folder: Path, wire: Wire, target: Path) -> Path:
    """Write what is not too late as one file a source, and the job that reads them; return the job's path."""
    job = yaml.safe_load((folder / "job.yml").read_text())
    entries = [*job["events"], *job["leases"]]
    target.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries):
        kept = [line.data for line in wire.lines if line.source == number and not line.again and not line.too_late]
        lines = [wire.headers[number], *kept] if number in wire.headers else kept
        (target / f"{number}.log").write_bytes(b"".join(line + b"\n" for line in lines))
        entry["path"] = f"{number}.log"
    (target / "job.yml").write_text(yaml.safe_dump(job, sort_keys=False))
    return target / "job.yml"


def last_versions(directory: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return what holds of the findings or incidents of an output directory, by id, without places in logs."""
    import json

    held: dict[str, dict[str, Any]] = {}
    for text in (directory / f"{kind}s.ndjson").read_text().splitlines():
        one = json.loads(text)
        held.pop(one[f"{kind}.id"], None)
        if not one.get("superseded"):
            held[one[f"{kind}.id"]] = without_places(one)
    return held


def without_places(document: dict[str, Any]) -> dict[str, Any]:
    """Return a finding without the places of its evidence, which tell how it came."""
    for event in document.get("finding.evidence", ()):
        event.pop("log.file.path", None)
        event.pop("log.offset", None)
    return document


def spread(wire: Wire, number: int, partitions: int, seed: int) -> list[list[bytes]]:
    """Return the lines of a source by partition, in the order in which they come, each beginning with the header."""
    dice = np.random.default_rng(seed)
    head = [wire.headers[number]] if number in wire.headers else []
    out: list[list[bytes]] = [[*head] for _ in range(partitions)]
    for line in wire.lines:
        if line.source == number:
            out[int(dice.integers(partitions))].append(line.data)
    return out


def as_topics(folder: Path, wire: Wire, target: Path, broker: Kafka, seed: int, *, filled: bool = True) -> Path:
    """Write everything to topics, flows to two partitions each, and the job that reads them; return the job's path.

    Topics that are not to be ``filled`` are left to whoever asks.
    """
    job = yaml.safe_load((folder / "job.yml").read_text())
    for number, entry in enumerate([*job["events"], *job["leases"]]):
        del entry["path"]
        count = partitions_of(job, number)
        topic = broker.topic(count)
        for partition, lines in enumerate(spread(wire, number, count, seed) if filled else ()):
            broker.produce(topic, lines, partition)
        entry["kafka"] = {"topic": topic, "bootstrap": broker.bootstrap}
    return _written(job, target)


def partitions_of(job: dict[str, Any], number: int) -> int:
    """Return how many partitions the topic of a source has."""
    return 2 if number < len(job["events"]) else 1


def as_directories(folder: Path, wire: Wire, target: Path) -> Path:
    """Write the job that reads a directory for each source, which :class:`Growing` fills; return the job's path."""
    job = yaml.safe_load((folder / "job.yml").read_text())
    for number, entry in enumerate([*job["events"], *job["leases"]]):
        (target / f"{number}").mkdir(parents=True)
        flows = number < len(job["events"])
        entry["path"] = f"{number}/*.log" if flows else f"{number}/document.json"
        if not flows:
            (target / f"{number}" / "document.json").write_bytes(_document(wire, number, 0.2))
    return _written(job, target)


def grow(wire: Wire, target: Path, events: int, seconds: float, steps: int = 20) -> None:
    """Write the lines of the first sources to files that grow, two each, in so many steps; metadata grows, too."""
    dice = random.Random(steps)
    size = -(-len(wire.lines) // steps)
    begun: set[Path] = set()
    for step in range(steps):
        for line in wire.lines[step * size : (step + 1) * size]:
            if line.source < events:
                path = target / f"{line.source}" / f"{dice.randrange(2)}.log"
                with path.open("ab") as file:
                    if path not in begun and line.source in wire.headers:
                        file.write(wire.headers[line.source] + b"\n")
                    begun.add(path)
                    file.write(line.data + b"\n")
        for folder in target.glob("*/document.json"):
            part = folder.with_suffix(".part")
            part.write_bytes(_document(wire, int(folder.parent.name), (step + 1) / steps))
            part.replace(folder)
        sleep(seconds / steps)


def _document(wire: Wire, number: int, share: float) -> bytes:
    """Return what metadata tells once a share of it has come."""
    items = [line.data for line in wire.lines if line.source == number and not line.again and line.data.strip()]
    items = items[: math.ceil(len(items) * share)]
    head = [wire.headers[number]] if number in wire.headers else []
    return b"".join(item + b"\n" for item in [*head, *items])


def _written(job: dict[str, Any], target: Path) -> Path:
    job["output"] = {"directory": "out"}
    target.mkdir(parents=True, exist_ok=True)
    (target / "job.yml").write_text(yaml.safe_dump(job, sort_keys=False))
    return target / "job.yml"
