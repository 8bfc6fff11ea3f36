"""Commands on pages and terminals work where the run was started, and a path in them is one word and nothing else."""

from __future__ import annotations

import html
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from tests.report.cases import at, finding, incident, timeline, unsure, write_output

from agenttrail.cli import main
from agenttrail.commands.incidents import incident_text
from agenttrail.report.commands import command
from agenttrail.report.names import incident_file
from agenttrail.report.writer import report_after_run

if TYPE_CHECKING:
    from pathlib import Path

_NAMED = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name")


@pytest.mark.parametrize(
    "folder", ["out/day41", "a b", "$(reboot)", "it's; rm -rf ~", '<b onload="x">', "`id`&&x", "ü"]
)
def test_a_folder_is_one_word(folder: str) -> None:
    words = shlex.split(command("list", folder, "--peer", "192.0.2.1"))
    assert words == ["agenttrail", "incidents", "list", "--from", folder, "--peer", "192.0.2.1"]


def test_a_folder_is_never_an_option() -> None:
    assert command("list", "--output=x") == "agenttrail incidents list --from ./--output=x"


@pytest.mark.parametrize(
    "source", ["", "a\nb", "a\x1b[31m", "\u202eb", "https://me:secret@search:9200", "http://s?k=v"]
)
def test_what_is_not_known_or_must_not_be_written_down_is_left_out(source: str) -> None:
    assert command("show", source, "1f") == "agenttrail incidents show 1f"


def test_the_commands_of_page_and_terminal_do_what_they_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are printed, from the folder in which the report was asked for."""
    monkeypatch.chdir(tmp_path)
    folder = 'day 41 $(id) <b> "x"'
    write_output(tmp_path / folder, [incident(0)], [finding(0)], timeline(0))
    assert main(["incidents", "report", "--from", folder]) == 0
    name = incident_file(incident(0)["incident.id"])
    page = (tmp_path / folder / "report" / name).read_text(encoding="utf-8")
    assert "$(id) <b>" not in page
    told = [html.unescape(one) for one in re.findall(r'<code class="(?:command|shown)">(.*?)</code>', page)]
    assert [shlex.split(one)[:3] for one in told] == [["agenttrail", "incidents", what] for what in ("show", "list")]
    capsys.readouterr()
    for one in told:
        assert main(shlex.split(one)[1:]) == 0
        shown = capsys.readouterr().out
        assert f"{0:012x}" in shown
    assert main(["incidents", "show", "--from", folder]) == 0
    assert told[1] in capsys.readouterr().out


def test_every_command_says_where_the_incidents_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is left out of a page, and of what has none."""
    monkeypatch.chdir(tmp_path)
    bare = {name: value for name, value in finding(0).items() if name != "finding.evidence"}
    call = next(entry for entry in timeline(0) if entry["timeline.kind"] == "tool_call")
    many = [{**call, "timeline.id": str(number), "@timestamp": at(number / 60)} for number in range(500)]
    write_output(tmp_path / "my out", [incident(0), incident(1)], [bare], many)
    assert main(["incidents", "report", "--from", "my out", f"{0:032x}"]) == 0
    pages = [
        (tmp_path / "my out" / "report" / name).read_text(encoding="utf-8")
        for name in ("index.html", incident_file(f"{0:032x}"))
    ]
    told = [html.unescape(one) for page in pages for one in re.findall(r"<code class=.(?:command|shown).>(.*?)<", page)]
    assert [shlex.split(one)[2:] for one in told] == [
        ["report", "--from", "my out", f"{1:032x}"],
        ["show", "--from", "my out", f"{0:032x}"],
        ["list", "--from", "my out", "--peer", "198.51.100.7"],
        ["show", "--from", "my out", "--all", f"{0:032x}"],
        ["show", "--from", "my out", "--json", f"{0:032x}"],
    ]
    assert "agenttrail incidents" not in re.sub(r"<code class=.(?:command|shown).>.*?<", "", "".join(pages))
    for one in told:
        assert main(shlex.split(one)[1:]) == 0


def test_a_terminal_tells_whose_leases_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sure = incident(0)
    doubt = unsure(9, sure, **{"attribution.candidates": ["lease0", "lease1", "lease9"]})
    open_end = {"attribution.lease_start": at(60), "job.id": "j", "attribution.lease_id": ["lease1"]}
    shared = {"attribution.lease_id": ["lease1", "lease9"], "finding.id": "0" * 32}
    findings = [finding(1, **shared), finding(0, **{"job.id": "j", "attribution.lease_end": at(59)})]
    out = write_output(tmp_path / "out", [sure, doubt], [*findings, finding(1, **open_end)])
    for id_, told in (
        (sure, ["lease         sandbox s0 of agent agent-0 in job j, 2026-03-02 00:00:00 to 00:59:00 (lease0)"]),
        (doubt, [
            "candidate     sandbox s0 of agent agent-0 in job j, 2026-03-02 00:00:00 to 00:59:00",
            "candidate     sandbox s1 of agent agent-1 in job j, from 2026-03-02 01:00:00 on; no end of it was read",
            "candidate     lease lease9, which no finding names",
        ]),
    ):  # fmt: skip
        assert main(["incidents", "show", "--from", str(out), id_["incident.id"]]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert [line.strip() for line in shown if line.startswith(("  lease  ", "  candidate "))] == told
    bare = {name: value for name, value in sure.items() if name not in _NAMED}
    several = {**sure, "attribution.lease_id": ["a", "b"]}
    assert "  lease         lease0\n" in incident_text(bare, [], [])
    assert "  lease         2 leases of sandbox s0 of agent" in incident_text(several, [], [])
    many = {**doubt, "attribution.candidates": [f"l{number}" for number in range(40)]}
    assert "  candidate     and 28 more\n" in incident_text(many, [], [])


def test_a_run_whose_report_fails_says_how_to_make_it(tmp_path: Path) -> None:
    out = write_output(tmp_path / "my out", [incident(0)], [{"finding.id": "no finding"}])
    index, told = report_after_run(str(out), {})
    assert index == ""
    assert told.endswith(f"for the report run: agenttrail incidents report --from '{out}'")


def test_the_first_part_has_its_id_and_with_how_much_went_and_came_back(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", [incident(0)], [finding(0)], timeline(0))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    page = (out / "report" / incident_file(incident(0)["incident.id"])).read_text(encoding="utf-8")
    first = page[page.index("<h1>") : page.index('id="timeline-title"')]
    assert incident(0)["incident.id"] in first
    assert "(4.0 kB up, 900 B down)" in first


def test_of_one_rule_each_peer_is_told_with_what_it_fired_on_the_likeliest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clean peer that comes first by time or by address does not hide the one that was meant."""
    whom = {"198.51.100.7": 0.863, "198.51.100.8": 0.925}
    findings = []
    for number, (peer, share) in enumerate(whom.items()):
        kept = {
            "finding.values": [f"connection.gpu_overlap={share}", f"peer.ip={peer}"],
            "finding.id": f"{number:032x}",
        }
        plain = {name: value for name, value in finding(0).items() if name != "peer.ip"}
        findings.append(plain | kept)
    several = incident(0, **{"destination.ip": list(whom)})
    out = write_output(tmp_path / "out", [several], findings, timeline(0))
    assert main(["incidents", "report", "--from", str(out)]) == 0
    page = (out / "report" / incident_file(several["incident.id"])).read_text(encoding="utf-8")
    assert re.findall(r"</a> towards <b>(.*?)</b>:", page) == ["198.51.100.8", "198.51.100.7"]
    capsys.readouterr()
    assert main(["incidents", "show", "--from", str(out)]) == 0
    shown = capsys.readouterr().out
    assert [f"peer {peer} port 22" in shown for peer in whom] == [True, True]
    assert "no peer" not in shown
