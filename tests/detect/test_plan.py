"""The plan agrees, rule for rule and row for row, with evaluating each condition by itself."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.rules import holds

from agenttrail.columns.addresses import parse_addresses
from agenttrail.detect import plan as planning
from agenttrail.detect import predicates
from agenttrail.detect.expressions import And, Expression, Match, Not, Op, Or
from agenttrail.detect.plan import Plan
from agenttrail.detect.rules import Rule
from agenttrail.schema import arrow_type, cast, record

LISTS = {
    "inside": ("10.0.0.0/8", "fd00::/8"),
    "outside": ("198.51.100.0/24", "203.0.113.9"),
    "words": ("Accept", "drop"),
    "none": (),
}
_IPS = ["10.0.0.1", "10.255.0.1", "198.51.100.7", "203.0.113.9", "203.0.113.10", "fd00::1", "2001:db8::1"]
_NAMES = ["eni-1", "ENI-22", "fw.West", "", "a*b"]
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "peer.ip": st.sampled_from(_IPS),
    "source.ip": st.sampled_from(_IPS),
    "peer.port": st.sampled_from([0, 22, 443, 3333, 65_535]),
    "source.port": st.integers(0, 65_535),
    "source.bytes": st.sampled_from([0, 1, 1_000, 10**12]),
    "network.tcp_flags": st.integers(0, 63),
    "event.outcome": st.sampled_from(["success", "failure"]),
    "network.direction": st.sampled_from(["egress", "ingress"]),
    "event.action": st.sampled_from(["accept", "reject", "drop"]),
    "network.transport": st.sampled_from(["tcp", "udp", "icmp"]),
    "observer.name": st.sampled_from(_NAMES),
    "rule.name": st.sampled_from(["Mining behaviour", "mining", "web", "é"]),
}
_EVENT = st.fixed_dictionaries({name: st.none() | values for name, values in _VALUES.items()})
_IP_FIELDS, _NUMBER_FIELDS = ["peer.ip", "source.ip"], ["peer.port", "source.port", "source.bytes", "network.tcp_flags"]
_TEXT_FIELDS = ["event.outcome", "network.direction", "event.action", "network.transport", "observer.name", "rule.name"]
_NETWORK = st.sampled_from(["10.0.0.0/8", "198.51.100.0/24", "0.0.0.0/0", "::/0", "fd00::/8", "203.0.113.9/32"])
_TEXT_OPS = st.sampled_from([Op.EQUALS, Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS])
_PART_OPS = st.sampled_from([Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS])
_FIELD_OPS = st.sampled_from([Op.EQUALS, Op.STARTS_WITH, Op.ENDS_WITH])
_NUMBER_OPS = st.sampled_from([Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST, Op.EQUALS])
_PATTERNS = st.sampled_from(["^e", "(?i)mining", "in[gk]$", "^$"])
_LISTS, _OTHERS = st.sampled_from(["words", "none"]), st.sampled_from(["rule.name", "event.action"])
_WORDS = st.sampled_from(["accept", "ACCEPT", "eni", "1", "ing", "e", "success", "tcp", "é", "fw.west", "a*b"])
_MATCH = st.one_of(
    st.builds(Match, st.sampled_from(_IP_FIELDS), st.just(Op.NETWORK), _NETWORK),
    st.builds(Match, st.sampled_from(_IP_FIELDS), st.just(Op.EQUALS), st.sampled_from(_IPS)),
    st.builds(Match, st.sampled_from(_IP_FIELDS), st.just(Op.LIST), st.sampled_from(["inside", "outside"])),
    st.builds(Match, st.sampled_from(_IP_FIELDS), _PART_OPS, st.sampled_from(["10.", "198.51", ".1", "::1"])),
    st.builds(Match, st.sampled_from(_NUMBER_FIELDS), _NUMBER_OPS, st.sampled_from([0, 22, 443, 1000, 2.5, 70_000])),
    st.builds(Match, st.sampled_from(_TEXT_FIELDS), _TEXT_OPS, _WORDS, st.booleans()),
    st.builds(Match, st.sampled_from(_TEXT_FIELDS), st.just(Op.REGEX), _PATTERNS, cased=st.just(value=True)),
    st.builds(Match, st.sampled_from(_TEXT_FIELDS), st.just(Op.LIST), _LISTS, st.booleans()),
    st.builds(Match, st.sampled_from([*_VALUES]), st.just(Op.EXISTS), st.booleans()),
    st.builds(Match, st.just("peer.ip"), st.just(Op.FIELD), st.just("source.ip")),
    st.builds(Match, st.just("observer.name"), st.just(Op.FIELD), _OTHERS, st.booleans(), _FIELD_OPS),
    st.builds(Match, st.just("cloud.region"), st.sampled_from([Op.EQUALS, Op.CONTAINS]), st.just("x")),
)  # fmt: skip
_EXPRESSION: st.SearchStrategy[Expression] = st.recursive(
    _MATCH,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=10,
)


def _batch(events: list[dict[str, Any]], absent: set[str], *, encoded: bool = False) -> pa.RecordBatch:
    columns = {}
    for name in _VALUES:
        if name in absent:
            continue
        values = [event[name] for event in events]
        type_ = arrow_type(record("event").fields[name])
        texts = pa.array(values, pa.string()) if name.endswith(".ip") else None
        columns[name] = (
            parse_addresses(texts.dictionary_encode() if encoded else texts)[0]
            if texts is not None
            else cast(pa.array(values, pa.string() if pa.types.is_dictionary(type_) else type_), type_)
        )
        if encoded and pa.types.is_string(columns[name].type):
            columns[name] = columns[name].dictionary_encode()
    return pa.RecordBatch.from_arrays(
        [*columns.values(), pa.array(["x"] * len(events))], names=[*columns, "event.dataset"]
    )


def _rule(number: int, condition: Expression) -> Rule:
    return Rule(id=f"{number:08d}", name=f"r{number}", title="t", level="low", condition=condition, datasets=("x",))


@given(
    st.lists(_EXPRESSION, min_size=1, max_size=6),
    st.lists(_EVENT, min_size=1, max_size=25),
    st.sets(st.sampled_from([*_VALUES]), max_size=3),
    st.booleans(),
)
def test_every_rule_hits_the_rows_that_it_hits_alone(
    conditions: list[Expression],
    events: list[dict[str, Any]],
    absent: set[str],
    encoded: bool,  # noqa: FBT001 - Hypothesis gives it by place
) -> None:
    rules = [_rule(number, condition) for number, condition in enumerate(conditions)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(planning, "_FEW_WORDS", 0 if encoded else 256)
        hits = Plan.compile(rules, "x", LISTS).run(_batch(events, absent, encoded=encoded))
    seen = [{name: value for name, value in event.items() if name not in absent} for event in events]
    for rule, rows in zip(rules, hits, strict=True):
        assert rows.tolist() == [row for row, event in enumerate(seen) if holds(rule.condition, event, LISTS)]


@given(st.lists(_EXPRESSION, min_size=1, max_size=4), st.lists(_EVENT, min_size=2, max_size=20), st.integers(1, 7))
def test_batch_bounds_change_nothing(conditions: list[Expression], events: list[dict[str, Any]], cut: int) -> None:
    plan = Plan.compile([_rule(number, condition) for number, condition in enumerate(conditions)], "x", LISTS)
    batch = _batch(events, set())
    whole = [rows.tolist() for rows in plan.run(batch)]
    parts = [[] for _ in conditions]  # type: ignore[var-annotated]
    for first in range(0, len(events), cut):
        for number, rows in enumerate(plan.run(batch.slice(first, cut))):
            parts[number] += [first + row for row in rows.tolist()]
    assert parts == whole


@pytest.mark.parametrize("few", [0, 256])
def test_null_is_none_of_the_words_of_a_dictionary(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_FEW_WORDS", few)
    actions = pa.DictionaryArray.from_arrays([0, None, 1, 2], ["accept", "drop", "accept"])
    batch = pa.RecordBatch.from_arrays([actions], names=["event.action"])
    accepted, dropped = (Match("event.action", Op.EQUALS, word) for word in ("accept", "drop"))
    asked: tuple[Expression, ...] = (accepted, dropped, Not(accepted), Not(dropped))
    rules = [_rule(number, one) for number, one in enumerate(asked)]
    found = [rows.tolist() for rows in Plan.compile(rules, "x", LISTS).run(batch)]
    assert found == [[0, 3], [2], [1, 2], [0, 1, 3]]


def test_more_questions_than_one_word_holds() -> None:
    rules = [
        _rule(port, And((Match("peer.port", Op.EQUALS, port), Match("event.outcome", Op.EQUALS, "success"))))
        for port in range(200)
    ]
    events = [
        {**dict.fromkeys(_VALUES), "peer.port": port, "event.outcome": "success"} for port in (0, 63, 64, 130, 199, 443)
    ]
    plan = Plan.compile(rules, "x", LISTS)
    assert plan.words > 1
    hits = plan.run(_batch(events, set()))
    assert {port: rows.tolist() for port, rows in enumerate(hits) if len(rows)} == {
        0: [0],
        63: [1],
        64: [2],
        130: [3],
        199: [4],
    }


def test_few_rows_of_a_long_dictionary_are_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """To write every address of a block as text for each rule and each few rows took a hundred times as long."""
    asked: list[int] = []
    answer = predicates.evaluate_column

    def counting(match: Match, column: pa.Array, lists: Any) -> Any:
        asked.append(len(column))
        return answer(match, column, lists)

    monkeypatch.setattr(predicates, "evaluate_column", counting)
    words = parse_addresses(pa.array([f"10.0.0.{number}" for number in range(9)]))[0]
    addresses = pa.DictionaryArray.from_arrays(pa.array([8, None, 1, 8] * 5, pa.int8()), words)
    match = Match("peer.ip", Op.STARTS_WITH, "10.0.0.8")
    for rows, many in ((4, 4), (20, 9)):
        batch = pa.RecordBatch.from_arrays([addresses[:rows]], ["peer.ip"])
        assert predicates.evaluate(match, batch, {}).tolist() == [True, False, False, True] * (rows // 4)
        assert asked.pop() == many
