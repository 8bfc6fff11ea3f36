"""Which rows may matter before it is known whose they are: most of a log never enters the state of a stream.

A row matters if a rule hits it, it was blocked or its peer is on no list.  Who its peer is depends on whose it is, and
that may only be known later.  So a row is let through if it would matter whichever of its ends were the workload's, and
whatever a rule asks about the workload itself were so.  What is let through is judged again once its lease is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agenttrail.attribute import DESTINATION, SOURCE, UNKNOWN, seen_from
from agenttrail.detect.expressions import And, Match, Not, Op, Or
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import select
from agenttrail.entities import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from agenttrail.detect.expressions import Expression
    from agenttrail.detect.rules import Rule
    from agenttrail.detect.signals import Lists

_LATER = frozenset({*IDENTITY, "attribution.reason", "attribution.scope"})
"""Columns that only attribution fills."""


@dataclass(frozen=True)
class Sieve:
    """What lets rows of one dataset through.

    Attributes:
        plan: the rules that see it, without what they ask about the workload.
        everything: whether a rule may hit any row.
        lists: what is listed.
    """

    plan: Plan
    everything: bool
    lists: Lists

    @classmethod
    def of(cls, rules: Sequence[Rule], dataset: str, lists: Mapping[str, tuple[str, ...]], listed: Lists) -> Sieve:
        """Make the sieve of a ``dataset`` for a job's ``rules``."""
        seen = [rule for rule in rules if dataset in rule.datasets and not rule.off]
        asked = [relaxed(rule.condition) for rule in seen]
        known = [replace(rule, condition=one) for rule, one in zip(seen, asked, strict=True) if one is not None]
        return cls(Plan.compile(known, dataset, lists), len(known) < len(seen), listed)

    def may_matter(self, events: pa.RecordBatch) -> NDArray[np.int64]:
        """Return the rows of a batch of events, not attributed, that may matter once they are, ascending."""
        if self.everything:
            return np.arange(events.num_rows)
        matters = np.zeros(events.num_rows, dtype=bool)
        for side in (SOURCE, DESTINATION, UNKNOWN):
            matters[select(seen_from(events, side), self.plan, self.lists).rows] = True
        return np.flatnonzero(matters)


def relaxed(condition: Expression, *, negated: bool = False) -> Expression | None:
    """Return what a condition asks of what is known at once; None where that may be anything.

    It holds wherever the condition holds, whatever attribution says.
    """
    if isinstance(condition, Not):
        return relaxed(condition.part, negated=not negated)
    if isinstance(condition, Match):
        if condition.field in _LATER or (condition.op is Op.FIELD and condition.value in _LATER):
            return None
        return Not(condition) if negated else condition
    parts = [relaxed(part, negated=negated) for part in condition.parts]
    known = tuple(part for part in parts if part is not None)
    if isinstance(condition, And) != negated:  # all must hold
        return And(known) if known else None
    return Or(known) if len(known) == len(parts) else None
