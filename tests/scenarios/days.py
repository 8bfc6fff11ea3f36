"""Simulated days run through the real job, laid beside the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from pathlib import Path

PLACE = ("log.file.path", "log.offset")
NAMES = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name", "k8s.pod.uid")
NAMED = ("otlp_spans", "dcgm_prometheus", "training_progress")
"""Datasets whose events name their workload; a line of spans gives several events."""
OPENING = ("medium", "high", "critical")
Place = tuple[str, int]


@dataclass(frozen=True)
class Day:
    """A simulated day, what the job made of it, and what was true.

    Attributes:
        truth: ``truth.json``.
        records: truth about every line of every log, by its place.
        events: what the job says of every event of the network, by its place.
        telemetry: what it says of the events of every line of telemetry, by its place.
    """

    directory: Path
    truth: dict[str, Any]
    records: dict[Place, dict[str, Any]]
    events: dict[Place, dict[str, Any]]
    telemetry: dict[Place, list[dict[str, Any]]]
    findings: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    dead_letters: list[dict[str, Any]]
    summary: dict[str, Any]

    def behaviours(self) -> dict[str, dict[str, Any]]:
        """Return the instances of behaviours that left at least one record, by the uid of their sandbox."""
        return {one["k8s.pod.uid"]: one for one in self.truth["behaviours"] if one["records"]}


def with_events(directory: Path) -> Path:
    """Let the job file of a simulated day ask for the events, too; return it."""
    job = directory / "job.yml"
    text = job.read_text()
    assert "output: {directory: out}" in text
    job.write_text(text.replace("output: {directory: out}", "output: {directory: out, events: true}"))
    return job


def run_day(directory: Path, *, agents: int, hours: float, seed: int) -> Day:
    """Simulate a day and run its own job file."""
    simulate(directory, agents=agents, hours=hours, seed=seed)
    run(load_job(with_events(directory)), RunOptions())
    out = directory / "out"
    said = events_of(out).select([*PLACE, *NAMES, "event.dataset", "attribution.status", "attribution.candidates"])
    named = pc.is_in(said.column("event.dataset"), value_set=pa.array(NAMED))
    return Day(
        directory=directory,
        truth=orjson.loads((directory / "truth.json").read_bytes()),
        records=_by_place(pq.read_table(directory / "truth" / "records.parquet")),
        events=_by_place(said.filter(pc.invert(named))),
        telemetry=_all_by_place(said.filter(named)),
        findings=lines_of(out / "findings.ndjson"),
        incidents=lines_of(out / "incidents.ndjson"),
        dead_letters=lines_of(out / "dead_letters.ndjson"),
        summary=orjson.loads((out / "run.json").read_bytes()),
    )


def events_of(out: Path) -> pa.Table:
    """Return all events of an output directory."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "events").glob("*.parquet"))])


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _by_place(table: pa.Table) -> dict[Place, dict[str, Any]]:
    places = zip(*(table.column(name).to_pylist() for name in PLACE), strict=True)
    rows = dict(zip(places, table.to_pylist(), strict=True))
    assert len(rows) == table.num_rows
    return rows


def _all_by_place(table: pa.Table) -> dict[Place, list[dict[str, Any]]]:
    found: dict[Place, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault((row["log.file.path"], row["log.offset"]), []).append(row)
    return found
