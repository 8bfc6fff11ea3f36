"""What correlations can do without: hits that are too few, and building blocks that say nothing by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule

_WITHIN_A_WORKLOAD = ({"entity.id", "entity.anchor"}, {"k8s.pod.uid"})
"""Fields of which those of one set, when grouped by, keep apart what different workloads did."""


@dataclass(frozen=True)
class Need:
    """What one correlation needs to find anything.

    Attributes:
        rules: numbers of the rules that it looks at.
        least: hits on one workload within a window without which it finds nothing there; 0 where its groups reach over
            workloads, or other correlations give it hits, too.
        timespan: length of a window, in microseconds.
    """

    rules: NDArray[np.int64]
    least: int
    timespan: int


def needs_of(correlations: Sequence[Correlation], rules: Sequence[Rule]) -> list[Need]:
    """Return what each correlation that is on needs of ``rules``."""
    number = {rule.id: place for place, rule in enumerate(rules)}
    return [
        Need(
            np.array([number[id_] for id_ in one.rules if id_ in number], dtype=np.int64),
            _least(one) if within_a_workload(one) and all(id_ in number for id_ in one.rules) else 0,
            one.timespan,
        )
        for one in correlations
        if not one.off
    ]


def within_a_workload(correlation: Correlation) -> bool:
    """Tell whether each group of a correlation lies within one occupancy of a workload."""
    return bool(correlation.keys) and all(
        any(names <= set(keys) for names in _WITHIN_A_WORKLOAD) for keys in correlation.keys
    )


def _least(correlation: Correlation) -> int:
    """Return the hits in a window without which the condition cannot hold."""
    operator, count = correlation.condition
    return {"gte": count, "gt": count + 1, "eq": count}.get(operator, 1)


def enough(
    needs: Sequence[Need], rules: NDArray[np.int64], workload: NDArray[np.int64], time: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which rows stand for hits that a correlation can find something with.

    A hit stands for a row or more of one workload, and its time is that of the first.  So wherever a correlation finds
    something, at least as many rows that its rules hit start within one window as it needs hits, the first row of every
    hit among them.  Rows in no such window need not be looked at.

    Args:
        needs: of the correlations.
        rules: number of the rule of each row that one hit.
        workload: of each row.
        time: when it starts, in microseconds.
    """
    kept = np.zeros(len(rules), dtype=bool)
    for need in needs:
        own = np.flatnonzero(np.isin(rules, need.rules))
        if need.least > 1:
            own = own[np.lexsort((time[own], workload[own]))]
            own = own[_crowded(workload[own], time[own], need)]
        kept[own] = True
    return kept


def _crowded(workload: NDArray[np.int64], time: NDArray[np.int64], need: Need) -> NDArray[np.bool_]:
    """Tell which rows, ascending by workload and time, are among ``least`` that start within one window."""
    further = need.least - 1
    pairs = max(len(workload) - further, 0)
    first = np.flatnonzero((workload[further:] == workload[:pairs]) & (time[further:] - time[:pairs] < need.timespan))
    edges = np.zeros(len(workload) + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, first + need.least, -1)
    crowded: NDArray[np.bool_] = np.cumsum(edges)[:-1] > 0
    return crowded


def silent(correlations: Sequence[Correlation], blocks: Sequence[str]) -> frozenset[str]:
    """Return the ids among ``blocks``, of building blocks, that give no findings of their own.

    As Sigma has it, what a correlation refers to is told by itself only where the correlation says ``generate: true``;
    here that holds for building blocks, whose findings are context at best.
    """
    on = [one for one in correlations if not one.off]
    asked = {id_ for one in on for id_ in one.rules}
    told = {id_ for one in on if one.generate for id_ in one.rules}
    return frozenset((asked - told) & set(blocks))
