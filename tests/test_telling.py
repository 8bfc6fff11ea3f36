"""What a run tells of itself, as lines for people and for programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agenttrail.commands.streaming import Following
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY
from agenttrail.telling import Form, handler, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOSTILE = 'no\x1b]0;x\x07 {"level": "info"}\r\n{"event": "ended"}\u202e\udcff %s {0}'


@pytest.fixture
def log() -> logging.Logger:
    """Return a logger that is nobody's child."""
    # what pytest captures goes to xdist, which takes no text that is not UTF-8
    return logging.Logger("agenttrail.test_telling", logging.INFO)  # noqa: LOG001


@pytest.fixture
def said(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return a function that has a log told in a form, and returns the lines."""

    def say(form: Form, act: Callable[[], object]) -> list[str]:
        log.addHandler(handler(form))
        act()
        return capsys.readouterr().err.splitlines()

    return say


def test_programs_read_an_object_a_line(log: logging.Logger, said: Any) -> None:
    (line,) = said("json", lambda: tell(log, "caught_up", "it has caught up", lines=3, lag=None, parts=["a", 2.5]))
    told = json.loads(line)
    when = datetime.fromisoformat(told.pop("timestamp"))
    assert when.tzinfo == UTC
    assert abs(when.timestamp() - time.time()) < 60
    assert told == {
        "level": "info", "event": "caught_up", "message": "it has caught up", "logger": "agenttrail.test_telling",
        "lines": 3, "lag": None, "parts": ["a", 2.5],
    }  # fmt: skip


def test_people_read_a_sentence_a_line(log: logging.Logger, said: Any) -> None:
    (line,) = said("text", lambda: tell(log, "caught_up", "it has caught up", logging.WARNING, lines=3))
    when, _, rest = line.partition(" ")
    assert datetime.fromisoformat(when).tzinfo == UTC
    assert rest == "warning: it has caught up"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_servers_and_files_say_stays_on_its_line_and_is_printable(
    log: logging.Logger, said: Any, form: Form
) -> None:
    (line,) = said(form, lambda: tell(log, "away", f"away: {HOSTILE}", reason=HOSTILE, of={HOSTILE: [HOSTILE]}))
    assert line.isprintable()
    assert line.isascii()
    if form == "json":
        told = json.loads(line)
        assert told["event"] == "away"
        assert told["reason"].isprintable()
        assert [*told["of"]] == [told["reason"]] == told["of"][told["reason"]]


def test_what_is_long_is_shortened(log: logging.Logger, said: Any) -> None:
    (line,) = said("json", lambda: tell(log, "away", "x" * 10**6, reason="y" * 10**6))
    told = json.loads(line)
    assert len(told["message"]) < 5000
    assert len(told["reason"]) < 500


def test_facts_do_not_pass_for_what_every_line_says(log: logging.Logger, said: Any) -> None:
    (line,) = said("json", lambda: tell(log, "away", "it is away", timestamp="never", logger="another", message="no"))
    told = json.loads(line)
    assert (told["message"], told["logger"]) == ("it is away", "agenttrail.test_telling")
    assert told["timestamp"] != "never"


def _refuse() -> None:
    raise ValueError(HOSTILE)


@pytest.mark.parametrize("form", ["text", "json"])
def test_errors_of_libraries_are_a_line_with_their_traceback(log: logging.Logger, said: Any, form: Form) -> None:
    def fail() -> None:
        try:
            _refuse()
        except ValueError:
            log.exception("it %s", "failed")

    (line,) = said(form, fail)
    assert "it failed" in line
    assert "ValueError" in line
    assert line.isprintable()


# -- while a stream runs


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """Return a function that returns what was told since it was asked last."""
    TALLY.begin(["f"], [])
    HALT.begin()

    def told() -> list[str]:
        names = [record.told[0] for record in caplog.records if hasattr(record, "told")]
        caplog.clear()
        return names

    with caplog.at_level(logging.INFO, "agenttrail"):
        yield told
    HALT.begin()


def test_each_thing_is_told_once_when_it_comes_about(events: Callable[[], list[str]]) -> None:
    following = Following(2, every=None)
    TALLY.read_up.add(1)
    following.look()
    assert events() == []
    TALLY.read_up.add(0)
    following.look()
    following.look()
    assert events() == ["caught_up"]
    HALT.ask()
    following.look()
    following.look()
    assert events() == ["draining"]


def test_a_stream_whose_step_fails_does_not_say_that_it_drains(events: Callable[[], list[str]]) -> None:
    HALT.fail(ValueError())
    Following(1, every=None).look()
    assert events() == []


def test_how_far_it_is_is_told_now_and_then(events: Callable[[], list[str]], caplog: pytest.LogCaptureFixture) -> None:
    following = Following(1, every=0.3)
    following.look()
    assert events() == []
    time.sleep(0.3)
    following.look()
    following.look()
    (record,) = caplog.records
    event, figures = record.__dict__["told"]
    assert event == "progress"
    assert record.getMessage() == "0 lines, 0 events, 0 held, 1 finding, 0 incidents"
    assert figures == {
        "lines": 0, "events": 0, "rows_held": 0, "findings": 1, "incidents": 0, "dead_letters": 0,
        "watermark_lag_seconds": None,
    }  # fmt: skip


# -- of the whole program


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agenttrail", "run", "job.yml", "--streaming", "--log-format", "json", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_a_run_that_fails_says_so_in_an_object(tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text("events: \x1b[31m\n")
    done = _run(tmp_path)
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (done.returncode, told["event"], told["level"]) == (2, "run_failed", "error")
    assert told["message"].startswith("job.yml:1")
