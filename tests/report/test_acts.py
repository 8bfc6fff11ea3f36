"""An incident of several acts tells each with its own peer and times, and who may have done it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.cases import at, call_finding, finding, incident, unsure, write_output
from tests.report.test_within_a_minute import MOST_WORDS, WORDS

from agenttrail.cli import main
from agenttrail.report.acts import acts_of, candidates_of, several_acts
from agenttrail.report.advice import steps
from agenttrail.report.calls import abridged
from agenttrail.report.first_screen import lead_of
from agenttrail.report.names import agent_file, agent_name, incident_file
from agenttrail.report.proof import proof
from agenttrail.report.same_act import same_acts
from agenttrail.report.standing import decided_on

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

Document = dict[str, Any]
_POOL = "192.0.2.9"
_MINING = {
    "finding.id": "a" * 32, "rule.name": "impact/mining-verdict", "peer.ip": _POOL, "peer.port": [10128],
    "finding.title": "Firewall recognised cryptocurrency mining", "finding.first_seen": at(40),
    "finding.last_seen": at(43),
}  # fmt: skip


def _two_acts() -> tuple[list[Document], list[Document]]:
    """Return SSH of one sandbox, mining of a later one of the same agent, and both on their address alone."""
    ssh = incident(0, **{"attribution.scope": ["vpc-1"], "incident.last_seen": at(30)})
    changed = {
        "incident.id": f"{1:032x}", "incident.first_seen": at(40), "incident.last_seen": at(43), "trajectory.id": "t1",
        "sandbox.id": "s1", "attribution.lease_id": ["lease1"], "attribution.lease_start": at(39),
        "attribution.lease_end": at(44), "destination.ip": [_POOL], "destination.port": [10128],
    }  # fmt: skip
    mining = {**ssh, **changed}
    both = unsure(9, ssh, **{
        "destination.ip": ["198.51.100.7", _POOL], "destination.port": [22, 10128], "incident.last_seen": at(43),
        "attribution.candidates": ["early", "lease0", "lease1", "stranger"], "event.dataset": ["firewall"],
    })  # fmt: skip
    del both["attribution.scope"]
    told = [finding(0, **{"attribution.lease_end": at(35)})]
    told += [finding(0, **_MINING, **{key: mining[key] for key in changed if key in finding(0) or "lease" in key})]
    early = {"attribution.lease_id": ["early"], "attribution.lease_start": at(0), "attribution.lease_end": at(15)}
    told.append(finding(0, **early, **{"incident.id": "", "finding.id": "b" * 32, "gen_ai.agent.id": "agent-7"}))
    for one in told:
        one["finding.evidence"] = one.pop("finding.evidence")  # the last, as a run writes it
    return [ssh, mining, both], told


def _of_both(both: Document) -> list[Document]:
    mine = {"incident.id": both["incident.id"]}
    ssh = {"finding.id": "c" * 32, "attribution.candidates": ["early", "lease0"]}
    return [
        finding(0, **mine, **ssh),
        finding(0, **_MINING | mine | {"finding.id": "d" * 32, "attribution.candidates": ["lease1", "stranger"]}),
    ]


def test_each_act_has_its_own_peer_and_times() -> None:
    incidents, _ = _two_acts()
    own = _of_both(incidents[2])
    lead = lead_of(incidents[2], own, decided_on(own))
    told = [(one.did, one.whom, one.span) for one in lead.acts]
    assert told == [
        ("SSH to", "198.51.100.7:22", "00:10 to 00:30"), ("mining to", f"{_POOL}:10128", "00:40 to 00:43")
    ]  # fmt: skip
    assert not lead_of(incidents[0], [finding(0), call_finding(0)], set()).acts


def test_acts_on_one_peer_are_told_in_one_sentence() -> None:
    one, other = finding(0), finding(0, **{"rule.name": "impact/mining-verdict"})
    assert not several_acts(acts_of(incident(0), [one, other, call_finding(0)]))
    assert several_acts(acts_of(incident(0), [one, finding(0, **{"peer.ip": "2001:db8::1"})]))
    assert acts_of(incident(0), [finding(0, **{"peer.ip": "2001:db8::1"})])[0].whom == "[2001:db8::1]:22"


def test_a_candidate_whose_lease_does_not_cover_an_act_is_not_offered_for_it() -> None:
    incidents, _ = _two_acts()
    twins = same_acts(incidents)[incidents[2]["incident.id"]]
    ssh, mining = acts_of(incidents[2], _of_both(incidents[2]))
    held = {"early": (at(0), at(15)), "lease0": (at(0), at(35)), "lease1": (at(39), at(44))}
    names = {"lease0": {"sandbox.id": "s0"}, "lease1": {"sandbox.id": "s1"}}
    assert [(one.names, one.twin and one.twin.sandbox) for one in candidates_of(ssh, twins, names, held)] == [
        ("s0", "s0")
    ]
    told = [(one.names, one.twin and one.twin.sandbox) for one in candidates_of(mining, twins, names, held)]
    assert told == [("s1", "s1"), ("unknown sandbox (lease stranger…)", None)]
    # where no lease fits, all are offered, and one that cannot be read fits
    assert len(candidates_of(ssh, (), {}, dict.fromkeys(ssh.candidates, (at(0), at(1))))) == 2
    assert len(candidates_of(ssh, (), {}, {"early": ("never", "")})) == 2


def test_steps_name_what_each_incident_is_the_same_act_of() -> None:
    incidents, _ = _two_acts()
    both = incidents[2]
    told = steps(both, _of_both(both), same_acts(incidents)[both["incident.id"]], {f"{0:032x}"})
    assert [one.brief for one in told[:2]] == [
        "SSH: probably agent-0, go to", "Mining: probably agent-0, go to"
    ]  # fmt: skip
    assert told[0].text.startswith("SSH (00:10 to 00:30): go to the incident that is probably the same act")
    assert told[0].link == "0" * 8


def test_a_log_that_names_no_network_is_why_several_fit() -> None:
    incidents, _ = _two_acts()
    twins = same_acts(incidents)[incidents[2]["incident.id"]]
    told = proof(incidents[2], [], {}, (), twins)
    assert told.verdict == "Ambiguous: firewall names no network, so 4 holders fit 10.0.0.1 over its time."
    assert "in its network no other holder fits.  By a lease alone." in proof(incidents[0], [finding(0)], {}).owned
    named = {"attribution.reason": ["the pod that the record names has a lease at that time"]}
    assert proof(incident(0, **named), [finding(0)], {}).owned.endswith("By a lease, and records name the sandbox.")


def test_pages_lead_to_what_is_probably_the_same(tmp_path: Path) -> None:
    incidents, told = _two_acts()
    running = finding(2, **{"incident.id": "", "gen_ai.agent.id": "agent-0", "sandbox.id": "s9"})
    out = write_output(tmp_path / "out", incidents, [*told, *_of_both(incidents[2]), running])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    files = [*(incident_file(one["incident.id"]) for one in incidents), "index.html", agent_file("agent-0")]
    ssh, _, both, index, agent = (
        (out / "report" / name).read_text(encoding="utf-8").partition("<script")[0] for name in files
    )
    assert "<b>probably agent-0</b>, see" in both
    assert "SSH, 00:10 to 00:30: <b>agent-0, t0, s0</b>" in both
    assert "agent-7" not in both.partition('<ul class="candidates">')[2].partition("</ul>")[0]
    assert "Probably the same SSH as seen by firewall, which names no network:" in ssh
    assert "<b>agent-0 runs s9 now.</b>" in ssh
    assert "runs <b>s9</b></span>" in index
    assert '<span class="candidate" data-agent="agent-0">agent-0</span>' in index
    assert "<b>agent-0 runs s9 now</b>, as far as leases tell" in agent
    assert "a candidate in 1 ambiguous incident." in agent
    assert "ambiguous: only a candidate" in agent
    assert "<li>+65: the worst finding is high</li>" in ssh


def test_an_ambiguous_incident_is_read_within_a_minute_too(browser: Chrome, tmp_path: Path) -> None:
    incidents, told = _two_acts()
    out = write_output(tmp_path / "out", incidents, [*told, *_of_both(incidents[2])])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    browser.get((out / "report" / incident_file(incidents[2]["incident.id"])).as_uri())
    text = browser.execute_script(WORDS)
    assert len([word for word in text.split() if re.search(r"\w", word)]) <= MOST_WORDS
    for said in ("198.51.100.7:22", f"{_POOL}:10128", "probably agent-0", "let through", "go to"):
        assert said in text, said


def test_what_an_agent_is_called() -> None:
    assert [agent_name(name) for name in ("agent-03", "Agent 7", "coder")] == ["agent-03", "Agent 7", "agent coder"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("curl -o x https://a.example/v1", "curl -o x https://a.example/v1"),
        (f"curl https://a.example/{'p' * 90} -s", "curl https://a.example…pppppp -s"),
        (f"curl -H {'k' * 30}[REDACTED]{'k' * 30} x", "curl -H kkkkkkkkkkkk…[REDACTED]… x"),
        (f"curl {'-v ' * 30}https://a.example", f"curl {'-v ' * 12}… https://a.example"),
    ],
)
def test_a_call_is_cut_within_its_arguments(text: str, said: str) -> None:
    assert abridged(text, 60) == said


@given(st.lists(st.sampled_from(["run", "[REDACTED]", "x" * 50, "https://h.example/" + "y" * 40, "a[REDACTED]" * 5])))
def test_what_was_redacted_is_never_cut_in_two(words: list[str]) -> None:
    said = abridged(" ".join(words), 80)
    assert "[" not in said.replace("[REDACTED]", "")
    assert "]" not in said.replace("[REDACTED]", "")
    assert not words or len(said) <= max(80, len(words[0])) + 2 * len(" … ")
