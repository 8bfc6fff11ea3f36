"""GPUs that run hot while the job makes no step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.groups import agreed, group_rows
from agenttrail.columns.offsets import offsets_of, ranges, run_offsets
from agenttrail.columns.segments import maximal_segments
from agenttrail.columns.text import choose, constant
from agenttrail.detect.derived import Derived, column_of, integers
from agenttrail.detect.progress import MINUTE, RUNGS, read_progress
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRIC = "DCGM_FI_DEV_GPU_UTIL"
"""Utilisation of one GPU, per cent (NVIDIA DCGM, field 203)."""
BUSY = 70
"""Mean utilisation, per cent, from which GPUs are busy."""
LEAST = 8
"""Minutes that GPUs must be busy to be stated."""
SAMPLE_GAP = 2 * MINUTE
"""Longest time between samples of a workload that is bridged."""
SILENCE = 120 * MINUTE
"""Longest time between two reports of progress within which their stream counts as alive: slow steps, and evaluations
without reports, take less."""
GAPS = ("no training progress reported at any rung", "training progress silent", "no GPU samples")
"""What can be missing, as ``what`` of a gap: NO_PROGRESS, SILENT, NO_SAMPLES."""
NO_PROGRESS, SILENT, NO_SAMPLES = GAPS
_FINE = 1_000
"""Parts of a per cent that the use of a minute is told in."""
_LONGEST = 1 << 20
"""More minutes than an interval has."""


def derive(samples: pa.RecordBatch, progress: pa.RecordBatch) -> tuple[Derived, pa.RecordBatch]:
    """State the intervals in which a workload's GPUs were busy without a step.

    **Use.**  Event time is cut into minutes [60 k s, 60 (k+1) s).  The use of a minute is the mean of all samples of
    ``METRIC`` that the workload (``entity``) has in it, over all its GPUs, rounded down to 0.001 per cent.  Values
    that are no per cents (below 0, above 100, no number) are no samples.

    **Progress.**  A stream is all reports with one (``sandbox.id``, ``job.id``).  Of several reports of a stream at
    one instant the largest step counts.  A report is a step if its ``training.step`` is larger than every earlier one
    of its stream; the first with a step number is one, too; all others (the same step, a smaller one, none) are
    heartbeats.  A workload is looked at through the streams of its own sandbox if there is any (rung ``sandbox``),
    else through all streams of its job (rung ``job``); sandbox and job are those that its samples agree on.

    **Alive.**  A minute is told if at least one of these streams has a report at or before its beginning and one at or
    after its end, and none has silence that touches it.  Silence is the time between two consecutive reports of a
    stream that are more than ``SILENCE`` apart, or of which the second advances by more steps than the stream's usual
    (lower median) advance: then reports were lost, and steps may have been made unseen.  So heartbeats keep a stream
    alive however long a step takes, and a stream that ended proves nothing.

    **Interval.**  Minutes with samples follow one another if the last sample of one and the first of the next are at
    most ``SAMPLE_GAP`` apart.  A stretch is a maximal run of such minutes which are told and hold no step, like those
    between them.  In each stretch the intervals are its maximal segments (Ruzzo and Tompa 1999, "A linear time
    algorithm for finding all maximal scoring subsequences") of minutes scored by use - ``BUSY``: the mean of an
    interval is at least ``BUSY`` and so is that of each of its beginnings and ends; a dip is bridged if the minutes on
    either side make up for it; intervals do not overlap.  Those of at least ``LEAST`` minutes from the first to the
    end of the last are stated.  Bounds are whole minutes: up to a minute of use at either end can be missed.

    What is stated are facts: an evaluation, a slow step, and steps made once more after a restart from a checkpoint
    look like this, too.  Where nothing is told nothing is stated, but the gap is.

    Args:
        samples: GPU samples with ``metric.name``, ``metric.value``, ``gpu.id``, ``event.start``, ``entity`` (int64),
            ``sandbox.id``, ``job.id``; rows of other metrics or without entity are left out.
        progress: reports with ``event.start``, ``training.step``, ``sandbox.id``, ``job.id``.

    Returns:
        The intervals, sorted by workload and start; members are rows of ``samples``.  ``event.start``, ``event.end``:
        the first and the last sample; ``gpu.utilization``: mean of the minutes' uses, per cent;
        ``gpu.busy_duration``: seconds of the interval, whole minutes; ``gpu.count``: GPUs whose own mean over their
        samples in it is at least ``BUSY`` (of ids; samples without id are one); ``training.rung``.  Nothing is null.

        And the gaps, sorted alike: ``entity``, ``event.start``, ``event.end``, ``what``: ``NO_PROGRESS`` or ``SILENT``
        over maximal runs of minutes with samples that are not told and hold no step, from the beginning of the first
        to the end of the last; ``NO_SAMPLES`` between two samples more than ``SAMPLE_GAP`` apart.
    """
    use = minutes_of_use(samples)
    known = Told.of(samples, use, progress)
    first, last = busy_intervals(use, known.free, known.follows_free)
    return stated(samples, use, (first, last), known), _gaps(use, known.untold, known.follows, known.rung)


@dataclass(frozen=True)
class Use:
    """Minutes with samples, ascending by workload and time.

    Attributes:
        rows: rows of the samples, ascending likewise; minute i holds [offsets[i], offsets[i + 1]) of them.
        offsets: see ``rows``.
        values: of each of ``rows``, in 1/1000 per cent.
        entities: code of each workload.
        workload: of each minute, an index into ``entities``.
        minute: its number since 1970.
        first: time of the first sample of each minute.
        last: time of the last.
        use: of each minute, in 1/1000 per cent.
    """

    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    values: NDArray[np.int64]
    entities: NDArray[np.int64]
    workload: NDArray[np.int64]
    minute: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    use: NDArray[np.int64]

    @property
    def scores(self) -> NDArray[np.int64]:
        """What each minute scores; by length where sums are the same: so those of exactly BUSY belong to intervals."""
        return (self.use - BUSY * _FINE) * _LONGEST + 1


@dataclass(frozen=True)
class Told:
    """What is known of minutes with samples.

    Attributes:
        rung: that progress of each is reported at, -1 for none.
        free: which are told and hold no step.
        untold: which are not told and hold no step.
        follows: which follow the one before, from the second on.
        follows_free: which do so that no minute between them is otherwise.
    """

    rung: NDArray[np.int64]
    free: NDArray[np.bool_]
    untold: NDArray[np.bool_]
    follows: NDArray[np.bool_]
    follows_free: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: pa.RecordBatch, use: Use, progress: pa.RecordBatch) -> Told:
        """Lay the minutes beside the reports of progress."""
        told_by = read_progress(progress, SILENCE)
        named = (column_of(samples, f"{rung}.id", pa.string()).take(pa.array(use.rows)) for rung in RUNGS)
        owner = np.repeat(use.workload, np.diff(use.offsets))
        source, rung = told_by.sources(*(agreed(owner, len(use.entities), names, null_agrees=True) for names in named))
        source, rung = source[use.workload], rung[use.workload]
        told, stepped = told_by.told(source, use.minute), told_by.stepped(source, use.minute)
        follows = (use.workload[1:] == use.workload[:-1]) & (use.first[1:] - use.last[:-1] <= SAMPLE_GAP)
        # As a gap is at most two minutes, at most one minute without samples lies between two that follow one another.
        skipped = use.minute[:-1] + 1
        between = told_by.told(source[:-1], skipped) & ~told_by.stepped(source[:-1], skipped)
        follows_free = follows & (between | (use.minute[1:] == skipped))
        return cls(rung, told & ~stepped, ~told & ~stepped, follows, follows_free)


def minutes_of_use(samples: pa.RecordBatch) -> Use:
    """Cut samples, see :func:`derive`, into minutes."""
    value = column_of(samples, "metric.value", pa.float64())
    sampled = pc.equal(column_of(samples, "metric.name", pa.string()), METRIC)
    percent = pc.and_(pc.greater_equal(value, 0), pc.less_equal(value, 100))
    whose = column_of(samples, "entity", pa.int64()).is_valid()
    rows = np.flatnonzero(np.asarray(pc.fill_null(pc.and_(pc.and_(sampled, whose), percent), fill_value=False)))
    time = integers(samples, "event.start")[rows]
    entities, workload = np.unique(integers(samples, "entity")[rows], return_inverse=True)
    order = np.lexsort((time, workload.ravel()))
    rows, time, workload = rows[order], time[order], workload.ravel()[order]
    fresh = np.ones(len(rows), dtype=bool)
    fresh[1:] = (workload[1:] != workload[:-1]) | (time[1:] // MINUTE != time[:-1] // MINUTE)
    offsets = np.append(np.flatnonzero(fresh), len(rows))
    begin, end = offsets[:-1], offsets[1:]
    values = np.rint(value.take(pa.array(rows)).to_numpy(zero_copy_only=False) * _FINE).astype(np.int64)
    use = np.add.reduceat(values, begin) // (end - begin)
    first, last = time[begin], time[end - 1]
    return Use(rows, offsets, values, entities, workload[begin], first // MINUTE, first, last, use)


def busy_intervals(
    use: Use, free: NDArray[np.bool_], joined: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last minute of each interval, as indices into ``use``."""
    fresh = np.ones(len(free), dtype=bool)
    fresh[1:] = ~(joined & free[1:] & free[:-1])
    stretch = np.cumsum(fresh) - 1
    rows = np.flatnonzero(free)
    offsets = run_offsets(stretch[rows])
    begin, end = rows[offsets[:-1]], rows[offsets[1:] - 1]
    rows = rows[np.repeat(use.minute[end] - use.minute[begin] + 1 >= LEAST, np.diff(offsets))]
    first, last = (rows[places] for places in maximal_segments(stretch[rows], use.scores[rows]))
    stated = use.minute[last] - use.minute[first] + 1 >= LEAST
    return first[stated], last[stated]


def stated(
    samples: pa.RecordBatch, use: Use, intervals: tuple[NDArray[np.int64], NDArray[np.int64]], told: Told
) -> Derived:
    """State intervals, of which :func:`busy_intervals` gives the first and the last minutes, as :func:`derive` does."""
    first, last = intervals
    count = len(first)
    begin, lengths = use.offsets[first], use.offsets[last + 1] - use.offsets[first]
    places = ranges(begin, lengths)
    event = np.repeat(np.arange(count), lengths)
    members = use.rows[places]
    gpus, opening = group_rows([pa.array(event), column_of(samples, "gpu.id", pa.string()).take(pa.array(members))])
    spare = np.zeros(len(opening), dtype=np.int64)
    np.add.at(spare, gpus, use.values[places] - BUSY * _FINE)
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(use.use)])
    columns = {
        "entity": pa.array(use.entities[use.workload[first]]),
        "event.dataset": constant("gpu_progress", count),
        "event.start": pa.array(use.first[first]).view(TIMESTAMP),
        "event.end": pa.array(use.last[last]).view(TIMESTAMP),
        "gpu.utilization": pa.array((total[last + 1] - total[first]) / (last + 1 - first) / _FINE),
        "gpu.busy_duration": pa.array((use.minute[last] - use.minute[first] + 1) * 60.0),
        "gpu.count": pa.array(np.bincount(event[opening][spare >= 0], minlength=count)),
        "training.rung": choose(told.rung[first], RUNGS),
    }
    events = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return Derived(events, offsets_of(lengths), members)


def _gaps(use: Use, untold: NDArray[np.bool_], follows: NDArray[np.bool_], rung: NDArray[np.int64]) -> pa.RecordBatch:
    """Return what is missing: of progress where it is ``untold``, and of samples."""
    fresh = np.ones(len(untold), dtype=bool)
    fresh[1:] = ~(follows & untold[1:] & untold[:-1])
    rows = np.flatnonzero(untold)
    offsets = run_offsets((np.cumsum(fresh) - 1)[rows])
    opened, closed = rows[offsets[:-1]], rows[offsets[1:] - 1]
    before = np.flatnonzero(~follows & (use.workload[1:] == use.workload[:-1]))
    workload = use.workload[np.concatenate([opened, before])]
    start = np.concatenate([use.minute[opened] * MINUTE, use.last[before]])
    end = np.concatenate([(use.minute[closed] + 1) * MINUTE, use.first[before + 1]])
    silent = np.where(rung[opened] < 0, GAPS.index(NO_PROGRESS), GAPS.index(SILENT))
    what = np.concatenate([silent, np.full(len(before), GAPS.index(NO_SAMPLES))])
    order = np.lexsort((what, start, workload))
    columns = {
        "entity": pa.array(use.entities[workload[order]]),
        "event.start": pa.array(start[order]).view(TIMESTAMP),
        "event.end": pa.array(end[order]).view(TIMESTAMP),
        "what": choose(what[order], GAPS),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
