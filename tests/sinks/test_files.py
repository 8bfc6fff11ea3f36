"""The output directory: what stands in its way is told before a run, and nothing is published by half."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.formats.golden import sample_of

from agenttrail.cli import main
from agenttrail.errors import SinkError
from agenttrail.sinks.files import PARTS, finish, is_output, prepare

if TYPE_CHECKING:
    from pathlib import Path

EVENTS_PART = f"000-{'0' * 16}-{'0' * 15}.parquet"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return a job that writes events."""
    (tmp_path / "flows.log").write_bytes(sample_of("aws_vpc_flow").read_bytes())
    path = tmp_path / "job.yml"
    path.write_text("events: [{format: aws_vpc_flow, path: flows.log}]\noutput: {events: true}\n")
    return path


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _file(path: Path) -> None:
    path.write_text("mine")


def _read_only(path: Path) -> None:
    path.symlink_to("/sys/kernel")  # in which nobody can make a file


def _nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("name", "make"),
    [("incidents.ndjson", _folder), ("findings.ndjson", _pipe), ("dead_letters.ndjson", _folder), ("run.json", _folder),
     ("run.json", _pipe), ("events", _file), ("events", _read_only), ("events", _nowhere),
     (f"events/{EVENTS_PART}", _folder)],
)  # fmt: skip
def test_what_stands_in_the_way_is_told_before_the_run(
    job: Path, capfd: pytest.CaptureFixture[str], name: str, make: object
) -> None:
    out = job.parent / "out"
    out.mkdir()
    assert callable(make)
    make(out / name)
    before = sorted(out.rglob("*"))
    with pytest.raises(SinkError, match=name.replace(".", r"\.")):
        prepare(str(out), events=True)
    assert main(["run", str(job)]) == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"agenttrail: {out / name}: cannot be ")
    assert told.err.count("\n") == 1
    assert sorted(out.rglob("*")) == before


def test_nothing_is_published_when_something_is_put_in_the_way_during_the_run(tmp_path: Path) -> None:
    """The earlier output stays whole."""
    prepare(str(tmp_path), events=True)
    finish(str(tmp_path), {}, events=True)
    (tmp_path / "incidents.ndjson").write_text("earlier\n")
    prepare(str(tmp_path), events=True)
    (tmp_path / PARTS / "incidents-00000.ndjson").write_text("later\n")
    (tmp_path / "findings.ndjson").unlink()
    (tmp_path / "findings.ndjson").mkdir()
    parts = {"incidents": [str(tmp_path / PARTS / "incidents-00000.ndjson")]}
    with pytest.raises(SinkError, match=r"findings\.ndjson: cannot be written"):
        finish(str(tmp_path), parts, events=True)
    assert (tmp_path / "incidents.ndjson").read_text() == "earlier\n"


def test_events_that_are_not_wanted_stand_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("mine")
    prepare(str(tmp_path))
    finish(str(tmp_path), {}, events=False)
    assert (tmp_path / "events").read_text() == "mine"


def test_links_are_replaced_and_what_they_name_is_left_alone(job: Path) -> None:
    out = job.parent / "out"
    out.mkdir()
    (job.parent / "mine").write_text("mine")
    for name in ("run.json", "incidents.ndjson", "dead_letters.ndjson"):
        (out / name).symlink_to("../mine")
    (out / PARTS).symlink_to("nowhere")
    assert main(["run", str(job)]) == 0
    assert (job.parent / "mine").read_text() == "mine"
    assert not any(path.is_symlink() for path in out.iterdir())


@pytest.mark.parametrize(
    ("path", "ours"),
    [("out/run.json", True), ("out/findings.ndjson", True), (f"out/events/{EVENTS_PART}", True), ("out/.parts/x", True),
     ("link/findings.ndjson", True), ("out/../out/dead_letters.ndjson", True), ("out/flows.log", False),
     ("out/events/mine.parquet", False), ("out/sub/run.json", False), ("run.json", False), ("output/run.json", False)],
)  # fmt: skip
def test_which_files_are_output(tmp_path: Path, path: str, *, ours: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    assert is_output(str(tmp_path / path), str(tmp_path / "out")) is ours


def test_which_files_elsewhere_are_output() -> None:
    assert is_output("gs://bucket/out/run.json", "gs://bucket/out/")
    assert is_output(f"gs://bucket/out/events/{EVENTS_PART}", "gs://bucket/out")
    assert not is_output("gs://bucket/outer/run.json", "gs://bucket/out")
    assert not is_output("gs://bucket/out/run.json", "/out")
