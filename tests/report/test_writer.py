"""Reports take each other's place whole, leave alone what is not theirs, and never weaken a run."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import orjson
import pytest
from tests.report.cases import CALL, finding, incident, stories, timeline, write_output

from agenttrail.cli import main
from agenttrail.report.conditions import conditions
from agenttrail.report.names import agent_file, incident_file
from agenttrail.report.writer import report_after_run
from agenttrail.simulate import simulate
from agenttrail.sinks.report_files import is_page

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.elasticsearch import Elasticsearch


def _report(*arguments: str | Path) -> int:
    return main(["incidents", "report", *map(str, arguments)])


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_a_report_has_an_index_and_pages(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = stories(tmp_path / "out", 4)
    assert _report("--from", out) == 0
    assert capfd.readouterr().out == f"4 incidents, 4 with a page: {out / 'report' / 'index.html'}\n"
    pages = {path.name for path in (out / "report").iterdir()}
    assert pages == {
        "index.html", *(incident_file(f"{number:032x}") for number in range(4)),
        *(agent_file(f"agent-{number}") for number in range(3)),
    }  # fmt: skip
    assert all(map(is_page, pages))
    page = _text(out / "report" / incident_file(f"{1:032x}"))
    for told in (
        "<b>agent-1</b> (rollout t1, sandbox s1)", "198.51.100.7 port 22",
        "Attributed: sure.", "held by sandbox s1 from 2026-03-02 01:00:00 to 01:59:00", "lies inside", "Cut it.",
        CALL.replace('"', "&#34;"), "Last tool call before: <code>./run.sh</code> (01:09:30 to 01:09:36",
        "Order in time, not a proven cause", "peer.port is 22",
        "rollout ended 01:59:00; that the sandbox is gone was not seen",
        "10.0.0.1 198.51.100.7 40000 22 6 1", "flow.log byte 10", "no progress", "2 lines could not be read",
    ):  # fmt: skip
        assert told in page, told
    agent = _text(out / "report" / agent_file("agent-0"))
    assert "2 incidents, 2 sandboxes" in agent
    assert "agent-1" not in agent


def test_a_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    out = stories(tmp_path / "out", 4)
    assert _report("--from", out) == 0
    report = out / "report"
    (report / "notes.html").write_text("mine")
    (report / ".parts").mkdir()
    (report / ".parts" / "index.html").write_text("of a killed run")
    write_output(out, [incident(9)], [finding(9)], timeline(9))
    assert _report("--from", out) == 0
    assert {path.name for path in report.iterdir()} == {
        "index.html", "notes.html", incident_file(f"{9:032x}"), agent_file("agent-0"),
    }  # fmt: skip
    assert "1 incident" in _text(report / "index.html")
    again = {path.name: path.read_bytes() for path in report.iterdir()}
    assert _report("--from", out) == 0
    assert {path.name: path.read_bytes() for path in report.iterdir()} == again


def test_filters_and_pages_on_demand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = stories(tmp_path / "out", 6)
    assert _report("--from", out, "--agent", "agent-0", "--output", tmp_path / "some") == 0
    assert not (out / "report").exists()
    assert "2 incidents, 2 with a page" in capfd.readouterr().out
    assert "Only incidents with agent agent-0" in _text(tmp_path / "some" / "index.html")
    assert _report("--from", out, f"{2:032x}", "--output", tmp_path / "one") == 0
    assert len(list((tmp_path / "one").glob("incident-*"))) == 1
    assert f"agenttrail incidents report --from {out} {1:032x}" in _text(tmp_path / "one" / "index.html")
    assert _report("--from", out, "feed", "--output", tmp_path / "none") == 1
    assert "no incident 'feed'" in capfd.readouterr().err


def test_only_the_riskiest_have_pages(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", [incident(number) for number in range(203)], [])
    assert _report("--from", out) == 0
    pages = {path.name for path in (out / "report").glob("incident-*")}
    assert pages == {incident_file(f"{number:032x}") for number in range(200)}
    assert _text(out / "report" / "index.html").count("page on demand") == 3


def test_ambiguous_incidents_name_their_candidates(tmp_path: Path) -> None:
    unsure = incident(
        1,
        **{
            "attribution.status": "ambiguous",
            "attribution.candidates": ["lease2", "lease3"],
            "attribution.lease_id": [],
        },
    )
    for name in ("gen_ai.agent.id", "trajectory.id", "sandbox.id"):
        del unsure[name]
    out = write_output(tmp_path / "out", [unsure], [finding(2, **{"incident.id": ""})])
    assert _report("--from", out) == 0
    page = _text(out / "report" / incident_file(f"{1:032x}"))
    assert "How sure it is" in page
    assert "ambiguous: one of 2 candidates" in page
    assert "agent-2, t2, s2" in page
    assert "unknown sandbox (lease lease3…)" in page
    assert "Find out which of the 2 candidates it was" in page


@pytest.mark.parametrize(
    "changed",
    [
        {"gen_ai.agent.id": ["x"]}, {"incident.id": [5]}, {"finding.severity": "bad"}, {"attribution.lease_id": 7},
        {"finding.first_seen": None}, {"finding.evidence": "x"},
    ],
)  # fmt: skip
def test_what_is_no_finding_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changed: dict[str, object]
) -> None:
    out = write_output(tmp_path / "out", [incident(0)], [finding(0), finding(0, **changed)])
    assert _report("--from", out) == 1
    assert f"agenttrail: {out}/findings.ndjson:2: not a finding: " in capfd.readouterr().err
    assert not list((out / "report").glob("*.html"))


def test_of_many_findings_the_heaviest_are_shown(tmp_path: Path) -> None:
    low = [
        finding(0, **{"finding.id": f"{number:032x}", "finding.severity": "low", "finding.title": f"Low {number}."})
        for number in range(100)
    ]
    out = write_output(tmp_path / "out", [incident(0)], [*low, finding(0, **{"finding.id": "f" * 32})])
    assert _report("--from", out) == 0
    page = _text(out / "report" / incident_file(f"{0:032x}"))
    assert 'id="finding-1"' in page
    assert "(24 of 101 findings are on this page)" in page
    assert "Low 22." in page
    assert "Low 23." not in page


def test_timelines_of_entities_without_an_incident_are_passed_over(tmp_path: Path) -> None:
    """As `output: {timeline: all}` writes them."""
    others = [{name: value for name, value in entry.items() if name != "incident.id"} for entry in timeline(1)]
    out = write_output(tmp_path / "out", [incident(0)], [finding(0)], [*others, *timeline(0)])
    assert _report("--from", out) == 0
    page = _text(out / "report" / incident_file(f"{0:032x}"))
    assert "Every entry: 69 of 69" in page
    assert "call1" not in page


def test_names_from_logs_never_become_paths(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "..", "a/b", "A" * 32, "\u202e", "x" * 100_000, ""]
    for number, name in enumerate(names):
        out = write_output(
            tmp_path / str(number), [incident(0, **{"incident.id": name, "gen_ai.agent.id": name or "a"})], []
        )
        assert _report("--from", out) == 0
        assert all(is_page(path.name) for path in (out / "report").iterdir())


def test_a_report_that_fails_leaves_the_run_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    day = tmp_path / "day"
    simulate(day, agents=2, hours=0.5, seed=3)
    out = tmp_path / "out"
    assert main(["run", str(day / "job.yml"), "--output", str(out)]) == 0
    assert f"report:    {out / 'report' / 'index.html'}\n" in capfd.readouterr().out
    whole = {path.name: path.read_bytes() for path in out.glob("*.ndjson")}
    for path in (out / "report").iterdir():
        path.unlink()
    (out / "report").rmdir()
    (out / "report").write_text("in the way")
    assert main(["run", str(day / "job.yml"), "--output", str(out)]) == 0
    said = capfd.readouterr()
    assert "agenttrail: no report: " in said.err
    assert "agenttrail incidents report --from" in said.err
    assert "report:    " not in said.out
    assert {path.name: path.read_bytes() for path in out.glob("*.ndjson")} == whole
    assert orjson.loads((out / "run.json").read_bytes())["job"] == "simulated-day"


def test_a_bounded_run_replaces_the_report(tmp_path: Path) -> None:
    day, out = tmp_path / "day", tmp_path / "out"
    simulate(day, agents=3, hours=1, seed=5)
    command = ["run", str(day / "job.yml"), "--output", str(out)]
    assert main([*command, "--end", "2026-03-02T00:20:00Z"]) == 0
    early = _ids(out)
    assert main([*command, "--start", "2026-03-02T00:20:00Z"]) == 0
    late = _ids(out)
    assert late != early
    assert {path.name for path in (out / "report").glob("incident-*")} == {incident_file(id_) for id_ in late}


def _ids(out: Path) -> set[str]:
    return {orjson.loads(line)["incident.id"] for line in (out / "incidents.ndjson").read_bytes().splitlines()}


def test_old_pages_do_not_outlive_a_run_whose_report_failed(tmp_path: Path) -> None:
    out = stories(tmp_path / "out", 2)
    assert report_after_run(str(out), conditions([], []))[1] == ""
    (out / "timeline" / "timeline-00000.parquet").write_bytes(b"no Parquet")
    index, wrong = report_after_run(str(out), conditions([], []))
    assert index == ""
    assert "cannot be read as a timeline" in wrong
    assert list((out / "report").glob("*.html")) == []


def test_pages_say_nothing_that_a_strict_policy_forbids(tmp_path: Path) -> None:
    out = stories(tmp_path / "out", 2)
    assert _report("--from", out) == 0
    for page in (out / "report").iterdir():
        text = _text(page)
        assert not re.search(r"<[^>]+\s(on\w+|style)\s*=", text)
        assert not re.search(r"(src|href)=\"(?!#|data:,|index\.html|incident-|agent-)", text)
        (policy,) = map(html.unescape, re.findall(r'Content-Security-Policy" content="([^"]+)"', text))
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert '<meta name="referrer" content="no-referrer">' in text


def test_a_report_from_elasticsearch(
    elasticsearch: Elasticsearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, out = tmp_path / "day", tmp_path / "out"
    simulate(day, agents=3, hours=1, seed=5)
    monkeypatch.chdir(tmp_path)
    assert main(["elasticsearch", "setup", "--url", elasticsearch.url]) == 0
    assert main(["run", str(day / "job.yml"), "--output", str(out), "--elasticsearch", elasticsearch.url]) == 0
    ids = _ids(out)
    assert ids
    for id_ in ids:  # the server may hold what other tests wrote
        assert _report(id_, "--from", elasticsearch.url, "--output", tmp_path / "served") == 0
        name = incident_file(id_)
        served, written = _text(tmp_path / "served" / name), _text(out / "report" / name)
        body = re.compile(r'<div id="timeline".*?</div>\s*<h3>', re.DOTALL)
        lanes = [re.findall(r'class="lane"', text) for text in (served, written)]
        assert lanes[0] == lanes[1]
        assert len(lanes[0]) > 1
        assert bool(body.search(served)) == bool(body.search(written))


@pytest.mark.parametrize("amount", [2**53 + 1, 2**60, 2**63 - 1, -(2**63)])
def test_amounts_beyond_what_a_float_keeps_are_shown(tmp_path: Path, amount: int) -> None:
    """Two records whose counters are broken are enough for such a sum."""
    numbers = ("source.bytes", "destination.bytes", "training.step", "event.count")
    entries = [{**entry, **{name: amount for name in numbers if name in entry}} for entry in timeline(0)]
    out = write_output(tmp_path, [incident(0)], [finding(0, **{"source.bytes": amount})], entries)
    assert main(["incidents", "report", "--from", str(out)]) == 0
    assert main(["incidents", "show", "--from", str(out)]) == 0
