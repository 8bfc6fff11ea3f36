"""``agenttrail run --streaming``: a job whose sources go on."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import printable
from agenttrail.commands.printing import StatusLine
from agenttrail.errors import DefinitionError, Problem
from agenttrail.halting import HALT
from agenttrail.tally import TALLY

if TYPE_CHECKING:
    import argparse

_BOUNDED = ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner", "BundleBasedDirectRunner")
"""Runners of Beam that read a source to its end before they hand anything on."""


def run_stream(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Run the job of a command line as a stream until it ends; return the job, and what ``run.json`` says."""
    from agenttrail.job_files import load_job
    from agenttrail.streams import StreamOptions, run

    check_usage(arguments)
    job = load_job(arguments.job, output=arguments.output, elasticsearch=arguments.elasticsearch, streaming=True)
    options = StreamOptions(to_end=arguments.end_of_input, flags=tuple(arguments.beam_options))
    with status():
        return job, run(job, job.streams, options)


def check_usage(arguments: argparse.Namespace) -> None:
    """Refuse what a stream cannot do.

    Raises:
        DefinitionError: with everything that is wrong.
    """
    told = [
        f"--{name}: a stream goes on from where it stopped; leave it out, or leave out --streaming"
        for name in ("start", "end")
        if getattr(arguments, name) is not None
    ]
    if why := bounded_runner(arguments.beam_options):
        told.append(why)
    if told:
        raise DefinitionError([Problem("command line", 0, text) for text in told])


def bounded_runner(flags: list[str]) -> str:
    """Return why the runner that options name cannot run a stream, or ""."""
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    name = PipelineOptions(flags).view_as(StandardOptions).runner
    if name is None or name.rpartition(".")[2].lower() not in (*(one.lower() for one in _BOUNDED), "direct"):
        return ""
    return (
        f"--runner {name}: reads every source to its end before it hands anything on, which a stream has not: leave "
        "--runner out for Prism, or give --runner PortableRunner and the --job_endpoint of Flink"
    )


def status() -> StatusLine:
    """Return what tells how far a stream has come."""
    return StatusLine(lambda: printable(status_text(time.time_ns() // 1000)))


def status_text(now: int) -> str:
    """Return how far the stream has come; ``now`` in microseconds."""
    lines, events = TALLY.lines()
    counted = {"line": lines, "event": events, "finding": len(TALLY.findings), "incident": len(TALLY.incidents)}
    told = [f"{count:,} {what}{'' if count == 1 else 's'}" for what, count in counted.items()]
    told.insert(2, f"{TALLY.rows:,} held")
    if TALLY.passed is not None:
        passed = datetime.fromtimestamp(TALLY.passed // 1_000_000, UTC)
        told.append(f"at {passed:%Y-%m-%dT%H:%M:%SZ}, {_span((now - TALLY.passed) // 1_000_000)} behind the clock")
    if HALT.asked:
        told.append("ending: what came is judged and written")
    return ", ".join(told)


def _span(seconds: int) -> str:
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds // size:,} {name}"
    return f"{seconds:,} s"
