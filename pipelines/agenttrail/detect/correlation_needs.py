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
        least: hits on one workload without which it finds nothing there; 0 where its groups reach over workloads.
    """

    rules: NDArray[np.int64]
    least: int


def needs_of(correlations: Sequence[Correlation], rules: Sequence[Rule]) -> list[Need]:
    """Return what each correlation that is on needs of ``rules``."""
    number = {rule.id: place for place, rule in enumerate(rules)}
    return [
        Need(
            np.array([number[id_] for id_ in one.rules if id_ in number], dtype=np.int64),
            _least(one) if one.keys and all(_within(keys) for keys in one.keys) else 0,
        )
        for one in correlations
        if not one.off
    ]


def _within(keys: Sequence[str]) -> bool:
    return any(names <= set(keys) for names in _WITHIN_A_WORKLOAD)


def _least(correlation: Correlation) -> int:
    """Return the hits in a window without which the condition cannot hold."""
    operator, count = correlation.condition
    return {"gte": count, "gt": count + 1, "eq": count}.get(operator, 1)


def enough(needs: Sequence[Need], rules: NDArray[np.int64], workload: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which hits a correlation can find something with.

    A hit is a row or more, and a row belongs to one workload; so where the rows of a workload that its rules hit are
    fewer than a correlation needs hits, it finds nothing there, however they lie in time.

    Args:
        needs: of the correlations.
        rules: number of the rule of each hit row.
        workload: of each.
    """
    kept = np.zeros(len(rules), dtype=bool)
    for need in needs:
        own = np.isin(rules, need.rules)
        if need.least > 1:
            own &= (np.bincount(workload[own], minlength=int(workload.max(initial=0)) + 1) >= need.least)[workload]
        kept |= own
    return kept


def silent(correlations: Sequence[Correlation], blocks: Sequence[str]) -> frozenset[str]:
    """Return the ids among ``blocks``, of building blocks, that give no findings of their own.

    As Sigma has it, what a correlation refers to is told by itself only where the correlation says ``generate: true``;
    here that holds for building blocks, whose findings are context at best.
    """
    on = [one for one in correlations if not one.off]
    asked = {id_ for one in on for id_ in one.rules}
    told = {id_ for one in on if one.generate for id_ in one.rules}
    return frozenset((asked - told) & set(blocks))
