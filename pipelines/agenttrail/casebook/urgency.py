"""What cannot wait until everything is judged: what opens an incident by itself, and is not more of the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail.columns.ids import content_digests
from agenttrail.detect.findings import Hits
from agenttrail.detect.rule_metadata import SEVERITIES
from agenttrail.detect.rules import INCIDENT_SEVERITY
from agenttrail.detect.signals import digest_words
from agenttrail.gathering.gathered import conversation_hits
from agenttrail.schema import cast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agenttrail.casebook.segments import Segment
    from agenttrail.gathering.gathered import Asked

_ENDS = ("source.ip", "destination.ip")
_KIND = ("event.dataset", "event.outcome", "network.direction", "gen_ai.tool.name", "metric.name")
"""What sets rows apart that are not more of the same, beside workload, rule and addresses."""


@dataclass(frozen=True)
class Urgency:
    """The rules of a job that open an incident by themselves.

    Attributes:
        opening: their places among all rules.
        asked: what all rules ask of all rows together.
    """

    opening: tuple[int, ...]
    asked: Asked

    @classmethod
    def of(cls, asked: Asked) -> Urgency:
        """Return what is urgent of what a job's rules ask."""
        opens = [SEVERITIES.index(rule.severity) >= INCIDENT_SEVERITY for rule in asked.rules]
        return cls(tuple(np.flatnonzero(opens).tolist()), asked)

    def kinds(self, segment: Segment) -> tuple[pa.Array, NDArray[np.bytes_]]:
        """Tell apart what came and opens an incident by itself: on its rows, or as conversations of them alone.

        Returns:
            Of each such row and rule the digest of its workload, and a word: the same for all of one workload, rule,
            peer and verdict.
        """
        rows = segment.signals.rows
        hits = Hits.of(rows), conversation_hits(segment.signals, self.asked)
        place, rules = (np.concatenate([getattr(one, name) for one in hits]) for name in ("rows", "rules"))
        opens = np.isin(rules, self.opening)
        chosen = pa.array(place[opens])
        workload = segment.workload.take(chosen)
        if not len(chosen):
            return workload, digest_words(workload)
        told = rows.take(chosen)
        named = [cast(told.column(name), pa.string()) for name in _KIND if name in told.schema.names]
        ends = [told.column(name) for name in _ENDS if name in told.schema.names]
        return workload, digest_words(
            content_digests([workload, pa.array(rules[opens]).cast(pa.string()), *ends, *named])
        )
