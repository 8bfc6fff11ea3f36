"""Paths into JSON objects, as job files write them: ``metadata.labels["example.com/agent"]``."""

from __future__ import annotations

import re

_PATH = re.compile(r"""[A-Za-z_][\w-]*|\.[A-Za-z_][\w-]*|\["[^"]*"\]|\['[^']*'\]|\[\d+\]""")

Step = str | int


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the keys and indexes that ``text`` names, outermost first.

    Raises:
        ValueError: ``text`` is no path; the message says where.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _PATH.match(text, at)
        if match is None or (at == 0) != (match[0][0] not in ".["):
            msg = f'{text!r} is no path such as metadata.labels["key"]: stopped at character {at + 1}'
            raise ValueError(msg)
        steps.append(_step(match[0]))
        at = match.end()
    if not steps:
        msg = "an empty path names nothing"
        raise ValueError(msg)
    return tuple(steps)


def _step(token: str) -> Step:
    if token[0] == "[":
        inner = token[1:-1]
        return int(inner) if inner.isdecimal() else inner[1:-1]
    return token.lstrip(".")


def look_up(document: object, path: tuple[Step, ...]) -> str | None:
    """Return what stands at ``path`` as text, or None where nothing does or what does is no single value."""
    for step in path:
        if isinstance(document, dict) and isinstance(step, str):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    if isinstance(document, bool):
        return str(document).lower()
    return str(document) if isinstance(document, (str, int, float)) and document != "" else None
