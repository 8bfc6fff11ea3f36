"""What a page says is what its records prove: who blocked, what was logged twice, what a peer is called, what ran."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from jinja2.exceptions import SecurityError
from tests.report.cases import at, call_finding, finding, incident, timeline, unsure, write_output

from agenttrail.cli import main
from agenttrail.report.advice import steps
from agenttrail.report.calls import call_of, spoken
from agenttrail.report.conditions import Condition, Part, Value, values
from agenttrail.report.evidence import Budget, lines
from agenttrail.report.fired import because
from agenttrail.report.names import agent_file, ends, incident_file, peer_names
from agenttrail.report.pages import Rows, _Environment, micros
from agenttrail.report.proof import proof
from agenttrail.report.standing import Block, block_of, decided_on, told_by_all
from agenttrail.timeline_story import story

if TYPE_CHECKING:
    from pathlib import Path

Document = dict[str, Any]
_HOSTILE = '<b onload="x">\x1b[31m\u202e'


def _seen(finding_: Document, **changed: Any) -> Document:
    """Return a finding whose evidence is changed."""
    return {**finding_, "finding.evidence": [{**event, **changed} for event in finding_["finding.evidence"]]}


def _blocked(**changed: Any) -> Document:
    told = finding(0, **{"event.outcome": ["failure"], "event.dataset": ["alibaba_cloud_firewall"], **changed})
    return _seen(told, **{"network.community_id": "1:a"})


def _context(**changed: Any) -> Document:
    told = finding(0, **{"finding.severity": "low", "finding.id": f"{7:032x}", **changed})
    return _seen(told, **{"network.community_id": "1:a"})


def _page(tmp_path: Path, incidents: list[Document], findings: list[Document], entries: list[Document]) -> str:
    """Return the text of the page of the first incident, and leave the report there."""
    out = write_output(tmp_path / "out", incidents, findings, entries)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    return _text(tmp_path, incident_file(incidents[0]["incident.id"]))


def _text(tmp_path: Path, name: str) -> str:
    page = (tmp_path / "out" / "report" / name).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page)))


# -- blocked, and by whom


def _block(findings: list[Document]) -> Block | None:
    return block_of(findings, decided_on(findings))


def test_what_was_blocked_is_said_with_who_says_so_and_who_does_not() -> None:
    assert _block([_blocked(), _context()]) == Block(
        "alibaba_cloud_firewall (1 conversation)",
        "aws_vpc_flow shows 1 conversation to the same peer as accepted; 900 B came back",
    )
    assert _block([finding(0), _context()]) is None
    assert _block([_blocked(**{"destination.bytes": 0})]) == Block("alibaba_cloud_firewall (1 conversation)", "")


@pytest.mark.parametrize(
    "changed",
    [
        {"peer.ip": "198.51.100.8"},
        {"event.outcome": ["failure"]},
        {"event.dataset": ["alibaba_cloud_firewall"]},
        {"event.dataset": ["alibaba_cloud_firewall", "aws_vpc_flow"]},  # one log of the two may be who says so
    ],
)
def test_what_does_not_speak_against_it_is_not_said_to(changed: Document) -> None:
    told = _block([_blocked(), _context(**changed)])
    assert told is not None
    assert told.against == "900 B came back"


def test_what_was_accepted_is_counted_by_its_findings_and_not_by_the_evidence_that_was_kept() -> None:
    """Of ten flows in the evidence and 39 in all, 39 got through; of one log the largest count is told."""
    told = _block([_blocked(), *(_context(**{"network.conversations": count}) for count in (2, 39, 3))])
    assert told is not None
    assert told.against.startswith("aws_vpc_flow shows 39 conversations to the same peer as accepted; 900 B")
    unknown = _block([_blocked(), _context(**{"network.conversations": 0})])
    assert unknown is not None
    assert unknown.against.startswith("aws_vpc_flow shows connections to the same peer as accepted")


def test_of_a_burst_page_and_terminal_say_how_many_addresses_it_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = [f"198.51.100.{number}" for number in range(10, 22)]
    burst = {name: value for name, value in _blocked(**{"destination.ip": tried}).items() if name != "peer.ip"}
    one = incident(0, **{"destination.ip": tried})
    page = _page(tmp_path, [one], [burst, _context(**{"peer.ip": tried[7]})], timeline(0))
    assert main(["incidents", "show", "--from", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    whom = "12 addresses (198.51.100.10, 198.51.100.11, 198.51.100.12 and 9 more) port 22"
    assert "tried to reach 12 addresses" in page
    assert "disputed: the firewall blocked it, the flow log accepted it (it may stand before the firewall)" in page
    assert f"peers {whom}, " in shown
    for text in (page, shown):
        assert f"Check that {whom} stay blocked, as alibaba_cloud_firewall (1 conversation) says they were." in text
        assert "aws_vpc_flow shows 1 conversation to the same peer as accepted" in text
    assert ends(tried * 9) == "108 addresses or more (198.51.100.10, 198.51.100.11, 198.51.100.12 and others)"
    assert (ends(tried[:3]), ends([])) == ("198.51.100.10, 198.51.100.11, 198.51.100.12", "")


_BOTH = "blocked by alibaba_cloud_firewall, accepted by aws_vpc_flow"


@pytest.mark.parametrize(
    ("peer", "changed", "disputed"),
    [
        ("198.51.100.7", {}, True),
        ("2001:db8::1", {}, True),
        ("198.51.100.7", {"peer.ip": "198.51.100.8"}, False),
        ("198.51.100.7", {"event.outcome": ["failure"]}, False),
        ("198.51.100.7", {"event.dataset": ["alibaba_cloud_firewall", "aws_vpc_flow"]}, False),
        ("198.51.100.7", {"finding.first_seen": at(50), "finding.last_seen": at(55)}, False),
    ],
)
def test_a_story_says_blocked_only_with_who_says_otherwise(peer: str, changed: Document, *, disputed: bool) -> None:
    entries = [
        {
            "timeline.kind": "egress", "@timestamp": at(minute), "peer.ip": to, "peer.port": 22,
            "event.outcome": "failure", "source.bytes": 10,
        }
        for minute in (11, 12)
        for to in (peer, f"{peer}0")
    ]  # fmt: skip
    told = told_by_all(story(entries), [_blocked(**{"peer.ip": peer}), _context(**{"peer.ip": peer, **changed})])
    assert [one.text for one in told] == [
        f"to {peer} port 22: 20 B up, 0 B down, {_BOTH if disputed else 'blocked'}",
        f"to {peer}0 port 22: 20 B up, 0 B down, blocked",
    ]


def test_page_and_terminal_tell_a_dispute_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [entry | {"event.outcome": "failure"} for entry in timeline(0) if entry["timeline.kind"] == "egress"]
    page = _page(tmp_path, [incident(0)], [_blocked(), _context(**{"network.conversations": 39})], entries)
    assert main(["incidents", "show", "--from", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (page, shown):
        assert f"kB up, 840 B down, {_BOTH}" in text
        assert "aws_vpc_flow shows 39 conversations to the same peer as accepted" in text
    assert "connections blocked by alibaba_cloud_firewall (1 conversation); aws_vpc_flow shows" in shown


def test_findings_that_are_too_many_for_the_page_count_for_its_verdict(tmp_path: Path) -> None:
    """Thirty of which the heaviest were blocked, and the last was let through."""
    many = [{**_blocked(), "finding.id": f"{number:032x}", "finding.severity": "critical"} for number in range(29)]
    page = _page(tmp_path, [incident(0)], [*many, {**finding(0), "finding.id": f"{29:032x}"}], timeline(0))
    assert ": partly blocked; 20 min from" in page
    assert "only some of the connections were blocked" in page
    assert "partly blocked" in _text(tmp_path, "index.html")


def test_the_index_says_it_too(tmp_path: Path) -> None:
    _page(tmp_path, [incident(0)], [_blocked(), _context()], timeline(0))
    assert "disputed one log blocked it, another accepted it" in _text(tmp_path, "index.html")
    _page(tmp_path, [incident(0)], [_blocked(), _context(**{"peer.ip": "198.51.100.8"})], timeline(0))
    assert "disputed" not in _text(tmp_path, "index.html")


# -- the same connections, logged twice


@pytest.mark.parametrize(
    ("changed", "same"), [({}, True), ({"source.bytes": 4_001}, False), ({"event.count": 4}, False)]
)
def test_the_same_counts_bytes_and_times_are_the_same_connections(
    tmp_path: Path, changed: Document, *, same: bool
) -> None:
    sure = incident(0, **{"attribution.scope": ["vpc-1"]})
    doubt = {name: value for name, value in unsure(9, sure).items() if name != "attribution.scope"}
    again = finding(0, **{"incident.id": doubt["incident.id"], "finding.id": "f" * 32, **changed})
    page = _page(tmp_path, [sure, doubt], [finding(0), again], timeline(0))
    assert ("The same connections, logged a second time" in page) == same
    assert ("Probably the same SSH as seen by" in page) != same
    assert "of the ambiguous one, which names no network" in page
    assert f"{'0' * 8} probably repeats {'0' * 8}." in _text(tmp_path, "index.html")


def test_no_other_holder_fits_in_its_network() -> None:
    told = proof(incident(0, **{"attribution.scope": ["vpc-1"]}), [finding(0)], {})
    assert "In network vpc-1 no other holder fits." in told.held


def test_a_second_sensor_of_a_connection_is_named_in_the_evidence() -> None:
    (event,) = finding(0)["finding.evidence"]
    event["network.community_id"] = "1:a"
    other = {**event, "event.dataset": "alibaba_cloud_firewall"}
    told = lines({"finding.evidence": [event, event, other]}, 6, Budget(9_999))
    assert [line.what.startswith("second sensor of the same connection") for line in told] == [False, False, True]


# -- amounts


def test_of_several_records_the_total_and_the_largest_are_told() -> None:
    part = Part("r", ("source.bytes is at least 200000000",), ("source.bytes",))
    condition = Condition("", "", (part,))
    events = [{"source.bytes": amount} for amount in (3_700_000_000, 13_900_000_000, 5_400_000_000)]
    known = values(condition, {"finding.evidence": events})
    assert [(one.values, one.of) for one in known] == [(("13,900,000,000",), "the largest of its first events")]
    terms = because(condition, known, {}, {"source.bytes": 13_900_000_000})
    assert [(term.label, term.value, term.asked) for term in terms] == [
        ("sent in all", "13.9 GB", ""), ("largest record sent", "13.9 GB", "at least 200 MB"),
    ]  # fmt: skip


def test_values_are_told_in_words_that_people_use() -> None:
    parts = (Part("r", (), ()), Part("s", (), ()))
    known = [
        Value("temporal", ("2",), "x"), Value("connection.gpu_overlap", ("0.974",), "x"),
        Value("network.initiator", ("not there",), "x"), Value("connection.duration", ("2071.93",), "x"),
    ]  # fmt: skip
    assert {(term.label, term.value) for term in because(Condition("", "", parts), known, {})} == {
        ("coincides with busy GPUs", "97.4 %"), ("lasted", "2,072 s"),
    }  # fmt: skip


def test_a_duration_is_what_lies_between_the_times_that_are_shown(tmp_path: Path) -> None:
    seen = {"incident.first_seen": "2026-03-02T07:00:04.900Z", "incident.last_seen": "2026-03-02T07:14:04.100Z"}
    assert "; 14 min from 2026-03-02 07:00:04 UTC." in _page(tmp_path, [incident(0, **seen)], [], [])


# -- the call before


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (at(10), "00:09:30, still running when it began"), (at(10.5), "00:09:30, still running when it began"),
        (at(9.75), "00:09:30 to 00:09:45, begun 30.0 s before"),
        ("2026-03-02T00:09:59.900Z", "to 00:09:59, begun 30.0 s before"),
    ],
)  # fmt: skip
def test_the_call_before_is_said_to_run_or_to_have_ended(ended: str, said: str) -> None:
    told = call_of(incident(0), [finding(0)], '{"command": "bash  x.sh"}', micros(ended))
    assert told is not None
    assert said in told.note
    assert told.text == "bash x.sh"


@pytest.mark.parametrize("arguments", ["", "ls", "[1]", '{"command": 7}', '{"path": "x"}', "\ud800", "[" * 10_000])
def test_what_is_no_command_is_shown_as_it_is(arguments: str) -> None:
    assert spoken(arguments) == arguments


def test_the_end_of_the_call_is_read_from_the_timeline(tmp_path: Path) -> None:
    assert "./run.sh (00:09:30 to 00:09:36, begun 30.0 s before)" in _page(
        tmp_path, [incident(0)], [finding(0)], timeline(0)
    )


def test_where_no_call_was_recorded_that_is_said(tmp_path: Path) -> None:
    calls = {name for name in incident(0) if name.startswith("gen_ai.tool.")}
    quiet = {name: value for name, value in incident(0).items() if name not in calls}
    entries = [entry for entry in timeline(0) if entry["timeline.kind"] != "tool_call"]
    assert "No tool call of it is in the spans: what its" in _page(tmp_path, [quiet], [finding(0)], entries)
    assert "No tool call of it is in the spans: what its" not in _page(tmp_path, [quiet], [finding(0)], timeline(0))


# -- what it is about, and what its peer is called


def test_an_incident_has_one_title_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title = "Tool call opens a reverse SSH tunnel, and 1 more finding"
    one = incident(0, **{"incident.title": f"{title} by trajectory t0"})
    page = _page(tmp_path, [one], [finding(0), call_finding(0)], timeline(0))
    assert f"high {title} agent-0 (rollout t0, sandbox s0) opened SSH to 198.51.100.7 port 22" in page
    assert f">{title}</a>" in (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    capsys.readouterr()
    for action, shown in (("list", f"trajectory t0\t{title}\n"), ("show", f"HIGH  {title} by trajectory t0\n")):
        assert main(["incidents", action, "--from", str(tmp_path / "out")]) == 0
        assert shown in capsys.readouterr().out


def test_the_name_of_a_peer_is_shown_and_does_nothing(tmp_path: Path) -> None:
    named = _seen(finding(0), **{"destination.domain": _HOSTILE + "n" * 5_000})
    page = _page(tmp_path, [incident(0)], [named], timeline(0))
    for shown in (page, _text(tmp_path, "index.html")):
        assert 'named <b onload="x">\\x1b[31m\\u202en' in shown
        assert "\x1b" not in shown
    raw = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "<b onload" not in raw
    assert "n" * 100 not in raw
    other = _seen(finding(0), **{"destination.domain": "other.example", "destination.ip": "198.51.100.8"})
    assert peer_names(incident(0), [other]) == ""


# -- what to do


@pytest.mark.parametrize("peer", ["198.51.100.7", "2001:db8::7"])
def test_the_command_is_whole(peer: str) -> None:
    (told,) = [one for one in steps(incident(0, **{"destination.ip": [peer]}), [finding(0)]) if one.commands]
    assert told.commands == (f"agenttrail incidents list --peer {peer}",)


@pytest.mark.parametrize(
    "peer", ["198.51.100.7; rm -rf ~", "fe80::1%$(id)", "198.51.100.07", "2001:DB8::7", "x", "-h", "", _HOSTILE, "1"]
)
def test_only_an_address_stands_in_a_command(tmp_path: Path, peer: str) -> None:
    one = incident(0, **{"destination.ip": [peer]})
    assert not [step for step in steps(one, [finding(0, **{"peer.ip": peer})]) if step.commands]
    assert "--peer" not in _page(tmp_path, [one], [finding(0, **{"peer.ip": peer})], [])


@pytest.mark.parametrize("peer", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254"])
def test_credentials_outlive_a_sandbox(peer: str) -> None:
    asked = {"destination.ip": [peer], "threat.technique.id": ["T1552.005"]}
    ended = incident(0, **asked)
    told = [step.text for step in steps(ended, [finding(0)])]
    assert told[0].startswith("The rollout has ended; credentials that it may have fetched may still work: revoke")
    assert told[0].endswith("that were issued since 2026-03-02 00:10:00.")
    assert any(text.startswith(f"Deny pods the metadata service ({peer} port 22)") for text in told)
    assert not any("Block" in text or "--peer" in text for text in told)
    running = {name: value for name, value in ended.items() if name != "attribution.lease_end"}
    first, second = [step.text for step in steps(running, [finding(0)])][:2]
    assert first.startswith("Keep the process list and disk of sandbox s0")
    assert "revoke the sessions of the node's role" in second


# -- what ran, and what was read


def test_the_index_leads_to_what_still_runs(tmp_path: Path) -> None:
    running = {name: value for name, value in incident(0).items() if name != "attribution.lease_end"}
    page = _page(tmp_path, [running, incident(1)], [finding(0)], timeline(0))
    assert "Still running as far as leases tell: its timeline ends 00:31:00, last record " in page
    index = _text(tmp_path, "index.html")
    assert "1 sandbox with an incident still runs, as far as leases tell: s0 (agent-0)." in index
    assert "Logs cover at least 2026-03-02 00:05:00 to 00:31:00 UTC." in index
    assert "job j" in index


def test_other_logs_that_open_nothing_are_said_to_not_count(tmp_path: Path) -> None:
    page = _page(tmp_path, [incident(0)], [finding(0), _context(**{"event.dataset": ["otlp_spans"]})], [])
    assert "high, as its worst finding; otlp_spans saw it, too, but has no finding of medium or above" in page
    alone = _page(tmp_path, [incident(0, **{"event.dataset": ["aws_vpc_flow"]})], [finding(0)], [])
    assert "a finding of medium or above from a second kind of source would raise it" in alone


def test_notes_on_other_logs_stand_on_the_first_page_only(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", [incident(0)], [finding(0)])
    notes = ["aws_vpc_flow full: 9 lines", "dcgm_prometheus x: 3 lines", "9 sandboxes have no tool call"]
    run = {"notes": notes, "sources": [{"format": "aws_vpc_flow"}, {"format": "dcgm_prometheus"}]}
    (out / "run.json").write_bytes(orjson.dumps(run))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    page, index = _text(tmp_path, incident_file(f"{0:032x}")), _text(tmp_path, "index.html")
    for note, everywhere in zip(notes, (True, False, True), strict=True):
        assert note in index
        assert (note in page) == everywhere


def test_what_bounded_runs_cover_is_said_and_where_logs_end(tmp_path: Path) -> None:
    running = {name: value for name, value in incident(0).items() if name != "attribution.lease_end"}
    out = write_output(tmp_path / "out", [running], [finding(0)], timeline(0))
    (out / "run.json").write_bytes(orjson.dumps({"covered": [["2026-03-02T00:00:00Z", "2026-03-02T03:00:00Z"]]}))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    assert "Logs cover 2026-03-02 00:00:00 to 2026-03-02 03:00:00 UTC." in _text(tmp_path, "index.html")
    page = _text(tmp_path, incident_file(running["incident.id"]))
    assert "Still running as far as leases tell: the logs end 03:00:00, last record " in page


# -- what could not be seen


def test_only_what_is_known_to_be_missing_is_said_to_be(tmp_path: Path) -> None:
    """A sandbox without GPUs has no counters, and the steps of its job stand on the pages of others."""
    entries = [entry for entry in timeline(0) if entry["timeline.kind"] not in ("gpu", "step")]
    page = _page(tmp_path, [incident(0)], [finding(0)], entries)
    assert "GPU counters" not in page
    assert "training steps" not in page
    mining = incident(0, **{"rule.name": ["impact/gpu-diversion"]})
    assert "No GPU counters of it were read." in _page(tmp_path, [mining], [finding(0)], entries)
    entries = [entry for entry in timeline(0) if entry["timeline.kind"] != "step"]
    assert "GPU counters, but no training steps." in _page(tmp_path, [mining], [finding(0)], entries)


def test_a_page_tells_its_story_by_the_times_that_it_shows(tmp_path: Path) -> None:
    """A finding at 00:10:30 comes after the minute from 00:10 on in which it lies."""
    seen = {"@timestamp": at(10.5), "event.end": at(30)}
    entries = [one | (seen if one["timeline.kind"] == "finding" else {}) for one in timeline(0)]
    _page(tmp_path, [incident(0)], [finding(0)], entries)
    page = (tmp_path / "out" / "report" / incident_file(f"{0:032x}")).read_text(encoding="utf-8")
    told = page[page.index('<table class="story">') :].partition("</table>")[0]
    times = re.findall(r'<td class="time">(\d\d:\d\d(?::\d\d)?)', told)
    assert "00:10:30" in times
    assert times == sorted(times)


# -- the agent


def test_of_each_sandbox_the_worst_that_was_found_is_told(tmp_path: Path) -> None:
    titles = {"Worst": "critical", "A context": "low", "B context": "low", "C context": "low"}
    found = [
        finding(0, **{"finding.id": f"{number:032x}", "finding.title": title, "finding.severity": severity})
        for number, (title, severity) in enumerate(titles.items())
    ]
    _page(tmp_path, [incident(0)], [*found, {**found[3], "finding.id": "f" * 32}], timeline(0))
    assert "Worst; A context; 2 more (5 findings)" in _text(tmp_path, agent_file("agent-0"))


def test_templates_reach_no_inner_parts_of_our_records() -> None:
    environment = _Environment()
    shown = {"one": Rows.of(["now"], ["a"])}
    assert environment.from_string("{{ one.count }}").render(shown) == "1"
    for inner in ("__class__", "__init__", "__dict__"):
        with pytest.raises(SecurityError):
            environment.from_string(f"{{{{ one.{inner}.x }}}}").render(shown)


@dataclass(frozen=True)
class _Record:
    _hidden: str = "hidden"
    call: Any = spoken
    text: str = "<b>"


@pytest.mark.parametrize("expression", ["one._hidden.x", "one.call.__globals__.x", "one.call.__code__.x"])
def test_templates_reach_neither_private_fields_nor_what_stands_in_functions(expression: str) -> None:
    environment = _Environment(autoescape=True)
    assert environment.from_string("{{ one.text }}").render(one=_Record()) == "&lt;b&gt;"
    with pytest.raises(SecurityError):
        environment.from_string(f"{{{{ {expression} }}}}").render(one=_Record())
