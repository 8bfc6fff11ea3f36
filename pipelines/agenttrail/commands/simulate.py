"""``agenttrail simulate``: a training day in raw vendor logs and metadata, with the truth beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.text import printable

if TYPE_CHECKING:
    from agenttrail.simulate.scoring import Score, Verdict


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = subparsers.add_parser(
        "simulate", help="write raw logs and metadata of a simulated training day, and the truth"
    )
    parser.add_argument("directory", metavar="DIR", help="where to; must be empty or not exist yet")
    add_size(parser)
    parser.add_argument(
        "--days",
        type=_positive(int),
        default=1,
        metavar="D",
        help="days to simulate, of seeds S, S + 1 and so on, each in a folder of its own (default 1)",
    )
    parser.add_argument(
        "--score",
        action="store_true",
        help="run the job of each day, lay what it says beside the truth, and print the detection rate by parameter",
    )
    parser.set_defaults(command=command)


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how large a simulated day is."""
    parser.add_argument("--agents", type=_positive(int), default=12, metavar="N", help="number of agents (default 12)")
    parser.add_argument("--hours", type=_hours, default=6.0, metavar="H", help="hours of the day (default 6)")
    parser.add_argument("--seed", type=_seed, default=1, metavar="S", help="what chance draws from (default 1)")


def _positive(kind: Any) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < 1e6:  # noqa: PLR2004 - no day is that large; also refuses nan
            msg = f"{text} is not a sensible size"
            raise argparse.ArgumentTypeError(msg)
        return value

    parse.__name__ = kind.__name__
    return parse


def _hours(text: str) -> float:
    hours: float = _positive(float)(text)
    if hours > _MOST_HOURS:
        msg = f"{text} is more than {_MOST_HOURS} hours"
        raise argparse.ArgumentTypeError(msg)
    return hours


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < _SEEDS:
        msg = f"{text} is not between 0 and {_SEEDS - 1}"
        raise argparse.ArgumentTypeError(msg)
    return seed


_hours.__name__, _seed.__name__ = "float", "int"  # what argparse calls them
_MOST_HOURS, _SEEDS = 672, 1 << 62


def command(arguments: argparse.Namespace) -> int:
    """Simulate and say what was written."""
    from agenttrail.cli import problems_of
    from agenttrail.simulate import simulate
    from agenttrail.simulate.scoring import Score, rate_table, rates

    directory = Path(arguments.directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        told = f"{directory} is not an empty directory"
        raise problems_of(told)
    seeds = range(arguments.seed, arguments.seed + arguments.days)
    every = Score()
    for seed in seeds:
        day = directory / f"seed-{seed}" if arguments.days > 1 else directory
        try:
            truth = simulate(day, agents=arguments.agents, hours=arguments.hours, seed=seed)
        except OSError as error:
            told = f"{day}: {error.strerror or error}"
            raise problems_of(told) from error
        size = f"{len(truth.sandboxes)} sandboxes, {len(truth.behaviours)} of them misbehave"
        if arguments.score:
            one = _scored(day)
            sys.stdout.write(f"{printable(str(day))}: {size}; {_counts(one)}\n" + _mistakes(one))
            every.add(one)
        else:
            sys.stdout.write(f"{printable(str(day))}: {size}; run it with\n")
            sys.stdout.write(f"  agenttrail run {printable(str(day / 'job.yml'))}\n")
        sys.stdout.flush()
    if arguments.score:
        sys.stdout.write(f"\nin all: {len(every.verdicts)} instances, {_counts(every)}\n\n")
        sys.stdout.write(rate_table(rates(every.verdicts)))
    return 0


def _scored(day: Path) -> Score:
    """Run the job of a simulated day, and lay what it says beside the truth."""
    from agenttrail.commands.run import run_job
    from agenttrail.incident_files import read_incidents
    from agenttrail.job_files import load_job
    from agenttrail.jobs import RunOptions
    from agenttrail.simulate.scoring import score

    job = load_job(day / "job.yml")
    run_job(job, RunOptions())
    return score(orjson.loads((day / "truth.json").read_bytes()), read_incidents(str(job.directory)))


def _counts(told: Score) -> str:
    counts = f"{len(told.missed)} missed, {len(told.wrong)} told wrong"
    return f"{counts}, {len(told.innocent)} of {told.clean} clean sandboxes accused"


def _mistakes(told: Score) -> str:
    """Return a line for each instance that was missed or told wrong, and for each sandbox that was accused."""
    lines = [f"missed: {_instance(one)}" for one in told.missed]
    lines += [f"told wrong: {_instance(one)}: {'; '.join(one.wrong)}" for one in told.wrong]
    lines += [f"accused: sandbox {one['sandbox.id']}: {one['incident.title']}" for one in told.innocent]
    return "".join(f"  {printable(line)}\n" for line in lines)


def _instance(verdict: Verdict) -> str:
    one = verdict.behaviour
    return f"{one['kind']} {one['id']} in sandbox {one['sandbox.id']}, {one['parameters']}"
