"""One run of the real command over all samples."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import yaml
from tests.conformance.pods import Flow, flows_at, pods_of
from tests.conformance.samples import API_SERVER, SAMPLES, Sample

from agenttrail.formats import FORMATS

FLOWS = "flows at pods"
_COMMAND = Path(sys.executable).with_name("agenttrail")


@dataclass(frozen=True)
class Ran:
    """What a run gave.

    Attributes:
        events: of each sample, in the order of its lines.
        dead: dead letters of each sample, likewise.
        books: the account of each sample.
        attributed: of every metadata sample, the flows at its pods and the events that they became.
        summary: ``run.json``.
        inputs: the file that was read of each sample.
    """

    events: dict[str, list[dict[str, Any]]]
    dead: dict[str, list[dict[str, Any]]]
    books: dict[str, dict[str, Any]]
    attributed: dict[str, list[tuple[Flow, dict[str, Any]]]]
    summary: dict[str, Any]
    inputs: dict[str, Path]


def agenttrail(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run([_COMMAND, *arguments], capture_output=True, text=True, check=False)


def run_samples(data: Path, folder: Path) -> Ran:
    """Run one job over all samples, in which every sample is a source of its own.

    Every metadata sample gets a scope of its own, with a log of flows at the addresses of its pods as the API server
    knows them.
    """
    inputs = {sample.name: _input(sample, data, folder / f"{place}") for place, sample in enumerate(SAMPLES)}
    metadata = [sample for sample in SAMPLES if FORMATS[sample.format].gives == "leases"]
    flows = flows_at(pods_of(orjson.loads(API_SERVER.content(data))))
    logs = {sample.name: folder / f"flows-{place}.log" for place, sample in enumerate(metadata)}
    for path in logs.values():
        path.write_text("".join(f"{flow.line}\n" for flow in flows))
    events = [
        {"format": sample.format, "path": str(inputs[sample.name])} for sample in SAMPLES if sample not in metadata
    ]
    events += [{"format": "aws_vpc_flow", "path": str(path), "scope": path.stem} for path in logs.values()]
    leases = [
        {"format": sample.format, "path": str(inputs[sample.name]), "scope": logs[sample.name].stem}
        for sample in metadata
    ]
    job = folder / "job.yml"
    job.write_text(yaml.safe_dump({"events": events, "leases": leases, "output": {"directory": "out", "events": True}}))
    done = agenttrail("run", job)
    assert done.returncode == 0, done.stderr
    return _ran(folder, inputs, {name: (path, flows) for name, path in logs.items()})


def _input(sample: Sample, data: Path, path: Path) -> Path:
    if sample.derive is None:
        return data / sample.path
    path.write_bytes(sample.content(data))
    return path


def _ran(folder: Path, inputs: dict[str, Path], logs: dict[str, tuple[Path, list[Flow]]]) -> Ran:
    out = folder / "out"
    summary = orjson.loads((out / "run.json").read_bytes())
    events = [row for path in sorted((out / "events").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    dead = [orjson.loads(line) for line in (out / "dead_letters.ndjson").read_bytes().splitlines()]
    accounts = {source["name"]: source for source in summary["sources"]}
    formats = {sample.name: sample.format for sample in SAMPLES}
    return Ran(
        {name: [_with_line(row, path) for row in _of(events, folder, path)] for name, path in inputs.items()},
        {name: _of(dead, folder, path) for name, path in inputs.items()},
        {name: accounts[f"{formats[name]} {path}"] for name, path in inputs.items()},
        {name: list(zip(flows, _of(events, folder, path), strict=True)) for name, (path, flows) in logs.items()},
        summary,
        inputs,
    )


def _of(rows: list[dict[str, Any]], folder: Path, path: Path) -> list[dict[str, Any]]:
    """Return the rows of one file in the order of its lines."""
    shown = str(path).removeprefix(f"{folder}/")
    return sorted((row for row in rows if row["log.file.path"] == shown), key=lambda row: row["log.offset"] or 0)


def _with_line(event: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return an event with the line that its place names: ``events/`` holds places, not originals."""
    line, _, _ = path.read_bytes()[event["log.offset"] :].partition(b"\n")
    return {**event, "event.original": line.decode()}
