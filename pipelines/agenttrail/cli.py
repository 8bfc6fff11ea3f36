"""The command line."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING

from agenttrail import __version__
from agenttrail.columns.memory import keep_freed_memory, look_for_cycles_seldom
from agenttrail.columns.text import printable
from agenttrail.errors import AgentTrailError, DefinitionError, Problem
from agenttrail.telling import QUIET, handler, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenttrail.telling import Form

_WHILE = re.compile(r"\s*\[while running '[^']*'\]")
_FROM_WORKER = re.compile(r"agenttrail\.errors\.(\w+): ((?:.|\n)*?)(?=\n\n|\nDuring handling|\nThe above|\Z)")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 the run failed, 2 wrong usage or a bad job or rule file."""
    keep_freed_memory()  # before there are threads, whose memory would come from elsewhere
    look_for_cycles_seldom()
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and not getattr(known, "takes_beam_options", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    known.beam_options = rest
    form: Form = getattr(known, "log_format", None) or "text"
    _be_quiet(form)
    return _done(known.command, known, _complain_to_programs if form == "json" else _complain)


def _done(
    command: Callable[[argparse.Namespace], int], known: argparse.Namespace, complain: Callable[[str, str], None]
) -> int:
    """Run a command and return the exit status, with what went wrong told."""
    try:
        return command(known)
    except AgentTrailError as error:
        complain(error.event, _WHILE.sub("", str(error)))
        return error.exit_status
    except KeyboardInterrupt:
        complain("interrupted", "interrupted; the output of earlier runs is as it was")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: nobody is left to be told
        return 0
    except Exception as error:
        told = _told_by_worker(error)
        if told is None:
            raise
        complain(AgentTrailError.event, told)
        return 1


def _be_quiet(form: Form) -> None:
    """Keep the libraries' own messages off the screen; ours say what matters, in the form that is asked for."""
    logging.basicConfig(level=logging.CRITICAL, handlers=[handler(form)])
    logging.getLogger().setLevel(logging.CRITICAL)
    logging.getLogger("agenttrail").setLevel(QUIET)  # a run that waits for a server says so
    if form == "json":
        logging.captureWarnings(capture=True)
        logging.getLogger("py.warnings").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="apache_beam")
    warnings.filterwarnings("ignore", module="elasticsearch")


def _complain(_: str, text: str) -> None:
    # a message may repeat what stands in a file or its name
    shown = "\n".join(map(printable, text.split("\n")))
    sys.stderr.write(f"agenttrail: {shown}\n" if "\n" not in shown else f"{shown}\n")


def _complain_to_programs(event: str, text: str) -> None:
    tell(logging.getLogger("agenttrail"), event, text, logging.ERROR)


def _told_by_worker(error: BaseException) -> str | None:
    """Return what an error of ours said on a worker, which Beam hands on as text, or None."""
    found = _FROM_WORKER.findall(_WHILE.sub("", str(error)))
    return found[-1][1].strip() if found else None


def _parser() -> argparse.ArgumentParser:
    from agenttrail import commands

    parser = argparse.ArgumentParser(prog="agenttrail", description="Says which agent did it.")
    parser.add_argument("--version", action="version", version=f"agenttrail {__version__}")
    commands.add(parser.add_subparsers(title="commands", metavar="COMMAND", required=True))
    return parser


def problems_of(*what: str) -> DefinitionError:
    """Return a usage error with the given texts."""
    return DefinitionError([Problem("command line", 0, text) for text in what])


if __name__ == "__main__":
    sys.exit(main())
