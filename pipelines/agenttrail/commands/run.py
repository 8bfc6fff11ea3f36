"""``agenttrail run``: a job from its files to incidents."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.text import printable
from agenttrail.commands.printing import StatusLine, print_json
from agenttrail.errors import DefinitionError, Problem, shortened
from agenttrail.metadata import parse_time
from agenttrail.telling import tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from agenttrail.job_files import Job

_LOG = logging.getLogger(__name__)
_LAST_PORT = 65_535
_OF_STREAMS = {"end_of_input": False, "metrics_port": None, "metrics_address": None, "log_format": None}
"""Options for streams alone, and what they are where they are not given."""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = subparsers.add_parser(
        "run",
        help="run a job",
        description="Run a job file.  Options that are not listed here go to Beam, such as --runner.",
    )
    parser.add_argument("job", metavar="JOB.yml", help="the job file")
    parser.add_argument(
        "--start",
        metavar="T",
        help="only findings that end at this time or later (RFC 3339); goes on with what earlier runs left",
    )
    parser.add_argument("--end", metavar="T", help="only what happened before this time")
    parser.add_argument("--output", metavar="DIR", help="output directory, instead of the job file's")
    parser.add_argument(
        "--elasticsearch",
        metavar="URL",
        help="write to this Elasticsearch; credentials from ELASTICSEARCH_API_KEY, or "
        "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="go on with what comes, in topics of Kafka and in files that grow, until SIGTERM or ^C",
    )
    parser.add_argument(
        "--end-of-input", action="store_true", help="with --streaming: read what is there at the beginning, then end"
    )
    parser.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="with --streaming: serve metrics for Prometheus at this port, 0 for any that is free",
    )
    parser.add_argument(
        "--metrics-address",
        metavar="ADDRESS",
        help="serve them at this address of the machine (default: 127.0.0.1); whoever reaches it may read them",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        help="with --streaming: what it tells of itself on standard error, as text (default) or a JSON object a line",
    )
    parser.add_argument("--json", action="store_true", help="print run.json instead of a summary")
    parser.set_defaults(command=command, takes_beam_options=True)


def command(arguments: argparse.Namespace) -> int:
    """Run the job and print what it found."""
    from agenttrail.job_files import load_job
    from agenttrail.jobs import RunOptions

    check_beam_options(arguments.beam_options)
    if arguments.streaming:
        from agenttrail.commands.streaming import run_stream

        job, summary = run_stream(arguments)
    else:
        start, stop = _range(arguments)
        job = load_job(arguments.job, output=arguments.output, elasticsearch=arguments.elasticsearch)
        summary = run_job(job, RunOptions(start=start, stop=stop, flags=tuple(arguments.beam_options)))
    report = write_run_report(job, tell_wrong if arguments.log_format == "json" else complain)
    if arguments.json:
        print_json(summary, indent=True)
    else:
        sys.stdout.write(summary_text(job, summary))
        sys.stdout.write(f"report:    {printable(report)}\n" if report else "")
    return 0


def _range(arguments: argparse.Namespace) -> tuple[int | None, int | None]:
    given = [name for name, unset in _OF_STREAMS.items() if getattr(arguments, name) is not unset]
    problems = [
        Problem("command line", 0, f"--{name.replace('_', '-')} is for streams: add --streaming, or leave it out")
        for name in given
    ]
    times = []
    for name in ("start", "end"):
        text = getattr(arguments, name)
        try:
            times.append(parse_time(text, f"--{name}") if text is not None else None)
        except ValueError as error:
            problems.append(Problem("command line", 0, str(error)))
    if not problems and times[0] is not None and times[1] is not None and times[0] >= times[1]:
        problems.append(Problem("command line", 0, "--start must lie before --end"))
    if problems:
        raise DefinitionError(problems)
    return times[0], times[1]


def _port(text: str) -> int:
    from argparse import ArgumentTypeError

    if not (text.isascii() and text.isdigit() and int(text) <= _LAST_PORT):
        msg = f"{text} is no port"
        raise ArgumentTypeError(msg)
    return int(text)


def check_beam_options(flags: list[str]) -> None:
    """Refuse options that neither this program nor Beam knows, and a runner that is none.

    Raises:
        DefinitionError: with every unknown option, and the one that was likely meant.
    """
    if not flags:
        return
    from agenttrail.beam_options import known_options, unusable_runner
    from agenttrail.yaml_files import suggest

    known = known_options()
    given = [flag.partition("=")[0] for flag in flags if flag.startswith("--")]
    stray = [] if flags[0].startswith("--") else [flags[0]]
    problems = [
        Problem("command line", 0, f"unknown option {flag}", suggest(flag, known))
        for flag in given
        if flag not in known
    ]
    problems += [Problem("command line", 0, f"unexpected argument {text!r}") for text in stray]
    if not problems and (told := unusable_runner(flags)):
        problems.append(Problem("command line", 0, told))
    if problems:
        raise DefinitionError(problems)


def run_job(job: Job, options: Any) -> dict[str, Any]:
    """Run a job, tell how far it is, and return its ``run.json``."""
    from agenttrail.jobs import run
    from agenttrail.sinks.files import join, read_all

    with _progress(sum(file.size for file in job.files)):
        run(job, options)
    summary: dict[str, Any] = orjson.loads(read_all(join(str(job.directory), "run.json")))
    return summary


def complain(wrong: str) -> None:
    """Print what went wrong and ends nothing."""
    sys.stderr.write(f"agenttrail: {printable(wrong)}\n")


def tell_wrong(wrong: str) -> None:
    """Tell programs what went wrong and ends nothing."""
    tell(_LOG, "report_failed", wrong, logging.WARNING)


def write_run_report(job: Job, complain: Callable[[str], None] = complain) -> str:
    """Write the report of a run and return where it is; what goes wrong is told and ends nothing.

    Args:
        job: that ran.
        complain: tells what goes wrong.

    Returns:
        Path of its first page, "" where there is none.
    """
    from agenttrail.report.conditions import conditions
    from agenttrail.report.writer import report_after_run

    index, wrong = report_after_run(str(job.directory), conditions(job.rules, job.correlations))
    if wrong:
        complain(wrong)
    return index


def _progress(size: int) -> StatusLine:
    """Return what tells how far a run over ``size`` bytes is."""
    started = time.monotonic()

    def text() -> str:
        from agenttrail.sources.files import bytes_read

        read = bytes_read()
        # compressed files give more than their size: no share is told then
        share = f" of {max(size, 1) / 1e6:.0f} MB" if read <= max(size, 1) else ""
        return f"read {read / 1e6:.0f} MB{share} in {time.monotonic() - started:.0f} s"

    return StatusLine(text)


def summary_text(job: Job, summary: dict[str, Any]) -> str:
    """Return what a run prints."""
    total = summary["total"]
    count = {name: f"{value:,}" for name, value in total.items() if isinstance(value, int)}
    findings, incidents = (_counts(summary[f"{kind}_by_severity"]) for kind in ("findings", "incidents"))
    books = f"{count['with_events']} with events + {count['skipped']} skipped + {count['dead']} dead"
    if summary.get("streaming"):
        owners = f"{count.get('may_matter', '0')} may matter, {count.get('late', '0')} too late"
    else:
        kinds = ("attributed", "ambiguous", "unattributed")
        owners = ", ".join(f"{count[kind]} {kind}" for kind in kinds)
    lines = [
        f"{summary['job']}: {count['lines']} lines = {books}",
        f"{count['events']} events: {owners}",
        f"{summary['findings']:,} findings {findings}, {summary['incidents']:,} incidents {incidents}",
    ]
    if summary.get("findings_of_earlier_runs"):
        told = {name: f"{value:,}" for name, value in summary["findings_of_earlier_runs"].items()}
        seen = f"{total.get('in_range', 0):,} events in its time, {total.get('context', 0):,} beside it looked at"
        lines.append(
            f"{seen}; of {told['before']} earlier findings {told['replaced']} told anew, {told['superseded']} gone; "
            f"{told['added']} added"
        )
    lines += [f"note: {shortened(note)}" for note in summary["notes"]]
    lines.append(f"written to {job.directory}")
    return "\n".join(map(printable, lines)) + "\n"


def _counts(by_severity: dict[str, int]) -> str:
    order = ("critical", "high", "medium", "low", "informational")
    return (
        "(" + ", ".join(f"{by_severity[name]:,} {name}" for name in order if name in by_severity) + ")"
        if by_severity
        else ""
    )
