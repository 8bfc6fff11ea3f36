"""A simulated day as a test reads it: its lines, its truth, and what the program's own parsers make of them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
import yaml

from agenttrail.formats import FORMATS
from agenttrail.leases import resolve
from agenttrail.parsing import Block
from agenttrail.trajectories import cut

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrail.simulate import Truth

LOGS = (
    "aws_vpc_flow/*.log.gz", "alibaba_vpc_flow/*.jsonl.gz", "alibaba_cloud_firewall/*.jsonl", "otlp/*.jsonl",
    "dcgm/*.prom", "training/*.jsonl",
)  # fmt: skip
NAMED = ("otlp_spans", "dcgm_prometheus", "training_progress")
"""Datasets whose events name their workload."""


class Day(NamedTuple):
    """A simulated day: where it lies, what was returned, and one row of truth per line."""

    directory: Path
    truth: Truth
    rows: list[dict[str, Any]]


def read(path: Path) -> bytes:
    """Return the bytes of a log file, uncompressed."""
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def logs(directory: Path) -> dict[str, bytes]:
    """Return the uncompressed log files by their path in the directory."""
    return {
        str(path.relative_to(directory)): read(path) for pattern in LOGS for path in sorted(directory.glob(pattern))
    }


def lines(day: Day) -> dict[tuple[str, int], bytes]:
    """Return every line of every log by its file and offset."""
    found = {}
    for path, data in logs(day.directory).items():
        assert data.endswith(b"\n") or not data
        offset = 0
        for line in data.removesuffix(b"\n").split(b"\n") if data else ():
            found[path, offset] = line
            offset += len(line) + 1
    return found


def parsed(day: Day) -> list[tuple[Any, dict[str, Any]]]:
    """Return what the parsers make of each log file, with its source in the job file."""
    found: list[tuple[Any, dict[str, Any]]] = []
    for source in yaml.safe_load((day.directory / "job.yml").read_text())["events"]:
        parse = FORMATS[source["format"]].parser({})
        for path in sorted(day.directory.glob(source["path"])):
            one: Any = parse(Block(read(path), str(path.relative_to(day.directory)), 0))
            found.append((one, source))
    return found


def spans_in(directory: Path) -> list[pa.RecordBatch]:
    """Return the leases that the trajectories of a day are."""
    parse = FORMATS["otlp_spans"].parser({})
    return [parse(Block(path.read_bytes(), path.name, 0)).leases for path in sorted(directory.glob("otlp/*"))]


def leases_of(directory: Path, spans: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the leases of the pods of a day, cut where the trajectories of ``spans`` begin and end."""
    batches = []
    for source in yaml.safe_load((directory / "job.yml").read_text())["leases"]:
        parse = FORMATS[source["format"]].parser({key: source[key] for key in ("identity", "scope")})
        one: Any = parse(Block((directory / source["path"]).read_bytes(), source["path"], 0))
        assert one.dead.num_rows == 0
        batches.append(one.events)
    together = pa.Table.from_batches(spans).combine_chunks().to_batches()
    return cut(resolve(batches), together[0])[0] if together else resolve(batches)


def whole_spans(day: Day) -> list[tuple[bytes, list[dict[str, Any]]]]:
    """Return every whole line of OTLP of a day, each with its spans."""
    kinds = {(row["log.file.path"], row["log.offset"]): row["kind"] for row in day.rows}
    found = [line for place, line in lines(day).items() if place[0].startswith("otlp") and kinds[place] == "telemetry"]
    return [(line, spans_of(line)) for line in found]


def spans_of(line: bytes) -> list[dict[str, Any]]:
    """Return the spans of a line of OTLP with their attributes as a plain mapping, and the pod that sent them."""
    found = []
    for group in orjson.loads(line)["resourceSpans"]:
        pod = _plain(group["resource"]["attributes"])["k8s.pod.name"]
        for scope in group["scopeSpans"]:
            found += [span | {"pod": pod, "said": _plain(span["attributes"])} for span in scope["spans"]]
    return found


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}
