"""Correlations: Sigma rules over the hits of other rules, read from YAML, checked whole, and carried as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from sigma.correlations import SigmaCorrelationTimespan

from agenttrail.detect.rule_metadata import lists_of_test, metadata, misspelt, parse, severity_of
from agenttrail.schema import arrow_type, record
from agenttrail.yaml_files import departures, suggest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pyarrow as pa
    from sigma.rule import SigmaRule

    from agenttrail.detect.rules import Rule
    from agenttrail.errors import Problem
    from agenttrail.yaml_files import Place, YamlDocument

OPERATORS = ("gte", "gt", "lte", "lt", "eq", "neq")
_SECOND = 1_000_000
_LONGEST = 100 * 31_556_952 * _SECOND
"""No two events are further apart than these years (microseconds)."""


@dataclass(frozen=True)
class CorrelationTest:
    """Some events in a correlation's file, and whether the correlation is to find something in them."""

    name: str
    match: bool
    events: tuple[Mapping[str, Any], ...]
    lists: Mapping[str, tuple[str, ...]]
    line: int


@dataclass(frozen=True)
class Correlation:
    """One correlation as a value.

    Attributes:
        name: path below its rules folder without the ending.
        type: event_count, value_count, temporal or temporal_ordered.
        rules: ids of the rules, or of other correlations, that it looks at.
        group_by: what its findings have in common, in the author's words; empty: all hits are one group.
        keys: of each of ``rules`` the columns of its hits that stand for ``group_by``.
        timespan: length of a window, in microseconds.
        condition: operator and number.
        values: of each of ``rules`` the column whose values ``value_count`` counts; else empty.
        building_block: whether it feeds context only and never opens an incident.
        generate: whether building blocks among ``rules`` give findings of their own, too.
        off: why the correlation does not run, or "".
    """

    id: str
    name: str
    title: str
    level: str
    type: str
    rules: tuple[str, ...]
    group_by: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    timespan: int
    condition: tuple[str, int]
    values: tuple[str, ...] = ()
    description: str = ""
    techniques: tuple[str, ...] = ()
    tactics: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    falsepositives: tuple[str, ...] = ()
    recommendation: tuple[str, ...] = ()
    building_block: bool = False
    generate: bool = False
    tests: tuple[CorrelationTest, ...] = ()
    path: str = ""
    off: str = ""

    @property
    def severity(self) -> str:
        """Severity of a finding: a building block is context, whatever its level."""
        return severity_of(self.level, building_block=self.building_block)


@dataclass(frozen=True)
class Referent:
    """What a correlation may refer to.

    Attributes:
        sigma_name: the ``name`` that its author gave it, or "".
        columns: column and type, where it is known, of each name by which its hits may be grouped; None where the names
            are not known.
    """

    id: str
    name: str
    sigma_name: str
    columns: Mapping[str, tuple[str, pa.DataType | None]] | None = None


@dataclass
class Draft:
    """A correlation as its file says it, before the rules that it refers to are known.

    Attributes:
        misshapen: places that cannot be read.
    """

    document: YamlDocument
    name: str
    parsed: SigmaRule | None
    problems: list[Problem] = field(default_factory=list)
    misshapen: frozenset[Place] = frozenset()

    @property
    def id(self) -> str:
        """Its id, or "" for none."""
        return str(self.document.data.get("id") or "").lower()

    @property
    def said(self) -> Mapping[str, Any]:
        """What it correlates."""
        said = self.document.data["correlation"]
        return said if isinstance(said, dict) else {}

    def problem(self, place: Place, what: str, hint: str = "") -> None:
        """Note a problem of the ``correlation`` part."""
        self.problems.append(self.document.problem(("correlation", *place), what, hint))

    def texts(self, key: str) -> list[tuple[Place, str]]:
        """Return the texts under a key, which may be one or a list, with their places."""
        value = self.said.get(key)
        if isinstance(value, str):
            return [((key,), value)]
        listed = value if isinstance(value, list) else []
        return [((key, index), one) for index, one in enumerate(listed) if isinstance(one, str)]


def read_draft(document: YamlDocument, name: str) -> Draft:
    """Read a document with ``correlation`` as far as it stands by itself."""
    data = document.data
    for key in ("detection", "logsource"):
        if key in data:
            told = f"a correlation has no {key} of its own: it stands in a rule that it refers to"
            return Draft(document, name, None, [document.problem((key,), told)])
    shape = departures(document, "rule")
    problems = [problem for _, problem in shape] + misspelt(document)
    draft = Draft(document, name, parse(document, problems), problems, frozenset(place for place, _ in shape))
    _check_timespan(draft)
    _check_condition(draft)
    return draft


def _timespan(draft: Draft) -> int:
    return int(SigmaCorrelationTimespan(draft.said["timespan"]).seconds) * _SECOND


def _check_timespan(draft: Draft) -> None:
    if _readable(draft, "timespan") and _timespan(draft) > _LONGEST:
        draft.problem(("timespan",), "timespan is longer than 100 years")


def _readable(draft: Draft, key: str) -> bool:
    return key in draft.said and all(place[:2] != ("correlation", key) for place in draft.misshapen)


def _condition(draft: Draft) -> tuple[str, int]:
    """Return operator and number; by default all rules must occur."""
    said = draft.said.get("condition")
    op = next((op for op in OPERATORS if op in (said or ())), "")
    return (op, int((said or {})[op])) if op else ("gte", len(draft.texts("rules")))


def _check_condition(draft: Draft) -> None:
    kind, condition = draft.said.get("type"), draft.said.get("condition")
    if condition is None:
        if kind in ("event_count", "value_count"):
            draft.problem((), "'condition' is missing")
        return
    if not _readable(draft, "condition"):
        return
    if sum(op in condition for op in OPERATORS) != 1:
        draft.problem(("condition",), f"condition needs one of {', '.join(OPERATORS)}")
    elif not _possible(draft):
        draft.problem(("condition",), "the condition never holds")
    elif kind == "temporal_ordered" and _condition(draft) not in _all_rules(draft):
        draft.problem(("condition",), "temporal_ordered asks for all of its rules: leave the condition out")
    if kind == "value_count" and "field" not in condition:
        draft.problem(("condition",), "'field' is missing: whose values are to be counted")
    if kind in ("event_count", "temporal", "temporal_ordered") and "field" in condition:
        draft.problem(("condition", "field"), f"{kind} counts no values of a field: that is value_count")


def _all_rules(draft: Draft) -> tuple[tuple[str, int], ...]:
    count = len(draft.texts("rules"))
    return ("gte", count), ("eq", count), ("gt", count - 1)


def _possible(draft: Draft) -> bool:
    """Tell whether some window, which holds one hit at least, may fulfil the condition."""
    op, count = _condition(draft)
    kind, rules = draft.said.get("type"), len(draft.texts("rules"))
    lowest = 0 if kind == "value_count" else 1
    highest = rules if kind in ("temporal", "temporal_ordered") else float("inf")
    return can_hold(op, count, lowest, highest)


def can_hold(op: str, count: int, lowest: int, highest: float) -> bool:
    """Tell whether a number from ``lowest`` to ``highest`` may fulfil a condition."""
    return {
        "gte": highest >= count,
        "gt": highest > count,
        "lte": lowest <= count,
        "lt": lowest < count,
        "eq": lowest <= count <= highest,
        "neq": lowest != count or highest != count,
    }[op]


# -- what the rules say that a correlation refers to


class _Names:
    """Whom a reference means: an id before a Sigma ``name``, and that before the name by path."""

    def __init__(self, referents: Iterable[Referent], unread: Collection[str] = ()) -> None:
        self.unread = unread
        self.by_id = {one.id: one for one in referents if one.id}
        self.levels: list[dict[str, list[Referent]]] = [{}, {}, {}]
        for one in referents:
            for level, name in zip(self.levels, (one.id, one.sigma_name, one.name), strict=True):
                if name:
                    level.setdefault(name, []).append(one)

    def find(self, word: str) -> list[Referent]:
        """Return all that a reference may mean."""
        for level, name in zip(self.levels, (word.lower(), word, word), strict=True):
            if name in level:
                return level[name]
        return []

    def unknown(self, word: str) -> tuple[str, str]:
        """Return what to say of a reference that means nobody, and a name that may have been meant."""
        if word in self.unread:
            return f"unknown rule {word!r}: it ships with the program; name 'builtin' beside your rules", ""
        return f"unknown rule {word!r}", suggest(word, [name for level in self.levels for name in level])


def resolve(
    drafts: Sequence[Draft],
    rules: Sequence[Referent],
    broken: Sequence[Referent],
    problems: list[Problem],
    unread: Collection[str] = (),
) -> list[Correlation]:
    """Return the correlations, each after those that it refers to.

    Args:
        drafts: as read.
        rules: what they may refer to besides one another.
        broken: rules with problems of their own; that a correlation refers to one is no further problem.
        problems: gets all problems of the drafts.
        unread: names of rules that ship and were not asked for.
    """
    own = [Referent(draft.id, draft.name, str(draft.document.data.get("name") or "")) for draft in drafts]
    names = _Names([*rules, *own, *broken], unread)
    place = {id(one): number for number, one in enumerate(own)}
    found = [_references(draft, names) for draft in drafts]
    refers = [[place[id(one)] for one in some if id(one) in place] for some in found]
    correlations = []
    for number in _ordered(drafts, refers):
        draft = drafts[number]
        referents = [own[place[id(one)]] if id(one) in place else one for one in found[number]]
        reading = _Reading(draft, names, referents)
        reading.read()
        tests = reading.tests()
        own[number] = replace(own[number], columns=reading.columns())
        if not draft.problems and draft.parsed:
            correlations.append(_correlation(draft, draft.parsed, reading, tests))
    problems += [problem for draft in drafts for problem in draft.problems]
    return correlations


def _references(draft: Draft, names: _Names) -> list[Referent | None]:
    """Return whom each reference means, None for one that has a problem."""
    out: list[Referent | None] = []
    for place, word in draft.texts("rules"):
        found = names.find(word)
        one = found[0] if len(found) == 1 else None
        if not found:
            draft.problem(place, *names.unknown(word))
        elif one is None:
            draft.problem(place, f"{word!r} is the name of {len(found)} rules: refer to one by its id")
        elif one in out:
            draft.problem(place, f"the rule {word!r} stands twice")
        out.append(one)
    return out


def _ordered(drafts: Sequence[Draft], refers: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of the drafts, each after those that it refers to, and note where they go in circles."""
    graph = {
        number: sorted(refers[number]) for number in sorted(range(len(drafts)), key=lambda place: drafts[place].id)
    }
    while True:
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle = error.args[1][::-1]  # first and last are the same
            names = " → ".join(drafts[number].name for number in circle)
            drafts[circle[0]].problem(("rules",), f"the correlation refers to itself: {names}")
            graph[circle[0]] = [number for number in graph[circle[0]] if number != circle[1]]


@dataclass
class _Reading:
    """The fields of a correlation, in the columns of each of its rules."""

    draft: Draft
    names: _Names
    referents: Sequence[Referent | None]
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    types: dict[str, pa.DataType] = field(default_factory=dict)
    values: tuple[str, ...] = ()

    def read(self) -> None:
        """Find the columns of everything that is grouped by or counted, and note what cannot be found."""
        self._check_aliases()
        for place, name in self.draft.texts("group-by"):
            if name in self.keys:
                self.draft.problem(place, f"{name!r} stands twice")
            else:
                self.keys[name] = self._columns(place, name)
        condition = self.draft.said.get("condition")
        counted = condition.get("field") if isinstance(condition, dict) else None
        if isinstance(counted, str) and self.draft.said.get("type") == "value_count":
            self.values = self._columns(("condition", "field"), counted)

    def tests(self) -> tuple[CorrelationTest, ...]:
        """Return the tests; note what their events say of rules."""
        if any(place[:1] == ("tests",) for place in self.draft.misshapen):
            return ()
        tests = []
        for index, entry in enumerate(self.draft.document.data.get("tests", [])):
            events = [self._event(index, number, event) for number, event in enumerate(entry["events"])]
            line = self.draft.document.problem(("tests", index), "").line
            tests.append(CorrelationTest(entry["name"], entry["match"], tuple(events), lists_of_test(entry), line))
        return tuple(tests)

    def _event(self, test: int, number: int, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event of a test, the rule that it names by its id."""
        if "rule" not in event:
            return event
        word = event["rule"]
        found = self.names.find(word)
        if len(found) != 1:
            several = f"{word!r} is the name of {len(found)} rules: refer to one by its id"
            what, hint = (several, "") if found else self.names.unknown(word)
            place = ("tests", test, "events", number, "rule")
            self.draft.problems.append(self.draft.document.problem(place, what, hint))
            return event
        return {**event, "rule": found[0].id}

    def columns(self) -> dict[str, tuple[str, pa.DataType | None]]:
        """Return by what the runs of this correlation may be grouped in turn."""
        return {name: (name, self.types.get(name)) for name in self.keys}

    def _aliases(self) -> dict[str, dict[Any, Any]]:
        aliases = self.draft.said.get("aliases")
        if not isinstance(aliases, dict):
            return {}
        return {str(name): fields for name, fields in aliases.items() if isinstance(fields, dict)}

    def _check_aliases(self) -> None:
        for alias, fields in self._aliases().items():
            for word in fields:
                told = [one for one in self.names.find(str(word)) if one.id in self._ids()]
                if not told and None not in self.referents:
                    known = [word for _, word in self.draft.texts("rules")]
                    what = f"alias {alias!r} names {word!r}, which is not among the rules"
                    self.draft.problem(("aliases", alias, word), what, suggest(str(word), known))

    def _ids(self) -> set[str]:
        return {one.id for one in self.referents if one}

    def _columns(self, place: Place, name: str) -> tuple[str, ...]:
        """Return the column of each rule that ``name`` stands for."""
        alias = self._aliases().get(name)
        unknown: list[tuple[Place, str, str, str]] = []
        columns, types = [], []
        for referent in self.referents:
            at, word = (place, name) if alias is None else self._aliased(name, alias, referent)
            if referent is None or referent.columns is None or not word:
                columns.append(word)
                continue
            column, type_ = referent.columns.get(word, ("", None))
            columns.append(column)
            types += [type_] if type_ else []
            if not column:
                close = suggest(word, [*referent.columns, *self._aliases()])
                unknown.append((at, word, referent.name, close))
        everywhere = alias is None and len(unknown) == len(self.referents)
        for at, word, rule, close in unknown[:1] if everywhere else unknown:
            self.draft.problem(at, f"unknown field {word!r}" + ("" if everywhere else f" of {rule}"), close)
        self._check_types(place, name, types)
        return tuple(columns)

    def _aliased(self, name: str, alias: Mapping[Any, Any], referent: Referent | None) -> tuple[Place, str]:
        """Return place and word of the field that an alias stands for in a rule, "" for none."""
        if referent is not None:
            for word, column in alias.items():
                if referent.id in {one.id for one in self.names.find(str(word))}:
                    return ("aliases", name, word), str(column)
            self.draft.problem(("aliases", name), f"alias {name!r} names no field of {referent.name}")
        return ("aliases", name), ""

    def _check_types(self, place: Place, name: str, types: list[pa.DataType]) -> None:
        kinds = sorted({str(type_) for type_ in types})
        if len(kinds) > 1:
            self.draft.problem(place, f"{name!r} is {' here and '.join(kinds)} there: values that are never equal")
        elif kinds and kinds[0].startswith("list"):
            self.draft.problem(place, f"{name!r} holds several values at once")
        if types:
            self.types[name] = types[0]


def rule_columns(fields: Mapping[str, str] | None) -> dict[str, tuple[str, pa.DataType | None]] | None:
    """Return column and type of everything that the hits of a rule may be grouped by.

    Args:
        fields: event field of each further field name of its log source; None where that is not known.
    """
    if fields is None:
        return None
    types = {name: key_type(arrow_type(one)) for name, one in record("event").fields.items()}
    return {name: (name, type_) for name, type_ in types.items()} | {
        name: (column, types[column]) for name, column in fields.items()
    }


def key_type(type_: pa.DataType) -> pa.DataType:
    """Return the type in which values of ``type_`` are compared with those of other columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        return key_type(type_.value_type)
    return pa.int64() if pa.types.is_integer(type_) else type_


def _correlation(draft: Draft, parsed: SigmaRule, reading: _Reading, tests: tuple[CorrelationTest, ...]) -> Correlation:
    names = tuple(name for _, name in draft.texts("group-by"))
    return Correlation(
        type=draft.said["type"],
        rules=tuple(one.id for one in reading.referents if one),
        group_by=names,
        keys=tuple(zip(*(reading.keys[name] for name in names), strict=True)) or ((),) * len(reading.referents),
        timespan=_timespan(draft),
        generate=draft.said.get("generate") is True,
        condition=_condition(draft),
        values=reading.values,
        tests=tests,
        **metadata(parsed, draft.document, draft.name),
    )


_SIGNS = {"gte": "at least", "gt": "more than", "lte": "at most", "lt": "fewer than", "eq": "exactly", "neq": "not"}


def show_correlation(correlation: Correlation, names: Mapping[str, str]) -> str:
    """Return what a correlation asks for in one line.

    Args:
        correlation: the correlation.
        names: of rules, by id.
    """
    sign, count = _SIGNS[correlation.condition[0]], correlation.condition[1]
    asked = {
        "event_count": f"{sign} {count} hits",
        "value_count": f"{sign} {count} values of {' / '.join(dict.fromkeys(correlation.values))}",
        "temporal": f"{sign} {count} of {len(correlation.rules)} rules",
        "temporal_ordered": " before ".join(names.get(rule, rule) for rule in correlation.rules),
    }[correlation.type]
    span = f"{correlation.timespan / _SECOND:g} s"
    return f"{asked} within {span}" + (f" by {', '.join(correlation.group_by)}" if correlation.group_by else "")


def lookbacks(correlations: Sequence[Correlation]) -> dict[str, int]:
    """Return by id how far before an instant a hit may lie that decides whether each holds then, in microseconds.

    Args:
        correlations: each after those that it refers to, whose windows reach back from within its own.
    """
    reach: dict[str, int] = {}
    for one in correlations:
        reach[one.id] = one.timespan + max(reach.get(rule, 0) for rule in one.rules)
    return reach


def switch(correlations: Sequence[Correlation], rules: Sequence[Rule]) -> list[Correlation]:
    """Return the correlations, those off that cannot hold without the rules that are off."""
    off = {rule.id: rule.name for rule in rules if rule.off}
    out = []
    for one in correlations:
        without = [off[rule] for rule in one.rules if rule in off]
        told = f"{', '.join(without)} {'is' if len(without) == 1 else 'are'} off" if without else ""
        now = one.off or (told if without and not _holds_with(one, len(one.rules) - len(without)) else "")
        out.append(replace(one, off=now))
        if now:
            off[one.id] = one.name
    return out


def _holds_with(correlation: Correlation, rules: int) -> bool:
    if not rules or correlation.type == "temporal_ordered":
        return False
    return correlation.type != "temporal" or can_hold(*correlation.condition, 1, rules)
