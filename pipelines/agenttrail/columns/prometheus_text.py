r"""Samples out of the text in which Prometheus metrics are exposed, a column at a time.

``name{label="value",...} value timestamp``: in label values ``\\``, ``\"`` and ``\n`` stand for a backslash, a quote
and a line end; the timestamp, in milliseconds, may be missing.
Source: "Text-based format" under "Exposition formats" of the Prometheus documentation, version 0.0.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.text import line_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_HEAD = rf"^[ \t]*{NAME}[ \t]*$"
_TAIL = r"^[ \t]*(?P<value>[^ \t\r\n]+)(?:[ \t]+(?P<time>[^ \t\r\n]+))?(?P<more>[ \t]+[^ \t\r\n][^\r\n]*)?[ \t]*\r?\n?$"
_BEFORE_LABEL = r"^[ \t]*(?P<comma>,?)[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*$"
_AFTER_LABELS = r"^[ \t]*,?[ \t]*$"
_ESCAPED = r'^(?:[^\\]|\\[\\"n])*$'
_DECIMAL = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?$"
_NO_NUMBER = r"^(?i:[+-]?(?:nan|inf|infinity))$"
_INTEGER = "^-?[0-9]{1,18}$"
_QUOTE, _BACKSLASH, _OPEN, _CLOSE = (ord(char) for char in '"\\{}')
_BLANKS = (ord(" "), ord("\t"))
_NEWLINE = 10


@dataclass(frozen=True)
class Samples:
    """What was read from lines, one row a line.

    Attributes:
        names: name of each sample's metric.
        series: number of each sample's set of labels.
        labels: the wanted labels of each set; null where a set has one not, or has it empty.
        values: null where there is none, or no finite one.
        times: milliseconds since 1970; null where there is none.
        malformed: what is wrong, and with which lines; a line may stand in several.
    """

    names: pa.Array
    series: NDArray[np.int64]
    labels: dict[str, pa.Array]
    values: pa.Array
    times: pa.Array
    malformed: dict[str, NDArray[np.bool_]]


def read_samples(lines: pa.Array, wanted: Sequence[str]) -> Samples:
    """Read lines, of which each is one sample.

    Args:
        lines: consecutive lines as a binary array, valid UTF-8; each may keep its line end.
        wanted: the labels to read.
    """
    head, label_text, tail = _parts(lines)
    encoded = label_text.dictionary_encode()
    labels, broken = _read_labels(encoded.dictionary, wanted)
    series = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    parts = pc.extract_regex(tail, _TAIL)
    # without a match all parts are null; a part that took none in the match is empty
    value, time, more = (pc.fill_null(pc.struct_field(parts, name), "") for name in ("value", "time", "more"))
    values, no_number = _values(value)
    whole = pc.match_substring_regex(time, _INTEGER)
    times = pc.if_else(whole, time, pa.scalar(None, pa.string())).cast(pa.int64())
    malformed = {
        "not a sample of a metric": ~_mask(pc.match_substring_regex(head, _HEAD)) | _mask(pc.not_equal(more, "")),
        "the labels are malformed": broken[series],
        "the value is not a number": no_number,
        "the time is not a number of milliseconds": ~_mask(whole) & _mask(pc.not_equal(time, "")),
    }
    names = pc.utf8_trim(head, " \t")
    return Samples(names, series, labels, values, times, {what: mask for what, mask in malformed.items() if mask.any()})


def _mask(column: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False).astype(bool)
    return found


def _parts(lines: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Cut each line into what stands before its labels, its labels without their braces, and the rest.

    A name holds no brace, and neither does what follows the labels: they reach from the first opening to the last
    closing brace.  Where there is no such pair, the name ends at the first blank after it.
    """
    offsets = line_offsets(lines).astype(np.int64)
    data = np.frombuffer(lines.buffers()[2] or b"", dtype=np.uint8)[: offsets[-1]]
    starts, ends = offsets[:-1], offsets[1:]
    opening = _first(np.flatnonzero(data == _OPEN), starts, ends)
    closing = _last(np.flatnonzero(data == _CLOSE), starts, ends)
    paired = (opening >= 0) & (closing > opening)
    name_end, rest = np.where(paired, opening, ends), np.where(paired, closing + 1, ends)
    bare = np.flatnonzero(~paired)
    if len(bare):
        blank = np.isin(data, _BLANKS)
        after_word = np.flatnonzero(blank[1:] & ~blank[:-1] & (data[:-1] != _NEWLINE)) + 1
        found = _first(after_word, starts[bare], ends[bare])
        name_end[bare] = rest[bare] = np.where(found < 0, ends[bare], found)
    label_start, label_end = np.where(paired, opening + 1, rest), np.where(paired, closing, rest)
    return _cut(data, starts, name_end), _cut(data, label_start, label_end), _cut(data, rest, ends)


def _first(places: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first of ascending ``places`` within each [start, end), -1 where there is none."""
    return _within(places, np.searchsorted(places, starts), starts, ends)


def _last(places: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the last of ascending ``places`` within each [start, end), -1 where there is none."""
    return _within(places, np.searchsorted(places, ends) - 1, starts, ends)


def _within(
    places: NDArray[np.int64], at: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    if not len(places):
        return np.full(len(starts), -1)
    found = places.take(at, mode="clip")
    return np.where((found >= starts) & (found < ends), found, -1)


def _cut(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    """Return the text of each [start, end) as a string column; the stretches are ascending and do not overlap."""
    runs = np.zeros(2 * len(starts) + 1, dtype=np.int64)  # bytes to leave out and bytes to take, in turn
    runs[0:-1:2] = starts
    runs[2:-1:2] -= ends[:-1]
    runs[1::2] = ends - starts
    runs[-1] = len(data) - ends[-1] if len(ends) else len(data)
    kept = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    offsets = np.zeros(len(starts) + 1, dtype=np.int32)
    np.cumsum(ends - starts, out=offsets[1:])
    return pa.Array.from_buffers(pa.string(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data[kept])])


def _values(text: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return the values, null for NaN and infinities, and which texts are no number."""
    decimal = pc.match_substring_regex(text, _DECIMAL)
    strange = ~_mask(pc.or_(decimal, pc.match_substring_regex(text, _NO_NUMBER)))
    nothing = pa.scalar(None, pa.string())
    values = pc.if_else(decimal, pc.utf8_ltrim(text, "+"), nothing).cast(pa.float64())
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64())), strange


def _read_labels(sets: pa.Array, wanted: Sequence[str]) -> tuple[dict[str, pa.Array], NDArray[np.bool_]]:
    """Read distinct sets of labels; return the wanted labels of each set, and which sets are malformed.

    Quotes that no backslash escapes open and close values in turn.  What stands between a closing and the next opening
    one must be a comma and a name; after the last one a comma may stand.
    """
    bounds = line_offsets(sets).astype(np.int64)
    data = np.frombuffer(sets.buffers()[2] or b"", dtype=np.uint8)[: bounds[-1]]
    quotes = _unescaped_quotes(data)
    owner = np.searchsorted(bounds, quotes, side="right") - 1
    broken = np.bincount(owner, minlength=len(sets)) % 2 == 1
    quotes, owner = quotes[~broken[owner]], owner[~broken[owner]]
    opening, closing, owner = quotes[::2], quotes[1::2], owner[::2]
    leads = np.ones(len(owner), dtype=bool)
    leads[1:] = owner[1:] != owner[:-1]
    names, wrong = _label_names(data, np.where(leads, bounds[owner], np.append(0, closing[:-1]) + 1), opening, leads)
    values = _cut(data, opening + 1, closing)
    wrong |= ~_mask(pc.match_substring_regex(values, _ESCAPED))
    broken[owner[wrong | _repeated(owner, names.indices.to_numpy(zero_copy_only=False))]] = True
    ends = bounds[:-1].copy()  # where the labels of each set end
    ends[owner] = closing + 1  # of several the last one stays
    broken |= ~_mask(pc.match_substring_regex(_cut(data, ends, bounds[1:]), _AFTER_LABELS))
    return {label: _of_each_set(label, names, values, owner, len(sets)) for label in wanted}, broken


def _unescaped_quotes(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    quotes = np.flatnonzero(data == _QUOTE)
    slash = data == _BACKSLASH
    if not slash.any():
        return quotes
    other = np.maximum.accumulate(np.where(slash, -1, np.arange(len(data))))  # last byte that is no backslash
    before = np.where(quotes > 0, other[quotes - 1], -1)
    unescaped: NDArray[np.int64] = quotes[(quotes - before) % 2 == 1]
    return unescaped


def _label_names(
    data: NDArray[np.uint8], starts: NDArray[np.int64], opening: NDArray[np.int64], leads: NDArray[np.bool_]
) -> tuple[pa.DictionaryArray, NDArray[np.bool_]]:
    """Return the name before each opening quote, and where there is none as it should be."""
    between = _cut(data, starts, opening).dictionary_encode()
    parts = pc.extract_regex(between.dictionary, _BEFORE_LABEL)
    name, comma = (pc.struct_field(parts, part).take(between.indices) for part in ("name", "comma"))
    # the first label of a set has no comma before it, all others have one
    fits = _mask(pc.fill_null(pc.equal(comma, ""), fill_value=False)) == leads
    return pc.fill_null(name, "").dictionary_encode(), ~fits | _mask(pc.is_null(name))


def _repeated(owner: NDArray[np.int64], names: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which labels stand in their set a second time."""
    order = np.lexsort((names, owner))
    same = (owner[order][1:] == owner[order][:-1]) & (names[order][1:] == names[order][:-1])
    repeated = np.zeros(len(owner), dtype=bool)
    repeated[order[1:][same]] = True
    return repeated


def _of_each_set(
    label: str, names: pa.DictionaryArray, values: pa.Array, owner: NDArray[np.int64], count: int
) -> pa.Array:
    """Return one label of all sets; null where it is missing or empty, which means the same."""
    code = pc.index(names.dictionary, label).as_py()
    rows = np.flatnonzero(names.indices.to_numpy(zero_copy_only=False) == code)
    places = np.full(count, -1)
    places[owner[rows]] = rows
    found = values.take(pa.array(places, mask=places < 0))
    return _unescaped(pc.if_else(pc.equal(found, ""), pa.scalar(None, pa.string()), found))


def _unescaped(column: pa.Array) -> pa.Array:
    """Return values without their escapes; those that have any are few, and each is looked at once."""
    escaped = pc.fill_null(pc.match_substring(column, "\\"), fill_value=False)
    if not pc.any(escaped).as_py():
        return column
    encoded = column.filter(escaped).dictionary_encode()
    # no value holds a NUL: it stands for a backslash while the other escapes are read
    plain = [
        text.replace("\\\\", "\0").replace('\\"', '"').replace("\\n", "\n").replace("\0", "\\")
        for text in encoded.dictionary.to_pylist()
    ]
    return pc.replace_with_mask(column, escaped, pa.array(plain, pa.string()).take(encoded.indices))
