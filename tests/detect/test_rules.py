"""Rule files: what is right is read as Sigma says, what is wrong is told, all of it, with its line."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.detect.expressions import And, Match, Not, Op, Or, show
from agenttrail.detect.plan import Plan
from agenttrail.detect.rule_tests import event_of, failing_tests
from agenttrail.detect.rules import Rule, load_rules, log_sources
from agenttrail.errors import DefinitionError
from agenttrail.formats import FORMATS
from agenttrail.gathering.gathered import DERIVED
from agenttrail.gathering.named import TOOL_CALL
from agenttrail.lists import shipped_lists
from agenttrail.resources import shipped
from agenttrail.schema import record

if TYPE_CHECKING:
    from pathlib import Path

ID = "11111111-1111-4111-8111-111111111111"
HEAD = f"""\
title: A rule
id: {ID}
level: high
logsource: {{product: agenttrail, category: network}}
"""
RULE = f"""{HEAD}detection:
  port:
    peer.port: 22
  condition: port
"""


def _load(path: Path, text: str | bytes, **more: Any) -> list[Rule]:
    file = path / "rule.yml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_rules([file], **more)


def _problems(path: Path, text: str | bytes, **more: Any) -> list[str]:
    """Return the problems of a rule file without its path."""
    with pytest.raises(DefinitionError) as caught:
        _load(path, text, **more)
    told = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}/rule.yml:") for line in told)
    return [line.removeprefix(f"{path}/rule.yml:") for line in told]


def _condition(path: Path, detection: str) -> Any:
    (rule,) = _load(path, f"{HEAD}detection:\n{detection}")
    return rule.condition


# -- what is right


def test_the_rules_that_ship_are_sound_and_pass_their_tests() -> None:
    rules = load_rules(["builtin"], shipped_lists())
    assert {rule.name for rule in rules} >= {
        "impact/mining-verdict", "impact/mining-pool-port", "command-and-control/ssh-to-unlisted-peer",
        "credential-access/instance-metadata-service", "exfiltration/volume-to-unlisted-peer",
        "policy/egress-outside-allow-list", "policy/blocked-egress",
    }  # fmt: skip
    assert failing_tests(rules, shipped_lists()) == []
    for rule in rules:
        assert {test.match for test in rule.tests} == {True, False}, rule.name
        assert rule.techniques, rule.name
        assert rule.recommendation or rule.building_block, rule.name
        assert rule.falsepositives, rule.name
        assert not rule.off


def test_a_port_or_a_word_alone_opens_no_incident() -> None:
    for rule in load_rules(["builtin"]):
        if rule.severity not in ("low", "informational"):
            fields = {match for match in show(rule.condition).replace("(", "").split() if "." in match}
            assert not {field.split("|")[0].rstrip(":") for field in fields} <= {"peer.port", "network.transport"}, (
                rule.name
            )


def test_log_sources_name_datasets_and_fields_that_exist() -> None:
    for source in log_sources().values():
        events = {name for name, format_ in FORMATS.items() if format_.gives != "leases"}
        assert set(source.datasets) <= events | {*DERIVED, TOOL_CALL}
        assert set(source.fields.values()) <= set(record("event").fields)


def test_a_rule_is_a_value_with_all_that_an_analyst_sees(tmp_path: Path) -> None:
    text = RULE.replace(
        "level: high\n", "level: high\ntags: [attack.t1572, attack.lateral-movement, atlas.aml.t0072]\n"
    )
    text += "recommendation: 'Block it. '\nreferences: [https://example.com]\n"
    text += "falsepositives: [Git.]\nbuilding_block: true\n"
    (rule,) = _load(tmp_path, text)
    assert (rule.id, rule.name, rule.title, rule.level, rule.severity) == (ID, "rule", "A rule", "high", "low")
    assert rule.techniques == ("AML.T0072", "T1572")
    assert rule.tactics == ("lateral-movement",)
    assert rule.recommendation == ("Block it.",)
    assert (rule.references, rule.falsepositives) == (("https://example.com",), ("Git.",))
    assert set(rule.datasets) == {"aws_vpc_flow", "alibaba_vpc_flow", "alibaba_cloud_firewall"}


def test_names_are_paths_below_the_folder_and_several_documents_are_several_rules(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.yaml").write_text(f"{RULE}---\n{RULE.replace(ID, ID.replace('1', '2'))}---\n")
    (tmp_path / "c.yml").write_text(RULE.replace(ID, ID.replace("1", "3")))
    assert [rule.name for rule in load_rules([tmp_path])] == ["a/b", "a/b", "c"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(RULE)
    assert len(load_rules([tmp_path, tmp_path / "c.yml", f"{tmp_path}/../{tmp_path.name}"])) == 1


_PEER = "peer.ip"


@pytest.mark.parametrize(
    ("detection", "condition"),
    [
        ("  a: {peer.port: 22}\n  condition: a", Match("peer.port", Op.EQUALS, 22)),
        ("  a: {peer.port: [22, 23]}\n  condition: a",
         Or((Match("peer.port", Op.EQUALS, 22), Match("peer.port", Op.EQUALS, 23)))),
        ("  a: {peer.port: 22, network.transport: TCP}\n  condition: a",
         And((Match("peer.port", Op.EQUALS, 22), Match("network.transport", Op.EQUALS, "TCP")))),
        ("  a:\n    - {peer.port: 22}\n    - {peer.port: 23}\n  condition: a",
         Or((Match("peer.port", Op.EQUALS, 22), Match("peer.port", Op.EQUALS, 23)))),
        ("  a: {peer.port: 22}\n  b: {peer.port: 23}\n  condition: a and not b",
         And((Match("peer.port", Op.EQUALS, 22), Not(Match("peer.port", Op.EQUALS, 23))))),
        ("  a1: {peer.port: 1}\n  a2: {peer.port: 2}\n  condition: 1 of a*",
         Or((Match("peer.port", Op.EQUALS, 1), Match("peer.port", Op.EQUALS, 2)))),
        ("  a1: {peer.port: 1}\n  a2: {peer.port: 2}\n  condition: all of them",
         And((Match("peer.port", Op.EQUALS, 1), Match("peer.port", Op.EQUALS, 2)))),
        ("  a: {rule.name|contains|all: [x, y]}\n  condition: a",
         And((Match("rule.name", Op.CONTAINS, "x"), Match("rule.name", Op.CONTAINS, "y")))),
        ("  a: {rule.name|startswith: x}\n  condition: a", Match("rule.name", Op.STARTS_WITH, "x")),
        ("  a: {rule.name|endswith|cased: x}\n  condition: a", Match("rule.name", Op.ENDS_WITH, "x", cased=True)),
        ("  a: {rule.name: 'x*'}\n  condition: a", Match("rule.name", Op.STARTS_WITH, "x")),
        ("  a: {rule.name: 'a?c*d'}\n  condition: a", Match("rule.name", Op.REGEX, "(?si)^a.c.*d$", cased=True)),
        ("  a: {rule.name: 'a\\*c'}\n  condition: a", Match("rule.name", Op.EQUALS, "a*c")),
        ("  a: {rule.name: '*'}\n  condition: a", Match("rule.name", Op.EXISTS, value=True)),
        ("  a: {rule.name|re|i: 'a.c'}\n  condition: a", Match("rule.name", Op.REGEX, "(?i)a.c", cased=True)),
        ("  a: {peer.ip|cidr: 10.0.0.0/8}\n  condition: a", Match(_PEER, Op.NETWORK, "10.0.0.0/8")),
        ("  a: {peer.ip|expand: '%internal%'}\n  condition: a", Match(_PEER, Op.LIST, "internal")),
        ("  a: {source.bytes|gte: 5}\n  condition: a", Match("source.bytes", Op.AT_LEAST, 5)),
        ("  a: {peer.ip|exists: false}\n  condition: a", Match(_PEER, Op.EXISTS, value=False)),
        ("  a: {peer.ip: null}\n  condition: a", Match(_PEER, Op.EXISTS, value=False)),
        ("  a: {peer.ip|fieldref: source.ip}\n  condition: a", Match(_PEER, Op.FIELD, "source.ip")),
        ("  a: [tunnel, mining]\n  condition: a",
         Or((Match("", Op.CONTAINS, "tunnel"), Match("", Op.CONTAINS, "mining")))),
    ],
)  # fmt: skip
def test_sigma_means_what_sigma_says(tmp_path: Path, detection: str, condition: Any) -> None:
    assert _condition(tmp_path, f"{detection}\n") == condition


def test_field_names_of_other_log_sources_stand_for_ours(tmp_path: Path) -> None:
    text = RULE.replace("{product: agenttrail, category: network}", "{category: firewall}").replace(
        "peer.port", "dst_port"
    )
    (rule,) = _load(tmp_path, text)
    assert rule.condition == Match("destination.port", Op.EQUALS, 22)


def test_a_rule_for_a_log_source_that_is_not_known_is_off_and_hides_nothing_else(tmp_path: Path) -> None:
    """Folders from elsewhere hold many such rules; nobody knows their fields."""
    text = RULE.replace("{product: agenttrail, category: network}", "{product: windows, category: process_creation}")
    (rule,) = _load(
        tmp_path,
        text.replace("peer.port: 22", "CommandLine|contains|expand: '%tools%'").replace("contains|", ""),
        lists={},
    )
    assert rule.off == "log source {product: windows, category: process_creation} is not known to rules/logsources.yml"
    assert rule.datasets == ()
    assert _problems(tmp_path, text.replace("condition: port", "condition: prot")) == [
        "8: not a Sigma condition: Detection 'prot' not defined in detections"
    ]


# -- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("peer.port: 22", "peer.prt: 22", "7: unknown field 'peer.prt'; did you mean peer.port?"),
        ("peer.port: 22", "peer.port|fieldref: sorce.port", "7: unknown field 'sorce.port'; did you mean source.port?"),
        ("peer.port: 22", "peer.ip|cdir: 10.0.0.0/8", "7: unknown modifier 'cdir'; did you mean cidr?"),
        ("peer.port: 22", "peer.ip|cidr: 10.0.0.0/33", "7: not a Sigma detection: Invalid CIDR expression"),
        ("peer.port: 22", "peer.port|cidr: 10.0.0.0/8", "7: peer.port is no address, so cidr cannot be asked of it"),
        ("peer.port: 22", "peer.ip|gt: 5", "7: peer.ip is no number, so gt cannot be asked of it"),
        ("peer.port: 22", "peer.port: ssh", "7: peer.port is a number, and 'ssh' is none"),
        ("peer.port: 22", "peer.ip: example.com", "7: peer.ip is an address, and 'example.com' is none"),
        ("peer.port: 22", "rule.name|re: '(?=look)ahead'", "7: regular expression '(?=look)ahead' is not one of RE2"),
        ("peer.port: 22", r"rule.name|re: '(a)\1'", r"7: regular expression '(a)\\1' is not one of RE2"),
        ("peer.port: 22", "rule.name|re: '('", "7: regular expression '(' is not one of RE2"),
        ("peer.port: 22", "rule.name|expand: 'in %words% out'", "7: not supported: a list inside a longer text"),
        ("peer.port: 22", "22: peer.port", "7: the name of a field is text, not 22"),
        ("condition: port", "condition: port and prot", "8: not a Sigma condition: Detection 'prot' not defined"),
        ("condition: port", "condition: (port", "8: not a Sigma condition: Unbalanced"),
        ("condition: port", "condition: port | count() > 5", "8: not a Sigma condition: The pipe syntax"),
        ("  condition: port", "  timeframe: 5m\n  condition: port", "8: timeframe is not supported"),
        ("  condition: port", "  conditoin: port", "5: 'condition' is missing"),
        ("condition: port", "condition: []", "5: not a Sigma detection: Sigma rule must contain"),
        ("condition: port", "condition:", "8: not a Sigma condition"),
        ("condition: port", "condition: [port, prot]", "8: not a Sigma condition: Detection 'prot' not defined"),
        ("  condition: port", "  other: {}\n  condition: port", "5: not a Sigma detection: Detection is empty"),
        ("  condition: port", "  other: []\n  condition: port or other", "8: not a Sigma detection"),
        ("  port:\n    peer.port: 22\n", "", "5: the detection has no selections"),
        ("level: high", "level: hihg", "3: level is 'hihg', not one of informational, low, medium, high"),
        ("level: high", "level: high\nstatus: tets", "4: status is 'tets'"),
        ("level: high", "level: high\ntags: [t1572]", "4: not a Sigma rule: Sigma tag must start with namespace"),
        ("level: high", "level: high\ndate: soon", "4: not a Sigma rule: Rule date 'soon' is invalid"),
        ("level: high", "level: high\nreference: [x]", "4: unknown key 'reference'; did you mean references?"),
        ("level: high", "level: high\ntest: []", "4: unknown key 'test'; did you mean tests?"),
        ("level: high", "level: high\ntests: [{match: true}]", "4: 'name' is missing"),
        ("level: high", "level: high\ntests:\n  - {name: a, match: 1}", "5: tests.0.match must be of type boolean"),
        ("level: high", "level: high\nlevel: low", "4: key 'level' stands twice"),
        ("level: high\n", "", "1: 'level' is missing"),
        (f"id: {ID}\n", "", "1: 'id' is missing"),
        ("title: A rule\n", "", "1: 'title' is missing"),
        (f"id: {ID}", "id: 5", "2: id must be of type string"),
        (f"id: {ID}", "id: five", "2: id must be a UUID of its own"),
        ("title: A rule", "title: [A, rule]", "1: title must be of type string"),
        ("title: A rule", "title: !!python/object/apply:os.system ['exit 1']", "1: not a plain value: the tag"),
        ("title: A rule", "title: !secret x", "1: not a plain value: could not determine a constructor for the tag"),
        ("level: high", "level: high\ncorrelation: {}", "6: a correlation has no detection of its own"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in RULE
    (problem,) = _problems(tmp_path, RULE.replace(old, new))
    assert problem.startswith(told)


_BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 9)) for letter in b"bcdefgh"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", " the file holds no rule"),
        (b"---\n---\n", " the file holds no rule"),
        (b"- a\n- b\n", "1: not a rule"),
        (b"just text\n", "1: not a rule"),
        (b"title: [a\nid: b\n", "2: not valid YAML: did not find expected ',' or ']'"),
        (b"title: a\n\tid: b\n", "2: not valid YAML"),
        (b"title: \xff\n", " not valid UTF-8 at byte 7"),
        (b"title: a\nid: \0b\n", "2: not valid YAML: the character U+0000"),
        (b"? {a: b}\n: c\n", "1: a key must be a single value"),
        (b"&a {title: *a}\n", "1: nested more than 100 levels deep"),
        (b"a: " + b"[" * 3_000 + b"]" * 3_000, "1: nested more than 100 levels deep"),
        (_BOMB, "1: aliases expand to too much"),
        (b"a: " + b"x" * (5 << 20), " larger than 4 MiB"),
    ],
    ids=["empty", "empty documents", "list", "text", "open bracket", "tab", "not UTF-8", "NUL", "mapping as key",
         "alias of itself", "deep", "bomb", "large"],
)  # fmt: skip
def test_files_that_are_no_rules(tmp_path: Path, text: bytes, told: str) -> None:
    (problem,) = _problems(tmp_path, text)
    assert problem.startswith(told)


def test_every_problem_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    """And nothing of one file hides what is wrong in another, or further down."""
    (tmp_path / "a.yml").write_text(
        RULE.replace("level: high", "level: hihg")
        .replace("peer.port: 22", "peer.prt: 22\n    peer.ip|cdir: x")
        .replace("condition: port", "condition: prot")
    )
    (tmp_path / "b.yml").write_text("title: [\n")
    (tmp_path / "c.yml").write_text(RULE)
    (tmp_path / "d.yml").write_text(RULE.replace(ID, ID.upper()) + "tset: 1\n")
    with pytest.raises(DefinitionError) as caught:
        load_rules([tmp_path, tmp_path / "gone", tmp_path / "gone.yml"])
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems] == [
        "a.yml:3: level is 'hihg', not one of informational, low, medium, high, critical; did you mean high?",
        "a.yml:7: unknown field 'peer.prt'; did you mean peer.port?",
        "a.yml:8: unknown modifier 'cdir'; did you mean cidr?",
        "a.yml:9: not a Sigma condition: Detection 'prot' not defined in detections",
        "b.yml:2: not valid YAML: did not find expected node content",
        f"d.yml:2: id {ID} is also that of {tmp_path}/c.yml:2",
        "gone: no such rule file or folder",
        "gone.yml: no such rule file or folder",
    ]
    assert caught.value.exit_status == 2


def test_a_folder_without_rules_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DefinitionError, match="the folder holds no rule"):
        load_rules([tmp_path])


def test_an_unknown_list_is_told_where_it_stands(tmp_path: Path) -> None:
    text = RULE.replace("peer.port: 22", "peer.ip|expand: '%egres_allow%'")
    assert _problems(tmp_path, text, lists=shipped_lists()) == [
        "7: unknown list 'egres_allow'; did you mean egress_allow?"
    ]
    assert [rule.lists for rule in _load(tmp_path, text)] == [{"egres_allow"}]


_JUNK = st.sampled_from(
    ["", "[]", "{}", "[{}]", "null", "5", "-1.5e400", "~", "!!set {a}", "*x", "|", "'", '"', "\t", ": ", "- ",
     "2026-02-30", "true", "%x%", "a|b|c", "|re", "(", "\u202e", "0x", ".inf", "<<: {a: b}", "? ", "2" * 30]
)  # fmt: skip
_SHIPPED = [path.read_text(encoding="utf-8") for path in sorted(shipped("rules").glob("*/*.yml"))]


def _edited(text: str, place: int, length: int, junk: str) -> str:
    """Put junk in the place of some characters, or of all that a line says."""
    if length:
        at = place % (len(text) + 1)
        return text[:at] + junk + text[at + length :]
    lines = text.split("\n")
    key, colon, _ = lines[place % len(lines)].partition(":")
    lines[place % len(lines)] = f"{key}{colon} {junk}"
    return "\n".join(lines)


@given(
    st.sampled_from([RULE, *_SHIPPED]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 9), _JUNK), min_size=1, max_size=4),
)
def test_no_text_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, text: str, edits: list[tuple[int, int, str]]
) -> None:
    """Either it is a rule, whose tests can be run, or its problems are told."""
    for edit in edits:
        text = _edited(text, *edit)
    path = tmp_path_factory.getbasetemp() / "edited.yml"
    path.write_text(text, encoding="utf-8")
    with suppress(DefinitionError):
        failing_tests(load_rules([path], shipped_lists()), shipped_lists())


# -- tests that rules carry


def _tested(path: Path, test: str) -> list[str]:
    rules = _load(path, f"{RULE}tests:\n  - {test}\n")
    return [str(problem).removeprefix(f"{path}/rule.yml:") for problem in failing_tests(rules, shipped_lists())]


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("{name: a, match: true, event: {peer.port: 22}}", ""),
        ("{name: a, match: false, event: {peer.port: 23}}", ""),
        ("{name: a, match: false}", ""),
        ("{name: a, match: true, event: {peer.port: 23}}", "10: test 'a': the rule does not match, and should (as "),
        ("{name: a, match: false, event: {peer.port: 22}}", "10: test 'a': the rule matches, and should not (as "),
        ("{name: a, match: true}", "10: test 'a': the rule does not match, and should (as "),
        (
            "{name: a, match: true, event: {peer.prot: 22}}",
            "10: test 'a': unknown field 'peer.prot'; did you mean peer.port?",
        ),
        ("{name: a, match: true, event: {peer.port: many}}", "10: test 'a': peer.port: 'many' is not of type port"),
        ("{name: a, match: true, event: {peer.ip: host}}", "10: test 'a': peer.ip: 'host' is not of type ip"),
        (
            "{name: a, match: true, event: {event.start: late}}",
            "10: test 'a': event.start: 'late' is not of type timestamp",
        ),
    ],
)
def test_what_a_rules_own_test_can_say(tmp_path: Path, test: str, told: str) -> None:
    problems = _tested(tmp_path, test)
    assert len(problems) == bool(told)
    assert all(problem.startswith(told) for problem in problems)


def test_a_rules_test_needs_the_entries_of_its_lists(tmp_path: Path) -> None:
    text = RULE.replace("peer.port: 22", "peer.ip|expand: '%egress_allow%'")
    test = "tests:\n  - {name: a, match: true, event: {peer.ip: 203.0.113.9}"
    (problem,) = failing_tests(_load(tmp_path, f"{text}{test}}}\n"), shipped_lists())
    assert problem.what == "test 'a': list 'egress_allow' is empty: give the test its entries under lists"
    assert failing_tests(_load(tmp_path, f"{text}{test}, lists: {{egress_allow: [203.0.113.0/24]}}}}\n"), {}) == []


def test_an_event_of_a_test_has_the_types_of_a_run() -> None:
    values = {
        "peer.ip": "fd00::1", "peer.port": 22, "event.start": "2026-03-02T00:00:00Z", "event.outcome": "failure",
        "rule.name": 5, "source.bytes": 10**12, "attribution.candidates": ["a"], "event.end": None,
    }  # fmt: skip
    event = event_of(values)
    assert event.num_rows == 1
    assert {name: str(event.schema.field(name).type) for name in values} == {
        name: str(record("event").arrow().field(name).type) for name in values
    }


def test_a_plan_leaves_out_what_is_off(tmp_path: Path) -> None:
    (rule,) = _load(tmp_path, RULE)
    off = Rule(**{**{name: getattr(rule, name) for name in rule.__dataclass_fields__}, "off": "its list is empty"})
    assert [len(Plan.compile([one], "aws_vpc_flow", {}).rules) for one in (rule, off)] == [1, 0]
