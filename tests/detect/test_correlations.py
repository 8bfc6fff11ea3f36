"""Correlation files: what is right is read as Sigma says, what is wrong is told, all of it, with its line."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.detect.correlation_tests import failing_correlation_tests
from agenttrail.detect.correlations import Correlation, lookbacks, show_correlation, switch
from agenttrail.detect.rules import RuleSet, load_all, load_rules
from agenttrail.errors import DefinitionError
from agenttrail.lists import shipped_lists
from agenttrail.resources import shipped

if TYPE_CHECKING:
    from pathlib import Path

_ID = "11111111-1111-4111-8111-11111111111"
RULES = f"""\
title: Telnet
id: {_ID}1
name: telnet
level: low
logsource: {{product: agenttrail, category: network}}
detection:
  telnet: {{peer.port: 23}}
  condition: telnet
---
title: SSH
id: {_ID}2
name: ssh
level: low
logsource: {{category: firewall}}
detection:
  ssh: {{peer.port: 22}}
  condition: ssh
---
title: Windows
id: {_ID}3
name: windows
level: low
logsource: {{product: windows, category: process_creation}}
detection:
  any: {{Image: x}}
  condition: any
"""
CORRELATION = f"""\
title: A correlation
id: {_ID}4
name: much
level: high
correlation:
  type: event_count
  rules:
    - telnet
    - ssh
  group-by:
    - source.ip
  timespan: 10m
  condition:
    gte: 3
"""


def _load(path: Path, *texts: str) -> RuleSet:
    (path / "rules.yml").write_text(RULES)
    for number, text in enumerate(texts or (CORRELATION,)):
        (path / f"c{number or ''}.yml").write_text(text)
    return load_all([path], {})


def _one(path: Path, text: str = CORRELATION) -> Correlation:
    (one,) = _load(path, text).correlations
    return one


def _problems(path: Path, *texts: str) -> list[str]:
    """Return all problems without the folder; those of the first correlation without its file."""
    with pytest.raises(DefinitionError) as caught:
        _load(path, *texts)
    return [
        line.removeprefix(f"{path}/").removeprefix("c.yml:").replace(f"{path}/", "")
        for line in str(caught.value).splitlines()
    ]


# -- what is right


def test_a_correlation_is_a_value_with_all_that_an_analyst_sees(tmp_path: Path) -> None:
    more = (
        "tags: [attack.t1021, attack.lateral-movement]\nreferences: [https://example.com]\nfalsepositives: [Tests.]\n"
    )
    one = _one(tmp_path, f"{CORRELATION}{more}recommendation: Ask.\ndescription: Often.\nbuilding_block: true\n")
    assert (one.id, one.name, one.title, one.level, one.severity) == (f"{_ID}4", "c", "A correlation", "high", "low")
    assert (one.techniques, one.tactics) == (("T1021",), ("lateral-movement",))
    assert (one.references, one.falsepositives) == (("https://example.com",), ("Tests.",))
    assert (one.recommendation, one.description, one.off) == (("Ask.",), "Often.", "")
    assert (one.type, one.rules) == ("event_count", (f"{_ID}1", f"{_ID}2"))
    assert (one.group_by, one.keys) == (("source.ip",), (("source.ip",), ("source.ip",)))
    assert (one.timespan, one.condition, one.values) == (600_000_000, ("gte", 3), ())
    names = {f"{_ID}1": "telnet", f"{_ID}2": "ssh"}
    assert show_correlation(one, names) == "at least 3 hits within 600 s by source.ip"


def test_rules_are_loaded_beside_correlations_and_without(tmp_path: Path) -> None:
    found = _load(tmp_path)
    assert [rule.title for rule in found.rules] == ["Telnet", "SSH", "Windows"]
    assert load_rules([tmp_path], {}) == found.rules


@pytest.mark.parametrize(
    "reference", ["telnet", f"{_ID}1", f"{_ID}1".upper(), "other/one"], ids=["name", "id", "upper case", "path"]
)
def test_rules_are_referred_to_by_id_by_name_and_by_path(tmp_path: Path, reference: str) -> None:
    (tmp_path / "other").mkdir()
    rule = RULES.partition("---\n")[0].replace(f"{_ID}1", f"{_ID}9").replace("name: telnet\n", "")
    (tmp_path / "other" / "one.yml").write_text(rule)
    one = _one(tmp_path, CORRELATION.replace("    - telnet\n    - ssh", f"    - {reference}"))
    assert one.rules == (f"{_ID}9" if "/" in reference else f"{_ID}1",)


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ("timespan: 10m", "timespan: 15s", "timespan", 15_000_000),
        ("timespan: 10m", "timespan: 2h", "timespan", 7_200_000_000),
        ("timespan: 10m", "timespan: 1d", "timespan", 86_400_000_000),
        ("timespan: 10m", "timespan: 2w", "timespan", 1_209_600_000_000),
        ("gte: 3", "lt: 3", "condition", ("lt", 3)),
        ("gte: 3", "neq: 1", "condition", ("neq", 1)),
        ("type: event_count", "type: temporal\n  generate: true", "condition", ("gte", 2)),
        ("event_count", "temporal_ordered", "condition", ("gte", 2)),
        ("  group-by:\n    - source.ip\n", "", "keys", ((), ())),
        ("  group-by:\n    - source.ip\n", "  group-by: []\n", "group_by", ()),
        ("  group-by:\n    - source.ip\n", "  group-by: peer.ip\n", "keys", (("peer.ip",), ("peer.ip",))),
        ("    - source.ip", "    - host\n  aliases: {host: {telnet: source.ip, ssh: src_ip}}", "keys",
         (("source.ip",), ("source.ip",))),
        ("    - source.ip", "    - host\n  aliases: {host: {telnet: source.ip, ssh: destination.ip}}", "keys",
         (("source.ip",), ("destination.ip",))),
        ("    - source.ip", "    - port\n  aliases: {port: {telnet: source.port, ssh: source.bytes}}", "keys",
         (("source.port",), ("source.bytes",))),
        ("    - telnet\n    - ssh\n  group-by:\n    - source.ip", "    - ssh\n  group-by: [src_ip]", "keys",
         (("source.ip",),)),
    ],
)  # fmt: skip
def test_sigma_means_what_sigma_says(tmp_path: Path, old: str, new: str, field: str, value: object) -> None:
    assert old in CORRELATION
    text = CORRELATION.replace(old, new)
    if "temporal" in new:  # which ask for all rules unless told otherwise
        text = text.replace("  condition:\n    gte: 3\n", "")
    assert getattr(_one(tmp_path, text), field) == value


def test_values_are_counted_in_the_column_of_each_rule(tmp_path: Path) -> None:
    text = CORRELATION.replace("event_count", "value_count").replace(
        "gte: 3", "gte: 3\n    field: other\n  aliases: {other: {telnet: peer.ip, ssh: dst_ip}}"
    )
    assert _one(tmp_path, text).values == ("peer.ip", "destination.ip")


def _chained(rules: str, group_by: str = "source.ip", id_: str = "5", **more: str) -> str:
    text = CORRELATION.replace(f"{_ID}4", _ID + id_).replace("    - telnet\n    - ssh\n", f"    - {rules}\n")
    for old, new in {"name: much": f"name: chained{id_}", "    - source.ip": f"    - {group_by}", **more}.items():
        text = text.replace(old, new)
    return text


def test_correlations_come_after_those_that_they_refer_to(tmp_path: Path) -> None:
    found = _load(tmp_path, _chained("much", id_="0"), _chained("chained0", id_="5"), CORRELATION).correlations
    assert [one.id for one in found] == [f"{_ID}4", f"{_ID}0", f"{_ID}5"]
    assert found[1].rules == (f"{_ID}4",)
    assert list(lookbacks(found).values()) == [times * found[0].timespan for times in (1, 2, 3)]
    assert lookbacks([]) == {}


# -- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("event_count", "event_cont", "6: correlation.type is 'event_cont', not one of event_count, value_count"),
        ("  type: event_count\n", "", "5: 'type' is missing"),
        ("    - telnet\n", "    - telnte\n", "8: unknown rule 'telnte'; did you mean telnet?"),
        ("    - telnet\n", f"    - {_ID}8\n", f"8: unknown rule '{_ID}8'"),
        ("    - telnet\n", "    - telnet\n    - telnet\n", "9: the rule 'telnet' stands twice"),
        ("    - telnet\n", f"    - {_ID}2\n", "9: the rule 'ssh' stands twice"),
        ("    - telnet\n", "    - rules\n", "8: 'rules' is the name of 3 rules: refer to one by its id"),
        ("    - telnet\n    - ssh\n", "    - much\n", "7: the correlation refers to itself: c → c"),
        ("  rules:\n    - telnet\n    - ssh\n", "", "5: 'rules' is missing"),
        ("    - telnet\n    - ssh\n", "    []\n", "7: correlation.rules must be the id or name of a rule, or a list"),
        ("    - ssh", "    - 5", "7: correlation.rules must be the id or name of a rule, or a list"),
        ("  group-by:", "  group_by:", "10: unknown key 'group_by'; did you mean group-by?"),
        ("    - source.ip", "    - sorce.ip", "11: unknown field 'sorce.ip'; did you mean source.ip?"),
        ("    - source.ip", "    - src_ip", "11: unknown field 'src_ip' of rules; did you mean"),
        ("    - source.ip", "    - source.ip\n    - source.ip", "12: 'source.ip' stands twice"),
        ("    - source.ip", "    - attribution.candidates", "11: 'attribution.candidates' holds several values"),
        ("    - source.ip", "    - host", "11: unknown field 'host'; did you mean"),
        ("    - source.ip", "    - host\n  aliases: {host: {telnet: source.ip}}",
         "12: alias 'host' names no field of rules"),
        ("    - source.ip", "    - host\n  aliases:\n    host: {telnet: sorce.ip, ssh: source.ip}",
         "13: unknown field 'sorce.ip' of rules; did you mean source.ip?"),
        ("    - source.ip", "    - host\n  aliases:\n    host: {telnet: source.ip, ssh: source.ip, sshh: peer.ip}",
         "13: alias 'host' names 'sshh', which is not among the rules; did you mean ssh?"),
        ("    - source.ip", "    - host\n  aliases:\n    host: {telnet: source.ip, ssh: source.port}",
         "11: 'host' is fixed_size_binary[16] here and int64 there: values that are never equal"),
        ("    - source.ip", "    - host\n  aliases: [host]", "12: correlation.aliases must be of type object"),
        ("timespan: 10m", "timespan: 10 minutes", "12: correlation.timespan must be a whole number and its unit"),
        ("timespan: 10m", "timespan: 600", "12: correlation.timespan must be a whole number and its unit"),
        ("timespan: 10m", "timespan: 0s", "12: correlation.timespan must be a whole number and its unit"),
        ("timespan: 10m", "timespan: -5m", "12: correlation.timespan must be a whole number and its unit"),
        ("timespan: 10m", "timespan: 101y", "12: timespan is longer than 100 years"),
        ("  timespan: 10m\n", "", "5: 'timespan' is missing"),
        ("timespan: 10m", "timepsan: 10m", "12: unknown key 'timepsan'; did you mean timespan?"),
        ("  condition:\n    gte: 3\n", "", "5: 'condition' is missing"),
        ("    gte: 3", "    get: 3", "14: unknown key 'get'; did you mean gt?"),
        ("    gte: 3", "    gte: 3\n    lte: 5", "13: condition needs one of gte, gt, lte, lt, eq, neq"),
        ("    gte: 3", "    {}", "13: condition needs one of gte, gt, lte, lt, eq, neq"),
        ("    gte: 3", "    gte: many", "14: correlation.condition.gte must be a whole number"),
        ("    gte: 3", "    gte: 2.5", "14: correlation.condition.gte must be a whole number"),
        ("    gte: 3", "    lt: 1", "13: the condition never holds"),
        ("    gte: 3", "    gte: 3\n    field: peer.ip", "15: event_count counts no values of a field"),
        ("  condition:\n    gte: 3", "  condition: telnet and ssh", "13: correlation.condition must be of type object"),
        ("  type: event_count", "  type: temporal", "13: the condition never holds"),
        ("level: high\n", "level: high\nlogsource: {category: firewall}\n", "5: a correlation has no logsource"),
        ("level: high\n", "level: hihg\n", "4: level is 'hihg', not one of"),
        ("level: high\n", "level: high\ntags: [t1572]\n", "5: not a Sigma rule: Sigma tag must start with namespace"),
        ("level: high\n", "level: high\ndate: soon\n", "5: not a Sigma rule: Rule date 'soon' is invalid"),
        ("level: high\n", "level: high\ntest: []\n", "5: unknown key 'test'; did you mean tests?"),
        (f"id: {_ID}4\n", "", "1: 'id' is missing"),
        (f"id: {_ID}4\n", f"id: {_ID}1\n", f"2: id {_ID}1 is also that of rules.yml:2"),
        ("level: high\n", "level: high\ntests:\n  - {name: a, match: true, event: {}}\n", "6: 'events' is missing"),
        ("level: high\n", "level: high\ntests:\n  - {name: a, match: true, events: [{rule: telnte}]}\n",
         "6: unknown rule 'telnte'; did you mean telnet?"),
        ("level: high\n", "level: high\ntests:\n  - {name: a, match: true, events: [{at: soon}]}\n",
         "6: tests.0.events.0.at must be a whole number and its unit (ms, s, m, h, d), such as 90s"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in CORRELATION
    problems = _problems(tmp_path, CORRELATION.replace(old, new))
    assert any(problem.startswith(told) for problem in problems), problems
    assert len(problems) <= 1 + (" is missing" in told or "aliases" in told or "unknown key" in told), problems


def test_value_count_needs_the_field_that_it_counts(tmp_path: Path) -> None:
    text = CORRELATION.replace("event_count", "value_count")
    assert _problems(tmp_path, text) == ["13: 'field' is missing: whose values are to be counted"]
    text = text.replace("gte: 3", "gte: 3\n    field: peer.pi")
    assert _problems(tmp_path, text) == ["15: unknown field 'peer.pi'; did you mean peer.ip?"]


def test_order_is_asked_of_all_rules(tmp_path: Path) -> None:
    text = CORRELATION.replace("event_count", "temporal_ordered").replace("gte: 3", "gte: 1")
    (problem,) = _problems(tmp_path, text)
    assert problem == "13: temporal_ordered asks for all of its rules: leave the condition out"
    assert _one(tmp_path, text.replace("gte: 1", "eq: 2")).condition == ("eq", 2)


def test_circles_are_told_whoever_is_in_them(tmp_path: Path) -> None:
    texts = (
        _chained("chained6", id_="5"), _chained("chained7", id_="6"), _chained("chained5", id_="7"),
        _chained("chained8", id_="8"), _chained("chained5", id_="9"),
    )  # fmt: skip
    problems = _problems(tmp_path, *texts)
    assert len(problems) == 2
    assert sum("refers to itself: c3 → c3" in problem for problem in problems) == 1
    (other,) = [problem for problem in problems if "c3" not in problem]
    circle = other.partition("itself: ")[2].split(" → ")
    assert circle[0] == circle[-1]
    assert "".join(sorted(circle[1:])) == "cc1c2"
    assert "→".join(circle) in ("c→c1→c2→c", "c1→c2→c→c1", "c2→c→c1→c2")


def test_a_chained_correlation_is_known_by_what_it_groups_by(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path, CORRELATION, _chained("much", "source.prot"))
    assert problem.startswith("c1.yml:10: unknown field 'source.prot'")
    assert "; did you mean source.ip?" in problem


def test_a_rule_with_problems_of_its_own_is_no_further_problem_of_a_correlation(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text(
        RULES.partition("---\n")[0].replace("telnet", "bad").replace(f"{_ID}1", f"{_ID}8").replace("peer.port", "prt")
    )
    assert _problems(tmp_path, CORRELATION.replace("- telnet", "- bad")) == ["bad.yml:7: unknown field 'prt'"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = (
        CORRELATION.replace("telnet", "telnte").replace("source.ip", "sorce.ip").replace("10m", "ten")
        .replace("gte", "get").replace("high", "hihg")
    )  # fmt: skip
    assert [problem.partition(":")[0] for problem in _problems(tmp_path, text)] == ["4", "8", "11", "12", "14"]


_JUNK = st.sampled_from(
    ["", "[]", "{}", "[{}]", "null", "5", "-1.5e400", "~", "*x", "'", "\t", ": ", "- ", "true", "(", "c", "much",
     "telnet", "[telnet, 5]", "{gte: 1}", "[[ssh]]", "2" * 30, "temporal", "{host: {ssh: 5}}", "999999999y", "{5: 6}"]
)  # fmt: skip
_FULL = f"""{CORRELATION}  aliases:
    host: {{telnet: source.ip, ssh: src_ip}}
tests:
  - name: a
    match: true
    lists: {{internal: [10.0.0.0/8]}}
    events:
      - {{rule: telnet, at: 0s, every: 5m, repeat: 2, peer.port: 23, source.ip: 10.0.0.1}}
      - {{at: 1m, each: {{peer.port: [22, 23]}}, source.ip: 10.0.0.1}}
"""


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 9), _JUNK), min_size=1, max_size=4))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, str]]) -> None:
    """Either it is a correlation, whose tests can be run, or its problems are told."""
    text = _FULL
    for place, length, junk in edits:
        lines = text.split("\n")
        if length:
            text = text[: place % len(text)] + junk + text[place % len(text) + length :]
        else:
            key, colon, _ = lines[place % len(lines)].partition(":")
            text = "\n".join([*lines[: place % len(lines)], f"{key}{colon} {junk}", *lines[place % len(lines) + 1 :]])
    folder = tmp_path_factory.getbasetemp() / "edited"
    folder.mkdir(exist_ok=True)
    with suppress(DefinitionError):
        failing_correlation_tests(_load(folder, text), {})


# -- off


def test_a_correlation_is_off_where_it_cannot_hold_without_a_rule(tmp_path: Path) -> None:
    windows = CORRELATION.replace("- ssh", "- windows")
    assert _one(tmp_path, windows).off == ""
    ordered = windows.replace("event_count", "temporal_ordered").replace("  condition:\n    gte: 3\n", "")
    assert _one(tmp_path, ordered).off == "rules is off"
    assert _one(tmp_path, ordered.replace("temporal_ordered", "temporal")).off == "rules is off"
    some = ordered.replace("temporal_ordered", "temporal") + "  condition: {gte: 1}\n"
    assert _one(tmp_path, some).off == ""
    assert _one(tmp_path, CORRELATION.replace("- telnet\n    - ssh", "- windows")).off == "rules is off"


def test_rules_switched_off_later_take_correlations_and_chains_with_them(tmp_path: Path) -> None:
    found = _load(tmp_path, CORRELATION, _chained("much"))
    off = [replace(rule, off="its list is empty") for rule in found.rules[:2]]
    assert [one.off for one in switch(found.correlations, off)] == ["rules, rules are off", "c is off"]
    assert [one.off for one in switch(found.correlations, off[:1])] == ["", ""]


# -- tests that correlations carry


def _told(path: Path, events: str, text: str = CORRELATION, match: str = "true", lists: str = "{}") -> list[str]:
    test = f"tests:\n  - name: a\n    match: {match}\n    lists: {lists}\n    events:\n{events}"
    problems = failing_correlation_tests(_load(path, text + test), {})
    return [str(problem).removeprefix(f"{path}/c.yml:16: test 'a': ") for problem in problems]


_TELNET = "      - {rule: telnet, at: 0s, peer.port: 23, source.ip: 10.0.0.1"
_DATED = "      - {peer.port: 23, source.ip: 10.0.0.1, event.start: 2026-03-01"


@pytest.mark.parametrize(
    ("events", "match", "told"),
    [
        (f"{_TELNET}, repeat: 3, every: 299s}}\n", "true", ""),
        (f"{_TELNET}, repeat: 3, every: 300s}}\n", "false", ""),
        (f"{_TELNET}, repeat: 3, every: 300s}}\n", "true", "the correlation does not match, and should"),
        (f"{_TELNET}, repeat: 3}}\n", "false", "the correlation matches, and should not"),
        (f"{_TELNET}, repeat: 2}}\n      - {{peer.port: 22, at: 9m, source.ip: 10.0.0.1}}\n", "true", ""),
        (f"{_TELNET}, repeat: 2}}\n      - {{peer.port: 24, source.ip: 10.0.0.1}}\n", "false", ""),
        (f"{_TELNET}, repeat: 2}}\n      - {{peer.port: 22, source.ip: 10.0.0.2}}\n", "false", ""),
        (f"{_TELNET}, repeat: 2}}\n      - {{peer.port: 22}}\n", "false", ""),
        ("      - {each: {peer.port: [22, 23, 24, 25]}, source.ip: 10.0.0.1}\n", "false", ""),
        ("      - {each: {peer.port: [22, 23, 24, 22]}, source.ip: 10.0.0.1}\n", "true", ""),
        (f"{_TELNET}, event.dataset: aws_vpc_flow, repeat: 3}}\n", "true", ""),
        (f"{_TELNET}, event.dataset: dcgm_prometheus, repeat: 3}}\n", "true",
         "event 1 does not match the rule rules"),
        (_TELNET.replace("23", "24") + "}\n", "false", "event 1 does not match the rule rules"),
        (_TELNET.replace("rule: telnet", "rule: windows") + "}\n", "false",
         "event 1 names a rule that the correlation does not look at"),
        (f"{_TELNET}, event.start: 2026-03-01}}\n", "false", "event 1 says at and event.start"),
        (f"{_TELNET}, repeat: 3, each: {{peer.ip: [10.0.0.1]}}}}\n", "false", "event 1 says repeat and each"),
        (f"{_TELNET}, peer.prot: 23}}\n", "false", "event 1: unknown field 'peer.prot'; did you mean peer.port?"),
        ("      []\n", "false", ""),
        ("      []\n", "true", "the correlation does not match, and should"),
        (f"{_DATED}T00:00:00Z}}\n{_DATED}T00:09:59Z, repeat: 2}}\n",
         "true", ""),
        (f"{_DATED}T00:00:00Z}}\n{_DATED}T00:10:00Z, repeat: 2}}\n",
         "false", ""),
    ],
)  # fmt: skip
def test_what_a_correlations_own_test_can_say(tmp_path: Path, events: str, match: str, told: str) -> None:
    problems = _told(tmp_path, events, match=match)
    assert len(problems) == bool(told)
    assert all(problem.startswith(told) for problem in problems), problems


def test_tests_of_chains_go_down_to_the_rules(tmp_path: Path) -> None:
    chain = _chained("much", **{"event_count": "temporal_ordered", "  condition:\n    gte: 3\n": ""}).replace(
        "    - much\n", "    - much\n    - ssh\n"
    )
    ssh = "      - {rule: ssh, at: %s, peer.port: 22, source.ip: 10.0.0.1}\n"
    for at, match in (("9m", "true"), ("11m", "false")):
        test = f"tests:\n  - name: a\n    match: {match}\n    events:\n{_TELNET}, repeat: 3}}\n{ssh % at}"
        found = _load(tmp_path, CORRELATION, chain + test)
        assert failing_correlation_tests(found, {}) == []


def test_a_test_needs_the_entries_of_its_lists(tmp_path: Path) -> None:
    (tmp_path / "listed.yml").write_text(
        RULES.partition("---\n")[0]
        .replace(f"{_ID}1", f"{_ID}7")
        .replace("name: telnet", "name: listed")
        .replace("peer.port: 23", "peer.ip|expand: '%internal%'")
    )
    text = CORRELATION.replace("- telnet\n    - ssh", "- listed").replace("gte: 3", "gte: 1")
    event = "      - {rule: listed, peer.ip: 10.0.0.1, source.ip: 10.0.0.1}\n"
    test = f"tests:\n  - name: a\n    match: true\n    events:\n{event}"
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "c.yml").write_text(text + test)
    found = load_all([tmp_path])
    (problem,) = failing_correlation_tests(found, {})
    assert problem.what == "test 'a': list 'internal' is empty: give the test its entries under lists"
    assert failing_correlation_tests(found, {"internal": ("10.0.0.0/8",)}) == []
    assert len(failing_correlation_tests(found, {"internal": ("10.1.0.0/16",)})) == 1


def test_the_example_in_the_guide_holds(tmp_path: Path) -> None:
    guide = (shipped("rules") / "README.md").read_text(encoding="utf-8")
    (example,) = [block for block in guide.split("```yaml\n")[1:] if block.startswith("title:")]
    (tmp_path / "example.yml").write_text(example.partition("```")[0])
    found = load_all(["builtin", tmp_path], shipped_lists())
    (own,) = [one for one in found.correlations if one.name == "example"]
    assert len(own.tests) == 1
    assert failing_correlation_tests(RuleSet(found.rules, [own]), shipped_lists()) == []


# -- the command line


def _said(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "agenttrail", "rules", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_line_knows_correlations(tmp_path: Path) -> None:
    tagged = CORRELATION.replace("level: high", "level: high\ntags: [attack.t1021]")
    test = f"tests:\n  - name: a\n    match: true\n    events:\n{_TELNET}, repeat: 3}}\n"
    _load(tmp_path, tagged + test)
    note = f"note: {tmp_path}/rules.yml: off: log source {{product: windows, category: process_creation}} is not known"
    status, said = _said("check", tmp_path)
    assert status == 0
    assert said.startswith(f"3 rules, 1 correlation, no problem\n{note}")
    assert _said("test", tmp_path)[1].startswith("3 rules, 1 correlation, 1 test, all pass\n")
    assert "c\thigh\tT1021\tA correlation" in _said("list", tmp_path)[1]
    (one,) = [row for row in orjson.loads(_said("list", tmp_path, "--json")[1]) if row["name"] == "c"]
    assert (one["type"], one["rules"]) == ("event_count", [f"{_ID}1", f"{_ID}2"])
    assert "condition:  at least 3 hits within 600 s by source.ip" in _said("explain", tmp_path)[1]
    assert "T1021\tc" in _said("coverage", tmp_path)[1]
    (tmp_path / "c.yml").write_text(tagged + test.replace("true", "false"))
    status, said = _said("test", tmp_path)
    assert (status, said) == (
        2, f"agenttrail: {tmp_path}/c.yml:17: test 'a': the correlation matches, and should not\n",
    )  # fmt: skip
