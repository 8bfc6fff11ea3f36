"""Columns that hold each of their values once, and per row the place of one: what is asked of a value is asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.schema import ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_Answer = TypeVar("_Answer", bound=np.generic)


def places(column: pa.DictionaryArray) -> NDArray[np.signedinteger]:
    """Return where in its dictionary each row's value stands, -1 for null, as wide as it is noted there.

    To index by what is not as wide as a pointer, ``take`` is quicker than brackets.

    Args:
        column: its indices are signed numbers.
    """
    indices = column.indices
    if indices.null_count:
        indices = pc.fill_null(indices, -1)
    found: NDArray[np.signedinteger] = indices.to_numpy(zero_copy_only=False)
    return found


def asked_once(column: pa.Array, ask: Callable[[pa.Array], NDArray[_Answer]], of_null: int) -> NDArray[_Answer]:
    """Return what ``ask`` says of each row's value: of a dictionary each value is asked after once, if they are fewer.

    Args:
        column: plain, or a dictionary.
        ask: answers for a plain column, nulls included.
        of_null: the answer for null.
    """
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) > len(column):
        return ask(decoded(column))
    answers = ask(column.dictionary)
    table: NDArray[_Answer] = np.append(answers, np.array([of_null], dtype=answers.dtype))
    return table.take(places(column))


def decoded(column: pa.Array) -> pa.Array:
    """Return a column with its values row by row."""
    if pa.types.is_dictionary(column.type):
        return pc.take(column.dictionary, column.indices, boundscheck=False)
    return column


def addresses_decoded(events: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with its addresses row by row: what few rows are left of many is better off so."""
    columns = [
        decoded(column) if pa.types.is_dictionary(column.type) and column.type.value_type == ADDRESS else column
        for column in events.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=events.schema.names)
