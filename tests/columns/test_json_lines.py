"""Reading JSON lines: by their shape, by pyarrow and by msgspec, all three with the same outcome."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttrail.columns import json_lines, json_shape
from agenttrail.columns.json_lines import Fields, JsonLinesReader, Objects
from agenttrail.columns.json_shape import find_shape, read_shaped
from agenttrail.columns.text import split_lines

_FIELDS = Fields(text=("a", "name"), integers=("n", "port"))
_KEYS = ("a", "n", "other", "port", "name", "x:y")
_VALUES = (
    '"x"', '"two words"', "12", "0", "443", '"12"', '"-"', '""', "-3", "-0", "007", "1e5", "1.5", "0x1F", "1_0", "+5",
    "null", "true", "false", "nul", "NaN", "-", "99999999999999999999", '"99999999999999999999"', "123456789012345678",
    '"a,b"', r'"a\"b"', r'"\u0041"', '"é"', '"x', 'x"', '"a"b"', '""x"', '{"n":1}', "[1,2]", '"{"', '"}"', '":"',
    '"n":1', " 5", "5 ", "", '"\t"', '"\r"', '"\x7f"', '"a":"b"',
)  # fmt: skip
_USUAL = ('"x"', "12", '"443"', '"-"', "0", '"longer text"')


@st.composite
def _lines(draw: st.DrawFn) -> list[bytes]:
    """Draw lines of mostly one shape, some of which hold something odd or were damaged."""
    keys = draw(st.permutations(_KEYS))[: draw(st.integers(2, len(_KEYS)))]
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (",", " : ")]))
    out = []
    for _ in range(draw(st.integers(1, 12))):
        values = draw(st.sampled_from([_USUAL, _USUAL, _VALUES]))
        used = keys if draw(st.integers(0, 9)) else draw(st.permutations(keys))
        cells = [f'"{key}"{colon}{draw(st.sampled_from(values))}' for key in used]
        line = "{" + comma.join(cells) + "}"
        if not draw(st.integers(0, 5)):
            at = draw(st.integers(0, len(line)))
            line = line[:at] + draw(st.sampled_from(["", '"', ",", "{", "}", ":", "\\", " ", "\r", "\t"])) + line[at:]
            line = line[: draw(st.integers(1, len(line)))] if draw(st.booleans()) else line
        out.append((line if line.strip() else "{}").encode())
    return out


def _array(lines: list[bytes], end: bytes = b"\n", *, last: bool = True) -> pa.Array:
    return split_lines(pa.py_buffer(end.join(lines) + (end if last else b"")))[0]


def _told(objects: Objects) -> tuple[object, ...]:
    columns = {key: column.to_pylist() for key, column in objects.columns.items()}
    malformed = {key: mask.tolist() for key, mask in objects.malformed.items()}
    return columns, sorted(row for row, _ in objects.refused), malformed


@given(_lines(), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@settings(max_examples=600, deadline=None)
def test_the_shape_of_lines_changes_nothing_but_the_speed(lines: list[bytes], end: bytes, last: bool) -> None:  # noqa: FBT001
    """What is read by shape is what the JSON readers give for each line by itself."""
    array = _array(lines, end, last=last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_shape, "_FEWEST", 1)
        shaped = JsonLinesReader(_FIELDS).read(array)
        patch.setattr(json_lines, "find_shape", lambda _: None)
        alone = [JsonLinesReader(_FIELDS).read(array[row : row + 1]) for row in range(len(array))]
    columns, refused, malformed = _told(shaped)
    assert columns == {key: [one.columns[key][0].as_py() for one in alone] for key in _FIELDS.keys}
    assert refused == [row for row, one in enumerate(alone) if one.refused]
    for key in _FIELDS.integers:
        bad = [bool(one.malformed[key][0]) if key in one.malformed else False for one in alone]
        assert malformed.get(key, [False] * len(alone)) == bad  # type: ignore[attr-defined]


def test_plain_lines_of_one_shape_are_all_read_by_it() -> None:
    """The quick way is the way that is taken: numbers bare, as text, or mixed, and blanks after commas."""
    for dumps in (json.dumps, lambda one: json.dumps(one, separators=(",", ":"))):
        lines = [
            dumps({"a": f"v{row}", "n": row, "port": str(row) if row % 3 else row, "name": "-", "rest": 7}).encode()
            for row in range(1_000)
        ]
        array = _array(lines)
        shape = find_shape(array)
        assert shape is not None
        fitting = read_shaped(array, shape, {"a": False, "n": True, "port": True, "name": False})
        assert fitting.rows.tolist() == list(range(1_000))
        assert fitting.columns["n"].type == pa.int64()
        assert fitting.columns["port"].to_pylist() == list(range(1_000))
        assert fitting.columns["a"].to_pylist() == [f"v{row}" for row in range(1_000)]


def test_one_odd_line_costs_itself() -> None:
    """A line with a comma in a value, or a broken one, leaves all others to the quick way."""
    lines = [b'{"a":"x","n":%d}' % row for row in range(600)]
    lines[100], lines[200], lines[300] = b'{"a":"x,y","n":1}', b'{"a":"x","n":', b'{"a":"\\u0041","n":2}'
    array = _array(lines)
    shape = find_shape(array)
    assert shape is not None
    assert len(read_shaped(array, shape, {"a": False, "n": True}).rows) == 597
    objects = JsonLinesReader(_FIELDS).read(array)
    assert [row for row, _ in objects.refused] == [200]
    assert objects.columns["a"][100].as_py() == "x,y"
    assert objects.columns["a"][300].as_py() == "A"
    assert objects.columns["n"][599].as_py() == 599
