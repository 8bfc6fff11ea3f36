"""What is a step stays one, whatever reports of earlier ones go."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.detect.progress import farthest
from agenttrail.schema import TIMESTAMP

_REPORT = st.tuples(
    st.integers(0, 12), st.one_of(st.none(), st.integers(0, 6)), st.sampled_from([None, "a"]), st.sampled_from("xy")
)
"""Time, step, sandbox and job."""
_NONE = pa.array([], pa.string())
_Reports = list[tuple[int, int | None, str | None, str]]


def _batch(reports: _Reports) -> pa.RecordBatch:
    time, step, sandbox, job = zip(*reports, strict=True) if reports else ((), (), (), ())
    columns = [pa.array(time, TIMESTAMP), *(pa.array(one, pa.int64()) for one in [step])]
    columns += [pa.array(one, pa.string()) for one in (sandbox, job)]
    return pa.RecordBatch.from_arrays(columns, names=["event.start", "training.step", "sandbox.id", "job.id"])


def _steps(reports: _Reports) -> set[tuple[int, str | None, str]]:
    """Return time and stream of each step: what is farther than all before it, of several at once the farthest."""
    farthest: dict[tuple[str | None, str], int] = {}
    steps = set()
    for time in sorted({one[0] for one in reports}):
        at_once: dict[tuple[str | None, str], int] = {}
        for _, step, sandbox, job in (one for one in reports if one[0] == time):
            at_once[sandbox, job] = max(at_once.get((sandbox, job), -1), -1 if step is None else step)
        for (sandbox, job), step in at_once.items():
            if step > farthest.get((sandbox, job), -1):
                steps.add((time, sandbox, job))
                farthest[sandbox, job] = step
    return steps


@given(st.lists(_REPORT, max_size=30), st.sets(st.integers(0, 12)))
def test_with_the_records_before_them_reports_are_the_steps_that_they_are_among_all(
    reports: _Reports, times: set[int]
) -> None:
    kept = np.array([one[0] in times for one in reports], dtype=bool)
    held = farthest(_batch(reports), kept, _NONE, _NONE)
    ends = sum(one == (None, job) for job in "xy" for one in {one[2:] for one in reports})
    left = [one for one, stays in zip(reports, kept | held, strict=True) if stays]
    assert {one for one in _steps(left) if one[0] in times} == {one for one in _steps(reports) if one[0] in times}
    # no more than one for each run of reports that are kept
    runs = sum(
        here and not before
        for stream in {one[2:] for one in reports}
        for mine in [[one[0] in times for one in sorted((o for o in reports if o[2:] == stream), key=lambda o: o[0])]]
        for here, before in zip(mine, [True, *mine], strict=False)
    )
    assert (held & ~kept).sum() <= runs + ends


def test_steps_that_are_made_once_more_are_none_after_what_was_before_them_went() -> None:
    reports: _Reports = [(0, 1, None, "x"), (1, 9, None, "x"), (2, 3, None, "x"), (3, 4, None, "x"), (4, 10, None, "x")]
    held = farthest(_batch(reports), np.array([False, False, False, True, True]), _NONE, _NONE)
    assert held.tolist() == [False, True, False, False, True]


def test_of_streams_of_those_that_are_there_one_report_stays_by_which_they_are_known() -> None:
    reports: _Reports = [(0, 4, "a", "x"), (1, 6, "a", "x"), (2, 5, "a", "x"), (0, 1, None, "y"), (3, 1, "b", "z")]
    none = np.zeros(len(reports), dtype=bool)
    names = pa.array(["a", None]), pa.array(["y", None])
    assert farthest(_batch(reports), none, *names).tolist() == [False, True, False, True, False]
    # and of what names no sandbox always
    assert farthest(_batch(reports), none, _NONE, _NONE).tolist() == [False, False, False, True, False]
