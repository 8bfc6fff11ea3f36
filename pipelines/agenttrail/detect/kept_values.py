"""What stood in the fields that a condition asks about: ``field=value`` texts, kept with what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import lists_by, ordinals
from agenttrail.columns.numbers import numbers
from agenttrail.columns.secrets import scrub
from agenttrail.detect.expressions import Op, matches
from agenttrail.detect.predicates import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.expressions import Expression

KEPT = pa.list_(pa.string())
"""Type of the values of a finding."""
DIGITS = 9
"""Significant digits of a fraction: more than a person reads, fewer than the order of a sum can change."""
LONGEST = 200
"""Characters of a value."""


def asked_fields(condition: Expression) -> tuple[str, ...]:
    """Return the event fields that a condition looks at, sorted; the original line is none."""
    asked = matches(condition)
    others = {str(match.value) for match in asked if match.op is Op.FIELD}
    return tuple(sorted(({match.field for match in asked} | others) - {"", "event.original"}))


def values_of(events: pa.RecordBatch, fields: Sequence[str]) -> pa.Array:
    """Return per event the ``field=value`` texts of those of the fields that are there, in their order.

    Values are as rules see them as text, fractions rounded to ``DIGITS`` significant digits, without secrets, and cut
    after ``LONGEST`` characters.
    """
    known = [name for name in fields if name in events.schema.names]
    count = events.num_rows
    if not known:
        return pa.array([[]] * count, KEPT)
    values = _texts([events.column(name) for name in known])
    texts = [pc.binary_join_element_wise(f"{name}=", value, "") for name, value in zip(known, values, strict=True)]
    flat = pa.concat_arrays(texts).take(pa.array(np.arange(count * len(known)).reshape(len(known), count).T.ravel()))
    there = np.flatnonzero(np.asarray(flat.is_valid()))
    return lists_by(there // len(known), count, flat.take(pa.array(there)))


def by_begin(events: pa.RecordBatch, found: NDArray[np.int64], fields: Sequence[str]) -> NDArray[np.int64]:
    """Return some of the events by their start and, of those that start together, by what stood in the fields."""
    starts = numbers(events.column("event.start").cast(pa.int64()))[found]
    order = np.argsort(starts, kind="stable")
    if not (starts[order][1:] == starts[order][:-1]).any():
        return found[order]
    some = pa.array(found)
    ties = [ordinals(events.column(name).take(some)) for name in fields if name in events.schema.names]
    return found[np.lexsort((*reversed(ties), starts))]


def _texts(columns: Sequence[pa.Array]) -> list[pa.Array]:
    """Return columns of one length as text; what may hold secrets is looked through at once, as patterns are dear."""
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in columns]
    texts = [
        rounded(column).cast(pa.string()) if pa.types.is_floating(column.type) else as_text(column) for column in plain
    ]
    wordy = [place for place, column in enumerate(plain) if _may_hold_secrets(column.type)]
    if wordy:
        clean = pc.utf8_slice_codeunits(scrub(pa.concat_arrays([texts[place] for place in wordy])), 0, LONGEST)
        for number, place in enumerate(wordy):
            texts[place] = clean.slice(number * len(texts[place]), len(texts[place]))
    return texts


def _may_hold_secrets(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_list(type_) or pa.types.is_binary(type_))


def rounded(column: pa.Array) -> pa.Array:
    """Return a column of fractions with ``DIGITS`` significant digits each; null stays null."""
    values = column.to_numpy(zero_copy_only=False)
    with np.errstate(all="ignore"):
        places = DIGITS - 1 - np.floor(np.log10(np.abs(values)))
        # what neither zero nor infinity nor too small or large for a power of ten is rounded
        usable = np.isfinite(places) & (np.abs(places) <= 22)  # noqa: PLR2004 - powers of ten that float64 holds
        power = np.power(10.0, np.where(usable, np.abs(places), 0))
        near = np.where(places >= 0, np.rint(values * power) / power, np.rint(values / power) * power)
    return pa.array(np.where(usable, near, values), mask=np.asarray(column.is_null()))
