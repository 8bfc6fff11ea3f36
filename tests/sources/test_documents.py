"""Documents that are read again when they change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agenttrail.errors import InputError
from agenttrail.sources import documents
from agenttrail.sources.documents import DocumentReader, RereadDocuments
from agenttrail.sources.positions import from_json, to_json
from agenttrail.sources.stream import Sizes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_LOOK", 0.0)
    monkeypatch.setattr(documents, "_SETTLED", 0.0)


def _reader(folder: Path, *, to_end: bool = False) -> DocumentReader:
    reader = RereadDocuments(str(folder / "*.json"), str(folder)).open(2, Sizes(), to_end=to_end)
    reader.go_to({})
    return reader


def _given(reader: DocumentReader) -> list[tuple[str, bytes]]:
    return [(piece.part, piece.content.data) for piece in reader.read()]


def test_a_document_is_read_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text("one")
    reader = _reader(tmp_path)
    assert _given(reader) == [("pods.json", b"one")]
    assert _given(reader) == []
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").replace(tmp_path / "pods.json")
    (tmp_path / "more.json").write_text("three")
    assert sorted(_given(reader)) == [("more.json", b"three"), ("pods.json", b"two")]
    os.utime(tmp_path / "pods.json", ns=(1, 1))
    assert _given(reader) == [("pods.json", b"two")]
    (tmp_path / "pods.json").unlink()
    assert _given(reader) == []


def test_one_that_never_rests_is_given_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a watch of pods in a cluster in which something happens every second."""
    path, clock = tmp_path / "pods.json", [100.0]
    monkeypatch.setattr("agenttrail.sources.documents.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(documents, "_SETTLED", 1.0)
    path.write_text("0")
    reader = _reader(tmp_path)
    assert _given(reader) == [("pods.json", b"0")]
    given = []
    for second in range(1, 35):
        clock[0] += 0.9
        path.write_text("x" * second)
        given += [len(data) for _, data in _given(reader)]
    assert given == [13, 26]


def test_a_change_is_given_when_it_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pods.json").write_text("one")
    reader = _reader(tmp_path)
    assert _given(reader) == [("pods.json", b"one")]
    monkeypatch.setattr(documents, "_SETTLED", 3600)
    (tmp_path / "pods.json").write_text("one and half of")
    assert _given(reader) == []
    assert reader.standing().unread == {"pods.json"}
    monkeypatch.setattr(documents, "_SETTLED", 0)
    assert _given(reader) == [("pods.json", b"one and half of")]
    assert reader.standing().unread == set()


def test_what_was_not_taken_is_given_again(tmp_path: Path) -> None:
    """And so is everything after a restart."""
    (tmp_path / "pods.json").write_text("one")
    reader = _reader(tmp_path)
    _given(reader)
    taken = dict(reader.standing().positions)
    reader.go_to(taken)
    assert _given(reader) == []
    reader.lose()
    assert _given(reader) == [("pods.json", b"one")]
    restarted = RereadDocuments(str(tmp_path / "*.json"), str(tmp_path)).open(2, Sizes(), to_end=False)
    restarted.go_to(taken)
    assert _given(restarted) == [("pods.json", b"one")]


def test_an_empty_document_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a stream; a replay has no later."""
    (tmp_path / "pods.json").touch()
    reader = _reader(tmp_path)
    assert _given(reader) == []
    assert "the file is empty; waiting until it changes" in caplog.text
    assert not reader.standing().unread
    (tmp_path / "pods.json").write_text("one")
    assert _given(reader) == [("pods.json", b"one")]
    (tmp_path / "pods.json").write_text("")
    with pytest.raises(InputError, match="the file is empty"):
        _given(_reader(tmp_path, to_end=True))


def test_a_replay_ends_when_all_were_given(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text("one")
    reader = _reader(tmp_path, to_end=True)
    assert not reader.standing().ended
    assert _given(reader) == [("pods.json", b"one")]
    assert reader.standing().ended


def test_the_position_of_a_document_whose_name_is_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.json")).write_text("one")
    reader = _reader(tmp_path)
    assert _given(reader) == [(r"\xff.json", b"one")]
    positions = dict(reader.standing().positions)
    assert from_json(to_json(positions)) == positions
