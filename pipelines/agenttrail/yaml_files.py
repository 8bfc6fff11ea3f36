"""YAML files that users write: read safely, with the line of everything in them, and checked against a JSON schema."""

from __future__ import annotations

import difflib
import json
import stat
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

from agenttrail.errors import DefinitionError, Problem
from agenttrail.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_BYTES = 4 << 20
_MOST_NODES = 200_000
_MOST_LEVELS = 100
_TOO_DEEP = f"nested more than {_MOST_LEVELS} levels deep"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlDocument:
    """One document of a YAML file.

    Attributes:
        path: the file, as the user named it.
        data: plain values.
        lines: 1-based line of each place; keys of mappings have theirs.
    """

    path: str
    data: Any
    lines: dict[Place, int]

    def problem(self, place: Iterable[str | int], what: str, hint: str = "") -> Problem:
        """Return a problem at ``place``, or at the nearest place around it that has a line."""
        at = tuple(place)
        while at and at not in self.lines:
            at = at[:-1]
        return Problem(self.path, self.lines.get(at, 1), what, hint)


def read_yaml(path: Path, shown: str | None = None) -> list[YamlDocument]:
    """Read all documents of a file.

    Raises:
        DefinitionError: it cannot be read, is no YAML, or uses what makes YAML ambiguous or explosive (duplicate keys,
            numbers that look like times, deep nesting, unbounded aliases).
    """
    name = shown or str(path)
    try:
        raw = _content(path)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise DefinitionError([Problem(name, 0, f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise DefinitionError([Problem(name, 0, f"not valid UTF-8 at byte {error.start}")]) from error
    if len(raw) > _MOST_BYTES:
        raise DefinitionError([Problem(name, 0, f"larger than {_MOST_BYTES >> 20} MiB")])
    return list(_documents(text, name))


def _content(path: Path) -> bytes:
    """Return what a file holds, of a file that is too large its start: one byte more than is allowed."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # of a folder the system says so itself
        msg = "no regular file, and reading it may never end"
        raise OSError(msg)
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _documents(text: str, name: str) -> Iterator[YamlDocument]:
    problems: list[Problem] = []
    try:
        _check_size(text, name)
        for node in yaml.compose_all(text, Loader=_Loader):
            lines: dict[Place, int] = {}
            yield YamlDocument(name, _plain(node, (), lines, [_MOST_NODES], problems, name), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problems.append(Problem(name, line, f"not valid YAML: {error.problem or error}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(Problem(name, line, f"not valid YAML: the character U+{ord(text[error.position]):04X}"))
    except yaml.YAMLError as error:
        problems.append(Problem(name, 0, f"not valid YAML: {' '.join(str(error).split())}"))
    if problems:
        raise DefinitionError(problems)


def _check_size(text: str, name: str) -> None:
    """Refuse what is nested too deeply or holds too much, from events alone: composing recurses, and may crash."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > _MOST_LEVELS or nodes > _MOST_NODES:
                told = _TOO_DEEP if depth > _MOST_LEVELS else f"more than {_MOST_NODES:,} values"
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise DefinitionError([Problem(name, line, told)])


def _plain(
    node: yaml.Node | None, place: Place, lines: dict[Place, int], budget: list[int], problems: list[Problem], name: str
) -> Any:
    """Return the plain value of a node and note the line of everything below it."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    budget[0] -= 1
    if budget[0] < 0:
        raise DefinitionError([Problem(name, line, "aliases expand to too much")])
    if len(place) > _MOST_LEVELS:  # through aliases
        raise DefinitionError([Problem(name, line, _TOO_DEEP)])
    lines.setdefault(place, line)
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        problems.append(Problem(name, line, f"not a plain value: the tag {node.tag}"))
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, lines, budget, problems, name)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, index), lines, budget, problems, name) for index, item in enumerate(node.value)]
    if node.tag in _NUMBER_TAGS and ":" in node.value:
        told = f"{node.value} without quotes is a number to base 60 in YAML: put it in quotes, or write a plain number"
        problems.append(Problem(name, line, told))
        return None
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        problems.append(Problem(name, line, f"not a plain value: {getattr(error, 'problem', None) or error}"))
        return None


def _mapping(
    node: yaml.MappingNode, place: Place, lines: dict[Place, int], budget: list[int], problems: list[Problem], name: str
) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _plain(key_node, (*place, "?"), {}, budget, problems, name)
        line = key_node.start_mark.line + 1
        if not isinstance(key, (str, int)):
            problems.append(Problem(name, line, "a key must be a single value"))
            continue
        if key in result:
            problems.append(Problem(name, line, f"key {key!r} stands twice"))
        lines[*place, key] = line
        result[key] = _plain(value_node, (*place, key), lines, budget, problems, name)
    return result


@cache
def _validator(schema: str) -> Any:
    document = json.loads((shipped("schemas") / f"{schema}.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(document)


def known_keys(schema: str) -> list[str]:
    """Return the keys that ``schemas/<schema>.schema.json`` gives a document."""
    return list(_validator(schema).schema["properties"])


def check_shape(document: YamlDocument, schema: str) -> list[Problem]:
    """Return everything in which a document departs from ``schemas/<schema>.schema.json``."""
    return [problem for _, problem in departures(document, schema)]


def departures(document: YamlDocument, schema: str) -> list[tuple[Place, Problem]]:
    """Return everything in which a document departs from ``schemas/<schema>.schema.json``, with its place."""
    return [found for error in _validator(schema).iter_errors(document.data) for found in _departures(document, error)]


def _departures(document: YamlDocument, error: Any) -> list[tuple[Place, Problem]]:
    place: Place = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        return [_at(document, (*place, key), f"unknown key {key!r}", suggest(str(key), known)) for key in unknown]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [_at(document, place, f"{key!r} is missing") for key in missing]
    if "propertyNames" in error.absolute_schema_path:
        place = (*place, error.instance)
    return [_at(document, place, *_told(place, error))]


def _at(document: YamlDocument, place: Place, what: str, hint: str = "") -> tuple[Place, Problem]:
    return place, document.problem(place, what, hint)


def _told(place: Place, error: Any) -> tuple[str, str]:
    """Return what is wrong with a value, and the value that was likely meant."""
    if error.validator in ("oneOf", "anyOf", "pattern") and "description" in error.schema:
        return f"{_named(place)} must be {error.schema['description']}", ""
    if error.validator == "enum":
        options = [str(value) for value in error.validator_value]
        told = f"{_named(place)} is {error.instance!r}, not one of {', '.join(options)}"
        return told, suggest(str(error.instance), options)
    if error.validator == "type":
        expected = error.validator_value
        return f"{_named(place)} must be of type {expected if isinstance(expected, str) else ' or '.join(expected)}", ""
    return f"{_named(place)}: {error.message}", ""


def _named(place: Place) -> str:
    return ".".join(str(step) for step in place) or "the file"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the known word that was likely meant, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else ""
