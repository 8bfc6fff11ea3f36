"""What a stream tells of how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrail.accounting import Account
from agenttrail.cli import main
from agenttrail.commands.streaming import bounded_runner, status_text
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60_000_000
AT = 1_772_413_200_000_000  # 2026-03-02T01:00:00Z in microseconds


def test_a_line_tells_what_was_read_held_and_said() -> None:
    TALLY.begin(["f1", "f2"], ["i1"])
    TALLY.add(Account.of(0, lines=1200, events=1000))
    TALLY.add(Account.of(1, lines=34, events=30))
    TALLY.rows = 7
    assert status_text(AT) == "1,234 lines, 1,030 events, 7 held, 2 findings, 1 incident"
    TALLY.passed = AT - 5 * MINUTE
    assert status_text(AT).endswith(", at 2026-03-02T00:55:00Z, 5 min behind the clock")
    TALLY.begin([], [])
    assert status_text(AT) == "0 lines, 0 events, 0 held, 0 findings, 0 incidents"


@pytest.mark.parametrize("name", ["DirectRunner", "FnApiRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner"])
def test_runners_that_wait_for_the_end_are_refused(name: str) -> None:
    assert "leave --runner out for Prism" in bounded_runner(["--runner", name])
    assert "leave --runner out for Prism" in bounded_runner([f"--runner=apache_beam.runners.{name}"])


@pytest.mark.parametrize("flags", [[], ["--runner=PrismRunner"], ["--runner", "PortableRunner", "--job_endpoint=h:1"]])
def test_others_are_not(flags: list[str]) -> None:
    assert bounded_runner(flags) == ""


@pytest.mark.parametrize("place", ['{"at": -1}', '{"at": 5, "header": "%"}', '{"at": 5, "newest": "soon"}', "null"])
def test_a_damaged_safe_point_ends_a_stream_with_a_sentence_before_it_begins(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "job.yml").write_text("events: [{format: otlp_spans, path: '*.jsonl'}]\nleases: []\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "safe_point.json").write_text(f'{{"needed": {{"0": {{"a": {place}}}}}, "read": {{}}, "start": null}}')
    assert main(["run", str(tmp_path / "job.yml"), "--streaming", "--end-of-input", "--output", str(out)]) == 1
    told = capfd.readouterr().err
    assert told.startswith(f"agenttrail: {out}/safe_point.json: is damaged: ")
    assert told.count("\n") == 1
