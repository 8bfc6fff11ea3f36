"""``agenttrail incidents triage``: what an analyst decides, written onto the incident in Elasticsearch."""

from __future__ import annotations

import getpass
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agenttrail.columns.secrets import scrub_text
from agenttrail.columns.text import printable
from agenttrail.commands.printing import print_json
from agenttrail.errors import DefinitionError, Problem
from agenttrail.triage import STATUSES, Change, history

if TYPE_CHECKING:
    import argparse

_URL = "ELASTICSEARCH_URL"
_LONGEST = {"by": 200, "assignee": 200, "note": 20_000}  # characters


def add(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the parser."""
    parser = actions.add_parser(
        "triage",
        help="set status and assignee of an incident in Elasticsearch, add a note",
        description="What others wrote in between is never overwritten: then nothing is written, and you are told what "
        "they wrote.  Notes are added to those before them.",
    )
    parser.add_argument("id", metavar="INCIDENT", help="id, or the start of it")
    parser.add_argument("--status", choices=STATUSES, help="how it stands")
    parser.add_argument("--assignee", metavar="NAME", help="whose it is from now on")
    parser.add_argument(
        "--note", metavar="TEXT", help="what you found out; secrets in it that are recognised are redacted"
    )
    parser.add_argument("--by", metavar="NAME", help="who you are (default: the name of your account here)")
    parser.add_argument("--from", dest="source", metavar="URL", help=f"address (default: what {_URL} says)")
    parser.add_argument("--json", action="store_true", help="print what analysts have written, as one JSON document")
    parser.set_defaults(command=_triage)


def _triage(arguments: argparse.Namespace) -> int:
    from agenttrail.commands.elasticsearch import settings_of
    from agenttrail.sinks.elasticsearch import connect, triage

    url, change = _checked(arguments)
    done = triage(connect(settings_of(url)), arguments.id, change)
    if arguments.json:
        print_json({"incident.id": done.incident, "triage": done.triage})
        return 0
    count = len(history(done.triage))
    told = f"{done.triage.get('status', 'new')}, assigned to {done.triage.get('assignee', 'nobody')}"
    line = f"incident {done.incident}: {told}; {count} {'entry' if count == 1 else 'entries'} in its history"
    sys.stdout.write(printable(line) + "\n")
    return 0


def _checked(arguments: argparse.Namespace) -> tuple[str, Change]:
    """Return where to write, and what.

    Raises:
        DefinitionError: with everything that is wrong.
    """
    url = arguments.source or os.environ.get(_URL) or ""
    given = {name: getattr(arguments, name) for name in ("status", "assignee", "note")}
    problems = []
    if not url:
        problems.append(f"no address: give --from, or set {_URL}")
    elif not url.startswith(("http://", "https://")):
        problems.append("--from is no address of an Elasticsearch: files of a run are never changed by triage")
    if not arguments.id:
        problems.append("the id of the incident is empty")
    if not any(value is not None for value in given.values()):
        problems.append("nothing to write: give --status, --assignee or --note")
    by = arguments.by if arguments.by is not None else getpass.getuser()
    for name, most in _LONGEST.items():
        text = by if name == "by" else given.get(name)
        if text is not None and not 0 < len(text.strip()) <= most:
            problems.append(f"--{name} must hold 1 to {most:,} characters")
        if text is not None and not _is_unicode(text):
            problems.append(f"--{name} is not text in this terminal's encoding")
    if problems:
        raise DefinitionError([Problem("command line", 0, what) for what in problems])
    if given["note"] is not None:  # what is pasted from a log is scrubbed as the log was
        given["note"] = scrub_text(given["note"])
    return url, Change(by=by, at=datetime.now(UTC).isoformat().replace("+00:00", "Z"), **given)


def _is_unicode(text: str) -> bool:
    """Tell whether bytes of an argument made characters; those that did not stand in it as half of one."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
