"""Lines, constants and what may stand on a terminal."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.columns import text
from agenttrail.columns.numbers import parse_integers
from agenttrail.columns.text import constant, printable, split_lines, trim_line_ends


@given(st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"x")), max_size=10), st.booleans())
def test_lines_are_those_that_line_ends_make(lines: list[bytes], ends: bool) -> None:  # noqa: FBT001 - drawn
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    split, _ = split_lines(pa.py_buffer(data))
    assert split.to_pylist() == data.splitlines(keepends=True) if b"\r" not in data and b"\x0b" not in data else True
    assert b"".join(split.to_pylist()) == data
    assert trim_line_ends(split).to_pylist() == [_trimmed(line) for line in split.to_pylist()]


@given(st.binary(max_size=12) | st.text("a b~\n", max_size=12).map(str.encode), st.integers(1, 13))
def test_one_look_tells_lines_and_whether_all_else_is_plain(data: bytes, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text, "_PIECE", piece)
        lines, printable_only = split_lines(pa.py_buffer(data))
    bare = [line.removesuffix(b"\n") for line in lines.to_pylist()]
    assert bare == (data.removesuffix(b"\n").split(b"\n") if data else [])
    assert printable_only == all(byte == ord("\n") or ord(" ") <= byte <= 127 for byte in data)


def _trimmed(line: bytes) -> bytes:
    line = line.removesuffix(b"\n")
    return line.removesuffix(b"\r")


def test_a_constant_may_be_nothing() -> None:
    assert constant("a", 2).to_pylist() == ["a", "a"]
    assert constant(None, 2).to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("line\nline\r", "line\\nline\\r"),
        ("\u200bhidden", "\\u200bhidden"),
        ("München 挖矿", "München 挖矿"),
    ],
)
def test_nothing_hidden_reaches_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


_CELLS = st.none() | st.integers(-(2**64), 2**64).map(str) | st.text("0123456789-+xabXF. \t", max_size=8)


@given(st.lists(_CELLS, max_size=20))
def test_a_cell_means_the_same_whatever_stands_in_the_next(cells: list[str | None]) -> None:
    together, bad = parse_integers(pa.array(cells, pa.string()))
    alone = [parse_integers(pa.array([cell], pa.string())) for cell in cells]
    assert together.to_pylist() == [value[0].as_py() for value, _ in alone]
    assert bad.tolist() == [bool(wrong[0]) for _, wrong in alone]
    assert bad.tolist() == [
        cell is not None and value is None for cell, value in zip(cells, together.to_pylist(), strict=True)
    ]
