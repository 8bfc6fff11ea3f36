"""Counts and bytes as people read them, with their thousands apart; ports, ids and all else stay as they are."""

from __future__ import annotations

import pyarrow as pa

_COUNTED = (".bytes", ".count", ".conversations", ".packets", ".peers", ".sockets", "event_count", "value_count")
"""How fields end that hold counts or bytes, those that correlations count among them."""
_LONGEST = 40
"""Characters of a number that is one."""


def grouped(field: str, value: object) -> str:
    """Return a value of a field as text; of a whole number of things or of bytes its thousands are set apart.

    Args:
        field: its name.
        value: a number, or text, which may come from logs.
    """
    text = str(value)
    if not field.endswith(_COUNTED):
        return text
    whole, point, rest = text.partition(".")
    number = whole.isascii() and whole.isdecimal() and (not point or (rest.isascii() and rest.isdecimal()))
    if not (number and len(text) <= _LONGEST):
        return text
    return f"{int(whole):,}{point}{rest}"


def grouped_numbers(field: str, column: pa.Array) -> pa.Array:
    """Return whole numbers of a field as :func:`grouped` shows each of them; nulls stay null."""
    if not field.endswith(_COUNTED):
        return column.cast(pa.string())
    texts = [None if one is None else f"{one:,}" if one >= 0 else str(one) for one in column.to_pylist()]
    return pa.array(texts, pa.string())


def grouped_pair(text: str) -> str:
    """Return ``field=value``, as findings keep what their rules saw, with the value of :func:`grouped`."""
    field, found, value = text.partition("=")
    return f"{field}{found}{grouped(field, value)}"
