"""What the first screen says: why it fired, who held the address, whether the sandbox runs, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.cases import at, call_finding, finding, incident, unsure

from agenttrail.commands.incidents import incident_text
from agenttrail.detect.rules import load_all
from agenttrail.report.advice import authors, steps, unlike
from agenttrail.report.calls import call_before, call_of
from agenttrail.report.conditions import Condition, Part, Value, conditions
from agenttrail.report.fired import because, folded, matched_parts
from agenttrail.report.proof import proof
from agenttrail.report.same_act import same_acts
from agenttrail.report.standing import decided_on, standing, verdict

# -- one act, two incidents


def test_the_same_act_is_found_both_ways() -> None:
    sure = incident(0)
    doubt = unsure(9, sure)
    (twin,), (back,) = (same_acts([sure, incident(1), doubt])[one["incident.id"]] for one in (sure, doubt))
    assert (twin.id, back.id) == (doubt["incident.id"], sure["incident.id"])
    assert (twin.agent, back.agent) == ("", "agent-0")
    assert twin.why == back.why
    assert "same peer 198.51.100.7 port 22, at the same time (2026-03-02 00:10:00 to 00:30:00)" in twin.why
    assert "s0 is one of the 2 candidates" in twin.why


@pytest.mark.parametrize(
    "changed",
    [
        {"destination.ip": ["198.51.100.8"]}, {"destination.port": [23]}, {"attribution.candidates": ["another"]},
        {"incident.first_seen": at(30.1), "incident.last_seen": at(40)}, {"attribution.status": "unattributed"},
        {"destination.ip": []},
    ],
)  # fmt: skip
def test_what_differs_in_one_thing_is_not_the_same_act(changed: dict[str, Any]) -> None:
    assert same_acts([incident(0), unsure(9, incident(0), **changed)]) == {}


def test_of_many_shared_peers_the_number_is_told() -> None:
    tried = {"destination.ip": [f"198.51.100.{number}" for number in range(10, 22)]}
    (twin,) = same_acts([one := incident(0, **tried), unsure(9, one)])[one["incident.id"]]
    assert "the same 12 peers: 198.51.100.10, 198.51.100.11, 198.51.100.12 and 9 more port 22, at" in twin.why


_SOME = st.lists(st.sampled_from("abc"), max_size=2, unique=True)
_TIMES = st.tuples(st.integers(0, 5), st.integers(0, 3))


@given(st.lists(st.tuples(st.booleans(), _SOME, _SOME, _SOME, _TIMES), max_size=6))
def test_the_same_acts_are_those_of_an_oracle(rows: list[tuple[bool, list[str], list[str], list[str], Any]]) -> None:
    incidents = []
    for number, (sure, leases, peers, ports, (first, lasts)) in enumerate(rows):
        seen = {"incident.first_seen": at(first), "incident.last_seen": at(first + lasts)}
        whom = {"destination.ip": peers, "destination.port": [ord(port) for port in ports]}
        base = incident(number, **seen, **whom, **{"attribution.lease_id": leases})
        incidents.append(base if sure else unsure(number, base, **{"attribution.candidates": leases}))
    pairs = {
        (number, other)
        for number, one in enumerate(rows)
        for other, two in enumerate(rows)
        if one[0] != two[0]
        and set(one[1]) & set(two[1])
        and set(one[2]) & set(two[2])
        and (set(one[3]) & set(two[3]) or not one[3] + two[3])
        and one[4][0] <= two[4][0] + two[4][1]
        and two[4][0] <= one[4][0] + one[4][1]
    }
    found = same_acts(incidents)
    assert {(int(id_, 16), int(twin.id, 16)) for id_, twins in found.items() for twin in twins} == pairs


# -- order in time, no cause


def test_a_call_before_is_no_cause() -> None:
    told = call_of(incident(0), [finding(0)])
    note = "(00:09:30, begun 30.0 s before).  Order in time, not a proven cause."
    assert told == ("Last tool call before:", "shell call0", note, "", False)
    assert call_of(finding(0), []) is None
    assert call_before({}) == ""


def test_a_call_whose_text_tells_is_said_to() -> None:
    """And it is that of the finding, not of the last call before the incident, which may be another."""
    told = call_of(incident(0), [finding(0), call_finding(0)], '{"command": "ls"}')
    assert told is not None
    said = "ssh -fN -R 16708:localhost:6006 root@198.51.100.7"
    assert told[:3] == ("Tool call shell 00:09:30:", said, "")
    assert told.whole == f'{{"command": "{said}"}}'
    assert call_before(call_finding(0)) == "It is tool call shell call0 itself."


# -- who held the address


def test_the_proof_is_a_sentence_with_the_address() -> None:
    told = proof(incident(0), [finding(0)], {})
    assert told.held == (
        "10.0.0.1 was held by sandbox s0 from 2026-03-02 00:00:00 to 00:59:00; the act lies inside.  "
        "No other holder fits."
    )
    owned = "10.0.0.1 was its address from 00:00:00 until its rollout ended; no other holder fits.  By a lease alone."
    assert told.owned == owned
    assert told.meaning == "the rollout, not which process in it"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attribution.lease_end": at(20)}, "began inside and outlasted it"),
        ({"attribution.lease_start": at(10.5)}, "began outside it, within the tolerance"),
        ({"attribution.lease_start": "never"}, "cannot be compared with that"),
        ({"attribution.reason": ["the pod that the record names has a lease at that time"]}, "themselves agree"),
    ],
)
def test_the_proof_says_how_the_act_lies_to_the_lease(changed: dict[str, Any], said: str) -> None:
    assert said in proof(incident(0, **changed), [finding(0)], {}).held


def test_no_lease_no_holder() -> None:
    doubt = unsure(9, incident(0))
    told = proof(doubt, [], {"lease0": {"gen_ai.agent.id": "agent-0", "sandbox.id": "s0"}})
    assert told.verdict == "Ambiguous: 2 leases fit 10.0.0.1, and any one of them may have been it."
    assert told.held == ""
    assert told.candidates == [("lease0", "agent-0, s0"), ("another", "unknown sandbox (lease another…)")]
    nobody = proof({**doubt, "attribution.status": "unattributed"}, [], {})
    assert nobody.verdict == "Unattributed: no lease fits 10.0.0.1 at 2026-03-02 00:10:00."


# -- running or not, allowed or not


def test_whether_the_sandbox_runs_is_what_its_lease_says() -> None:
    running = incident(0)
    del running["attribution.lease_end"]
    assert standing(incident(0)).text == "rollout ended 2026-03-02 00:59:00"
    assert standing(incident(0, **{"entity.type": "sandbox"})).text == "ended 2026-03-02 00:59:00"
    assert standing(running).text == "still running as far as leases tell"
    assert standing({**running, "entity.type": "host"}).state == "not known"
    assert standing(unsure(9, running)).state == "not known"


def test_the_verdict_is_that_on_connections() -> None:
    """Whether a tool call succeeded is none, and what context says is not what the incident is about."""
    blocked = finding(0, **{"event.outcome": ["failure"]})
    context = finding(0, **{"finding.severity": "low"})
    assert verdict(decided_on([finding(0), call_finding(0)])) == "allowed"
    assert verdict(decided_on([blocked, context])) == "blocked"
    assert verdict(decided_on([finding(0), blocked])) == "partly blocked"
    assert verdict(decided_on([call_finding(0), context])) == "not known"


# -- what to do


def test_what_to_do_depends_on_whether_it_still_runs() -> None:
    running = incident(0)
    del running["attribution.lease_end"]
    of_pod = incident(0, **{"entity.type": "sandbox"})
    (ended, *_), (over, *_), (runs, *_) = (steps(one, [finding(0)]) for one in (of_pod, incident(0), running))
    assert "Nothing is left to stop: sandbox s0 (job j, host h) has ended" in ended.text
    assert "The rollout in sandbox s0 (job j, host h) has ended.  Make sure that the sandbox is gone, too" in over.text
    assert runs.text.startswith("Keep the process list and disk of sandbox s0 (job j, host h), then stop it: as far")
    assert runs.text.endswith("as far as leases tell, it still ran.")


def test_credentials_are_revoked_of_a_rollout_whose_sandbox_may_still_run() -> None:
    """And a hop limit holds back only answers that have a token."""
    changed = {"destination.ip": ["169.254.169.254"], "threat.technique.id": ["T1552.005"]}
    for kind, ended in (("trajectory", "The rollout has ended"), ("sandbox", "The sandbox has ended")):
        revoke, _, deny, *_ = steps(incident(0, **changed, **{"entity.type": kind}), [finding(0)])
        assert revoke.text.startswith(f"{ended}; credentials that it may have fetched")
        assert "by a network policy, or by demanding tokens with a hop limit of 1 (AWS)" in deny.text


def test_nobody_is_told_to_block_what_is_inside() -> None:
    inside = incident(0, **{"destination.ip": ["10.20.1.4", "fd00::7", "192.168.0.1"]})
    assert not [step for step in steps(inside, [finding(0)]) if "Block" in step.text or step.commands]
    (told,) = [step for step in steps(inside, [finding(0)]) if "10.20.1.4" in step.text]
    assert told.text.startswith("Find out what it wanted of 10.20.1.4, ")


def test_of_several_peers_each_has_its_command_and_perhaps_not_all_are_meant() -> None:
    several = incident(0, **{"destination.ip": ["198.51.100.7", "198.51.100.8", "x; reboot", "198.51.100.9"]})
    (told,) = [step for step in steps(several, [finding(0)], source="out") if step.commands]
    assert told.commands == tuple(f"agenttrail incidents list --from out --peer 198.51.100.{last}" for last in (7, 8))
    assert "perhaps not all" in told.text
    assert told.text.endswith("Then see who else talked to them:")


def test_steps_name_the_peer_and_know_whether_it_was_blocked() -> None:
    _, peer, call, agent = steps(incident(0), [finding(0)])
    assert peer.text.startswith("Block 198.51.100.7 port 22 for all sandboxes")
    assert "call call0" in call.text
    assert agent.page.startswith("agent-")
    _, peer, *_ = steps(incident(0), [finding(0, **{"event.outcome": ["failure"]})])
    assert "stays blocked" in peer.text


def test_an_ambiguous_incident_leads_to_the_one_that_is_known() -> None:
    sure = incident(0)
    doubt = unsure(9, sure)
    twins = same_acts([sure, doubt])[doubt["incident.id"]]
    (first, *_) = steps(doubt, [], twins, {sure["incident.id"]})
    assert "attributed to agent-0, s0:" in first.text
    assert first.page == f"incident-{0:032x}.html"
    assert "Find out which of the 2 candidates" in steps(doubt, [])[0].text
    both = unsure(9, sure, **{"attribution.candidates": ["lease0", "lease1"], "incident.last_seen": at(80)})
    twins = same_acts([sure, incident(1), both])[both["incident.id"]]
    told = steps(both, [], twins, source="out")[:2]
    assert [step.text.split()[-1] for step in told] == ["s0:", "s1:"]
    assert [step.commands for step in told] == [
        (f"agenttrail incidents show --from out {number:032x}",) for number in (0, 1)
    ]


def test_advice_is_said_once() -> None:
    assert unlike(
        [
            "Cut the connection and keep the sandbox; find out who owns the far end.",
            "Find out who owns the far end; cut the connection and keep the sandbox if nobody does.",
            "Read the tool call; see whether it outlived it.",
        ]
    ) == [
        "Cut the connection and keep the sandbox; find out who owns the far end.",
        "Read the tool call; see whether it outlived it.",
    ]
    assert authors(incident(0), [finding(0)]) == ["Cut it.", "Ask its owner."]


# -- on a terminal


def test_a_terminal_counts_context_unless_all_is_asked_for() -> None:
    low = [finding(0, **{"finding.severity": "low", "finding.title": f"Low {number % 2}"}) for number in range(4)]
    sure = incident(0)
    twins = same_acts([sure, unsure(9, sure)])[sure["incident.id"]]
    folded, whole = (incident_text(sure, [finding(0), *low], [], twins, whole=whole) for whole in (False, True))
    assert "  context: 4 more findings, which --all shows one by one\n    2 of: Low 0\n    2 of: Low 1\n" in folded
    assert "  low: Low 0" not in folded
    assert whole.count("  low: Low 0") == 2
    assert "  context: " not in whole
    for shown in (folded, whole):
        assert f"  same act as   {'0' * 12}, probably: SSH to an unlisted peer, address 10.0.0.1 (ambiguous)" in shown
        assert "s0 is one of the 2 candidates" in shown
        assert "10.0.0.1 was held by sandbox s0" in shown
        assert "  its sandbox   rollout ended 2026-03-02 00:59:00\n  connections   allowed\n" in shown


# -- why it fired


def test_values_stand_with_units_and_what_was_asked() -> None:
    part = Part("r", ("connection.duration is at least 600", 'not: peer.port is "22"'), ("connection.duration",))
    known = [Value("peer.port", ("443",), "all"), Value("connection.duration", ("911",), "about")]
    (term,) = because(Condition("", "", (part,)), known, {})
    assert (term.label, term.value, term.asked) == ("lasted", "911 s", "at least 600 s")
    (sent,) = because(Condition("", "", ()), [Value("egress.bytes", ("13,890,920,025",), "about")], {})
    assert (sent.label, sent.value) == ("sent", "13.9 GB")
    (port,) = because(Condition("", "", (part,)), known[:1], {})
    assert port.value == "443"


def test_a_peer_on_no_list_is_said_to_be_on_none() -> None:
    part = Part("r", ("not: peer.ip is on the list allowed or peer.ip is on the list internal",), ("peer.ip",))
    (term,) = because(Condition("", "", (part,)), [Value("peer.ip", ("192.0.2.1",), "all")], {})
    assert (term.value, term.asked) == ("192.0.2.1", "on none of the lists allowed, internal")
    other = Part("r", ("not: peer.ip is on the list allowed and peer.port is 3",), ("peer.ip",))
    (term,) = because(Condition("", "", (other,)), [Value("peer.ip", ("192.0.2.1",), "all")], {})
    assert term.asked == ""


def test_the_part_that_matched_is_shown_to_the_end_of_its_word() -> None:
    rules = load_all(["builtin"])
    told = call_finding(0)
    condition = conditions(rules.rules, rules.correlations)[told["rule.id"]]
    matched = matched_parts(condition, told)
    assert matched == {"gen_ai.tool.call.arguments": "ssh -fN -R 16708:localhost:6006"}
    assert because(condition, [], matched)[0].value == "“ssh -fN -R 16708:localhost:6006”"
    harmless = {**told, "finding.evidence": [{"gen_ai.tool.call.arguments": "ls"}]}
    assert matched_parts(condition, harmless) == {}


def test_what_a_rule_excludes_is_no_pattern_that_matched() -> None:
    rules = load_all(["builtin"])
    (part,) = conditions(rules.rules, rules.correlations)["a4b83c8a-9c89-5678-8df3-c1103849d2a5"].parts
    assert part.patterns
    assert not [pattern for _, pattern in part.patterns if "grep" in pattern]


def test_long_demands_are_folded() -> None:
    part = Part("r", ("a is 1", f'b matches "{"x" * 150}"'), ("a", "b"))
    assert folded(part) == [("a is 1", ""), ("a pattern on b", part.asks[1])]
