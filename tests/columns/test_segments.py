"""maximal_segments() agrees with the definition, tried on every segment."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.gpu_progress import maximal

from agenttrail.columns.segments import maximal_segments


@settings(max_examples=max(settings().max_examples, 1_000))
@given(st.lists(st.lists(st.integers(-4, 4), max_size=20), max_size=4))
def test_segments_are_those_of_the_definition(sequences: list[list[int]]) -> None:
    numbers = [number for number, scores in enumerate(sequences) for _ in scores]
    scores = [score for scores in sequences for score in scores]
    first, last = maximal_segments(np.array(numbers, np.int64), np.array(scores, np.int64))
    shift, wanted = 0, []
    for sequence in sequences:
        wanted += [(shift + a, shift + b) for a, b in maximal(sequence)]
        shift += len(sequence)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == sorted(wanted)


def test_a_dip_is_bridged_where_both_sides_make_up_for_it() -> None:
    first, last = maximal_segments(np.zeros(5, np.int64), np.array([3, -2, 3, -4, 1]))
    assert (first.tolist(), last.tolist()) == ([0, 4], [2, 4])
