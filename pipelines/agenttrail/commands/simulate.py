"""``agenttrail simulate``: a training day in raw vendor logs and metadata, with the truth beside it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from agenttrail.columns.text import printable


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = subparsers.add_parser(
        "simulate", help="write raw logs and metadata of a simulated training day, and the truth"
    )
    parser.add_argument("directory", metavar="DIR", help="where to; must be empty or not exist yet")
    add_size(parser)
    parser.set_defaults(command=command)


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how large a simulated day is."""
    parser.add_argument("--agents", type=_positive(int), default=12, metavar="N", help="number of agents (default 12)")
    parser.add_argument("--hours", type=_positive(float), default=6.0, metavar="H", help="hours of the day (default 6)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what chance draws from (default 1)")


def _positive(kind: Any) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 < value < 1e6:  # noqa: PLR2004 - no day is that large; also refuses nan
            msg = f"{text} is not a sensible size"
            raise argparse.ArgumentTypeError(msg)
        return value

    parse.__name__ = kind.__name__
    return parse


def command(arguments: argparse.Namespace) -> int:
    """Simulate and say what was written."""
    from agenttrail.cli import problems_of
    from agenttrail.simulate import simulate

    directory = Path(arguments.directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        told = f"{directory} is not an empty directory"
        raise problems_of(told)
    truth = simulate(directory, agents=arguments.agents, hours=arguments.hours, seed=arguments.seed)
    size = f"{len(truth.sandboxes)} sandboxes, {len(truth.behaviours)} of them misbehave"
    sys.stdout.write(f"{printable(str(directory))}: {size}; run it with\n")
    sys.stdout.write(f"  agenttrail run {printable(str(directory / 'job.yml'))}\n")
    return 0
