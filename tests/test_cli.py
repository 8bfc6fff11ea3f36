"""The command line: what it prints, what it refuses, and what it returns."""

from __future__ import annotations

import logging
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pytest
from tests.formats.golden import sample_of

from agenttrail import __version__
from agenttrail.cli import main
from agenttrail.detect.rules import load_all
from agenttrail.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(sys.executable).parent / "agenttrail"
SECRET = "hunter2hunter2"  # noqa: S105 - it is what must not be seen
pytestmark = pytest.mark.xdist_group("cli")
COMMANDS = [
    ["run"], ["demo"], ["simulate"], ["formats"], ["formats", "detect"], ["incidents"], ["incidents", "list"],
    ["incidents", "show"], ["incidents", "triage"], ["elasticsearch"], ["elasticsearch", "setup"],
    ["elasticsearch", "kibana"], ["rules"],
    *(["rules", action] for action in ("check", "test", "list", "explain", "coverage")),
]  # fmt: skip


PROGRESS = re.compile(r"(?m)^read \d+ \w+ (?:of \d+ \w+ )?in \d+ s\n")
"""What a run says every ten seconds, which depends on how busy the machine is."""


class Said(NamedTuple):
    """What a command returned and printed."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _loud() -> Iterator[None]:
    """Undo what the command line does to logging."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command in this process."""

    def run(*arguments: str | Path) -> Said:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as left:
            status = int(left.code or 0)
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Said(status, captured.out, PROGRESS.sub("", captured.err))

    return run


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated hour, and its job run by the program itself."""
    folder = tmp_path_factory.mktemp("cli") / "day"
    size = ["--agents", "3", "--hours", "1", "--seed", "5"]
    for command in (["simulate", str(folder), *size], ["run", str(folder / "job.yml")]):
        subprocess.run([str(PROGRAM), *command], check=True, capture_output=True)
    return folder


def _incidents(day: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (day / "out" / "incidents.ndjson").read_bytes().splitlines()]


# -- help and usage


def test_help_answers_at_once() -> None:
    """Without what only runs need."""
    code = """
import sys, time
from agenttrail.cli import main
try:
    main(["--help"])
except SystemExit as left:
    assert not left.code
heavy = {"apache_beam", "elasticsearch", "grpc", "sigma", "jsonschema", "rich", "isal", "jinja2"}
print(sorted(heavy & set(sys.modules)), time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, last = done.stdout.splitlines()
    assert {"run", "rules", "incidents", "demo", "simulate"} <= set(" ".join(told).split())
    loaded, seconds = last.rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 1.5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(said: Any, command: list[str]) -> None:
    done = said(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"usage: agenttrail {' '.join(command)} ")


def test_the_version_is_that_of_the_package(said: Any) -> None:
    assert said("--version") == Said(0, f"agenttrail {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["run"], "the following arguments are required: JOB.yml"),
        (["rules"], "the following arguments are required: ACTION"),
        (["rules", "chekc"], "invalid choice: 'chekc'"),
        (["rules", "list", "--jsno"], "unrecognized arguments: --jsno"),
        (["incidents", "list", "--severity", "worst"], "invalid choice: 'worst'"),
        (["incidents", "list", "--since", "yesterday"], "--since is not an RFC 3339 time"),
        (["incidents", "list", "--peer", "example.com"], "--peer is neither an address nor a network"),
        (["incidents", "triage", "a1"], "no address: give --from, or set ELASTICSEARCH_URL"),
        (["incidents", "triage", "a1", "--from", "out", "--note", "x"], "files of a run are never changed by triage"),
        (["incidents", "triage", "a1", "--from", "http://localhost:1"], "nothing to write: give --status, --assignee"),
        (["incidents", "triage", "a1", "--status", "done"], "invalid choice: 'done'"),
        (["incidents", "triage", "a1", "--from", "http://localhost:1", "--note", " "], "--note must hold 1 to 20,000 "),
        (["incidents", "triage", "", "--from", "http://localhost:1", "--note", "x"], "the id of the incident is empty"),
        (["incidents", "triage", "a1", "--from", "http://localhost:1", "--note", "\udcff"], "--note is not text"),
        (["simulate", "x", "--hours", "-1"], "-1 is not a sensible size"),
        (["simulate", "x", "--agents", "nan"], "invalid int value: 'nan'"),
        (["run", "j.yml", "--runer", "x"], "unknown option --runer; did you mean --runner?"),
        (["run", "j.yml", "k.yml"], "unexpected argument 'k.yml'"),
        (["run", "none.yml"], "none.yml: cannot be read: No such file or directory"),
        (["run", "j.yml", "--start", "2026-03-02", "--end", "2026-03-02"], "--start must lie before --end"),
        (["run", "j.yml", "--start", "1975-01-01"], "--start lies outside of the years 2000 to 2100"),
        (
            ["run", "j.yml", "--streaming", "--start", "2026-01-01T00:00:00Z"],
            "--start: a stream goes on from where it stopped; leave it out, or leave out --streaming",
        ),
        (["run", "j.yml", "--end-of-input"], "--end-of-input is for streams: add --streaming, or leave it out"),
        (["run", "j.yml", "--metrics-port", "0"], "--metrics-port is for streams: add --streaming, or leave it out"),
        (["run", "j.yml", "--log-format", "text"], "--log-format is for streams: add --streaming, or leave it out"),
        (["run", "j.yml", "--streaming", "--metrics-port", "65536"], "--metrics-port: 65536 is no port"),
        (["run", "j.yml", "--streaming", "--metrics-port", "-1"], "--metrics-port"),
        (["run", "j.yml", "--streaming", "--metrics-address", "::1"], "--metrics-address: there are no metrics"),
        (
            ["run", "j.yml", "--streaming", "--runner", "DirectRunner"],
            "--runner DirectRunner: reads every source to its end before it hands anything on",
        ),
        (["rules", "check", "nowhere"], "nowhere: no such rule file or folder"),
        (["rules", "check", "--job", "none.yml"], "none.yml: cannot be read"),
        (["elasticsearch", "setup"], "no address: give --url, or set ELASTICSEARCH_URL"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_a_line_and_returns_2(
    said: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ELASTICSEARCH_URL", raising=False)
    done = said(*arguments)
    assert (done.status, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err


def test_all_that_is_wrong_with_the_times_is_told(said: Any) -> None:
    done = said("run", "j.yml", "--start", "soon", "--end", "later")
    assert done.status == 2
    assert done.err.splitlines() == [
        "command line: --end is not an RFC 3339 time",
        "command line: --start is not an RFC 3339 time",
    ]


def test_all_that_is_wrong_with_a_job_is_told(said: Any, tmp_path: Path) -> None:
    job = tmp_path / "job.yml"
    job.write_text("nmae: x\nevents:\n  - {format: aws_vpc_flwo, path: none}\nattribution: {wait: long}\n")
    done = said("run", job)
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"{job}:1: unknown key 'nmae'; did you mean name?",
        f"{job}:3: no file matches 'none'",
        f"{job}:3: unknown format 'aws_vpc_flwo'; did you mean aws_vpc_flow?",
        f"{job}:4: attribution.wait must be a number of seconds, or text such as 500ms, 2s, 10m, 1h",
    ]


def test_the_program_itself_returns_what_it_says() -> None:
    """As installed, not as called from here."""
    wrong = subprocess.run([PROGRAM, "rules", "check", "/nowhere"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "agenttrail: /nowhere: no such rule file or folder\n"
    good = subprocess.run([PROGRAM, "rules", "check"], capture_output=True, text=True, check=False)
    shipped = load_all(["builtin"])
    told = f"{len(shipped.rules)} rules, {len(shipped.correlations)} correlations, no problem\n"
    assert (good.returncode, good.stdout, good.stderr) == (0, told, "")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen([PROGRAM, "rules", "explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


# -- runs


def test_a_run_tells_what_it_found_and_json_says_the_same(said: Any, day: Path, tmp_path: Path) -> None:
    plain = said("run", day / "job.yml", "--output", tmp_path / "a")
    assert (plain.status, plain.err) == (0, "")
    summary = orjson.loads((tmp_path / "a" / "run.json").read_bytes())
    total = summary["total"]
    assert f"{total['lines']:,} lines = {total['with_events']:,} with events + " in plain.out
    assert f"{summary['incidents']} incidents" in plain.out
    report = tmp_path / "a" / "report" / "index.html"
    assert plain.out.endswith(f"written to {tmp_path / 'a'}\nreport:    {report}\n")
    assert report.exists()
    printed = said("run", day / "job.yml", "--output", tmp_path / "b", "--json")
    assert printed.status == 0
    assert orjson.loads(printed.out) | {"seconds": 0} == summary | {"seconds": 0}
    assert orjson.loads((day / "out" / "run.json").read_bytes())["total"] == total
    for name in ("incidents.ndjson", "findings.ndjson", "dead_letters.ndjson"):
        assert (tmp_path / "a" / name).read_bytes() == (day / "out" / name).read_bytes()


def test_times_are_half_open(said: Any, day: Path, tmp_path: Path) -> None:
    """What starts at the seam is in the later run, and nothing is in two or in none."""
    seams = ["2000-01-01", "2026-03-02T00:20:00Z", "2026-03-02T02:40:00+02:00", "2099-12-31"]
    counts = []
    for start, end in pairwise(seams):
        done = said("run", day / "job.yml", "--output", tmp_path, "--start", start, "--end", end, "--json")
        assert done.status == 0
        counts.append(orjson.loads(done.out)["total"]["in_range"])
    assert min(counts) > 0
    assert sum(counts) == orjson.loads((day / "out" / "run.json").read_bytes())["total"]["events"]


def test_a_run_that_fails_says_where_and_returns_1(said: Any, day: Path, tmp_path: Path) -> None:
    """The error comes from a worker; its path and position reach the user, its traceback does not."""
    (tmp_path / "pods.json").write_text('{"items": [,]}')
    job = tmp_path / "job.yml"
    logs = next((day / "aws_vpc_flow").glob("full-*"))
    job.write_text(
        f"events: [{{format: aws_vpc_flow, path: '{logs}'}}]\nleases: [{{format: kubernetes_pods, path: pods.json}}]\n"
    )
    done = said("run", job)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("agenttrail: pods.json:1:12: not valid JSON: ")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out" / "incidents.ndjson").exists()


def test_output_that_cannot_be_written_is_told(said: Any, day: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = said("run", day / "job.yml", "--output", tmp_path / "file")
    assert done.status == 1
    assert done.err.startswith(f"agenttrail: {tmp_path / 'file'}")
    assert "cannot be used for output" in done.err


@pytest.mark.usefixtures("hearing")
def test_a_run_that_is_interrupted_leaves_the_output_of_the_one_before(day: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(day / "out", out)
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    command = [str(PROGRAM), "run", str(day / "job.yml"), "--output", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stderr
        while not (out / ".parts").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == b"agenttrail: interrupted; the output of earlier runs is as it was\n"
        assert running.wait() == 130
    assert {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()} == before


# -- incidents


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("agent", "gen_ai.agent.id"),
        ("entity", "entity.id"),
        ("entity", "sandbox.id"),
        ("entity", "job.id"),
        ("entity", "host.name"),
        ("sandbox", "sandbox.id"),
        ("job", "job.id"),
        ("host", "host.name"),
    ],
)
def test_incidents_of_somebody(said: Any, day: Path, name: str, key: str) -> None:
    incidents = _incidents(day)
    wanted = {incident[key] for incident in incidents if key in incident}
    assert wanted
    for value in wanted:
        assert _listed(said, day, f"--{name}", value) == [one for one in _ranked(incidents) if one.get(key) == value]


@pytest.mark.parametrize(
    ("name", "key", "shorten"),
    [("rule", "rule.name", ""), ("peer", "destination.ip", ""), ("technique", "threat.technique.id", ""),
     ("technique", "threat.technique.id", r"\.\d+$")],
)  # fmt: skip
def test_incidents_with_something(said: Any, day: Path, name: str, key: str, shorten: str) -> None:
    incidents = _incidents(day)
    short = {re.sub(shorten, "", value) if shorten else value for incident in incidents for value in incident[key]}
    assert short
    for value in short:
        expected = [one for one in _ranked(incidents) if any(v == value or v.startswith(f"{value}.") for v in one[key])]
        assert _listed(said, day, f"--{name}", value) == expected


def test_incidents_by_severity_status_and_time(said: Any, day: Path) -> None:
    incidents = _ranked(_incidents(day))
    levels = ["low", "medium", "high", "critical"]
    for at, level in enumerate(levels):
        worse = [one for one in incidents if one["incident.severity"] in levels[at:]]
        assert _listed(said, day, "--severity", level) == worse
    assert _listed(said, day, "--status", "new") == incidents
    assert _listed(said, day, "--status", "closed") == []
    moment = sorted(one["incident.last_seen"] for one in incidents)[1]
    assert _listed(said, day, "--since", moment) == [one for one in incidents if one["incident.last_seen"] >= moment]
    first = max(one["incident.first_seen"] for one in incidents)
    assert _listed(said, day, "--until", first) == [one for one in incidents if one["incident.first_seen"] < first]
    both = [one for one in incidents if one["incident.severity"] == "critical" and one["incident.first_seen"] < first]
    assert _listed(said, day, "--until", first, "--severity", "critical") == both
    assert said("incidents", "list", "--from", day / "out", "--agent", "nobody").out == "no incidents\n"


def _ranked(incidents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        incidents, key=lambda one: (-one["incident.risk_score"], one["incident.first_seen"], one["incident.id"])
    )


def _listed(said: Any, day: Path, *filters: str) -> list[dict[str, Any]]:
    done = said("incidents", "list", "--from", day / "out", "--json", *filters)
    assert (done.status, done.err) == (0, "")
    return [orjson.loads(line) for line in done.out.splitlines()]


def test_the_list_for_people_has_a_line_an_incident(said: Any, day: Path) -> None:
    header, *lines = said("incidents", "list", "--from", day / "out").out.splitlines()
    assert header.split("\t")[:3] == ["incident", "severity", "risk"]
    assert [line.split("\t")[0] for line in lines] == [one["incident.id"][:12] for one in _ranked(_incidents(day))]


def test_an_incident_is_shown_with_its_proof_and_evidence(said: Any, day: Path) -> None:
    worst = _ranked(_incidents(day))[0]
    shown = said("incidents", "show", "--from", day / "out", worst["incident.id"][:8])
    assert shown.status == 0
    assert shown.out == said("incidents", "show", "--from", day / "out").out
    assert shown.out == said("incidents", "show", "--from", day / "out", "--sandbox", worst["sandbox.id"]).out
    assert said("incidents", "show", "--from", day / "out", "--sandbox", "none").out == "no incidents\n"
    for text in (
        worst["incident.id"], worst["incident.summary"], worst["trajectory.id"], worst["sandbox.id"],
        *worst["attribution.lease_id"],
        *worst["threat.technique.id"], *worst["destination.ip"], "  do            1. ", "  its sandbox   ",
    ):  # fmt: skip
        assert text in shown.out
    whole = said("incidents", "show", "--from", day / "out", "--all").out
    assert [text for text in worst["recommendation"] if text not in whole] == []
    document = orjson.loads(said("incidents", "show", "--from", day / "out", worst["incident.id"], "--json").out)
    assert {name: document[name] for name in worst} == worst
    assert {finding["finding.id"] for finding in document["findings"]} == set(worst["finding.id"])
    assert document["findings"][0]["finding.evidence"][0]["event.original"] in shown.out


@pytest.mark.parametrize(
    ("id_", "told"), [("zzz", "no incident 'zzz' in "), ("", "'' is the start of ")], ids=["unknown", "ambiguous"]
)
def test_an_id_that_names_no_single_incident(said: Any, day: Path, id_: str, told: str) -> None:
    done = said("incidents", "show", "--from", day / "out", id_)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"agenttrail: {told}")


def test_a_folder_that_is_no_output_directory(said: Any, tmp_path: Path) -> None:
    done = said("incidents", "list", "--from", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert f"is {tmp_path} the output directory of a run?" in done.err
    (tmp_path / "incidents.ndjson").write_text("{}\n")
    assert "incidents.ndjson:1: not an incident" in said("incidents", "list", "--from", tmp_path).err
    (tmp_path / "incidents.ndjson").write_text("{")
    assert "incidents.ndjson:1: not valid JSON" in said("incidents", "list", "--from", tmp_path).err


# -- hostile text


HOSTILE = "\x1b[2J\x1b]0;owned\x07a\u202eb\u200bc\td\ne\x9bf{{7*7}}%s${HOME}"


@pytest.fixture
def hostile(day: Path, tmp_path: Path) -> Path:
    """Return an output directory whose every text is hostile."""
    out = tmp_path / "hostile"
    out.mkdir()
    for name in ("incidents", "findings"):
        rows = [orjson.loads(line) for line in (day / "out" / f"{name}.ndjson").read_bytes().splitlines()]
        (out / f"{name}.ndjson").write_bytes(b"".join(orjson.dumps(_spoilt(row)) + b"\n" for row in rows))
    return out


_NEEDED = ("incident.id", "finding.id", "finding.severity", "incident.severity", "_seen", "event.start", "@timestamp")


def _spoilt(value: Any, key: str = "") -> Any:
    if key.endswith(_NEEDED):
        return value
    if isinstance(value, dict):
        return {name: _spoilt(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_spoilt(one, key) for one in value]
    return value + HOSTILE if isinstance(value, str) else value


def _is_harmless(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


def test_text_from_logs_moves_no_cursor_and_breaks_no_line(said: Any, hostile: Path, day: Path) -> None:
    listed = said("incidents", "list", "--from", hostile).out
    assert _is_harmless(listed)
    assert len(listed.splitlines()) == 1 + len(_incidents(day))
    assert {line.count("\t") for line in listed.splitlines()} == {6}
    shown = said("incidents", "show", "--from", hostile).out
    assert _is_harmless(shown.replace("\t", "\x00")) is ("\t" not in shown)
    assert "\t" not in shown
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "{{7*7}}%s${HOME}" in shown


def test_nor_on_a_terminal(hostile: Path) -> None:
    """There the table is drawn, with colours of our own only."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, "incidents", "list", "--from", hostile],
        stdout=slave,
        stderr=slave,
        env={**os.environ, "COLUMNS": "400"},
    ) as running:
        os.close(slave)
        drawn = b""
        while piece := _read(master):
            drawn += piece
        assert running.wait() == 0
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;]*m", "", drawn.decode()).replace("\r\n", "\n")
    assert "severity" in text
    assert _is_harmless(text)
    assert "owned" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # what Linux says when the other side has gone
        return b""


def test_a_message_repeats_nothing_unescaped(said: Any, tmp_path: Path) -> None:
    rule = tmp_path / "rule.yml"
    rule.write_text('title: "a"\nid: 5\nlevel: "\\e[2J"\ndetection: {"x\\u202e": {"\\e]0;y": 1}, condition: a}\n')
    done = said("rules", "check", rule)
    assert done.status == 2
    assert _is_harmless(done.err)
    listed = tmp_path / "listed.yml"
    good = (ROOT / "rules" / "policy" / "blocked-egress.yml").read_text()
    listed.write_text(good.replace("title: Blocked egress", 'title: "Blocked\\e[2J egress\\u202e"'))
    for action in ("list", "explain", "check", "test"):
        done = said("rules", action, listed)
        assert done.status == 0
        assert _is_harmless(done.out)


# -- secrets


def test_secrets_in_logs_reach_no_output(said: Any, tmp_path: Path) -> None:
    """Neither those of events, nor those of lines that cannot be read."""
    sample = next(
        line
        for line in (ROOT / "tests/data/formats/alibaba_cloud_firewall/sample.jsonl").read_bytes().splitlines()
        if b"Mining" in line or b"mining" in line
    )
    event = orjson.loads(sample) | {"url": f"http://u:{SECRET}@pool.example/?token={SECRET}"}
    lines = [orjson.dumps(event), b'{"broken": "password=' + SECRET.encode() + b'"']
    (tmp_path / "fw.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    job = tmp_path / "job.yml"
    job.write_text("events: [{format: alibaba_cloud_firewall, path: fw.jsonl}]\noutput: {events: true}\n")
    done = said("run", job)
    assert done.status == 0, done.err
    out = tmp_path / "out"
    assert orjson.loads((out / "run.json").read_bytes())["findings"] >= 1
    assert len((out / "dead_letters.ndjson").read_bytes().splitlines()) == 1
    shown = said("incidents", "show", "--from", out).out
    assert "[REDACTED]" in shown
    for path in out.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in _content(path), path
    assert SECRET not in shown + done.out + done.err


def _content(path: Path) -> bytes:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return str(pq.read_table(path).to_pylist()).encode()
    return path.read_bytes()


def test_dead_letters_are_for_their_owner_only(day: Path) -> None:
    letters = day / "out" / "dead_letters.ndjson"
    assert letters.read_bytes()
    assert stat.S_IMODE(letters.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "arguments",
    [
        ["--elasticsearch", f"http://elastic:{SECRET}@localhost:1"],
        ["--elasticsearch", "http://localhost:1"],
        ["--elasticsearch", f"http://localhost:1/?api_key={SECRET}"],
    ],
)
def test_secrets_of_the_environment_and_of_addresses_are_not_printed(
    said: Any, day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    for name in list(os.environ):
        if name.startswith("ELASTICSEARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", SECRET)
    done = said("run", day / "job.yml", "--output", tmp_path / "out", *arguments)
    assert done.status in (1, 2)
    assert done.err
    assert SECRET not in done.out + done.err


# -- rules, formats, simulate, demo


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return a folder with one rule of one's own."""
    folder = tmp_path / "my-rules"
    folder.mkdir()
    (folder / "own.yml").write_text(
        """\
title: Telnet
id: 11111111-1111-4111-8111-111111111111
level: high
tags: [attack.t1021]
logsource: {product: agenttrail, category: network}
detection:
  telnet: {peer.port: 23}
  condition: telnet
tests:
  - {name: telnet, match: true, event: {peer.port: 23}}
  - {name: ssh, match: false, event: {peer.port: 22}}
"""
    )
    return folder


def test_rules_are_checked_tested_listed_and_explained(said: Any, rules: Path) -> None:
    assert said("rules", "check", rules) == Said(0, "1 rule, no problem\n", "")
    assert said("rules", "test", rules) == Said(0, "1 rule, 2 tests, all pass\n", "")
    assert said("rules", "list", rules).out.splitlines()[1] == "own\thigh\tT1021\tTelnet"
    assert "condition:  peer.port: 23" in said("rules", "explain", rules).out
    assert said("rules", "coverage", rules).out.splitlines() == ["technique\trules", "T1021\town"]


def test_a_rule_is_explained_by_the_name_that_incidents_give_it(said: Any, rules: Path) -> None:
    """Alone, a correlation, too; a name that no rule has is told, with the one that was likely meant."""
    done = said("rules", "explain", "impact/gpu-diversion")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("impact/gpu-diversion (high)\n")
    assert done.out.count("\n\n") == 1
    assert "sees:       hits of impact/" in done.out
    (listed,) = orjson.loads(said("rules", "explain", "impact/gpu-diversion", "--json").out)
    assert listed["name"] == "impact/gpu-diversion"
    assert said("rules", "explain", "own", rules).out == said("rules", "explain", rules).out
    wrong = said("rules", "explain", "impact/gpu-diversoin")
    told = "no such rule file or folder, and no rule of this name; did you mean impact/gpu-diversion?"
    assert (wrong.status, wrong.err) == (2, f"agenttrail: impact/gpu-diversoin: {told}\n")


def test_a_correlation_of_ones_own_over_a_shipped_rule_is_told_what_to_name(said: Any, tmp_path: Path) -> None:
    """The example of the guide, in a folder of its own: with the rules that ship beside it, it passes."""
    guide = (ROOT / "rules" / "README.md").read_text()
    example = guide.partition("```yaml\ntitle: Many refused")[2].partition("```")[0]
    folder = tmp_path / "my-rules"
    folder.mkdir()
    (folder / "many.yml").write_text("title: Many refused" + example)
    alone = said("rules", "check", folder)
    told = "unknown rule 'policy/blocked-egress': it ships with the program; name 'builtin' beside your rules"
    assert alone.status == 2
    assert alone.err.splitlines()[0].endswith(f"many.yml:6: {told}")
    assert all(told in line for line in alone.err.splitlines())
    assert said("rules", "check", "builtin", folder).status == 0
    assert said("rules", "test", "builtin", folder).status == 0


def test_rules_for_programs(said: Any, rules: Path) -> None:
    (listed,) = orjson.loads(said("rules", "list", rules, "--json").out)
    assert (listed["name"], listed["level"], listed["techniques"]) == ("own", "high", ["T1021"])
    (explained,) = orjson.loads(said("rules", "explain", rules, "--json").out)
    assert explained == {**listed, "condition": "peer.port: 23"}
    assert orjson.loads(said("rules", "coverage", rules, "--json").out) == {"T1021": ["own"]}
    assert len(orjson.loads(said("rules", "list", "--json").out)) >= 15


def test_a_test_of_a_rule_that_fails_returns_2_and_says_why(said: Any, rules: Path) -> None:
    own = rules / "own.yml"
    own.write_text(
        own.read_text().replace("match: false, event: {peer.port: 22}", "match: true, event: {peer.port: 22}")
    )
    done = said("rules", "test", rules)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"agenttrail: {own}:11: test 'ssh': the rule does not match, and should (as ")
    assert said("rules", "check", rules).status == 0


def test_a_rule_without_tests_is_noted(said: Any, rules: Path) -> None:
    own = rules / "own.yml"
    own.write_text(own.read_text().partition("tests:")[0])
    assert said("rules", "test", rules).out == "1 rule, 0 tests, all pass\nnote: own has no tests\n"


def test_lists_of_a_job_are_known_to_its_rules(said: Any, rules: Path) -> None:
    own = rules / "own.yml"
    own.write_text(
        own.read_text().replace("peer.port: 23}", "peer.ip|expand: '%telnet_hosts%'}", 1).partition("tests:")[0]
    )
    note = said("rules", "check", rules)
    assert (note.status, note.out.splitlines()[1:]) == (
        0, [f"note: {own}: a job must give the list 'telnet_hosts', which does not ship"],
    )  # fmt: skip
    (rules / "x.log").write_text("x")
    job = rules.parent / "job.yml"
    job.write_text("events: [{format: aws_vpc_flow, path: my-rules/x.log}]\nlists: {telnet_hosts: [192.0.2.1]}\n")
    assert said("rules", "check", rules, "--job", job) == Said(0, "1 rule, no problem\n", "")
    job.write_text("events: [{format: aws_vpc_flow, path: my-rules/x.log}]\nlists: {telnet_host: [192.0.2.1]}\n")
    done = said("rules", "check", rules, "--job", job)
    assert done.status == 2
    assert done.err == f"agenttrail: {own}:7: unknown list 'telnet_hosts'; did you mean telnet_host?\n"


def test_formats_are_listed_and_recognised(said: Any, day: Path, tmp_path: Path) -> None:
    listed = {line.split("\t")[0] for line in said("formats").out.splitlines()[1:]}
    assert listed == set(FORMATS)
    (tmp_path / "leases.csv").write_text("address,start,sandbox.id\n10.0.0.7,2026-03-02T00:00:00Z,one\n")
    files = {tmp_path / "leases.csv": "address_leases", next((day / "k8s").glob("*.json")): "kubernetes_pods"}
    for name in ("aws_vpc_flow", "alibaba_vpc_flow", "alibaba_cloud_firewall"):
        files |= dict.fromkeys((day / name).iterdir(), name)
    for name, good in (("otlp_spans", 3), ("dcgm_prometheus", 10), ("training_progress", 6)):
        lines = sample_of(name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(lines[:good]))
        files[tmp_path / name] = name
    done = said("formats", "detect", *files)
    assert {Path(path): name for path, name, _ in (line.split("\t") for line in done.out.splitlines()[1:])} == files
    assert (done.status, set(files.values())) == (0, set(FORMATS))


def test_a_file_of_no_known_format_is_told(said: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("nothing\nof the kind\n")
    done = said("formats", "detect", tmp_path / "notes", tmp_path / "gone")
    assert done.status == 1
    assert [line.split("\t")[1] for line in done.out.splitlines()[1:]] == ["unknown", ""]


@pytest.mark.parametrize("command", ["simulate", "demo"])
def test_nothing_of_somebody_else_is_overwritten(said: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    done = said(command, *(["--output"] if command == "demo" else []), tmp_path)
    assert done.status == 2
    assert str(tmp_path) in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
