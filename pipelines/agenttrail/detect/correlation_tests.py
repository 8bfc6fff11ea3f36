"""The tests that a correlation carries: some events each, put through its rules' conditions and then correlated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from agenttrail.detect.correlated import correlate_all
from agenttrail.detect.derived import integers
from agenttrail.detect.plan import Plan
from agenttrail.detect.rule_tests import event_of
from agenttrail.errors import Problem
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation, CorrelationTest
    from agenttrail.detect.rules import Rule, RuleSet

_HOW = ("rule", "at", "every", "repeat", "each")
"""What an event of a test says besides fields."""
_UNITS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_BASE = 1_767_225_600_000_000
"""Time that offsets are added to: 2026-01-01."""


@dataclass(frozen=True)
class _Subject:
    """A correlation under test, with all that it refers to, through others."""

    correlation: Correlation
    chain: Sequence[Correlation]
    rules: Sequence[Rule]


def failing_correlation_tests(rules: RuleSet, lists: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Run the tests of all correlations; return what is wrong.

    Args:
        rules: also those that are off: their tests bring lists along.
        lists: the lists that a test does not replace.
    """
    problems = []
    for correlation in rules.correlations:
        subject = _subject(correlation, rules)
        for test in correlation.tests:
            try:
                told = _run(subject, test, lists)
            except ValueError as error:
                told = str(error)
            problems += [Problem(correlation.path, test.line, f"test {test.name!r}: {told}")] if told else []
    return problems


def _subject(correlation: Correlation, rules: RuleSet) -> _Subject:
    ids = {correlation.id}
    chain = []
    for one in reversed(rules.correlations):  # each before those that it refers to
        if one.id in ids:
            chain.append(replace(one, off=""))
            ids.update(one.rules)
    return _Subject(correlation, chain[::-1], [rule for rule in rules.rules if rule.id in ids])


def _run(subject: _Subject, test: CorrelationTest, lists: Mapping[str, tuple[str, ...]]) -> str:
    """Return what is wrong with the outcome of a test, or ""."""
    known = {**lists, **test.lists}
    missing = sorted(name for rule in subject.rules for name in rule.lists if not known.get(name))
    if missing:
        msg = f"list {missing[0]!r} is empty: give the test its entries under lists"
        raise ValueError(msg)
    if not all(rule.datasets for rule in subject.rules):
        return ""  # nobody knows what events of an unknown log source look like
    rows, entry = _rows(test)
    matched = {rule.id: _matched(rule, rows, known) for rule in subject.rules} if rows.num_rows else {}
    for place, event in enumerate(test.events):
        _check_rule(subject, event, np.flatnonzero(entry == place), matched, place)
    found = correlate_all(subject.chain, rows, matched, np.arange(rows.num_rows))
    if bool(len(found[subject.correlation.id].runs.group)) == test.match:
        return ""
    return f"the correlation {'does not match, and should' if test.match else 'matches, and should not'}"


def _check_rule(
    subject: _Subject,
    event: Mapping[str, Any],
    own: NDArray[np.int64],
    matched: Mapping[str, NDArray[np.int64]],
    place: int,
) -> None:
    """Check that an event matches the rule that it names."""
    if "rule" in event:
        rule = next((rule for rule in subject.rules if rule.id == event["rule"]), None)
        if rule is None:
            msg = f"event {place + 1} names a rule that the correlation does not look at"
            raise ValueError(msg)
        if not np.isin(own, matched[rule.id]).all():
            msg = f"event {place + 1} does not match the rule {rule.name}"
            raise ValueError(msg)


def _matched(rule: Rule, rows: pa.RecordBatch, lists: Mapping[str, tuple[str, ...]]) -> NDArray[np.int64]:
    """Return the rows that a rule matches; one that names its dataset is seen by the rules for that dataset only."""
    found = Plan.compile([rule], rule.datasets[0], lists, even_if_off=True).run(rows)[0]
    index = rows.schema.get_field_index("event.dataset")
    datasets = rows.column(index).to_pylist() if index >= 0 else [None] * rows.num_rows
    return np.array([row for row in found.tolist() if datasets[row] in (None, *rule.datasets)], dtype=np.int64)


def _rows(test: CorrelationTest) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Return the events of a test, and the entry that each comes from."""
    batches = [_batch(event, place) for place, event in enumerate(test.events)]
    entry = np.repeat(np.arange(len(batches)), [batch.num_rows for batch in batches])
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    if not tables:
        return event_of({}).slice(0, 0), entry
    whole = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    return whole.to_batches()[0], entry


def _batch(event: Mapping[str, Any], place: int) -> pa.RecordBatch:
    """Return the rows that an entry stands for."""
    fields = {name: value for name, value in event.items() if name not in _HOW}
    if "repeat" in event and "each" in event:
        msg = f"event {place + 1} says repeat and each: one of them says how many there are"
        raise ValueError(msg)
    if "event.start" in fields and "at" in event:
        msg = f"event {place + 1} says at and event.start: one of them says when it is"
        raise ValueError(msg)
    try:
        if "each" in event:
            ((name, values),) = event["each"].items()
            parts = [event_of({**fields, name: value}) for value in values]
        else:
            parts = [event_of(fields)] * event.get("repeat", 1)
    except ValueError as error:
        msg = f"event {place + 1}: {error}"
        raise ValueError(msg) from error
    return _at_their_times(pa.Table.from_batches(parts).unify_dictionaries().combine_chunks().to_batches()[0], event)


def _at_their_times(batch: pa.RecordBatch, event: Mapping[str, Any]) -> pa.RecordBatch:
    begin = _BASE + _offset(event.get("at", "0s"))
    times = integers(batch, "event.start", begin) if "event.start" in batch.schema.names else begin
    times = times + _offset(event.get("every", "0s")) * np.arange(batch.num_rows)
    kept = [name for name in batch.schema.names if name != "event.start"]
    columns = [*(batch.column(name) for name in kept), pa.array(times).view(TIMESTAMP)]
    return pa.RecordBatch.from_arrays(columns, names=[*kept, "event.start"])


def _offset(text: str) -> int:
    """Return microseconds of a text such as 90s, whose form the schema has checked."""
    digits = text.rstrip("mshd")
    return int(digits) * _UNITS[text[len(digits) :]]
