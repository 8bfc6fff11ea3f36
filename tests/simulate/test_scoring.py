"""score() tells what is missed, what is wrong, and who is accused without having done anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agenttrail.cli import main
from agenttrail.simulate.scoring import Rate, Verdict, rate_table, rates, score

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {"gen_ai.agent.id": "a1", "trajectory.id": "t1", "sandbox.id": "s1", "job.id": "j1", "k8s.pod.uid": "u1"}
_BEHAVIOUR: dict[str, Any] = {
    **_NAMES, "kind": "beacon", "technique": "T1071.001", "records": 9, "peers": ["198.51.100.7"], "tells": False,
    "first_activity": "2026-03-02T01:00:05Z", "parameters": {"period_s": 45.0, "port": 443},
    "tool_call": {"id": "c1", "name": "shell", "start": "2026-03-02T01:00:01.250000Z"},
}  # fmt: skip
_INCIDENT: dict[str, Any] = {
    **_NAMES, "incident.severity": "medium", "threat.technique.id": ["T1071.001"], "destination.ip": ["198.51.100.7"],
    "incident.first_seen": "2026-03-02T01:00:05Z", "gen_ai.tool.call.id": "c1",
    "gen_ai.tool.call.start": "2026-03-02T01:00:01.25Z",
}  # fmt: skip


def _truth(**changes: Any) -> dict[str, Any]:
    return {"behaviours": [_BEHAVIOUR | changes], "sandboxes": [{"k8s.pod.uid": "u1"}, {"k8s.pod.uid": "u2"}]}


def test_what_is_right_is_right() -> None:
    told = score(_truth(), [_INCIDENT])
    assert (told.missed, told.wrong, told.innocent, told.clean) == ([], [], [], 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trajectory.id": "t2"}, "trajectory.id is t2"),
        ({"threat.technique.id": ["T1048"]}, "T1071.001 is not among"),
        ({"destination.ip": []}, "peers are"),
        ({"incident.first_seen": "2026-03-02T01:00:06Z"}, "first seen at"),
        ({"gen_ai.tool.call.id": "c0"}, "the tool call before it is"),
        ({"gen_ai.tool.call.start": "2026-03-02T01:00:00.25Z"}, "the tool call before it is"),
    ],
)
def test_each_wrong_thing_is_told(changes: dict[str, Any], said: str) -> None:
    (verdict,) = score(_truth(), [_INCIDENT | changes]).wrong
    assert len(verdict.wrong) == 1
    assert said in verdict.wrong[0]


def test_a_tool_call_that_tells_is_the_first_activity() -> None:
    assert score(_truth(tells=True), [_INCIDENT | {"incident.first_seen": "2026-03-02T01:00:01.25Z"}]).wrong == []


def test_without_spans_no_tool_call_may_be_named() -> None:
    told = score(_truth(tool_call=None), [_INCIDENT])
    assert len(told.wrong) == 1


def test_a_low_incident_finds_nothing_and_an_innocent_one_is_told() -> None:
    told = score(_truth(), [_INCIDENT | {"incident.severity": "low"}, _INCIDENT | {"k8s.pod.uid": "u2"}])
    assert len(told.missed) == 1
    assert [one["k8s.pod.uid"] for one in told.innocent] == ["u2"]


def test_rates_are_told_by_parameter_and_range() -> None:
    verdicts = [Verdict(_BEHAVIOUR, _INCIDENT), Verdict(_BEHAVIOUR | {"parameters": {"period_s": 400.0}}, None)]
    found = rates(verdicts)
    assert Rate("beacon", "", "all", 2, 1) in found
    assert Rate("beacon", "period_s", "30 to 60", 1, 1) in found
    assert Rate("beacon", "period_s", "above 300", 1, 0) in found
    assert Rate("beacon", "port", "443", 1, 1) in found
    assert "| beacon | period_s | above 300 | 1 | 0% |" in rate_table(found)


def test_the_command_line_scores_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two short days, each in its folder, with their jobs run for real."""
    size = ("--agents", "4", "--hours", "1.5", "--seed", "41", "--days", "2")
    assert main(["simulate", str(tmp_path / "days"), *size, "--score"]) == 0
    said = capsys.readouterr().out
    assert all((tmp_path / "days" / f"seed-{seed}" / "out" / "incidents.ndjson").exists() for seed in (41, 42))
    assert "in all: " in said
    assert "| behaviour | parameter | range | instances | found |" in said
    assert " 0 told wrong" in said.split("in all: ")[1]
