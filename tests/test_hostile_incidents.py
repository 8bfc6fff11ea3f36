"""Output directories that somebody has changed: a line says what is no incident, and nothing moves a cursor."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agenttrail.casebook.desk import SafePoint
from agenttrail.cli import main
from agenttrail.errors import SinkError
from agenttrail.schema import record
from agenttrail.sinks.versions import Versions

PROGRAM = Path(sys.executable).parent / "agenttrail"
INCIDENT = {
    "incident.id": "11aa", "incident.title": "Mining by e", "incident.severity": "high", "incident.risk_score": 50.0,
    "incident.risk_factors": ["50 base"], "incident.summary": "s",
    "incident.first_seen": "2026-03-02T00:00:00.000000Z", "incident.last_seen": "2026-03-02T01:00:00.000000Z",
    "entity.type": "sandbox", "entity.id": "e", "attribution.status": "attributed", "attribution.level": "sandbox",
    "attribution.reason": ["r"], "destination.ip": ["192.0.2.1"], "threat.technique.id": ["T1496"],
}  # fmt: skip
FINDING = {
    "finding.id": "22bb", "incident.id": "11aa", "finding.severity": "low", "finding.title": "t", "rule.name": "a/b",
    "finding.first_seen": "2026-03-02T00:00:00.000000Z", "finding.last_seen": "2026-03-02T01:00:00.000000Z",
    "event.count": 1, "event.dataset": ["aws_vpc_flow"],
    "finding.evidence": [{"event.start": "2026-03-02T00:00:00.000000Z", "event.original": "line"}],
}  # fmt: skip
ACTIONS = [
    ["list"], ["show"], ["list", "--json"], ["list", "--severity", "low"], ["list", "--peer", "192.0.2.0/24"],
    ["list", "--since", "2026-01-01"], ["list", "--technique", "T1496"],
]  # fmt: skip


def _write(folder: Path, incidents: list[Any], findings: list[Any]) -> Path:
    for name, rows in (("incidents", incidents), ("findings", findings)):
        lines = (row if isinstance(row, bytes) else orjson.dumps(row) for row in rows)
        (folder / f"{name}.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


def test_what_is_sound_is_listed_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = _write(tmp_path, [INCIDENT], [FINDING])
    for action in ACTIONS:
        assert main(["incidents", *action, "--from", str(out)]) == 0
        said = capfd.readouterr()
        assert "11aa" in said.out
        assert not said.err


@pytest.mark.parametrize("action", ACTIONS, ids=" ".join)
@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"null", "it is no JSON object"),
        (b"5", "it is no JSON object"),
        (b'["a"]', "it is no JSON object"),
        (b"{}", "incident.id is missing"),
        ({"incident.risk_score": "x"}, "incident.risk_score must be a number"),
        ({"incident.risk_score": True}, "incident.risk_score must be a number"),
        ({"incident.title": 5}, "incident.title must be text"),
        ({"incident.id": 7}, "incident.id must be text"),
        ({"incident.risk_factors": None}, "incident.risk_factors must be a list, each entry text"),
        ({"threat.technique.id": 5}, "threat.technique.id must be a list, each entry text"),
        ({"attribution.reason": [{"a": 1}]}, "attribution.reason must be a list, each entry text"),
        ({"destination.port": ["x"]}, "destination.port must be a list, each entry a whole number"),
        ({"incident.severity": "worst"}, "incident.severity is 'worst', not one of informational, low, medium, high, "),
        ({"incident.severity": "x" * 9**6}, "incident.severity is 'xxx"),
        ({"incident.severity": ["high"]}, "incident.severity must be text"),
        ({"incident.first_seen": "soon"}, "incident.first_seen is not an RFC 3339 time"),
    ],
)  # fmt: skip
def test_what_is_no_incident_is_told_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], action: list[str], document: Any, told: str
) -> None:
    wrong = {**INCIDENT, **document} if isinstance(document, dict) else document
    out = _write(tmp_path, [INCIDENT, wrong], [])
    assert main(["incidents", *action, "--from", str(out)]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"agenttrail: {out}/incidents.ndjson:2: not an incident: {told}")
    assert said.err.count("\n") == 1
    assert len(said.err) < 600


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"null", "it is no JSON object"),
        ({"finding.severity": "x"}, "finding.severity is 'x', not one of"),
        ({"event.count": "9"}, "event.count must be a whole number"),
        ({"source.bytes": 1.5}, "source.bytes must be a whole number"),
        ({"finding.evidence": {}}, "finding.evidence must be a list, each entry an object"),
        ({"finding.evidence": [5]}, "finding.evidence must be a list, each entry an object"),
        ({"finding.evidence": [{}]}, "finding.evidence: event.start is missing"),
        ({"finding.evidence": None}, "finding.evidence must be a list, each entry an object"),
        ({"peer.port": 5}, "peer.port must be a list, each entry a whole number"),
    ],
)
def test_what_is_no_finding_is_told_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], document: Any, told: str
) -> None:
    wrong = {**FINDING, **document} if isinstance(document, dict) else document
    out = _write(tmp_path, [INCIDENT], [FINDING, wrong])
    assert main(["incidents", "show", "--from", str(out)]) == 1
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"agenttrail: {out}/findings.ndjson:2: not a finding: {told}")


@pytest.mark.parametrize("kind", ["incident", "finding"])
def test_no_value_of_any_field_breaks_the_reader(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    values: list[Any] = [None, True, 5, -1.5, 1e300, "", "x", "\x9b", [], [None], ["x"], [[]], [5], {}, {"a": 1}, [{}]]
    for name in [*record(kind).fields, "triage.status"]:
        for value in values:
            changed = {**(INCIDENT if kind == "incident" else FINDING), name: value}
            out = _write(tmp_path, [changed if kind == "incident" else INCIDENT], [changed] * (kind == "finding"))
            for action in (["list", "--peer", "::/0", "--until", "2027-01-01"], ["show"]):
                assert main(["incidents", *action, "--from", str(out)]) in (0, 1)
    assert all(char.isprintable() or char in "\n\t" for text in capfd.readouterr() for char in text)


@pytest.mark.parametrize("action", ["report", "show"])
@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "line 2 is not valid JSON: "), (b"\x1b[2J", "line 2 is not valid JSON: "),
        (b"null", "line 2 is not a version of a finding"), (b'{"finding.id":null}', "line 2 is not a version of a "),
        (b'{"finding.id":["a"]}', "line 2 is not a version of a "), (b'{"finding.id":"\xff"}', "line 2 is not valid "),
    ],
)  # fmt: skip
def test_what_is_no_version_in_a_directory_of_a_stream_is_told_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], action: str, line: bytes, told: str
) -> None:
    out = _write(tmp_path, [INCIDENT], [FINDING, line])
    versions = Versions(str(out))
    versions.safe(SafePoint().to_json())
    assert main(["incidents", action, "--from", str(out)]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"agenttrail: {out}/findings.ndjson: cannot be read: {told}")
    assert (said.count("\n"), said.rstrip("\n").isprintable()) == (1, True)
    for step in (versions.begin, versions.finish):
        with pytest.raises(SinkError, match=told.replace("line 2", "line 2 of findings.ndjson")):
            step()


def test_a_stream_ends_with_what_was_damaged_and_it_is_told_by_who_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = _write(tmp_path, [INCIDENT, b'{"incident.id":"zz"}'], [FINDING, b'{"finding.id":"zz"}'])
    (out / "timeline").mkdir()
    versions = Versions(str(out))
    versions.safe(SafePoint().to_json())
    assert versions.finish() == {"findings": {"": 1, "low": 1}, "incidents": {"": 1, "high": 1}}
    assert main(["incidents", "list", "--from", str(out)]) == 1
    assert "incidents.ndjson:2: not an incident: incident.first_seen is missing" in capfd.readouterr().err


def test_long_names_are_shortened_for_people_and_whole_in_json(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    long = dict.fromkeys(("gen_ai.agent.id", "entity.id", "incident.title", "incident.summary"), "n" * 1_000_000)
    out = _write(tmp_path, [{**INCIDENT, **long}], [{**FINDING, "finding.title": "n" * 1_000_000}])
    for action, most in (("list", 800), ("show", 20_000)):
        assert main(["incidents", action, "--from", str(out)]) == 0
        text = capfd.readouterr().out
        assert "nnn […999," in text
        assert len(text) < most
    assert main(["incidents", "list", "--from", str(out), "--json"]) == 0
    assert orjson.loads(capfd.readouterr().out) == {**INCIDENT, **long}


def test_json_of_incidents_on_a_terminal(tmp_path: Path) -> None:
    _write(tmp_path, [{**INCIDENT, "incident.title": "\x9b2J\u202e\u2028"}], [FINDING])
    for action in ("list", "show"):
        command: list[str | Path] = [PROGRAM, "incidents", action, "--json", "--from", tmp_path]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        assert "\u202e" in raw.decode()
        seen = _on_a_terminal(command)
        assert all(char.isprintable() or char == "\n" for char in seen)
        assert orjson.loads(seen) == orjson.loads(raw)


def _on_a_terminal(command: list[str | Path]) -> str:
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdout=slave, stderr=slave) as running:
        os.close(slave)
        seen = b""
        try:
            while piece := os.read(master, 65_536):
                seen += piece
        except OSError:  # what Linux says when the other side has gone
            pass
        assert running.wait() == 0
    os.close(master)
    return seen.decode().replace("\r\n", "\n")


# -- timelines


_ENTRY = {
    "timeline.id": "33cc", "incident.id": "11aa", "@timestamp": "2026-03-02T00:00:00Z", "timeline.kind": "tool_call",
    "gen_ai.tool.name": "shell",
}  # fmt: skip


def _write_timeline(folder: Path, *entries: Any) -> Path:
    out = _write(folder, [INCIDENT], [FINDING])
    (out / "timeline").mkdir()
    pq.write_table(pa.Table.from_pylist(list(entries)), out / "timeline" / "timeline-00000.parquet")
    return out


def test_a_story_is_shown_and_its_entries_are_in_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = {**_ENTRY, "timeline.id": "22bb", "incident.id": "44dd", "gen_ai.tool.name": "python"}
    out = _write_timeline(tmp_path, _ENTRY, other)
    assert main(["incidents", "show", "--from", str(out)]) == 0
    told = capfd.readouterr().out
    assert "\n  2026-03-02\n  00:00:00     tool call shell\n" in told
    assert "python" not in told
    assert main(["incidents", "show", "--from", str(out), "--json"]) == 0
    assert orjson.loads(capfd.readouterr().out)["timeline"] == [_ENTRY]


def test_without_a_timeline_the_rest_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As older versions left it: no folder, and of another incident only."""
    out = _write(tmp_path, [INCIDENT], [FINDING])
    for _ in range(2):
        assert main(["incidents", "show", "--from", str(out)]) == 0
        told = capfd.readouterr().out
        assert "no timeline is stored" in told
        assert "low: t (a/b)" in told
        if not (out / "timeline").exists():
            _write_timeline(tmp_path, {**_ENTRY, "incident.id": "44dd"})


def test_a_long_story_is_cut_unless_all_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    calls = [{**_ENTRY, "timeline.id": f"{number:04x}", "gen_ai.tool.name": f"t{number:03}"} for number in range(300)]
    out = _write_timeline(tmp_path, *calls)
    told = {}
    for option in ([], ["--all"]):
        assert main(["incidents", "show", "--from", str(out), *option]) == 0
        told[len(option)] = capfd.readouterr().out
    assert "268 entries are left out here; --all shows them" in told[0]
    assert (told[0].count("tool call t"), told[1].count("tool call t")) == (32, 300)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"@timestamp": None}, "not a timeline entry: @timestamp is missing"),
        ({"@timestamp": "soon"}, "not a timeline entry: @timestamp is not an RFC 3339 time"),
        ({"event.end": "2600-01-01T00:00:00Z"}, "not a timeline entry: event.end lies outside"),
        ({"source.bytes": "9"}, "not a timeline entry: source.bytes must be a whole number"),
        ({"gen_ai.tool.name": ["x"]}, "not a timeline entry: gen_ai.tool.name must be text"),
        ({"gpu.utilization": float("nan")}, "cannot be read as a timeline: "),
        ({"timeline.kind": None}, "not a timeline entry: timeline.kind is missing"),
    ],
)  # fmt: skip
def test_what_is_no_timeline_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], entry: dict[str, Any], told: str
) -> None:
    out = _write_timeline(tmp_path, {**_ENTRY, **entry})
    assert main(["incidents", "show", "--from", str(out)]) == 1
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"agenttrail: {out}/timeline")
    assert told in said.err


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100, b"\x00\x1b[2J"])
def test_a_file_that_is_no_parquet_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes) -> None:
    out = _write_timeline(tmp_path, {"another": "table"})
    for changed in (None, data):
        if changed is not None:
            (out / "timeline" / "timeline-00000.parquet").write_bytes(changed)
        assert main(["incidents", "show", "--from", str(out)]) == 1
        said = capfd.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert said.err.startswith(f"agenttrail: {out}/timeline: cannot be read as a timeline: ")
        assert said.err.rstrip("\n").isprintable()
        assert len(said.err) < 700


def test_no_value_of_any_field_of_an_entry_breaks_the_reader(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values: list[Any] = [True, 5, -1.5, 1e300, "", "x\x1b[2J\u202e", "n" * 1_000_000, [], ["x"], {"a": 1}, 2**62]
    out = _write_timeline(tmp_path, _ENTRY)
    for name in record("timeline").fields:
        for value in values:
            table = pa.Table.from_pylist([{**_ENTRY, "timeline.kind": "egress", name: value}])
            pq.write_table(table, out / "timeline" / "timeline-00000.parquet")
            assert main(["incidents", "show", "--from", str(out)]) in (0, 1)
    said = capfd.readouterr()
    assert all(char.isprintable() or char in "\n\t" for text in said for char in text)
    assert max(len(line) for line in said.out.splitlines()) < 2_100
