"""How lines come to be broken on their way: cut off, mixed up, overwritten, or written by a sensor out of its mind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenttrail.simulate.dice import Dice

    Way = Callable[[Dice, str, str], bytes]
    """Breaks a line, given the names of its columns."""

_LONG_PAST = 157_852_800  # 1975-01-02
_NO_PORT = 70_000
_NOISE = (
    "## buffer flushed, collector restarting ##", "<<< 503 upstream not ready >>>", "(null)", "... 14 lines lost",
)  # fmt: skip


def broken(dice: Dice, line: str, header: str, turn: int, ways: Sequence[Way] = ()) -> bytes:
    """Return ``line`` as it may arrive broken; the ways take turns.

    Args:
        dice: what decides where it breaks.
        line: a whole line without its end.
        header: the names of its columns, or "" for a JSON object.
        turn: the how-manieth broken line of its log this is.
        ways: how lines of this log break; by default as those of delimited columns or JSON objects do.
    """
    ways = ways or (_DELIMITED if header else _JSON)
    return ways[turn % len(ways)](dice, line, header)


def _noise(dice: Dice, _line: str, _header: str) -> bytes:
    return dice.pick(_NOISE).encode()


def _overwritten(dice: Dice, line: str, byte: bytes) -> bytes:
    raw, at = line.encode(), dice.whole(5, len(line) - 5)
    return raw[:at] + byte + raw[at + 1 :]


def _nul(dice: Dice, line: str, _header: str) -> bytes:
    return _overwritten(dice, line, b"\0")


def _no_text(dice: Dice, line: str, _header: str) -> bytes:
    return _overwritten(dice, line, b"\xff")


def _cut_off(dice: Dice, line: str, header: str) -> bytes:
    if not header:
        return line[: dice.whole(len(line) // 10, len(line) - 2)].encode()
    cells = line.split(" ")
    return " ".join(cells[: dice.whole(3, len(cells) - 1)]).encode()


def _too_long(dice: Dice, line: str, _header: str) -> bytes:
    return f"{line} {dice.hexadecimal(4)}".encode()


def _with_cells(line: str, header: str, cells: dict[str, int]) -> bytes:
    given = dict(zip(header.split(" "), line.split(" "), strict=True))
    return " ".join(map(str, (given | cells).values())).encode()


def _port_cell(dice: Dice, line: str, header: str) -> bytes:
    return _with_cells(line, header, {dice.pick(("srcport", "dstport")): _NO_PORT})


def _time_cells(_dice: Dice, line: str, header: str) -> bytes:
    return _with_cells(line, header, {"start": _LONG_PAST, "end": _LONG_PAST + 60})


def _with_fields(line: str, dice: Dice, choices: Sequence[str], value: object) -> bytes:
    document = orjson.loads(line)
    present = [name for name in choices if name in document]
    return bytes(orjson.dumps(document | {dice.pick(present): value}))


def _port_field(dice: Dice, line: str, _header: str) -> bytes:
    return _with_fields(line, dice, ("srcport", "dstport", "src_port", "dst_port"), _NO_PORT)


def _time_field(dice: Dice, line: str, _header: str) -> bytes:
    return _with_fields(line, dice, ("start", "start_time"), _LONG_PAST)


def _wrong_type(dice: Dice, line: str, _header: str) -> bytes:
    return _with_fields(line, dice, ("dstport", "dst_port", "start", "start_time"), {"value": 1})


def _cut_short(dice: Dice, line: str, _header: str) -> bytes:
    return line[: dice.whole(len(line) // 10, len(line) - 2)].encode()


def _no_spans(_dice: Dice, line: str, _header: str) -> bytes:
    return line.replace("resourceSpans", "resource_spans").encode()


def _no_stamp(_dice: Dice, line: str, _header: str) -> bytes:
    return line.rpartition(" ")[0].encode()


def _old_stamp(_dice: Dice, line: str, _header: str) -> bytes:
    return f"{line.rpartition(' ')[0]} {_LONG_PAST}000".encode()


def _lost(dice: Dice, _line: str, _header: str) -> bytes:
    return dice.pick(_NOISE[1:]).encode()  # the first is a comment to a reader of samples


def _report_time(dice: Dice, line: str, _header: str) -> bytes:
    return _with_fields(line, dice, ("timestamp",), _LONG_PAST)


def _report_step(dice: Dice, line: str, _header: str) -> bytes:
    return _with_fields(line, dice, ("step",), dice.pick((-1, 0.5, "many", None)))


_DELIMITED = (_cut_off, _port_cell, _nul, _noise, _time_cells, _no_text, _too_long)
_JSON = (_cut_off, _port_field, _no_text, _time_field, _noise, _nul, _wrong_type)

SPANS: tuple[Way, ...] = (_cut_short, _no_text, _no_spans, _noise, _nul)
"""How lines of spans break."""
SAMPLES: tuple[Way, ...] = (_cut_short, _no_stamp, _no_text, _old_stamp, _lost)
"""How samples in Prometheus text break."""
REPORTS: tuple[Way, ...] = (_cut_short, _report_time, _no_text, _report_step, _noise, _nul)
"""How reports of progress break."""
