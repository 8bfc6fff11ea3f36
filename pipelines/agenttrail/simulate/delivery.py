"""How lines reach the log files: late, out of order, now and then twice, broken, or not at all a line."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.simulate.clock import HOUR, hour_name
from agenttrail.simulate.damage import broken
from agenttrail.simulate.truth import BLANK, BROKEN, HEADER, Label

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agenttrail.simulate.damage import Way
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.truth import LineTable

_BROKEN, _TWICE, _BLANK, _HEADER_AGAIN = 1 / 3_000, 1 / 1_500, 1 / 2_500, 1 / 4_000
_ANYTHING = _BROKEN + _BLANK + _HEADER_AGAIN
_LATE = 0.02  # share of the lines that come minutes after the others
_FASTEST = 1


class _Line:
    """One line on its way, and when it arrives."""

    __slots__ = ("arrival", "duplicate", "label", "text")

    def __init__(self, arrival: float, text: str, label: Label, *, duplicate: bool = False) -> None:
        self.arrival, self.text, self.label, self.duplicate = arrival, text, label, duplicate


@dataclass
class Feed:
    """The lines of one log, delivered into one file an hour.

    Attributes:
        dataset: format id of the log.
        pattern: path of its files below the directory, with ``{hour}`` in it; gzip where it ends in ``.gz``.
        slowest: seconds that a line usually takes at most.
        header: the line that begins each file, or "", or several.
        ways: how its lines break; by default as its having a header tells.
        mishaps: how many times as often as usual something goes wrong; feeds of few lines would else go without.
    """

    dataset: str
    pattern: str
    slowest: float
    header: str = ""
    ways: Sequence[Way] = ()
    mishaps: float = 1.0
    lines: list[_Line] = field(default_factory=list)

    def send(self, dice: Dice, known: float, text: str, label: Label) -> None:
        """Send a line that the sensor knew of at the second ``known``; some arrive late, some once more."""
        arrival = known + dice.uniform(_FASTEST, self.slowest) + (dice.uniform(20, 400) if dice.happens(_LATE) else 0.0)
        self.lines.append(_Line(arrival, text, label))
        if dice.happens(_TWICE * self.mishaps):
            self.lines.append(_Line(arrival + dice.uniform(0, 200), text, label, duplicate=True))

    def send_together(self, dice: Dice, known: float, lines: list[tuple[str, Label]]) -> None:
        """Send lines that arrive at once, late or not; one of them may come once more."""
        arrival = known + dice.uniform(_FASTEST, self.slowest) + (dice.uniform(20, 400) if dice.happens(_LATE) else 0.0)
        self.lines += [_Line(arrival, text, label) for text, label in lines]
        if dice.happens(_TWICE * self.mishaps * len(lines)):
            text, label = dice.pick(lines)
            self.lines.append(_Line(arrival + dice.uniform(0, 200), text, label, duplicate=True))

    def write(self, directory: Path, dice: Dice, table: LineTable) -> None:
        """Write all lines into the files of their hours, note each in ``table``, and have none left."""
        self.lines.sort(key=lambda line: line.arrival)
        by_hour: dict[int, list[_Line]] = {}
        for line in self.lines:
            by_hour.setdefault(int(line.arrival // HOUR), []).append(line)
        damaged = 0
        for hour, lines in (by_hour or {0: []}).items():
            path = self.pattern.format(hour=hour_name(hour))
            file = _File(path, self.dataset, table)
            for header in self.header.splitlines():
                file.add(header.encode(), Label(HEADER))
            for line in lines:
                file.add(line.text.encode(), line.label, duplicate=line.duplicate)
                draw = dice.uniform() / self.mishaps
                if draw < _ANYTHING:
                    damaged += self._mishap(dice, draw, file, line, damaged)
            _store(directory / path, b"".join(file.parts))
        self.lines = []

    def _mishap(self, dice: Dice, draw: float, file: _File, line: _Line, turn: int) -> int:
        """Add what now and then follows a line; return the number of broken lines added.

        A broken line is what came through of a first attempt; the sender then sent the line again, whole.
        """
        if draw < _BROKEN:
            file.add(broken(dice, line.text, self.header, turn, self.ways), Label(BROKEN))
            return 1
        if draw < _BROKEN + _BLANK:
            file.add(dice.pick((b"", b"", b"  ", b"\r")), Label(BLANK))
        elif self.header:
            file.add(self.header.splitlines()[0].encode(), Label(HEADER))
        return 0


class _File:
    """A file in the making."""

    def __init__(self, path: str, dataset: str, table: LineTable) -> None:
        self.parts: list[bytes] = []
        self._place, self._table, self._size = table.place(path, dataset), table, 0

    def add(self, raw: bytes, label: Label, *, duplicate: bool = False) -> None:
        """Add a line."""
        self._table.add(self._place, self._size, label, duplicate=duplicate)
        self.parts += (raw, b"\n")
        self._size += len(raw) + 1


def _store(path: Path, data: bytes) -> None:
    """Write a file; a compressed one names neither a time nor itself, so that equal days are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".gz":
        path.write_bytes(data)
        return
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
        packed.write(data)
