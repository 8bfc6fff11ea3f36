"""The questions that analysts ask first, with the KQL query that answers each: ``kibana/questions.yml``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import yaml

from agenttrail.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping

_VALUE = re.compile(r'"\{(\w+)\}"|\{(\w+)\}')
_BARE = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Question:
    """A question of an analyst.

    Attributes:
        id: short name.
        question: as a person asks it.
        of: the kind of index that has the answer: incidents, findings or timeline.
        query: KQL, with ``{name}`` for values.
        columns: fields that answer it.
        sort: fields and directions.
        examples: a value for each name.
    """

    id: str
    question: str
    of: str
    query: str
    columns: tuple[str, ...]
    sort: tuple[tuple[str, str], ...]
    examples: dict[str, str] = field(default_factory=dict)

    def kql(self, values: Mapping[str, str] | None = None) -> str:
        """Return the query about some values, or about the examples.

        Raises:
            KeyError: a value is missing.
            ValueError: a value that stands without quotation marks cannot.
        """
        given = self.examples if values is None else values
        return _VALUE.sub(lambda found: _quoted(given[found[1]]) if found[1] else _bare(given[found[2]]), self.query)


def _quoted(value: str) -> str:
    """Return a value as a KQL string: nothing in it is an operator, a wildcard or the end of the string."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bare(value: str) -> str:
    if not _BARE.fullmatch(value):
        msg = f"{value!r} cannot stand in a query without quotation marks"
        raise ValueError(msg)
    return value


@cache
def questions() -> tuple[Question, ...]:
    """Return the questions that analysts ask first, in the order of their file."""
    text = (shipped("kibana") / "questions.yml").read_text(encoding="utf-8")
    told = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C where there is one
    defaults = [{name: told[name][one["of"]] for name in ("columns", "sort")} | one for one in told["questions"]]
    return tuple(
        Question(**{**one, "columns": tuple(one["columns"]), "sort": tuple(map(tuple, one["sort"]))})
        for one in defaults
    )


def question_table() -> str:
    """Return the questions and their queries as Markdown."""
    rows = [f"| {one.question} | {one.of} | `{one.kql()}` |" for one in questions()]
    return "\n".join(["| question | index | query (KQL) |", "|---|---|---|", *rows]) + "\n"
