"""A finding shows what its rule asked for beside what stood there when it fired, and whether the one met the other."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from tests.report.cases import finding, incident, write_output

from agenttrail.cli import main
from agenttrail.detect.rules import load_all
from agenttrail.report.conditions import Condition, conditions, values
from agenttrail.report.names import incident_file

if TYPE_CHECKING:
    from pathlib import Path

_THIN = ["connection.duration=700", "connection.rate=66.6666667", "peer.ip=198.51.100.7"]


@cache
def _condition(name: str) -> tuple[str, Condition]:
    known = load_all(["builtin"])
    names = {one.name: one.id for one in known.rules} | {one.name: one.id for one in known.correlations}
    id_ = names[name]
    return id_, conditions(known.rules, known.correlations)[id_]


def _told(name: str, kept: list[str]) -> dict[tuple[str, str], tuple[str, str]]:
    told = values(_condition(name)[1], finding(0, **{"finding.values": kept}))
    return {(one.field, one.asked): (", ".join(one.values), one.met) for one in told}


def test_each_question_has_its_value_and_answer() -> None:
    """What was not there is said to be, and what takes a list of the job is left open."""
    assert _told("impact/long-thin-conversation", _THIN) == {
        ("connection.duration", "is at least 600"): ("700", "yes"),
        ("connection.duration", "is at least 3600"): ("700", "no"),
        ("connection.rate", "is at most 2000"): ("66.6666667", "yes"),
        ("connection.lease_share", "is at least 0.5"): ("not there", "no"),
        ("network.initiator", 'not: is "peer"'): ("not there", "yes"),
        ("peer.ip", "not: is on the list egress_allow"): ("198.51.100.7", ""),
        ("peer.ip", "not: is on the list internal"): ("198.51.100.7", ""),
    }


@pytest.mark.parametrize(("kept", "met"), [("700", "yes"), ("600", "yes"), ("599.999999", "no"), ("x", "")])
def test_bounds_are_as_exact_as_what_was_kept(kept: str, met: str) -> None:
    told = _told("impact/long-thin-conversation", [f"connection.duration={kept}"])
    assert told["connection.duration", "is at least 600"] == (kept, met)


def test_a_correlation_shows_its_count_and_what_its_rules_saw() -> None:
    """Two rules that ask for the same may have seen it in two events."""
    kept = ["temporal=2", "gpu.utilization=95", "connection.gpu_overlap=0.4", "connection.gpu_overlap=0.9"]
    told = _told("impact/gpu-diversion", kept)
    assert told["temporal", "is at least 2"] == ("2", "yes")
    assert [met for (field, _), (_, met) in told.items() if field == "gpu.utilization"] == ["yes"]
    assert {value for (field, _), (value, _) in told.items() if field == "connection.gpu_overlap"} == {"0.4, 0.9"}


def test_rules_on_log_rows_show_their_evidence() -> None:
    told = values(_condition("command-and-control/ssh-to-unlisted-peer")[1], finding(0))
    assert {one.field: one.values for one in told}["peer.port"] == ("22",)
    assert {(one.asked, one.met) for one in told} == {("", "")}


def test_the_page_and_the_terminal_say_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escaped: what was seen may come from logs."""
    kept = [*_THIN, "network.initiator=<b>\x1b[31m"]
    one = finding(0, **{"finding.values": kept, "rule.id": _condition("impact/long-thin-conversation")[0]})
    out = write_output(tmp_path / "out", [incident(0)], [one])
    assert main(["incidents", "report", "--from", str(out)]) == 0
    page = (out / "report" / incident_file(f"{0:032x}")).read_text()
    assert "<td>66.6666667</td><td>is at most 2000</td><td>yes</td>" in page
    assert "<b>\x1b" not in page
    assert "&lt;b&gt;" in page
    assert "kept nowhere" not in page
    capsys.readouterr()
    assert main(["incidents", "show", "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "saw connection.duration=700, connection.rate=66.6666667" in shown
    assert "\x1b" not in shown
