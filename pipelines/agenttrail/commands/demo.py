"""``agenttrail demo``: simulate a training day, run the job on it, and show what was found."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import printable, shown_path
from agenttrail.commands.simulate import add_size

if TYPE_CHECKING:
    import argparse

_MARK = ".agenttrail-demo"


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = subparsers.add_parser("demo", help="simulate a training day, run the job on it and show what was found")
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="agenttrail-demo",
        help="where to (default agenttrail-demo); an earlier demo there is replaced",
    )
    add_size(parser)
    parser.set_defaults(command=command)


def command(arguments: argparse.Namespace) -> int:
    """Simulate, run and print."""
    from agenttrail.cli import problems_of
    from agenttrail.commands.incidents import print_incidents
    from agenttrail.commands.run import run_job, summary_text, write_run_report
    from agenttrail.incident_files import read_incidents
    from agenttrail.job_files import load_job
    from agenttrail.jobs import RunOptions
    from agenttrail.report.commands import command
    from agenttrail.simulate import simulate

    directory = Path(arguments.output)
    if shown_path(arguments.output) != arguments.output:
        told = f"the name of the directory {shown_path(arguments.output)} is not valid UTF-8"
        raise problems_of(told)
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARK).exists():
        told = f"{directory} holds something else than a demo; name another directory with --output"
        raise problems_of(told)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / _MARK).touch()
    day = directory / "day"
    truth = simulate(day, agents=arguments.agents, hours=arguments.hours, seed=arguments.seed)
    size = f"{arguments.hours:g} hours of {arguments.agents} agents"
    sys.stdout.write(f"simulated {size} in {printable(str(day))}: {len(truth.sandboxes)} sandboxes\n")
    job = load_job(day / "job.yml", output=str(directory / "out"))
    summary = run_job(job, RunOptions())
    report = write_run_report(job)
    sys.stdout.write(summary_text(job, summary) + "\n")
    print_incidents(read_incidents(str(directory / "out")))
    sys.stdout.write(f"\nreport:    {printable(report)}\n" if report else "\n")
    sys.stdout.write(f"show one:  {command('show', str(directory / 'out'), 'INCIDENT')}\n")
    misbehaving = f"{len(truth.behaviours)} misbehaving sandboxes"
    sys.stdout.write(f"truth:     {printable(str(day / 'truth.json'))} ({misbehaving})\n")
    return 0
