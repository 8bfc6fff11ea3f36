"""What a run tells of itself while it runs: lines of text for people, or a JSON object a line for programs.

It is told through the standard ``logging``, so that whoever embeds this hears it, and Beam does on a worker elsewhere;
structlog only writes it down, with nothing of its own configured for the whole process.  What is told may repeat what
servers say and files hold, so that everything in it is shortened and shown as printable text.
"""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from agenttrail.columns.text import printable
from agenttrail.errors import shortened

if TYPE_CHECKING:
    from collections.abc import MutableMapping

Form = Literal["text", "json"]
LOUD, QUIET = logging.INFO, logging.WARNING
_LONG, _SHORT = ("message", "exception"), 400
"""What may be long, and the most characters of all else."""
_LONGEST = 4000
_WIPE = "\r\x1b[K"
"""Takes the status line off a terminal."""


def tell(log: logging.Logger, event: str, sentence: str, level: int = logging.INFO, **facts: object) -> None:
    """Tell that something happened.

    Args:
        log: logger of the module that knows of it.
        event: what it is called, for programs.
        sentence: the same for people.
        level: of ``logging``.
        facts: numbers, times and names, for programs; never a secret.
    """
    log.log(level, "%s", sentence, extra={"told": (event, facts)})


def handler(form: Form) -> logging.Handler:
    """Return what writes to standard error what is told."""
    writer = logging.StreamHandler()
    writer.setFormatter(_Formatter(form))
    return writer


class _Formatter(logging.Formatter):
    """Hands records on to structlog's, which is imported with the first of them: most commands tell nothing."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        return self._formatter.format(record)

    @cached_property
    def _formatter(self) -> logging.Formatter:
        from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
        from structlog.stdlib import ProcessorFormatter

        render = JSONRenderer() if self._form == "json" else _as_text
        return ProcessorFormatter(
            processors=[TimeStamper(fmt="iso", utc=True), format_exc_info, _named, _printable, render]
        )


def _named(_: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put what an entry says into its order, under the name that its event has."""
    record = entry["_record"]
    event, facts = getattr(record, "told", ("log", {}))
    named = {
        "timestamp": entry["timestamp"],
        "level": record.levelname.lower(),
        "event": event,
        "message": entry["event"],
        "logger": record.name,
    }
    if "exception" in entry:
        named["exception"] = entry["exception"]
    return {**named, **facts, **named}


def _printable(_: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: _shown(value, _LONGEST if name in _LONG else _SHORT) for name, value in entry.items()}


def _shown(value: Any, most: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_shown(one, most) for one in value]
    if isinstance(value, dict):
        return {_shown(str(name), most): _shown(one, most) for name, one in value.items()}
    return shortened(printable(str(value)), most)


def _as_text(_: object, __: str, entry: MutableMapping[str, Any]) -> str:
    """Return an entry as a line, over the status line where there is one."""
    line = f"{entry['timestamp'][:19]}Z {entry['level']}: {entry['message']}"
    if "exception" in entry:
        line += f" ({entry['exception']})"
    return f"{_WIPE}{line}" if sys.stderr.isatty() else line
