"""Job files: read, checked whole, and turned into values from which the graph is built."""

from __future__ import annotations

import copy
import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import shown_path
from agenttrail.detect.correlations import switch
from agenttrail.detect.expressions import Op, matches
from agenttrail.detect.rules import Rule, RuleSet, load_all
from agenttrail.errors import DefinitionError, InputError, Problem
from agenttrail.formats import FORMATS
from agenttrail.lists import ADDRESS_LISTS, Lists, not_a_network, with_shipped
from agenttrail.paths import parse_path
from agenttrail.schema import record
from agenttrail.sinks.files import is_output
from agenttrail.sources.documents import RereadDocuments
from agenttrail.sources.files import InputFile, match
from agenttrail.sources.growing import GrowingFiles
from agenttrail.transforms.parsing import Source
from agenttrail.yaml_files import YamlDocument, departures, read_yaml, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrail.detect.correlations import Correlation
    from agenttrail.sources.stream import StreamSpec
    from agenttrail.yaml_files import Place

_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BOTH = {"events": "both", "leases": "leases"}  # what tells of both stands among the events
_SECRET_KEYS = ("api_key", "password")
DEFAULT_TOLERANCE = 2_000_000  # microseconds
DEFAULT_WAIT = 600_000_000
LONGEST = 30 * _UNITS["d"]


@dataclass(frozen=True)
class Job:
    """One job, ready to be built.

    Attributes:
        name: what runs of it are called.
        sources: events first, then leases.
        files: of all sources.
        rules: all rules, sorted by id; those that cannot run here say why in ``off``.
        correlations: those of the rules, each after those that it refers to.
        lists: by name.
        tolerance: how far clocks may be apart, in microseconds.
        wait: how long streaming waits for late metadata, in microseconds.
        directory: output directory, or None.
        write_events: whether every attributed event is written, too.
        every_timeline: whether entities without an incident have a timeline, too.
        elasticsearch: settings of the job file's section, with ``${VARIABLES}`` in place of secrets, or None.
        path: the job file.
        streams: what each source is read from as a stream, by its number; empty for a job that runs in batch.
    """

    name: str
    sources: tuple[Source, ...]
    files: tuple[InputFile, ...]
    rules: tuple[Rule, ...]
    lists: Lists
    correlations: tuple[Correlation, ...] = ()
    tolerance: int = DEFAULT_TOLERANCE
    wait: int = DEFAULT_WAIT
    directory: str | None = None
    write_events: bool = False
    every_timeline: bool = False
    elasticsearch: Mapping[str, Any] | None = None
    path: str = ""
    streams: Mapping[int, StreamSpec] = field(default_factory=dict)


@dataclass
class _Reading:
    """The state of reading one job file.

    Attributes:
        document: the file.
        folder: where it lies.
        data: what it says, without the parts that depart from the schema.
        streaming: whether the job is to run as a stream.
        problems: all found so far.
    """

    document: YamlDocument
    folder: Path
    data: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    streaming: bool = False

    def departs(self, place: tuple[str | int, ...]) -> bool:
        """Tell whether what is missing at ``place`` is there, and departs from the schema."""
        said: Any = self.document.data
        for step in place:
            said = said[step]
        return "path" in said or "kafka" in said

    def problem(self, place: tuple[str | int, ...], what: str, hint: str = "") -> None:
        self.problems.append(self.document.problem(place, what, hint))


def load_job(
    path: str | Path, *, output: str | None = None, elasticsearch: str | None = None, streaming: bool = False
) -> Job:
    """Read a job file.

    Args:
        path: the file; paths in it are relative to its folder.
        output: output directory that takes the place of the file's.
        elasticsearch: address that takes the place of the file's.
        streaming: the job is to run as a stream: files may come later, and sources may be topics of Kafka.

    Raises:
        DefinitionError: with every problem of the file, its rules and its lists.
    """
    documents = read_yaml(Path(path), str(path))
    if len(documents) != 1 or not isinstance(documents[0].data, dict):
        raise DefinitionError([Problem(str(path), 1, "a job file is one YAML mapping")])
    wrong = departures(documents[0], "job")
    data = _sound(documents[0].data, [place for place, _ in wrong])
    reading = _Reading(documents[0], Path(path).resolve().parent, data, [problem for _, problem in wrong])
    reading.streaming = streaming
    sources, files, streams = _sources(reading)
    lists = _lists(reading)
    rules = _rules(reading, lists)
    settings = _elasticsearch(reading, elasticsearch)
    tolerance, wait = _duration(reading, "tolerance", DEFAULT_TOLERANCE), _duration(reading, "wait", DEFAULT_WAIT)
    section = data.get("output") or {}
    directory = output or _beside(reading, section.get("directory", "out"))
    _check_directory(reading, directory, files)
    if reading.problems:
        raise DefinitionError(reading.problems)
    return Job(
        name=data.get("name") or shown_path(Path(path).stem),
        sources=tuple(sources),
        files=tuple(files),
        rules=tuple(rules.rules),
        correlations=tuple(rules.correlations),
        lists=lists,
        tolerance=tolerance,
        wait=wait,
        directory=directory,
        write_events=bool(section.get("events")),
        every_timeline=section.get("timeline") == "all",
        elasticsearch=settings,
        path=str(path),
        streams=streams,
    )


def _sound(data: dict[str, Any], wrong: list[Place]) -> dict[str, Any]:
    """Return what a job file says without what departs from the schema, so that the rest can be judged, too."""
    sound = copy.deepcopy(data)
    for place in wrong:
        parent: Any = sound
        key: Any = place[-1] if place else None
        for step in place[:-1]:
            known = isinstance(parent, list) or (isinstance(parent, dict) and step in parent)
            parent = parent[step] if known else None
        if isinstance(parent, list):
            parent[key] = None  # its neighbours keep their places
        elif isinstance(parent, dict) and place:
            if place[:-1] == ("lists",):
                parent[key] = []  # rules may name it
            else:
                parent.pop(key, None)
    return sound


def _duration(reading: _Reading, name: str, default: int) -> int:
    value = (reading.data.get("attribution") or {}).get(name)
    if value is None:
        return default
    try:
        length = duration(value)
    except (OverflowError, ValueError):  # of infinity, which hundreds of digits are, too, and of what is no number
        length = LONGEST + 1
    if length > LONGEST:
        reading.problem(("attribution", name), f"{value} is more than {LONGEST // _UNITS['d']} days")
        return default
    return length


def duration(value: float | str) -> int:
    """Return the microseconds of a number of seconds, or of text such as ``2s`` or ``10m``."""
    if isinstance(value, (int, float)):
        return round(value * _UNITS["s"])
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", value).groups()  # type: ignore[union-attr] # the schema has checked it
    return round(float(number) * _UNITS[unit])


def _beside(reading: _Reading, path: str) -> str:
    """Return a path of the job file as one from the file's own folder; addresses of other file systems stay."""
    return path if "://" in path or Path(path).is_absolute() else str(reading.folder / path)


def _check_directory(reading: _Reading, directory: str, files: list[InputFile]) -> None:
    """Refuse a directory whose name cannot be written down, and one from which the job would read its own output."""
    place = ("output", "directory")
    if shown_path(directory) != directory:
        reading.problem(place, f"the name of the output directory {shown_path(directory)} is not valid UTF-8")
    own = [file.shown for file in files if is_output(file.path, directory)]
    if own:
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        reading.problem(place, f"{own[0]}{more} would be read as input, and is output of this job: name another folder")


def _sources(reading: _Reading) -> tuple[list[Source], list[InputFile], dict[int, StreamSpec]]:
    sources: list[Source] = []
    files: list[InputFile] = []
    streams: dict[int, StreamSpec] = {}
    for section in ("events", "leases"):
        for index, entry in enumerate(reading.data.get(section) or ()):
            if not entry or "format" not in entry:
                continue
            place = (section, index)
            source = _source(reading, place, entry, section)
            found, stream = _input(reading, place, entry, len(sources))
            if source is not None:
                files += found
                streams |= {} if stream is None else {len(sources): stream}
                sources.append(source)
    return sources, files, streams


def _input(
    reading: _Reading, place: tuple[str | int, ...], entry: Mapping[str, Any], source: int
) -> tuple[list[InputFile], StreamSpec | None]:
    """Return the files that a source names, and what it is read from where the job runs as a stream."""
    if ("path" in entry) == ("kafka" in entry):
        both = "a source has 'path' or 'kafka', not both"
        if "path" in entry or not reading.departs(place):
            reading.problem(place, both if "path" in entry else "'path' or 'kafka' is missing")
        return [], None
    if "kafka" in entry:
        return [], _topic(reading, (*place, "kafka"), entry["kafka"])
    found = _files(reading, place, entry["path"], source)
    if not reading.streaming:
        return found, None
    format_ = FORMATS.get(entry["format"])
    kind = RereadDocuments if format_ is not None and format_.gives == "leases" else GrowingFiles
    try:
        return found, kind(_glob(reading, entry["path"]), str(reading.folder))
    except ValueError as error:
        reading.problem((*place, "path"), str(error))
        return [], None


def _topic(reading: _Reading, place: tuple[str | int, ...], section: Mapping[str, Any]) -> StreamSpec | None:
    """Return the topic that a source names; secrets stay ``${VARIABLES}`` until a worker connects."""
    if not reading.streaming:
        told = (
            "a topic of Kafka has no end, so that a batch run cannot read it: add --streaming, or name files by 'path'"
        )
        reading.problem(place, told)
        return None
    if not {"topic", "bootstrap"} <= set(section):
        return None  # the schema has told it
    for key, value in section.items():
        for variable in _VARIABLE.findall(value) if isinstance(value, str) else ():
            if not os.environ.get(variable):
                reading.problem((*place, key), f"the environment variable {variable} is not set")
    paths = {key: _beside(reading, section[key]) for key in ("ca_certs", "certificate", "key") if key in section}
    for key, path in paths.items():
        if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
            reading.problem((*place, key), f"no such file: {section[key]!r}")
    from agenttrail.sources.kafka import KafkaTopic

    try:
        return KafkaTopic(**{**section, **paths})
    except ValueError as error:  # does not repeat what it refuses
        reading.problem(place, str(error))
    return None


def _source(reading: _Reading, place: tuple[str | int, ...], entry: Mapping[str, Any], section: str) -> Source | None:
    name = entry["format"]
    known = {id_: format_ for id_, format_ in FORMATS.items() if format_.gives in (section, _BOTH[section])}
    if name not in known:
        what = f"{name!r} gives {FORMATS[name].gives}, not {section}" if name in FORMATS else f"unknown format {name!r}"
        reading.problem((*place, "format"), what, suggest(name, known))
        return None
    format_ = known[name]
    extra = set(entry) - {"format", "path", "kafka", "scope"} - format_.settings
    for key in sorted(extra):
        reading.problem((*place, key), f"{name} knows no {key!r}")
    for rung, path in (entry.get("identity") or {}).items():
        _check_path(reading, (*place, "identity", rung), path)
    scope = entry.get("scope")
    settings = {key: entry[key] for key in ("identity", "scope") if key in entry and format_.gives == "leases"}
    settings |= {key: entry[key] for key in format_.settings - {"identity", "scope"} if key in entry}
    if extra:
        return None
    try:
        format_.parser(settings)
    except ValueError as error:
        reading.problem((*place, "scope"), str(error))
        return None
    column = format_.scopes.get(scope) if scope else None
    where = entry.get("path") or f"kafka {(entry.get('kafka') or {}).get('topic', '')}"
    return Source(f"{name} {where}", name, settings, None if column else scope, column)


def _check_path(reading: _Reading, place: tuple[str | int, ...], path: str) -> None:
    try:
        parse_path(path)
    except ValueError as error:
        reading.problem(place, str(error))


def _files(reading: _Reading, place: tuple[str | int, ...], pattern: str, source: int) -> list[InputFile]:
    try:
        found = match(_glob(reading, pattern))
    except InputError as error:
        reading.problem((*place, "path"), str(error))
        return []
    is_folder = os.path.isdir(_beside(reading, pattern))  # noqa: PTH112 - pathlib raises where a name is too long
    if not found and is_folder:
        told = f"{pattern!r} is a folder: name its files, such as {pattern.rstrip('/')}/*"
        reading.problem((*place, "path"), told)
    elif not found and not reading.streaming:
        reading.problem((*place, "path"), f"no file matches {pattern!r}")
    folder = str(reading.folder) + os.sep
    return [InputFile(path, shown_path(path.removeprefix(folder)), size, source) for path, size in found]


def _glob(reading: _Reading, pattern: str) -> str:
    """Return a glob of the job file as one from the file's own folder, whose name is no part of the glob."""
    full = _beside(reading, pattern)
    literal = full.removesuffix(pattern) if full.endswith(pattern) else ""
    return glob.escape(literal) + full.removeprefix(literal)


def _lists(reading: _Reading) -> Lists:
    given = reading.data.get("lists") or {}
    lists = {name: tuple(str(entry) for entry in entries if entry is not None) for name, entries in given.items()}
    for name in ADDRESS_LISTS:
        for index, reason in not_a_network(lists.get(name, ())):
            reading.problem(("lists", name, index), reason)
    return with_shipped(lists)


def _rules(reading: _Reading, lists: Lists) -> RuleSet:
    places = []
    for index, name in enumerate(reading.data.get("rules") or ["builtin"]):
        known = bool(name) and os.path.exists(_beside(reading, name))  # noqa: PTH110 - pathlib raises on long names
        if name == "builtin" or known:
            places.append(name if name == "builtin" else _beside(reading, name))
        elif name:
            reading.problem(("rules", index), f"no such rule file or folder: {name!r}")
    try:
        rules = load_all(places, lists)
    except DefinitionError as error:
        reading.problems += error.problems
        return RuleSet([], [])
    for name in sorted(_address_lists(rules.rules) - set(ADDRESS_LISTS)):  # those two are checked with or without rules
        for index, reason in not_a_network(lists[name]):
            reading.problem(("lists", name, index), reason)
    on = switched(rules.rules, lists)
    return RuleSet(on, switch(rules.correlations, on))


def _address_lists(rules: list[Rule]) -> set[str]:
    """Return the lists that rules hold against an address."""
    fields = record("event").fields
    return {
        str(one.value)
        for rule in rules
        for one in matches(rule.condition)
        if one.op is Op.LIST and one.field in fields and fields[one.field].type == "ip"
    }


def switched(rules: list[Rule], lists: Mapping[str, tuple[str, ...]]) -> list[Rule]:
    """Return the rules, those off that use an empty list."""
    from dataclasses import replace

    out = []
    for rule in rules:
        empty = sorted(name for name in rule.lists if not lists.get(name))
        off = rule.off or (f"its list {empty[0]} is empty" if empty else "")
        out.append(replace(rule, off=off) if off else rule)
    return out


def _elasticsearch(reading: _Reading, override: str | None) -> Mapping[str, Any] | None:
    """Return the settings of the Elasticsearch sink; secrets stay ``${VARIABLES}`` until a worker connects."""
    section = dict((reading.data.get("output") or {}).get("elasticsearch") or {})
    place = ("output", "elasticsearch")
    for key in _SECRET_KEYS:
        if key in section and not _VARIABLE.fullmatch(section[key]):
            reading.problem((*place, key), "secrets come from the environment only: write ${NAME} and set NAME")
            section.pop(key)
    if override:
        section |= {"url": override, **_credentials_of_environment(section)}
    if section and not section.get("url"):
        reading.problem(place, "'url' is missing, and no --elasticsearch gives one")
    for key, value in section.items():
        for variable in _VARIABLE.findall(value) if isinstance(value, str) else ():
            if not os.environ.get(variable):
                reading.problem((*place, key), f"the environment variable {variable} is not set")
    if section.get("url"):
        from agenttrail.sinks.elasticsearch import ElasticsearchSettings

        try:
            ElasticsearchSettings(**section)
        except ValueError as error:  # does not repeat what it refuses
            reading.problem(place, str(error))
    return section or None


def _credentials_of_environment(section: Mapping[str, Any]) -> dict[str, str]:
    """Return by name the credentials and authorities that the environment has and the job file does not name."""

    def named(*keys: str) -> dict[str, str]:
        variables = {key: f"ELASTICSEARCH_{key.upper()}" for key in keys}
        known = all(os.environ.get(variable) for variable in variables.values())
        return {key: f"${{{variable}}}" for key, variable in variables.items()} if known else {}

    out = {} if "ca_certs" in section else named("ca_certs")
    if not {"api_key", "username", "password"} & set(section):
        out |= named("api_key") or named("username", "password")
    return out
