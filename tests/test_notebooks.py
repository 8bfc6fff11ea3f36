"""The notebooks run from first cell to last on what `agenttrail demo` leaves, and are kept without output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
_NAMES = ["investigate-an-incident", "write-a-rule"]

pytestmark = pytest.mark.xdist_group("notebooks")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a small demo leaves."""
    folder = tmp_path_factory.mktemp("notebooks") / "demo"
    program = Path(sys.executable).parent / "agenttrail"
    subprocess.run([program, "demo", "--agents", "5", "--hours", "2", "--output", folder], check=True)
    return folder


def _read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def _executed(name: str, demo: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Return what a notebook prints, and how many pictures it draws."""
    monkeypatch.setenv("AGENTTRAIL_DEMO", str(demo))
    notebook = _read(name)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(demo)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in outputs)


def test_an_incident_is_investigated(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a verdict: agent, act, proof and next step."""
    printed, pictures = _executed("investigate-an-incident", demo, monkeypatch)
    assert pictures == 2
    verdict = printed[printed.rindex("agent     ") :]
    assert verdict.startswith("agent      agent-")
    assert all(word in verdict for word in ("did  ", "sure       a lease covers", "next  "))
    assert "lease starts" in printed


def test_a_rule_is_written(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes its tests, fails them when it must, finds something, and has a threshold that accuses nobody."""
    printed, pictures = _executed("write-a-rule", demo, monkeypatch)
    assert pictures == 1
    assert "tests that fail: []" in printed
    assert "test 'ten gigabytes out': the rule does not match, and should" in printed
    assert "accuses nobody else from" in printed


@pytest.mark.parametrize("name", _NAMES)
def test_notebooks_are_kept_without_output(name: str) -> None:
    """What a notebook shows is made of somebody's logs, and does not belong in git."""
    notebook = _read(name)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == _NAMES
