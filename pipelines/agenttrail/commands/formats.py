"""``agenttrail formats``: the formats that can be read, and which one a file is in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import shown_path

if TYPE_CHECKING:
    import argparse

_ENOUGH = 1 << 20  # bytes that tell the format


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
    from agenttrail.tables import print_table

    rows, unknown = [], False
    for path in arguments.files:
        try:
            name, good, lines = _best(path)
        except InputError as error:
            rows.append((shown_path(path), "", str(error)))
            unknown = True
            continue
        unknown |= not good
        rows.append(
            (shown_path(path), name if good else "unknown", f"{good} of the first {lines} lines" if good else "")
        )
    print_table(("file", "format", "because it reads"), rows)
    return int(unknown)


def _best(path: str) -> tuple[str, int, int]:
    """Return the format that reads most of the start of a file, how many of its lines, and of how many."""
    from agenttrail.formats import FORMATS
    from agenttrail.parsing import Block
    from agenttrail.sources.files import first_bytes

    start = first_bytes(path, _ENOUGH)
    whole = start if len(start) < _ENOUGH else start[: start.rfind(b"\n") + 1]
    tried = [_tried(name, format_.parser({}), Block(whole, shown_path(path), 0)) for name, format_ in FORMATS.items()]
    good, lines, name = max(tried, key=lambda found: (found[0], found[2]))
    return name, good, lines


def _tried(name: str, parser: Any, block: Any) -> tuple[int, int, str]:
    from agenttrail.errors import InputError

    try:
        parsed = parser(block)
    except InputError:
        return 0, 0, name
    good = parsed.lines - parsed.skipped - parsed.dead.num_rows  # one line may give several records
    return good if good > parsed.dead.num_rows else 0, parsed.lines, name
