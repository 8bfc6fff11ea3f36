"""A directory that grows: every line is read once, whatever writers and rotation do."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sources.lines_seen import kept, lines, start

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block
from agenttrail.sources import growing, tails
from agenttrail.sources.files import Remains
from agenttrail.sources.growing import GrowingFiles, GrowingReader
from agenttrail.sources.positions import Position, from_json, to_json
from agenttrail.sources.stream import BlocksOf, Piece, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AT_ONCE = Sizes(block_seconds=0.0)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_LOOK", 0.0), ("_GRACE", 0.0)):
        monkeypatch.setattr(growing, name, seconds)
    monkeypatch.setattr(tails, "SETTLED", 0.0)
    monkeypatch.setattr(tails, "PATIENCE", 3600.0)


class Following:
    """A reader, and all that it gave."""

    def __init__(self, pattern: str, start: dict[str, Position] | None = None, *, to_end: bool = False) -> None:
        """Follow the files that ``pattern`` names."""
        self.pattern, self.pieces, self._to_end = pattern, list[Piece](), to_end
        self.reader: GrowingReader = GrowingFiles(pattern).open(0, AT_ONCE, to_end=to_end)
        self.reader.go_to(start or {})

    def text(self, rounds: int = 3) -> str:
        """Return what has come since the last call."""
        new = [piece for _ in range(rounds) for piece in self.reader.read()]
        self.pieces += new
        return b"".join(piece.content.data for piece in new).decode()

    def restarted(self) -> Following:
        """Return what a new process would make of the positions."""
        positions = dict(self.reader.standing().positions)
        self.reader.close()
        return Following(self.pattern, positions, to_end=self._to_end)


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[..., Following]]:
    made: list[Following] = []

    def follow(pattern: str = "*.log", **others: object) -> Following:
        made.append(Following(str(tmp_path / pattern), **others))  # type: ignore[arg-type]
        return made[-1]

    yield follow
    for one in made:
        one.reader.close()


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_new_files_and_new_lines(tmp_path: Path, follow: Callable[..., Following]) -> None:
    one = follow()
    assert one.text() == ""
    _append(tmp_path / "a.log", "a1\na2\n")
    assert one.text() == "a1\na2\n"
    _append(tmp_path / "b.log", "b1\n")
    _append(tmp_path / "a.log", "a3\n")
    assert sorted(one.text().split()) == ["a3", "b1"]
    assert [(piece.content.offset, piece.before.at, piece.after.at) for piece in one.pieces if piece.top] == [
        (0, 0, 6),
        (0, 0, 3),
    ]


def test_half_a_line_waits_for_its_end(tmp_path: Path, follow: Callable[..., Following]) -> None:
    one = follow()
    _append(tmp_path / "a.log", "whole\nha")
    assert one.text() == "whole\n"
    assert one.reader.standing().unread == set()
    _append(tmp_path / "a.log", "l")
    assert one.text() == ""
    _append(tmp_path / "a.log", "f\n")
    assert one.text() == "half\n"


@pytest.mark.parametrize("restart", [False, True])
def test_a_renamed_file_is_read_to_its_end(tmp_path: Path, follow: Callable[..., Following], *, restart: bool) -> None:
    """Its writer goes on until it is told, and a new file takes its name; also while nobody looks."""
    one = follow()
    _append(tmp_path / "a.log", "1\n")
    assert one.text() == "1\n"
    positions_kept = one.restarted() if restart else one
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    _append(tmp_path / "a.log.1", "2\n")
    _append(tmp_path / "a.log", "3\n")
    assert sorted(positions_kept.text().split()) == ["2", "3"]
    positions_kept.reader.close()


def test_a_removed_file_ends_with_its_last_line(tmp_path: Path, follow: Callable[..., Following]) -> None:
    """Also where that lacks its line end; its position is forgotten, in time."""
    one = follow()
    _append(tmp_path / "a.log", "1\n2")
    assert one.text() == "1\n"
    _append(tmp_path / "a.log", "3")
    (tmp_path / "a.log").unlink()
    assert one.text(5) == "23"


def test_a_truncated_file_is_read_from_its_beginning(tmp_path: Path, follow: Callable[..., Following]) -> None:
    """Also where it is longer than before by the time that somebody looks."""
    one = follow()
    _append(tmp_path / "a.log", "old 1\nold 2\n")
    assert one.text() == "old 1\nold 2\n"
    os.truncate(tmp_path / "a.log", 0)
    _append(tmp_path / "a.log", "new 1\n")
    assert one.text() == "new 1\n"
    os.truncate(tmp_path / "a.log", 0)
    _append(tmp_path / "a.log", "again and longer than before\n")
    assert one.text() == "again and longer than before\n"
    assert one.text() == ""
    one = one.restarted()
    (tmp_path / "a.log").write_text("after a restart, and longer than all that was there before\n")
    assert one.text() == "after a restart, and longer than all that was there before\n"
    one.reader.close()


def test_a_copied_and_truncated_file_is_read_on_in_its_copy(tmp_path: Path, follow: Callable[..., Following]) -> None:
    """What was written between the last look and the copy stands in the copy alone."""
    one = follow("*.log*")
    _append(tmp_path / "a.log", "1\n2\n")
    assert one.text() == "1\n2\n"
    _append(tmp_path / "a.log", "3\n")
    shutil.copy(tmp_path / "a.log", tmp_path / "a.log.1")
    os.truncate(tmp_path / "a.log", 0)
    _append(tmp_path / "a.log", "4\n")
    assert sorted(one.text().split()) == ["3", "4"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_file_compressed_by_rotation_is_read_on(
    tmp_path: Path, follow: Callable[..., Following], *, restart: bool
) -> None:
    one = follow("*.log*")
    _append(tmp_path / "a.log", "".join(f"line {number}\n" for number in range(1000)))
    assert len(one.text().split("\n")) == 1001
    one = one.restarted() if restart else one
    _append(tmp_path / "a.log", "last\n")
    if not restart:
        assert one.text() == "last\n"
    (tmp_path / "a.log.1.gz").write_bytes(gzip.compress((tmp_path / "a.log").read_bytes()))
    (tmp_path / "a.log").unlink()
    assert one.text(5) == ("last\n" if restart else "")
    one.reader.close()


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_a_restart_needs_of_a_rotated_file_is_read_again_in_its_copy(
    tmp_path: Path, follow: Callable[..., Following], first: int, *, compressed: bool
) -> None:
    """The stream itself has read on in the copy; a restart needs more: a row that is held stands before that."""
    one = follow("*")
    _append(tmp_path / "b.log", "")  # now: later it might have the number of the file that goes
    _append(tmp_path / "a.log", "a1\n")
    assert one.text() == "a1\n"
    _append(tmp_path / "a.log", "a2\na3\n")
    assert one.text() == "a2\na3\n"
    needed = {piece.part: piece.before for piece in one.pieces if piece.before.at == first}
    if compressed:
        (tmp_path / "a.log.gz").write_bytes(gzip.compress((tmp_path / "a.log").read_bytes()))
        (tmp_path / "a.log").unlink()
    else:
        shutil.copy(tmp_path / "a.log", tmp_path / "a.log.1")
        os.truncate(tmp_path / "a.log", 0)
    one.text()
    _append(tmp_path / "b.log", "b1\nb2\nb3\nb4\n")
    assert one.text() == "b1\nb2\nb3\nb4\n"
    positions = dict(one.reader.standing().positions)
    again = follow("*", start=positions | needed)
    assert sorted(again.text().split()) == ["a1", "a2", "a3"][first // 3 :]


def test_late_compressed_parts(tmp_path: Path, follow: Callable[..., Following]) -> None:
    """One that is still being written is waited for; a position in the middle of one is gone on from."""
    one = follow("*.gz")
    text = "".join(f"line {number}\n" for number in range(300_000))
    whole = gzip.compress(text.encode())
    (tmp_path / "a.gz").write_bytes(whole[: len(whole) // 2])
    first = one.text(8)
    assert text.startswith(first)
    assert one.reader.standing().unread
    (tmp_path / "a.gz").write_bytes(whole)
    half = one.text(1)
    one = one.restarted()
    assert first + half + one.text(12) == text
    assert not one.reader.standing().unread
    assert one.text() == ""
    one.reader.close()


def test_a_part_that_stays_cut_off_is_taken_as_it_is(
    tmp_path: Path, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = follow("*.gz")
    whole = gzip.compress(b"".join(b"%d\n" % number for number in range(100_000)))
    (tmp_path / "a.gz").write_bytes(whole[:-5000])
    text = one.text()
    assert text.endswith("\n")
    monkeypatch.setattr(tails, "PATIENCE", 0.0)
    one.text()
    remains = one.pieces[-1].content
    assert isinstance(remains, Remains)
    assert remains.reason == "the gzip stream is cut off"
    assert not one.reader.standing().unread


def test_an_endless_line_is_cut_up(
    tmp_path: Path, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "MOST_LINE_BYTES", 1000)
    monkeypatch.setattr(tails, "PIECE_BYTES", 1000)
    one = follow()
    _append(tmp_path / "a.log", "x" * 1500)
    assert one.text() == "x" * 1000
    assert isinstance(one.pieces[-1].content, Remains)
    _append(tmp_path / "a.log", "y\nz\n")
    assert one.text() == "x" * 500 + "y\nz\n"


def test_a_byte_order_mark_is_no_text(tmp_path: Path, follow: Callable[..., Following]) -> None:
    one = follow()
    (tmp_path / "a.log").write_bytes(b"\xef\xbb\xbfone\n")
    assert one.text() == "one\n"
    assert (one.pieces[0].content.offset, one.pieces[0].after.at) == (3, 7)


def test_many_files(tmp_path: Path, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are kept open."""
    monkeypatch.setattr(growing, "_MOST_OPEN", 3)
    one = follow()
    for number in range(10):
        _append(tmp_path / f"{number}.log", f"{number}\n")
    assert len(one.text().split()) == 10
    for number in range(10):
        _append(tmp_path / f"{number}.log", f"more {number}\n")
    assert sorted(one.text().splitlines()) == [f"more {number}" for number in range(10)]
    assert one.text() == ""


_STEP = st.sampled_from(["line", "half", "new", "rename", "restart", "lose", "read"])


@settings(max_examples=60)
@given(st.lists(_STEP, max_size=30))
def test_every_line_is_read_once_in_any_course_of_events(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """As long as renamed files stay in the directory."""
    folder = tmp_path_factory.mktemp("grows")
    one = Following(str(folder / "*.log*"))
    written, seen, files, active = 0, "", 1, folder / "0.log"
    expected = {active: ""}
    for step in steps:
        if step in ("line", "half"):
            text = f"line {written}" + ("\n" if step == "line" else "")
            written += 1
            _append(active, text)
            expected[active] += text
        elif step == "new":
            active = folder / f"{files}.log"
            files += 1
            expected[active] = ""
        elif step == "rename" and active.exists():
            renamed = active.with_name(f"{active.name}.{files}")
            active.rename(renamed)
            expected[renamed] = expected.pop(active)
            expected[active] = ""
            files += 1
        elif step == "restart":
            one = one.restarted()
        elif step == "lose":
            positions = dict(one.reader.standing().positions)
            one.reader.lose()
            one.reader.go_to(positions)
        else:
            seen += one.text(1)
    seen += one.text()
    one.reader.close()
    whole = [text[: text.rfind("\n") + 1] for text in expected.values()]
    assert sorted(seen.splitlines()) == sorted(line for text in whole for line in text.splitlines())


def test_headers_are_in_force_after_a_restart(tmp_path: Path, prism: Path) -> None:
    """On Prism: lines below a header of another layout are read by it, though their block holds none."""
    header = "dstaddr srcaddr dstport srcport start bytes action\n"
    line = "10.0.0.9 10.0.0.8 22 50000 1772409601 99 REJECT\n"
    path = tmp_path / "flow.log"
    path.write_text(header + line)
    at = len(path.read_bytes())
    path.write_text(header + line * 2)
    status = path.stat()
    begin = {f"{status.st_dev:x}-{status.st_ino:x}": Position(at, header=header.encode(), path=str(path))}
    stream = BlocksOf(
        0, "aws_vpc_flow", GrowingFiles(str(tmp_path / "*.log")), to_end=True, start=begin,
        headers=FORMATS["aws_vpc_flow"].headers,
    )  # fmt: skip
    start(prism, stream, tmp_path / "seen").wait_until_finish()
    (block,) = kept(tmp_path / "seen")
    assert block["lines"] == [line.strip()]
    parsed = FORMATS["aws_vpc_flow"].parser({})(Block(line.encode(), "flow.log", at, block["header"].encode()))
    assert parsed.events.column("destination.port").to_pylist() == [22]


def test_a_growing_directory_on_prism(tmp_path: Path, prism: Path) -> None:
    folder, seen = tmp_path / "logs", tmp_path / "seen"
    folder.mkdir()
    running = start(prism, BlocksOf(0, "aws_vpc_flow", GrowingFiles(str(folder / "*.log"))), seen)
    try:
        for number in range(40):
            _append(folder / f"{number % 3}.log", f"{number}\n")
            if number == 20:
                (folder / "1.log").rename(folder / "1.log.old")
            time.sleep(0.05)
        deadline = time.monotonic() + 30
        while len(lines(seen)) < 40 and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        running.cancel()
    assert sorted(map(int, lines(seen))) == list(range(40))


@pytest.mark.parametrize("mark", ["x:y", "99999999999999:y", "-1:y", "1:", ":", "٣:y"])
@pytest.mark.parametrize("path", ["", "a\0b/c", "\n/x", "/" * 5_000])
def test_positions_that_are_of_no_file_hold_nobody_up(
    tmp_path: Path, follow: Callable[..., Following], mark: str, path: str
) -> None:
    """As a damaged safe point may hold."""
    (tmp_path / "a.log").write_text("a\n")
    assert follow(start={"1-2": Position(5, path=path, mark=mark)}).text() == "a\n"


def test_a_file_whose_name_is_no_utf8_is_read_and_its_position_written_down(
    tmp_path: Path, follow: Callable[..., Following]
) -> None:
    path = tmp_path / os.fsdecode(b"\xff\n\x1b.log")
    _append(path, "a\n")
    one = follow()
    assert one.text() == "a\n"
    positions = from_json(to_json(one.reader.standing().positions))
    orjson.dumps([msgspec.to_builtins(place) for piece in one.pieces for place in (piece.before, piece.after)])
    one.reader.close()
    _append(path, "b\n")
    path.rename(tmp_path / "rotated.1")
    assert follow(start=positions).text() == "b\n"


def test_a_line_that_never_ends_in_a_compressed_file_is_cut_up_and_not_held_as_a_whole(
    tmp_path: Path, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb of some megabytes would be some gigabytes."""
    monkeypatch.setattr(tails, "MOST_LINE_BYTES", 9 << 20)
    content = b"a\n" + b"x" * (40 << 20) + b"\nb\n"
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(content, 1))
    one = follow("*.gz")
    one.text(rounds=20)
    pieces = [piece.content for piece in one.pieces]
    assert b"".join(piece.data for piece in pieces) == content
    assert max(len(piece.data) for piece in pieces) <= 18 << 20
    told = {type(piece) for piece in pieces if b"\n" not in piece.data}
    assert told == {Remains}
    assert [piece.offset for piece in pieces] == [0, *np.cumsum([len(piece.data) for piece in pieces])[:-1]]
    assert not one.reader.standing().unread
