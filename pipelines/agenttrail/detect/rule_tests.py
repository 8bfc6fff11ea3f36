"""The tests that a rule carries: one event each, put through the same plan as in a run."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from agenttrail.columns.addresses import address
from agenttrail.detect.plan import Plan
from agenttrail.errors import Problem
from agenttrail.schema import arrow_type, cast, record
from agenttrail.yaml_files import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.detect.rules import Rule, RuleTest
    from agenttrail.schema import Field


def event_of(values: Mapping[str, Any]) -> pa.RecordBatch:
    """Return a batch of one event.

    Args:
        values: by event field; addresses and times as text.

    Raises:
        ValueError: a field is unknown, or its value is not of its type; the message says which.
    """
    fields = record("event").fields
    columns = {}
    for name, value in values.items():
        if name not in fields:
            close = suggest(name, fields)
            msg = f"unknown field {name!r}" + (f"; did you mean {close}?" if close else "")
            raise ValueError(msg)
        try:
            columns[name] = cast(pa.array([_value(value, fields[name])]), arrow_type(fields[name]))
        except (ValueError, TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            msg = f"{name}: {value!r} is not of type {fields[name].type}"
            raise ValueError(msg) from error
    if not columns:
        columns["event.dataset"] = pa.nulls(1, pa.string())
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _value(value: Any, field: Field) -> Any:
    if not field.list or value is None:
        return _plain(value, field.type)
    return [_plain(one, field.type) for one in (value if isinstance(value, list) else [value])]


def _plain(value: Any, type_: str) -> Any:
    if value is None:
        return None
    if type_ == "ip":
        return address(str(value))
    if type_ == "timestamp":
        moment = value if isinstance(value, (datetime, date)) else datetime.fromisoformat(str(value))
        moment = moment if isinstance(moment, datetime) else datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return str(value) if type_ in ("keyword", "text", "enum") else value


def failing_tests(rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Run the tests of all rules, for every dataset that a rule sees; return what is wrong.

    Args:
        rules: also those that are off: their tests bring lists along.
        lists: the lists that a test does not replace.
    """
    problems = []
    for rule in rules:
        for test in rule.tests:
            try:
                problems += _run(rule, test, lists)
            except (ValueError, OverflowError) as error:  # a number may be longer than any column holds
                problems.append(Problem(rule.path, test.line, f"test {test.name!r}: {error}"))
    return problems


def _run(rule: Rule, test: RuleTest, lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    event = event_of(test.event)
    known = {**lists, **test.lists}
    missing = sorted(name for name in rule.lists if not known.get(name))
    if missing:
        msg = f"list {missing[0]!r} is empty: give the test its entries under lists"
        raise ValueError(msg)
    wrong = []
    for dataset in rule.datasets:
        plan = Plan.compile([rule], dataset, known, even_if_off=True)
        if bool(len(plan.run(event)[0])) != test.match:
            wrong.append(dataset)
    if not wrong:
        return []
    said = "matches, and should not" if not test.match else "does not match, and should"
    return [Problem(rule.path, test.line, f"test {test.name!r}: the rule {said} (as {', '.join(wrong)})")]
