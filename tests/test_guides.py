"""The guides, followed to the letter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(sh|python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _do(folder: Path, command: str, text: str = "") -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "pipelines")}
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, input=text,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.xdist_group("readme")
def test_a_format_is_added_by_the_guide_alone(tmp_path: Path) -> None:
    """In a copy of the checkout: it is read, tested, linted, and seen by rules that ship."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".*", "demo-out", "__pycache__", "dist", "build")
    shutil.copytree(ROOT, copy, ignore=ignored)
    said = ""
    for language, text in _BLOCK.findall((ROOT / "docs" / "add-a-format.md").read_text(encoding="utf-8")):
        if language == "python":
            named = re.match(r"# (\S+\.py)\n", text)
            assert named
            (copy / named[1]).write_text(text.removeprefix(named[0]), encoding="utf-8")
        elif language == "diff":
            _do(copy, "git apply -", text)
        else:
            said += _do(copy, text)
    assert re.search(r"\d+ passed", said)
    head, *lines = (copy / "tests/data/formats/edge_gateway/expected.jsonl").read_text(encoding="utf-8").splitlines()
    assert orjson.loads(head) == {"lines": 8, "skipped": 1, "records": 2, "dead": 5}
    assert [orjson.loads(line)["event.outcome"] for line in lines[:2]] == ["success", "failure"]
    module = "pipelines/agenttrail/formats/edge_gateway.py"
    _do(copy, f"ruff check {module}; ruff format --check {module}; mypy {module}")
    _do(copy, "python -m pytest -q tests/test_documents.py -k 'every_format or field_reference'")
    job = "events: [{format: edge_gateway, path: 'tests/data/formats/edge_gateway/sample.jsonl', scope: net}]\n"
    (copy / "job.yml").write_text(job + "lists: {egress_allow: [203.0.113.0/24]}\n", encoding="utf-8")
    _do(copy, "python -m agenttrail run job.yml")
    found = (copy / "out" / "findings.ndjson").read_text(encoding="utf-8")
    assert "policy/blocked-egress" in found
