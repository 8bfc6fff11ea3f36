"""Rules: read from YAML, checked whole, and carried as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from agenttrail.columns.networks import parse_network
from agenttrail.detect.expressions import COMPARISONS, Expression, Match, Op, Or, matches
from agenttrail.detect.sigma import UnsupportedError, translate
from agenttrail.errors import DefinitionError, Problem
from agenttrail.resources import shipped
from agenttrail.schema import record
from agenttrail.yaml_files import YamlDocument, check_shape, read_yaml, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEVERITIES = ("informational", "low", "medium", "high", "critical")
"""Levels of a rule and severities of what it finds, ascending."""
INCIDENT_SEVERITY = SEVERITIES.index("medium")
"""From this level on a finding opens an incident."""
_NUMBERS = ("port", "long", "integer", "double")
_TACTICS = {
    "reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
    "stealth", "defense-evasion", "credential-access", "discovery", "lateral-movement", "collection",
    "command-and-control", "exfiltration",
    "impact", "defense-impairment",
}  # fmt: skip


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
    tests: tuple[RuleTest, ...] = ()
    path: str = ""
    off: str = ""

    @property
    def severity(self) -> str:
        """Severity of a finding: a building block is context, whatever its level."""
        return min(self.level, "low", key=SEVERITIES.index) if self.building_block else self.level

    @property
    def lists(self) -> set[str]:
        """Names of the lists that the condition uses."""
        return {str(match.value) for match in matches(self.condition) if match.op is Op.LIST}


@dataclass
class _Reading:
    """The state of reading one rule: where it stands and what is wrong with it."""

    document: YamlDocument
    source: LogSource
    problems: list[Problem] = field(default_factory=list)

    def field_name(self, name: str) -> str:
        fields = record("event").fields
        found = self.source.fields.get(name, name)
        if found not in fields:
            place = next(
                (at for at in self.document.lines if at and str(at[-1]).split("|")[0] == name and at[0] == "detection"),
                ("detection",),
            )
            self.problems.append(
                self.document.problem(place, f"unknown field {name!r}", suggest(name, [*fields, *self.source.fields]))
            )
        return found


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
    """Read all rules of files and folders; "builtin" stands for those that ship with the program.

    Args:
        sources: files, folders, or "builtin".
        lists: known lists by name; None leaves them unchecked.

    Raises:
        DefinitionError: with every problem of every file.
    """
    problems: list[Problem] = []
    rules: list[Rule] = []
    for source in sources:
        folder = shipped("rules") if source == "builtin" else Path(source)
        for path in _rule_files(folder, problems):
            rules += _load_file(path, folder, problems)
    problems += _repeated_ids(rules)
    if lists is not None:
        problems += _unknown_lists(rules, lists)
    if problems:
        raise DefinitionError(problems)
    return sorted(rules, key=lambda rule: rule.id)


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


def _load_file(path: Path, folder: Path, problems: list[Problem]) -> list[Rule]:
    try:
        documents = read_yaml(path)
    except DefinitionError as error:
        problems += error.problems
        return []
    rules = []
    for document in documents:
        if document.data is None:
            continue
        name = path.with_suffix("").relative_to(folder).as_posix() if path != folder else path.stem
        rule = _load_rule(document, name, problems)
        rules += [rule] if rule is not None else []
    return rules


def _load_rule(document: YamlDocument, name: str, problems: list[Problem]) -> Rule | None:
    wrong = check_shape(document, "rule") if isinstance(document.data, dict) else [document.problem((), "not a rule")]
    if wrong:
        problems += wrong
        return None
    data = document.data
    if "correlation" in data:
        problems.append(document.problem(("correlation",), "correlations are not supported by this version"))
        return None
    key = data.get("logsource") or {}
    source = log_sources().get((key.get("category"), key.get("product"), key.get("service")))
    reading = _Reading(document, source or LogSource((), {}))
    parsed = _parse(data, reading)
    condition = _condition(parsed, reading) if parsed is not None else None
    if source is None:
        # rules for other log sources may lie in a folder of rules: they are off, and the run says so
        reading.problems = [problem for problem in reading.problems if "unknown field" not in problem.what]
    elif condition is not None:
        reading.problems += _misuses(condition, document)
    if parsed is None or condition is None or reading.problems:
        problems += reading.problems
        return None
    off = "" if source else f"log source {_named(key)} is not known to rules/logsources.yml"
    return _rule(parsed, document, name, condition, source or LogSource((), {}), off)


def _named(key: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {key[name]}" for name in ("product", "category", "service") if key.get(name)) + "}"


def _parse(data: dict[str, Any], reading: _Reading) -> SigmaRule | None:
    try:
        parsed = SigmaRule.from_dict(data, collect_errors=True)
    except (SigmaError, ValueError, TypeError, AttributeError, KeyError) as error:
        reading.problems.append(reading.document.problem(("detection",), f"not a Sigma rule: {error}"))
        return None
    for found in parsed.errors:
        reading.problems.append(reading.document.problem(_place_of(found), f"not a Sigma rule: {found}"))
    return None if parsed.errors else parsed


def _place_of(error: SigmaError) -> tuple[str, ...]:
    kind = type(error).__name__
    words = {
        "Logsource": "logsource",
        "Detection": "detection",
        "Condition": "detection",
        "Level": "level",
        "Status": "status",
        "Identifier": "id",
        "Date": "date",
        "Tag": "tags",
        "Modifier": "detection",
    }
    return next(((place,) for word, place in words.items() if word in kind), ())


def _condition(parsed: SigmaRule, reading: _Reading) -> Expression | None:
    trees = []
    for condition in parsed.detection.parsed_condition:
        try:
            trees.append(translate(condition.parsed, reading.field_name))
        except UnsupportedError as error:
            reading.problems.append(reading.document.problem(("detection",), f"not supported: {error}"))
        except (SigmaError, ValueError) as error:
            reading.problems.append(
                reading.document.problem(("detection", "condition"), f"not a Sigma condition: {error}")
            )
    if not trees or (reading.problems and not trees):
        return None
    return trees[0] if len(trees) == 1 else Or(tuple(trees))


def _misuses(condition: Expression, document: YamlDocument) -> list[Problem]:
    """Return values that cannot be right for the type of their field."""
    fields = record("event").fields
    problems = []
    for match in sorted(matches(condition), key=str):
        type_ = fields[match.field].type if match.field else "text"
        what = _misuse(match, type_)
        if what:
            problems.append(document.problem(("detection",), what))
    return problems


def _misuse(match: Match, type_: str) -> str:
    if match.op is Op.REGEX:
        try:
            pc.match_substring_regex(pa.array([""]), str(match.value))
        except pa.ArrowInvalid as error:
            return f"regular expression {match.value!r} is not one of RE2: {error}"
    elif match.op is Op.NETWORK:
        if type_ != "ip":
            return f"{match.field} is no address, so cidr cannot be asked of it"
        try:
            parse_network(str(match.value))
        except ValueError as error:
            return str(error)
    elif match.op in COMPARISONS and type_ not in _NUMBERS:
        return f"{match.field} is no number, so {match.op.value} cannot be asked of it"
    elif match.op is Op.EQUALS and type_ in _NUMBERS and not _is_number(match.value):
        return f"{match.field} is a number, and {match.value!r} is none"
    elif match.op is Op.EQUALS and type_ == "ip":
        try:
            parse_network(str(match.value))
        except ValueError:
            return f"{match.field} is an address, and {match.value!r} is none"
    return ""


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)


def _rule(
    parsed: SigmaRule, document: YamlDocument, name: str, condition: Expression, source: LogSource, off: str
) -> Rule:
    data = document.data
    tags = [str(tag) for tag in parsed.tags]
    recommendation = data.get("recommendation", [])
    return Rule(
        id=str(data["id"]).lower(),
        name=name,
        title=data["title"],
        level=data["level"],
        condition=condition,
        datasets=source.datasets,
        description=(data.get("description") or "").strip(),
        techniques=tuple(sorted(filter(None, map(_technique, tags)))),
        tactics=tuple(sorted(tag.removeprefix("attack.") for tag in tags if tag.removeprefix("attack.") in _TACTICS)),
        references=tuple(data.get("references") or ()),
        falsepositives=tuple(data.get("falsepositives") or ()),
        recommendation=(recommendation.strip(),) if isinstance(recommendation, str) else tuple(recommendation),
        building_block=bool(data.get("building_block")),
        tests=tuple(_test(document, index, entry) for index, entry in enumerate(data.get("tests") or ())),
        path=document.path,
        off=off,
    )


def _technique(tag: str) -> str | None:
    """Return the technique id of a tag: attack.t1496.001 -> T1496.001, atlas.aml.t0072 -> AML.T0072."""
    space, _, rest = tag.partition(".")
    upper = rest.upper()
    if space == "attack" and upper[:1] == "T" and upper[1:2].isdigit():
        return upper
    return upper if space == "atlas" and upper.startswith("AML.T") else None


def _test(document: YamlDocument, index: int, entry: Mapping[str, Any]) -> RuleTest:
    lists = {name: tuple(values) for name, values in (entry.get("lists") or {}).items()}
    line = document.problem(("tests", index), "").line
    return RuleTest(entry["name"], entry["match"], entry.get("event") or {}, lists, line)


def _repeated_ids(rules: list[Rule]) -> list[Problem]:
    seen: dict[str, Rule] = {}
    problems = []
    for rule in rules:
        first = seen.setdefault(rule.id, rule)
        if first is not rule:
            problems.append(Problem(rule.path, 0, f"id {rule.id} is also that of {first.path}"))
    return problems


def _unknown_lists(rules: list[Rule], lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    return [
        Problem(rule.path, 0, f"unknown list {name!r}", suggest(name, lists))
        for rule in rules
        for name in sorted(rule.lists)
        if name not in lists
    ]
