"""What arrived at the end of a small pipeline, kept in a file: runner and test may be different processes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from agenttrail.accounting import DEAD
from agenttrail.sources.stream import ARRIVALS, Arrival, BlocksOf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.beam_servers import BeamServer

_LOCK = threading.Lock()


class Keep(beam.DoFn):
    """Appends one JSON line a block to a file."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self._path = path

    def process(self, arrival: Arrival) -> Iterator[Any]:
        """Write down an arrival."""
        block = arrival.block
        told = {
            "lines": block.data.decode().splitlines(), "path": block.path, "part": arrival.part,
            "offset": block.offset, "header": (block.header or b"").decode(),
            "before": arrival.before.at, "after": arrival.after.at,
            "numbers": None if block.numbers is None else block.numbers.tolist(),
        }  # fmt: skip
        with _LOCK, self._path.open("a") as file:
            file.write(json.dumps(told) + "\n")
        yield from ()


class KeepDead(beam.DoFn):
    """Appends the reasons of dead letters to a file."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self._path = path

    def process(self, letters: Any) -> Iterator[Any]:
        """Write down reasons."""
        with _LOCK, self._path.open("a") as file:
            file.writelines(f"{reason}\n" for reason in letters.column("error.message").to_pylist())
        yield from ()


def options(prism: Path) -> PipelineOptions:
    """Return the options of a stream on Prism."""
    return PipelineOptions([
        "--runner=PrismRunner", f"--prism_location={prism}", "--streaming", "--environment_type=LOOPBACK",
        "--job_server_timeout=31536000",
    ])  # fmt: skip


def start(runner: Path | BeamServer, stream: BlocksOf, seen: Path) -> Any:
    """Run a stream on Prism or Flink; its blocks are kept in ``seen``.  Return Beam's result, to be waited for."""
    there = options(runner) if isinstance(runner, Path) else PipelineOptions(runner.flink_options())
    pipeline = beam.Pipeline(options=there)
    arrived = pipeline | "Stream" >> stream
    _ = arrived[ARRIVALS] | "Keep" >> beam.ParDo(Keep(seen))
    _ = arrived[DEAD] | "KeepDead" >> beam.ParDo(KeepDead(seen.with_suffix(".dead")))
    return pipeline.run()


def kept(seen: Path) -> list[dict[str, Any]]:
    """Return the blocks that were kept so far, without the empty ones by which a source says that it was read up."""
    told = [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []
    return [block for block in told if block["lines"]]


def lines(seen: Path) -> list[str]:
    """Return the lines that were kept so far."""
    return [line for block in kept(seen) for line in block["lines"]]
