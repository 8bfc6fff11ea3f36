"""Rules: read from YAML, checked whole, and carried as values."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from agenttrail.detect.detections import Detection, read_detection
from agenttrail.detect.expressions import Expression, Op, matches
from agenttrail.errors import DefinitionError, Problem
from agenttrail.resources import shipped
from agenttrail.yaml_files import YamlDocument, check_shape, known_keys, read_yaml, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEVERITIES = ("informational", "low", "medium", "high", "critical")
"""Levels of a rule and severities of what it finds, ascending."""
INCIDENT_SEVERITY = SEVERITIES.index("medium")
"""From this level on a finding opens an incident."""
_SLIP = 0.8  # how alike a slip of the pen is to what was meant
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
    found: list[_Found] = []
    seen: set[Path] = set()
    for source in sources:
        folder = shipped("rules") if source == "builtin" else Path(source)
        for path in _rule_files(folder, problems):
            if path.resolve() not in seen:
                found += _load_file(path, folder, problems)
            seen.add(path.resolve())
    problems += _repeated_ids(found)
    if lists is not None:
        problems += _unknown_lists(found, lists)
    if problems:
        raise DefinitionError(problems)
    return sorted((one.rule for one in found), key=lambda rule: rule.id)


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


def _load_file(path: Path, folder: Path, problems: list[Problem]) -> list[_Found]:
    try:
        documents = [document for document in read_yaml(path) if document.data is not None]
    except DefinitionError as error:
        problems += error.problems
        return []
    if not documents:
        problems.append(Problem(str(path), 0, "the file holds no rule"))
    name = path.with_suffix("").relative_to(folder).as_posix() if path != folder else path.stem
    return [found for document in documents if (found := _load_rule(document, name, problems)) is not None]


def _load_rule(document: YamlDocument, name: str, problems: list[Problem]) -> _Found | None:
    data = document.data
    if not isinstance(data, dict):
        problems.append(document.problem((), "not a rule"))
        return None
    if "correlation" in data:
        problems.append(document.problem(("correlation",), "correlations are not supported by this version"))
        return None
    key = data.get("logsource")
    key = key if isinstance(key, dict) else {}
    source = log_sources().get((key.get("category"), key.get("product"), key.get("service")))
    wrong = check_shape(document, "rule") + _misspelt(document)
    detection = None
    if isinstance(data.get("detection"), dict):
        # rules for other log sources may lie in a folder of rules: they are off, and the run says so
        detection = read_detection(document, source.fields if source else None)
        wrong += detection.problems
    parsed = _parse(document, wrong)
    if wrong or parsed is None or detection is None or detection.condition is None:
        problems += wrong
        return None
    off = "" if source else f"log source {_named(key)} is not known to rules/logsources.yml"
    rule = _rule(parsed, document, name, detection.condition, source or LogSource((), {}), off)
    return _Found(rule, document, detection)


def _misspelt(document: YamlDocument) -> list[Problem]:
    """Return keys that look like a slip of the pen; other keys that Sigma does not know are the author's own."""
    known = known_keys("rule")
    return [
        document.problem((key,), f"unknown key {key!r}", close[0])
        for key in document.data
        if key not in known and (close := difflib.get_close_matches(str(key), known, n=1, cutoff=_SLIP))
    ]


def _named(key: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {key[name]}" for name in ("product", "category", "service") if key.get(name)) + "}"


def _parse(document: YamlDocument, problems: list[Problem]) -> SigmaRule | None:
    """Let pySigma check all but the detection; what it says of lines that have problems already is left out."""
    data = dict(document.data)
    if isinstance(data.get("detection"), dict):
        data["detection"] = {"any": {"field": 1}, "condition": "any"}
    told = {problem.line for problem in problems}
    try:
        parsed = SigmaRule.from_dict(data, collect_errors=True)
    except (SigmaError, ValueError, TypeError, AttributeError, KeyError) as error:
        if not problems:
            problems.append(document.problem((), f"not a Sigma rule: {error}"))
        return None
    for wrong in parsed.errors:
        found = document.problem(_place_of(wrong), f"not a Sigma rule: {wrong}")
        problems += [found] if found.line not in told else []
    return parsed


def _place_of(error: SigmaError) -> tuple[str, ...]:
    kind = type(error).__name__
    words = {
        "Logsource": "logsource",
        "Detection": "detection",
        "Level": "level",
        "Status": "status",
        "Identifier": "id",
        "Date": "date",
        "Modified": "modified",
        "Related": "related",
        "Tag": "tags",
        "Value": "tags",
    }
    return next(((place,) for word, place in words.items() if word in kind), ())


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


def _repeated_ids(found: list[_Found]) -> list[Problem]:
    seen: dict[str, _Found] = {}
    problems = []
    for one in found:
        first = seen.setdefault(one.rule.id, one)
        if first is not one:
            there = first.document.problem(("id",), "")
            problems.append(
                one.document.problem(("id",), f"id {one.rule.id} is also that of {there.path}:{there.line}")
            )
    return problems


def _unknown_lists(found: list[_Found], lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    return [
        one.document.problem(place, f"unknown list {name!r}", suggest(name, lists))
        for one in found
        for name, place in one.detection.lists.items()
        if name not in lists and not one.rule.off
    ]
