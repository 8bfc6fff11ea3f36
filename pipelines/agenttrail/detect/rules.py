"""Rules: read from YAML, checked whole, and carried as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttrail.columns.text import shown_path
from agenttrail.detect.correlations import Draft, Referent, read_draft, resolve, rule_columns, switch
from agenttrail.detect.detections import Detection, read_detection
from agenttrail.detect.expressions import Expression, Op, matches
from agenttrail.detect.rule_metadata import SEVERITIES, lists_of_test, metadata, misspelt, parse, severity_of
from agenttrail.errors import DefinitionError, Problem
from agenttrail.resources import shipped
from agenttrail.yaml_files import YamlDocument, check_shape, read_yaml, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sigma.rule import SigmaRule

    from agenttrail.detect.correlations import Correlation

INCIDENT_SEVERITY = SEVERITIES.index("medium")
"""From this level on a finding opens an incident."""


@dataclass(frozen=True)
class LogSource:
    """What a ``logsource`` of a rule means here.

    Attributes:
        datasets: format ids whose events the rule sees.
        fields: event field of each field name; event fields stand for themselves besides.
    """

    datasets: tuple[str, ...]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class RuleTest:
    """One event in a rule file, and whether the rule is to match it."""

    name: str
    match: bool
    event: Mapping[str, Any]
    lists: Mapping[str, tuple[str, ...]]
    line: int


@dataclass(frozen=True)
class Rule:
    """One rule as a value: what it looks for and what it says when it finds it.

    Attributes:
        name: path below its rules folder without the ending; what analysts see as ``rule.name``.
        condition: over event fields.
        datasets: format ids whose events it sees.
        building_block: whether it feeds context only and never opens an incident.
        rows_only: whether it only brings rows to the derived events, and gives no findings.
        off: why the rule does not run, or "".
    """

    id: str
    name: str
    title: str
    level: str
    condition: Expression
    datasets: tuple[str, ...]
    description: str = ""
    techniques: tuple[str, ...] = ()
    tactics: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    recommendation: tuple[str, ...] = ()
    building_block: bool = False
    rows_only: bool = False
    tests: tuple[RuleTest, ...] = ()
    path: str = ""
    off: str = ""

    @property
    def severity(self) -> str:
        """Severity of a finding: a building block is context, whatever its level."""
        return severity_of(self.level, building_block=self.building_block)

    @property
    def lists(self) -> set[str]:
        """Names of the lists that the condition uses."""
        return {str(match.value) for match in matches(self.condition) if match.op is Op.LIST}


@dataclass(frozen=True)
class RuleSet:
    """The rules of a job, by id, and its correlations, each after those that it refers to."""

    rules: list[Rule]
    correlations: list[Correlation]


@cache
def log_sources() -> dict[tuple[str | None, str | None, str | None], LogSource]:
    """Return what each (category, product, service) means, from ``rules/logsources.yml``."""
    (document,) = read_yaml(shipped("rules") / "logsources.yml")
    found = {}
    for entry in document.data:
        key = entry["logsource"]
        source = LogSource(tuple(entry["datasets"]), entry.get("fields", {}))
        found[key.get("category"), key.get("product"), key.get("service")] = source
    return found


def load_rules(sources: Iterable[str | Path], lists: Mapping[str, tuple[str, ...]] | None = None) -> list[Rule]:
    """Read what load_all() reads, and return the rules without the correlations."""
    return load_all(sources, lists).rules


def load_all(sources: Iterable[str | Path], lists: Mapping[str, tuple[str, ...]] | None = None) -> RuleSet:
    """Read all rules and correlations of files and folders; "builtin" stands for those that ship with the program.

    Args:
        sources: files, folders, or "builtin".
        lists: known lists by name; None leaves them unchecked.

    Raises:
        DefinitionError: with every problem of every file.
    """
    reading = _Reading()
    seen: set[Path] = set()
    for source in sources:
        folder = shipped("rules") if source == "builtin" else Path(source)
        for path in _rule_files(folder, reading.problems):
            if path.resolve() not in seen:
                _load_file(path, folder, reading)
            seen.add(path.resolve())
    problems = reading.problems
    problems += _repeated_ids([*(one.document for one in reading.found), *(draft.document for draft in reading.drafts)])
    if lists is not None:
        problems += _unknown_lists(reading.found, lists)
    correlations = []
    if reading.drafts:
        correlations = resolve(reading.drafts, reading.referents(), reading.broken, problems, _unread(seen))
    if problems:
        raise DefinitionError(problems)
    rules = sorted((one.rule for one in reading.found), key=lambda rule: rule.id)
    return RuleSet(rules, switch(correlations, rules))


def _unread(read: set[Path]) -> set[str]:
    """Return the names of the rules that ship and are not among the files that were read."""
    folder = shipped("rules")
    files = [path for path in _rule_files(folder, []) if path.resolve() not in read]
    return {path.with_suffix("").relative_to(folder).as_posix() for path in files}


def _rule_files(source: Path, problems: list[Problem]) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        problems.append(Problem(str(source), 0, "no such rule file or folder"))
        return []
    found = sorted(
        path for ending in ("*.yml", "*.yaml") for path in source.rglob(ending) if path.name != "logsources.yml"
    )
    if not found:
        problems.append(Problem(str(source), 0, "the folder holds no rule (*.yml)"))
    return found


@dataclass(frozen=True)
class _Found:
    """A rule, and where it stands."""

    rule: Rule
    document: YamlDocument
    detection: Detection


@dataclass
class _Reading:
    """What was read.

    Attributes:
        broken: rules that have problems of their own.
    """

    found: list[_Found] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    broken: list[Referent] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def referents(self) -> list[Referent]:
        """Return the rules that a correlation may refer to."""
        return [
            Referent(
                one.rule.id,
                one.rule.name,
                str(one.document.data.get("name") or ""),
                rule_columns(one.detection.fields),
            )
            for one in self.found
        ]


def _load_file(path: Path, folder: Path, reading: _Reading) -> None:
    try:
        documents = [document for document in read_yaml(path) if document.data is not None]
    except DefinitionError as error:
        reading.problems += error.problems
        return
    if not documents:
        reading.problems.append(Problem(str(path), 0, "the file holds no rule"))
    name = shown_path(path.with_suffix("").relative_to(folder).as_posix() if path != folder else path.stem)
    for document in documents:
        data = document.data
        if not isinstance(data, dict):
            reading.problems.append(document.problem((), "not a rule"))
        elif "correlation" in data:
            reading.drafts.append(read_draft(document, name))
        elif found := _load_rule(document, name, reading.problems):
            reading.found.append(found)
        else:
            reading.broken.append(Referent(str(data.get("id") or "").lower(), name, str(data.get("name") or "")))


def _load_rule(document: YamlDocument, name: str, problems: list[Problem]) -> _Found | None:
    data = document.data
    key = data.get("logsource")
    key = key if isinstance(key, dict) else {}
    source = log_sources().get((key.get("category"), key.get("product"), key.get("service")))
    wrong = check_shape(document, "rule") + misspelt(document)
    detection = None
    if isinstance(data.get("detection"), dict):
        # rules for other log sources may lie in a folder of rules: they are off, and the run says so
        detection = read_detection(document, source.fields if source else None)
        wrong += detection.problems
    parsed = parse(document, wrong)
    if wrong or parsed is None or detection is None or detection.condition is None:
        problems += wrong
        return None
    off = "" if source else f"log source {_named(key)} is not known to rules/logsources.yml"
    rule = _rule(parsed, document, name, detection.condition, source or LogSource((), {}), off)
    return _Found(rule, document, detection)


def _named(key: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {key[name]}" for name in ("product", "category", "service") if key.get(name)) + "}"


def _rule(
    parsed: SigmaRule, document: YamlDocument, name: str, condition: Expression, source: LogSource, off: str
) -> Rule:
    return Rule(
        condition=condition,
        datasets=source.datasets,
        tests=tuple(_test(document, index, entry) for index, entry in enumerate(document.data.get("tests") or ())),
        off=off,
        **metadata(parsed, document, name),
        rows_only=bool(document.data.get("rows_only")),
    )


def _test(document: YamlDocument, index: int, entry: Mapping[str, Any]) -> RuleTest:
    line = document.problem(("tests", index), "").line
    return RuleTest(entry["name"], entry["match"], entry.get("event") or {}, lists_of_test(entry), line)


def _repeated_ids(documents: Sequence[YamlDocument]) -> list[Problem]:
    seen: dict[str, YamlDocument] = {}
    problems = []
    for one in documents:
        id_ = str(one.data.get("id") or "").lower()
        first = seen.setdefault(id_, one)
        if first is not one and id_:
            there = first.problem(("id",), "")
            problems.append(one.problem(("id",), f"id {id_} is also that of {there.path}:{there.line}"))
    return problems


def _unknown_lists(found: list[_Found], lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    return [
        one.document.problem(place, f"unknown list {name!r}", suggest(name, lists))
        for one in found
        for name, place in one.detection.lists.items()
        if name not in lists and not one.rule.off
    ]
