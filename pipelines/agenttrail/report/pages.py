"""HTML from templates: whatever comes from logs is escaped, shortened and shown; a page runs and loads nothing else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from agenttrail.columns.text import printable
from agenttrail.errors import shortened
from agenttrail.metadata import parse_time
from agenttrail.timeline_story import size

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPLATES = Path(__file__).resolve().parent / "templates"
_LONGEST = 1_200
"""Characters of any one value on a page."""
_NAME = 160
"""Characters of a name or title."""
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400  # seconds


def render(template: str, script: str, **context: Any) -> bytes:
    """Return one page.

    Args:
        template: name of the template.
        script: name of the only script that the page may run.
        context: what the template shows.
    """
    code, style = _shipped(script), _shipped("report.css")
    page = _environment().get_template(template)
    return page.render(script=code, style=style, policy=_policy(code, style), **context).encode()


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy of a page: its own script and style by their hashes, and nothing else."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _shipped(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - ships with the program


_PLAIN = (str, int, float, bool, tuple, list, dict, Markup, NoneType)
"""What can be neither called nor led astray."""


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look for a key of a dict, or a field of a record, first: the sandbox takes longer, and says the same of them.

        Of what a record's class has besides, and of all else, the sandbox is asked.
        """
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if attribute in getattr(type(obj), "__dataclass_fields__", ()) and attribute[0] != "_":
            value = getattr(obj, attribute)
            if type(value) in _PLAIN:
                return value
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Answer for our own records at once, as the sandbox would: none is a function, a class or a built-in."""
        if hasattr(type(obj), "__dataclass_fields__"):
            return not attr.startswith("_")
        return super().is_safe_attribute(obj, attr, value)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    environment.filters |= {
        "when": when, "day": day, "lasting": lasting, "size": size, "short": short, "between": between,
        "number": "{:,}".format,
    }  # fmt: skip
    return environment


def _shown(value: object) -> object:
    """Return what an expression of a template prints: what is no markup of ours moves nothing and hides nothing."""
    if type(value) is str and len(value) <= _LONGEST and value.isprintable():
        return value  # as most are
    return value if isinstance(value, Markup) else printable(shortened(str(value), _LONGEST))


def cells(texts: Sequence[str]) -> list[str]:
    """Return texts as they may stand in HTML, all at once: tables have thousands."""
    if any(map(_LONGEST.__lt__, map(len, texts))):
        texts = [shortened(text, _LONGEST) for text in texts]
    if not "".join(texts).isprintable():
        texts = [printable(text) for text in texts]
    # no text holds a line end any more
    return str(escape("\n".join(texts))).split("\n")


@dataclass(frozen=True)
class Rows:
    """Rows of a table whose first column holds times.

    Attributes:
        html: of all rows.
        count: how many they are.
    """

    html: Markup
    count: int

    @classmethod
    def of(cls, *columns: Sequence[str], heavy: Sequence[bool] | None = None) -> Rows:
        """Make the rows of the texts of each column, as they come; some of them may weigh more than others."""
        count = len(columns[0])
        looks = [' class="heavy"' if one else "" for one in heavy or [False] * count]
        escaped = zip(looks, *map(cells, columns), strict=True) if count else ()
        html = "\n".join(
            f'<tr{look}><td class="time">{time}</td><td>{"</td><td>".join(more)}</td></tr>'
            for look, time, *more in escaped
        )
        return cls(Markup(html), count)  # noqa: S704 - every text was escaped


def short(value: object, most: int = _NAME) -> str:
    """Return a name as it may stand in a line."""
    return printable(shortened(str(value), most))


def micros(text: str) -> int:
    """Return the microseconds since 1970 of a time that is known to be one."""
    return parse_time(text, "time")


@lru_cache(maxsize=1024)
def when(time: str | int) -> str:
    """Return a time, or microseconds since 1970, to the second; what is no time, as it is."""
    try:
        return f"{moment(time):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return short(time, 40)


def between(start: str | int, stop: str | int) -> str:
    """Return two times; the day of the second one only where it is another."""
    first, last = when(start), when(stop)
    if first == last:
        return first
    return f"{first} to {last.removeprefix(first[:11]) if first[:11] == last[:11] else last}"


def clock(time: str | int, beside: str) -> str:
    """Return a time to the second, without its day where that is the day of another time that stands beside it."""
    return when(time).removeprefix(f"{when(beside)[:10]} ")


def day(time: str | int) -> str:
    """Return its day."""
    return f"{moment(time):%Y-%m-%d}"


def moment(time: str | int) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp((micros(time) if isinstance(time, str) else time) // 1_000_000, UTC)


def lasting(duration: int) -> str:
    """Return microseconds as people say them."""
    seconds = duration // 1_000_000
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return _two(seconds, _MINUTE, "min", 1, "s")
    if seconds < _DAY:
        return _two(seconds, _HOUR, "h", _MINUTE, "min")
    return _two(seconds, _DAY, "d", _HOUR, "h")


def _two(seconds: int, large: int, name: str, small: int, part: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large} {name}" + (f" {rest} {part}" if rest else "")
