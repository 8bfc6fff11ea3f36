"""What the documents say is so: every command in them runs, and what is made from the schemas is current."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson
import pytest

from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.schema import field_reference

if TYPE_CHECKING:
    from tests.services.elasticsearch import Elasticsearch

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^( *)```(sh|yaml)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.yml)\n")


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str


def _blocks(document: str) -> list[Block]:
    found = []
    for indent, language, body in _BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        found.append(Block(language, "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))))
    return found


def _commands(block: Block) -> list[str]:
    return [line for line in block.text.splitlines() if line.strip()]


def _run(command: str, directory: Path, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-euc", command], cwd=directory, env={**os.environ, "PATH": path, **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _some_incident(output: Path) -> str:
    """Return the start of the id of an incident of a run, where there is one."""
    path = output / "incidents.ndjson"
    return orjson.loads(path.read_bytes().splitlines()[0])["incident.id"][:12] if path.exists() else ""


@pytest.mark.xdist_group("readme")
def test_every_command_of_the_readme_runs_in_its_order(elasticsearch: Elasticsearch, tmp_path: Path) -> None:
    """Files that the README shows are written where it says, its commands run as it shows them."""
    blocks = _blocks("README.md")
    ran = 0
    for block in blocks:
        named = _FILE.match(block.text)
        if block.language == "yaml":
            assert named, "a YAML block of the README says in its first line which file it is"
            file = tmp_path / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            continue
        for command in _commands(block):
            if command.startswith("make "):  # run by their own tests and by CI
                continue
            assert command.startswith("agenttrail "), command
            environment = {"ELASTICSEARCH_URL": elasticsearch.url, "INCIDENT": _some_incident(tmp_path / "out")}
            _run(command, tmp_path, **environment)
            ran += 1
    assert ran >= 15
    assert (tmp_path / "out" / "incidents.ndjson").read_bytes()
    assert list((tmp_path / "found" / "events").glob("*.parquet"))
    assert (tmp_path / "one-hour" / "run.json").exists()
    assert (tmp_path / "out" / "report" / "index.html").exists()
    assert (tmp_path / "high" / "index.html").exists()
    assert len(load_job(tmp_path / "live-job" / "job.yml", streaming=True).streams) == 3
    live, batch = (
        [orjson.loads(line) for line in (tmp_path / name / "incidents.ndjson").read_bytes().splitlines()]
        for name in ("live", "out")
    )
    assert live == batch
    hourly = orjson.loads((tmp_path / "hourly" / "run.json").read_bytes())
    assert hourly["covered"] == [["2026-03-02T00:00:00.000000Z", "2026-03-02T02:00:00.000000Z"]]


def test_the_commands_of_the_rule_guide_run(tmp_path: Path) -> None:
    """On the rule that the README shows; job files that the guide shows are written where it says."""
    rule = next(block for block in _blocks("README.md") if block.text.startswith("# my-rules/"))
    (tmp_path / "my-rules").mkdir()
    (tmp_path / "my-rules" / "telnet.yml").write_text(rule.text, encoding="utf-8")
    jobs = [block for block in _blocks("rules/README.md") if block.language == "yaml" and _FILE.match(block.text)]
    commands = [
        command for block in _blocks("rules/README.md") if block.language == "sh" for command in _commands(block)
    ]
    assert len(commands) >= 6
    assert len(jobs) == 1
    for command in commands:
        if command.startswith("agenttrail run"):
            for job in jobs:
                (tmp_path / job.text.split()[1]).write_text(job.text, encoding="utf-8")
        _run(command, tmp_path)
    total = orjson.loads((tmp_path / "tuned" / "run.json").read_bytes())["total"]
    assert total["attributed"] > total["events"] / 2


def test_the_messages_of_the_table_of_troubles_are_those_of_the_program() -> None:
    """Each that the README explains stands in the code, but for what an ellipsis leaves out."""
    section = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## When something goes wrong")[1].split("\n## ")[0]
    )
    told = [re.findall(r"`([^`]+)`", row.split(" | ")[0])[0] for row in section.splitlines() if row.startswith("| `")]
    assert len(told) > 15
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipelines").rglob("*.py"))
    code = re.sub(r"\{[^{}\n]*\}|%s", "…", re.sub(r'"\s*\n\s*f?"', "", code))
    pieces = {message: [piece.strip(" :") for piece in message.split("…") if piece.strip(" :")] for message in told}
    assert [message for message, parts in pieces.items() if not all(part in code for part in parts)] == []


def test_the_rule_guide_lists_what_ships() -> None:
    """Each shipped rule stands in the table, with its level."""
    guide = (ROOT / "rules" / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w-]+/[\w-]+)` \| (\w+)", guide, re.MULTILINE))
    shipped = {}
    for path in (ROOT / "rules").glob("*/*.yml"):
        level = re.search(r"^level: (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert level, path
        shipped[f"{path.parent.name}/{path.stem}"] = level[1]
    assert listed == shipped


def test_the_make_targets_of_the_readme_exist() -> None:
    """And `make -n` finds all they need."""
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"demo", "test", "lint", "bench", "conformance"} <= named
    for target in sorted(named):
        _run(f"make -n {target}", ROOT)


@pytest.mark.xdist_group("readme")
def test_make_demo_finds_incidents_of_agents() -> None:
    """As on a fresh checkout; the environment is there already, since it runs this test."""
    said = _run("make demo", ROOT)
    assert re.search(r"incidents? \(.*(critical|high)", said)
    assert re.search(r"agent-\d+\ttrajectory ", said)
    assert re.search(r"^report: +demo-out/out/report/index\.html$", said, re.MULTILINE)


def test_the_files_that_the_readme_points_to_exist() -> None:
    """Links and paths of the table of extension points."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    paths = [path for path in re.findall(r"`((?:pipelines|schemas|rules|tests)/[\w./-]+)`", text) if "<" not in path]
    assert links
    assert paths
    assert [path for path in [*links, *paths] if not (ROOT / path).exists()] == []


def test_the_field_reference_is_current() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "fields.md").read_text(encoding="utf-8") == field_reference()


def test_every_format_is_named_in_the_changelog_or_the_job_file() -> None:
    """Nobody finds a format that no document names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if name not in text] == []


@pytest.mark.xdist_group("wheel")
def test_the_wheel_in_an_empty_environment_runs_the_demo(tmp_path: Path) -> None:
    """Outside of the checkout, with the rules and schemas that the wheel carries.

    The dependencies are those of this environment, linked in: the wheel itself is installed for real.
    """
    _run(f"{sys.executable} -m hatchling build -t wheel -d {tmp_path}", _copy(tmp_path / "checkout"))
    wheel = next(tmp_path.glob("*.whl"))
    _run(f"{sys.executable} -m venv --without-pip {tmp_path / 'empty'}", tmp_path)
    site = next((tmp_path / "empty" / "lib").glob("python*")) / "site-packages"
    for entry in Path(next(path for path in sys.path if path.endswith("site-packages"))).iterdir():
        if "agenttrail" not in entry.name:
            (site / entry.name).symlink_to(entry)
    python = tmp_path / "empty" / "bin" / "python"
    _run(f"{python} -m pip install --quiet --no-deps --no-index {wheel}", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    command = f"{python.parent / 'agenttrail'} demo --agents 4 --hours 2 --output demo"
    said = _run(command, tmp_path / "elsewhere", PATH="/usr/bin:/bin", PYTHONPATH="")
    assert "incident" in said
    assert (tmp_path / "elsewhere" / "demo" / "out" / "report" / "index.html").exists()
    where = _run(f"{python} -c 'import agenttrail; print(agenttrail.__file__)'", tmp_path / "elsewhere", PYTHONPATH="")
    assert Path(where.strip()).is_relative_to(tmp_path / "empty")


def _copy(checkout: Path) -> Path:
    """Copy what a wheel is built from."""
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("pipelines", "schemas", "rules", "kibana"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    return checkout
