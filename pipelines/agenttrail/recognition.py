"""Which format a file is in, by which of them reads most of its beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.columns.text import shown_path
from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block
from agenttrail.sources.files import first_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenttrail.parsing import Parsed

_ENOUGH = 1 << 20  # bytes that tell the format


class Recognised(NamedTuple):
    """What reads most of the beginning of a file.

    Attributes:
        format: format id, "" where none reads most of it.
        good: how many of its lines that format reads.
        lines: of how many.
    """

    format: str
    good: int
    lines: int


def recognise(path: str) -> Recognised:
    """Return the format that reads most of the start of a file.

    Raises:
        InputError: the file cannot be read.
    """
    start = first_bytes(path, _ENOUGH)
    whole = start if len(start) < _ENOUGH else start[: start.rfind(b"\n") + 1]
    block = Block(whole, shown_path(path), 0)
    tried = [_tried(name, format_.parser({}), block) for name, format_ in FORMATS.items()]
    good, lines, name = max(tried, key=lambda found: (found[0], found[2]))
    return Recognised(name if good else "", good, lines)


def _tried(name: str, parser: Callable[[Block], Parsed], block: Block) -> tuple[int, int, str]:
    try:
        parsed = parser(block)
    except InputError:
        return 0, 0, name
    good = parsed.with_records  # one line may give several records
    return good if good > parsed.dead.num_rows else 0, parsed.lines, name
