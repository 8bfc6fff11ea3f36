"""``agenttrail formats``: the formats that can be read, and which one a file is in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import shown_path

if TYPE_CHECKING:
    import argparse


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parsers."""
    parser = subparsers.add_parser("formats", help="list the formats that can be read, or tell a file's")
    parser.set_defaults(command=_list)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    detect = actions.add_parser("detect", help="tell the format of files")
    detect.add_argument("files", metavar="FILE", nargs="+")
    detect.set_defaults(command=_detect)


def _list(_: argparse.Namespace) -> int:
    from agenttrail.formats import FORMATS
    from agenttrail.tables import print_table

    rows = []
    for name, format_ in sorted(FORMATS.items()):
        about = (sys.modules[format_.parser.__module__].__doc__ or "").partition("\n")[0]
        rows.append((name, format_.gives, " ".join(format_.scopes), about))
    print_table(("format", "gives", "scope columns", "what"), rows)
    return 0


def _detect(arguments: argparse.Namespace) -> int:
    from agenttrail.errors import InputError
    from agenttrail.recognition import recognise
    from agenttrail.tables import print_table

    rows, unknown = [], False
    for path in arguments.files:
        try:
            name, good, lines = recognise(path)
        except InputError as error:
            rows.append((shown_path(path), "", str(error)))
            unknown = True
            continue
        unknown |= not good
        rows.append((shown_path(path), name or "unknown", f"{good} of the first {lines} lines" if good else ""))
    print_table(("file", "format", "because it reads"), rows)
    return int(unknown)
