"""JSON on standard output, as it is for programs, and how far something is on standard error."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 10.0  # seconds between lines that tell how far it is


def print_json(document: object, *, indent: bool = False) -> None:
    """Print a document, on one line unless ``indent``; it says the same wherever it is read."""
    text = orjson.dumps(document, option=(orjson.OPT_INDENT_2 if indent else 0) | orjson.OPT_APPEND_NEWLINE)
    if sys.stdout.isatty():
        text = escaped(text.decode()).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def escaped(text: str) -> str:
    r"""Return JSON with everything in it that is not printable as ``\uNNNN``; JSON asks that of few characters only."""
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


class StatusLine:
    """Tells on standard error how far something is: in place on a terminal, in plain lines otherwise."""

    def __init__(self, text: Callable[[], str]) -> None:
        """Tell what ``text`` returns, from when it is entered to when it is left."""
        self._text, self._done = text, threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Wipe the line off the terminal."""
        self._done.set()
        self._thread.join()
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")

    def _tell(self) -> None:
        terminal = sys.stderr.isatty()
        while not self._done.wait(0.5 if terminal else _EVERY):
            sys.stderr.write(f"\r\x1b[K{self._text()}" if terminal else f"{self._text()}\n")
            sys.stderr.flush()
