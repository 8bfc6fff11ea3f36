"""Job files, file names and options that are made to break a run: each is told in a line, or does no harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from tests.formats.golden import sample_of

from agenttrail.commands.printing import escaped
from agenttrail.errors import DefinitionError, InputError
from agenttrail.job_files import load_job
from agenttrail.jobs import run
from agenttrail.sources.files import InputFile, first_bytes, plan_ranges, read_document

PROGRAM = Path(sys.executable).parent / "agenttrail"
NO_UTF8 = b"flows-\xff.log"
EVENTS = "events: [{format: aws_vpc_flow, path: '*.log'}]\n"
RULE = """\
title: A rule
id: 11111111-1111-4111-8111-111111111111
level: high
logsource: {product: agenttrail, category: network}
detection:
  peer: {peer.port: 23}
  condition: peer
"""
_MEMORY = "/proc/self/mem"
"""A file of size 0 whose first byte cannot be read."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a log."""
    (tmp_path / "flows.log").write_bytes(sample_of("aws_vpc_flow").read_bytes())
    return tmp_path


def _agenttrail(*arguments: str | bytes | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=120, errors="surrogateescape"
    )
    assert "Traceback" not in done.stderr
    return done


def _job(folder: Path, text: str = EVENTS) -> Path:
    (folder / "job.yml").write_text(text)
    return folder / "job.yml"


def _problems(path: Path, output: str | None = None) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load_job(path, output=output)
    return [problem.removeprefix(f"{path}:") for problem in str(caught.value).splitlines()]


# -- names that are no UTF-8


def test_a_file_whose_name_is_no_utf8_is_read_as_any_other(folder: Path) -> None:
    _agenttrail("run", _job(folder))
    before = orjson.loads((folder / "out" / "run.json").read_bytes())["total"]
    os.rename(folder / "flows.log", os.fsencode(folder) + b"/" + NO_UTF8)  # noqa: PTH104 - the name is bytes
    with (folder / "more.log").open("w") as file:
        file.write("not a flow\n")
    job = load_job(_job(folder, f"{EVENTS}output: {{events: true}}\n"))
    assert [file.shown for file in job.files] == [r"flows-\xff.log", "more.log"]
    run(job)
    after = orjson.loads((folder / "out" / "run.json").read_bytes())["total"]
    assert after["events"] == before["events"] > 0
    assert rb"flows-\\xff.log" in (folder / "out" / "dead_letters.ndjson").read_bytes()


def test_formats_of_files_whose_names_are_no_utf8_are_told(folder: Path) -> None:
    os.rename(folder / "flows.log", os.fsencode(folder) + b"/" + NO_UTF8)  # noqa: PTH104 - the name is bytes
    done = _agenttrail("formats", "detect", os.fsencode(folder) + b"/" + NO_UTF8, os.fsencode(folder) + b"/gone\xfe")
    assert done.returncode == 1
    _, found, gone = done.stdout.splitlines()
    assert found.startswith(f"{folder}/flows-\\\\xff.log\taws_vpc_flow\t".replace("\\\\", "\\"))
    assert gone.startswith(f"{folder}/gone\\xfe\t\t")


def test_output_directories_whose_names_are_no_utf8_are_refused(folder: Path) -> None:
    for command in (["run", _job(folder), "--output"], ["demo", "--output"]):
        done = _agenttrail(*command, os.fsencode(folder) + b"/out\xff")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"directory {folder}/out\\xff is not valid UTF-8" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["flows.log", "job.yml"]


def test_jobs_and_rules_may_have_such_names(folder: Path) -> None:
    (folder / "rules").mkdir()
    job = os.fsencode(folder) + b"/job\xff.yml"
    for path, text in ((job, EVENTS + "rules: [rules]\n"), (os.fsencode(folder / "rules") + b"/own\xff.yml", RULE)):
        Path(os.fsdecode(path)).write_text(text)
    done = _agenttrail("run", job)
    assert done.returncode == 0
    assert all(line.startswith("read ") for line in done.stderr.splitlines())  # as every ten seconds on a busy machine
    assert done.stdout.startswith("job\\\\xff: ".replace("\\\\", "\\"))
    assert [rule.name for rule in load_job(os.fsdecode(job)).rules] == ["own\\xff"]


# -- values


@pytest.mark.parametrize("value", [f'"{"9" * 400}s"', "9" * 4_000, "1.0e+400", "1e308", '"' + "9" * 5_000 + '.5d"'])
def test_a_duration_of_hundreds_of_digits(folder: Path, value: str) -> None:
    (problem,) = _problems(_job(folder, f"{EVENTS}attribution: {{tolerance: {value}}}\n"))
    assert problem.startswith("2: ")
    assert problem.endswith("more than 30 days") or "attribution.tolerance must be a number" in problem
    assert len(problem) < 600


def test_a_duration_that_looks_like_a_time(folder: Path) -> None:
    (problem,) = _problems(_job(folder, f"{EVENTS}attribution: {{tolerance: 1:30}}\n"))
    assert problem.startswith("2: 1:30 without quotes is a number to base 60 in YAML")


@pytest.mark.parametrize("section", ["events: [{format: aws_vpc_flow, path: %s}]", EVENTS + "rules: [%s]"])
def test_a_path_that_is_too_long(folder: Path, section: str) -> None:
    (problem,) = _problems(_job(folder, section % ("x" * 5_000)))
    assert "no file matches 'xxx" in problem or "no such rule file or folder: 'xxx" in problem
    assert len(problem) < 600


def test_files_whose_first_byte_cannot_be_read(folder: Path) -> None:
    for text in (EVENTS.replace("*.log", _MEMORY), f"{EVENTS}leases: [{{format: address_leases, path: {_MEMORY}}}]\n"):
        done = _agenttrail("run", _job(folder, text))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"agenttrail: {_MEMORY}: cannot be read at byte 0: ")
    os.mkfifo(folder / "pipe")
    assert "no regular file" in _agenttrail("formats", "detect", folder / "pipe").stdout
    done = _agenttrail("formats", "detect", _MEMORY)
    assert done.returncode == 1
    assert f"{_MEMORY}: cannot be read at byte 0: " in done.stdout
    file = InputFile(_MEMORY, "mem", 0, 0)
    for read in (lambda: list(plan_ranges(file, None)), lambda: read_document(file), lambda: first_bytes(_MEMORY, 9)):
        with pytest.raises(InputError, match="cannot be read at byte 0"):
            read()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "condition: peer",
            f"condition: {'not ' * 5_000}peer",
            "7: not a Sigma condition that can be read: it is nested",
        ),
        ("peer.port: 23", "destination.domain|re: 5", "6: a regular expression is text, not 5: put it in quotes"),
        ("peer.port: 23", "destination.domain|re: [x, null]", "6: a regular expression is text, not None: put it in"),
        ("peer.port: 23", "destination.domain|re: 1:30", "6: 1:30 without quotes is a number to base 60 in YAML"),
    ],
    ids=["not", "number", "null", "base 60"],
)
def test_rules_that_break_the_reader(folder: Path, old: str, new: str, told: str) -> None:
    rule = folder / "rule.yml"
    rule.write_text(RULE.replace(old, new))
    done = _agenttrail("rules", "check", rule)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"agenttrail: {rule}:{told}")
    assert len(done.stderr) < 800


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--runner", "Nope"], "command line: --runner Nope: Unexpected pipeline runner: Nope. Valid values are "),
        (["--runner=no.such.Runner"], "command line: --runner no.such.Runner: No module named 'no'"),
        (["--runner=os.getcwd"], "command line: --runner os.getcwd: no runner of Beam"),
    ],
)
def test_runners_that_are_none(folder: Path, options: list[str], told: str) -> None:
    done = _agenttrail("run", _job(folder), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"agenttrail: {told}")
    assert done.stderr.count("\n") == 1


# -- output as input


@pytest.mark.parametrize(
    ("pattern", "directory", "named"),
    [
        ("out/*", "out", "out/dead_letters.ndjson and 3 more"),
        ("**", "out", "out/dead_letters.ndjson and "),
        ("out/events/*", "./out/../out", "out/events/"),
        ("link/run.json", "out", "link/run.json"),
        ("*.ndjson", ".", "dead_letters.ndjson and 2 more"),
    ],
)
def test_a_job_does_not_read_its_own_output(folder: Path, pattern: str, directory: str, named: str) -> None:
    section = f"output: {{directory: {directory}, events: true}}\n"
    assert _agenttrail("run", _job(folder, EVENTS + section)).returncode == 0
    (folder / "link").symlink_to("out")
    before = {path: path.read_bytes() for path in folder.rglob("*.ndjson")}
    (problem,) = _problems(_job(folder, EVENTS.replace("*.log", pattern) + section))
    assert problem.startswith(f"2: {named}")
    assert problem.endswith("would be read as input, and is output of this job: name another folder")
    assert _agenttrail("run", folder / "job.yml").returncode == 2
    assert {path: path.read_bytes() for path in folder.rglob("*.ndjson")} == before


def test_logs_beside_the_output_are_read(folder: Path) -> None:
    job = _job(folder, f"{EVENTS}output: {{directory: .}}\n")
    for _ in range(2):
        assert _agenttrail("run", job).returncode == 0


# -- what is printed


def test_names_of_directories_are_printed_as_text(folder: Path) -> None:
    done = _agenttrail("run", _job(folder), "--output", folder / "a\x1b[2J\u202e\nb")
    assert done.returncode == 0
    shown = f"{folder}/a\\x1b[2J\\u202e\\nb"
    assert done.stdout.endswith(f"written to {shown}\nreport:    {shown}/report/index.html\n")


def test_json_for_a_terminal_moves_no_cursor_and_says_the_same() -> None:
    document = {"a\u2028": ["\x9b2J\u202e\x7f\u200b\U000e0001 ü 漢 😀 \n\\u", 1.5, None]}
    text = escaped(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    assert all(char.isprintable() or char == "\n" for char in text)
    assert orjson.loads(text) == document
    assert "ü 漢 😀" in text
