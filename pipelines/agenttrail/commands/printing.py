"""JSON on standard output: as it is for programs, with nothing that moves a cursor on a terminal."""

from __future__ import annotations

import sys

import orjson


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
