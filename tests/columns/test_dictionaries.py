"""What is asked of a value is asked once, and of the values that rows have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from agenttrail.columns.addresses import present
from agenttrail.columns.dictionaries import asked_once

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.mark.parametrize(("rows", "many"), [(4, 4), (20, 9)])
def test_the_fewer_of_words_and_rows_are_asked_after(rows: int, many: int) -> None:
    asked: list[int] = []

    def ask(column: pa.Array) -> NDArray[np.int64]:
        asked.append(len(column))
        return np.array([-1 if one is None else one for one in column.to_pylist()])

    words = pa.array([10, 11, 12, 13, 14, 15, 16, 17, None])
    column = pa.DictionaryArray.from_arrays(pa.array([7, None, 8, 0] * 5, pa.int8()), words)[:rows]
    assert asked_once(column, ask, -1).tolist() == [17, -1, -1, 10] * (rows // 4)
    assert asked == [many]


def test_no_place_is_no_word() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([None, 0, 1], pa.int8()), pa.array([None, "a"]))
    assert asked_once(column, present, of_null=False).tolist() == [False, False, True]
    wordless = pa.DictionaryArray.from_arrays(pa.nulls(2, pa.int8()), pa.array([], pa.string()))
    assert asked_once(wordless, present, of_null=False).tolist() == [False, False]
