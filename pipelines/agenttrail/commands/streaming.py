"""``agenttrail run --streaming``: a job whose sources go on."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import printable
from agenttrail.commands.printing import StatusLine
from agenttrail.errors import DefinitionError, Problem
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY
from agenttrail.telling import LOUD, tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from agenttrail.job_files import Job

_LOG = logging.getLogger(__name__)
_LOOK = 0.5  # seconds between two looks at a stream
EVERY = 60.0
"""Seconds between two lines that tell how far a stream is, where there is no terminal."""

_BOUNDED = ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner", "BundleBasedDirectRunner")
"""Runners of Beam that read a source to its end before they hand anything on."""


def run_stream(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Run the job of a command line as a stream until it ends; return the job, and what ``run.json`` says."""
    from agenttrail.job_files import load_job
    from agenttrail.streams.graph import StreamOptions, run

    check_usage(arguments)
    job = load_job(arguments.job, output=arguments.output, elasticsearch=arguments.elasticsearch, streaming=True)
    options = StreamOptions(to_end=arguments.end_of_input, flags=tuple(arguments.beam_options))
    for_people = sys.stderr.isatty() and arguments.log_format != "json"
    logging.getLogger("agenttrail").setLevel(LOUD)
    with ExitStack() as during:
        if arguments.metrics_port is not None:
            during.enter_context(_metrics(job, arguments))
        during.enter_context(Following(len(job.streams), every=None if for_people else EVERY))
        if for_people:
            during.enter_context(status())
        summary = run(job, job.streams, options)
    _tell_end(summary)
    return job, summary


@contextmanager
def _metrics(job: Job, arguments: argparse.Namespace) -> Iterator[None]:
    """Serve metrics, and tell where."""
    from agenttrail.streams.exposition import served

    with served(job, arguments.metrics_address or "127.0.0.1", arguments.metrics_port) as (address, port):
        shown = f"[{address}]" if ":" in address else address
        url = f"http://{shown}:{port}/metrics"
        tell(_LOG, "metrics_served", f"metrics for Prometheus are at {url}", url=url, port=port)
        yield


def _tell_end(summary: dict[str, Any]) -> None:
    """Tell how a stream ended, and programs most of what its ``run.json`` says."""
    names = ("job", "findings", "incidents", "rows_held", "total", "elasticsearch")
    facts = {name: summary[name] for name in names if name in summary}
    counted = {"line": summary["total"]["lines"], "finding": summary["findings"], "incident": summary["incidents"]}
    told = [_counted(count, what) for what, count in counted.items()]
    tell(_LOG, "ended", f"{summary['job']} has ended: {', '.join(told)}", **facts)


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
    if arguments.metrics_address is not None and arguments.metrics_port is None:
        told.append("--metrics-address: there are no metrics to serve; add --metrics-port")
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


class Following(threading.Thread):
    """Tells of a stream what comes about while it runs: that it has caught up, that it drains, and how far it is."""

    def __init__(self, sources: int, every: float | None) -> None:
        """Follow a stream of so many sources from when it is entered to when it is left.

        Args:
            sources: that are to be read to their end until it has caught up.
            every: seconds between two times that it is told how far it is; None where something else shows it.
        """
        super().__init__(daemon=True)
        self._sources, self._every, self._over = sources, every, threading.Event()
        self._told: set[str] = set()
        self._last = time.monotonic()

    def __enter__(self) -> None:
        """Begin."""
        self.start()

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look, and tell what is new."""
        while not self._over.wait(_LOOK):
            self.look()

    def look(self) -> None:
        """Tell what is new."""
        now = time.time_ns() // 1000
        if len(TALLY.read_up) >= self._sources:
            self._once("caught_up", "every source has been read to its end", now)
        if HALT.asked and HALT.error is None:
            self._once("draining", "told to end: what came is judged and written", now)
        if self._every is not None and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            tell(_LOG, "progress", status_text(now), **figures(now))

    def _once(self, event: str, sentence: str, now: int) -> None:
        if event not in self._told:
            self._told.add(event)
            tell(_LOG, event, sentence, **figures(now))


def figures(now: int) -> dict[str, Any]:
    """Return for programs what :func:`status_text` says for people."""
    lines, events = TALLY.lines()
    lag = None if TALLY.passed is None else round((now - TALLY.passed) / 1e6, 1)
    return {
        "lines": lines, "events": events, "rows_held": TALLY.rows, "findings": len(TALLY.findings),
        "incidents": len(TALLY.incidents), "dead_letters": TALLY.letters.total(), "watermark_lag_seconds": lag,
    }  # fmt: skip


def status() -> StatusLine:
    """Return what tells how far a stream has come."""
    return StatusLine(lambda: printable(status_text(time.time_ns() // 1000)))


def status_text(now: int) -> str:
    """Return how far the stream has come; ``now`` in microseconds."""
    lines, events = TALLY.lines()
    counted = {"line": lines, "event": events, "finding": len(TALLY.findings), "incident": len(TALLY.incidents)}
    told = [_counted(count, what) for what, count in counted.items()]
    told.insert(2, f"{TALLY.rows:,} held")
    if TALLY.passed is not None:
        passed = datetime.fromtimestamp(TALLY.passed // 1_000_000, UTC)
        told.append(f"at {passed:%Y-%m-%dT%H:%M:%SZ}, {_span((now - TALLY.passed) // 1_000_000)} behind the clock")
    if HALT.asked:
        told.append("ending: what came is judged and written")
    return ", ".join(told)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _span(seconds: int) -> str:
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds // size:,} {name}"
    return f"{seconds:,} s"
