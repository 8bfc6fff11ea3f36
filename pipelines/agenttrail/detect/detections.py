"""read_detection(): the ``detection`` of a rule file as one expression, or everything that is wrong with it.

Every item is read by itself first, so that each mistake is told with its own line and none hides another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from sigma.exceptions import SigmaError
from sigma.modifiers import modifier_mapping
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaDetections

from agenttrail.columns.networks import parse_network
from agenttrail.detect.expressions import COMPARISONS, Expression, Match, Op, Or, matches
from agenttrail.detect.sigma import UnsupportedError, translate
from agenttrail.schema import record
from agenttrail.yaml_files import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenttrail.errors import Problem
    from agenttrail.yaml_files import Place, YamlDocument

_NUMBERS = ("port", "long", "integer", "double")
_NO_SELECTIONS = ("condition", "timeframe")
_UNREADABLE = (SigmaError, UnsupportedError, ValueError, TypeError, AttributeError)


@dataclass
class Detection:
    """What a rule's detection says, and what is wrong with it.

    Attributes:
        document: the rule.
        fields: event field of each field name of its log source; None for a log source that is not known, whose field
            names cannot be judged.
        condition: the whole of it, None where there are problems.
        lists: where each list is named first.
    """

    document: YamlDocument
    fields: Mapping[str, str] | None
    condition: Expression | None = None
    problems: list[Problem] = field(default_factory=list)
    lists: dict[str, Place] = field(default_factory=dict)

    def problem(self, place: Place, what: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(self.document.problem(place, what, hint))

    def field_name(self, place: Place, name: str) -> str:
        """Return the event field that the rule calls ``name``."""
        known = record("event").fields
        if self.fields is None:
            return name
        found = self.fields.get(name, name)
        if found not in known:
            self.problem(place, f"unknown field {name!r}", suggest(name, [*known, *self.fields]))
        return found


def read_detection(document: YamlDocument, fields: Mapping[str, str] | None) -> Detection:
    """Read the ``detection`` of a rule, which is a mapping; see :class:`Detection`."""
    reading = Detection(document, fields)
    detection = document.data["detection"]
    if "timeframe" in detection:
        reading.problem(("detection", "timeframe"), "timeframe is not supported: it needs a correlation")
    for place, key, value in _items(detection):
        _read_item(reading, place, key, value)
    _check_condition(reading, detection)
    if not reading.problems and "condition" in detection:
        _read_whole(reading, detection)
    return reading


def _read_whole(reading: Detection, detection: Mapping[str, Any]) -> None:
    try:
        trees = _trees({name: value for name, value in detection.items() if name != "timeframe"})
        expressions = [translate(tree, partial(reading.field_name, ("detection",))) for tree in trees]
    except RecursionError:
        reading.problem(("detection",), "not a Sigma detection that can be read: it is nested too deeply")
    except _UNREADABLE as error:  # what no item and no condition shows by itself, such as an empty selection
        reading.problem(("detection",), f"not a Sigma detection: {error}")
    else:
        reading.condition = expressions[0] if len(expressions) == 1 else Or(tuple(expressions))


def _items(detection: Mapping[str, Any]) -> Iterator[tuple[Place, object, Any]]:
    """Yield place, key (None for keywords) and value of each item of each selection."""
    for name, definition in detection.items():
        if name not in _NO_SELECTIONS:
            yield from _items_of(definition, ("detection", name))


def _items_of(definition: object, place: Place) -> Iterator[tuple[Place, object, Any]]:
    if isinstance(definition, dict):
        yield from (((*place, key), key, value) for key, value in definition.items())
    elif isinstance(definition, list) and any(isinstance(one, (dict, list)) for one in definition):
        for index, one in enumerate(definition):
            yield from _items_of(one, (*place, index))
    else:
        yield place, None, definition


def _trees(detection: dict[str, Any]) -> list[object]:
    return [condition.parsed for condition in SigmaDetections.from_dict(detection).parsed_condition]


def _read_item(reading: Detection, place: Place, key: object, value: Any) -> None:
    """Read one item by itself, for its problems and the lists that it names."""
    if key is not None and not isinstance(key, str):
        reading.problem(place, f"the name of a field is text, not {key!r}")
        return
    modifiers = (key or "").split("|")[1:]
    unknown = [modifier for modifier in modifiers if modifier not in modifier_mapping]
    for modifier in unknown:
        reading.problem(place, f"unknown modifier {modifier!r}", suggest(modifier, modifier_mapping))
    wrong = [told for one in _listed(value) if (told := _not_a_regex(one))] if "re" in modifiers else []
    for told in wrong:
        reading.problem(place, told)
    if unknown or wrong:
        return
    try:
        item = SigmaDetection([SigmaDetectionItem.from_mapping(key, value)])
        tree = SigmaDetections({"item": item}, ["item"]).parsed_condition[0].parsed
        expression = translate(tree, partial(reading.field_name, place))
    except UnsupportedError as error:
        reading.problem(place, f"not supported: {error}")
    except _UNREADABLE as error:
        reading.problem(place, f"not a Sigma detection: {error}")
    else:
        _check_matches(reading, place, expression)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _not_a_regex(pattern: object) -> str:
    """Return why a pattern is none of RE2, or ""."""
    if not isinstance(pattern, str):
        return f"a regular expression is text, not {pattern!r}: put it in quotes"
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return f"regular expression {pattern!r} is not one of RE2: {error}"
    return ""


def _check_matches(reading: Detection, place: Place, expression: Expression) -> None:
    """Note the lists that an item names, and the values that cannot be right for the type of their field."""
    fields = record("event").fields
    for match in sorted(matches(expression), key=str):
        if match.op is Op.LIST:
            reading.lists.setdefault(str(match.value), place)
        if reading.fields is not None and match.field in fields:
            told = _misuse(match, fields[match.field].type)
            if told:
                reading.problem(place, told)


def _misuse(match: Match, type_: str) -> str:
    if match.op is Op.NETWORK and type_ != "ip":
        return f"{match.field} is no address, so cidr cannot be asked of it"
    if match.op in COMPARISONS and type_ not in _NUMBERS:
        return f"{match.field} is no number, so {match.op.value} cannot be asked of it"
    if match.op is Op.EQUALS and type_ in _NUMBERS and not _is_number(match.value):
        return f"{match.field} is a number, and {match.value!r} is none"
    if match.op is Op.EQUALS and type_ == "ip" and not _is_network(match.value):
        return f"{match.field} is an address, and {match.value!r} is none"
    return ""


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return not isinstance(value, bool)


def _is_network(value: object) -> bool:
    try:
        parse_network(str(value))
    except ValueError:
        return False
    return True


def _check_condition(reading: Detection, detection: Mapping[str, Any]) -> None:
    """Check the condition by itself: its form, and the selections that it names."""
    stand_ins = {name: {"field": 1} for name in detection if name not in _NO_SELECTIONS}
    if not stand_ins:
        reading.problem(("detection",), "the detection has no selections")
        return
    conditions = detection.get("condition", [])  # that there is none is told by the shape
    for index, condition in enumerate(_listed(conditions)):
        place: Place = ("detection", "condition")
        place = (*place, index) if isinstance(conditions, list) else place
        try:
            _trees({**stand_ins, "condition": condition})
        except RecursionError:
            reading.problem(place, "not a Sigma condition that can be read: it is nested too deeply")
        except _UNREADABLE as error:
            reading.problem(place, f"not a Sigma condition: {error}")
