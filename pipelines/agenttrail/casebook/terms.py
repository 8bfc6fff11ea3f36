"""What a job asks of everything that a stream brings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.casebook.matter import Sieve
from agenttrail.casebook.urgency import Urgency
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.detect.plan import Plan
from agenttrail.detect.signals import Lists
from agenttrail.gathering.gathered import Asked
from agenttrail.gathering.named import TOOL_CALL
from agenttrail.seams import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.detect.rules import Rule


@dataclass(frozen=True)
class Terms:
    """What a job asks, compiled.

    Attributes:
        correlations: those that are on, each after those that it refers to.
        kinds: what vouches for each dataset.
        tolerance: how far clocks may be apart, in microseconds.
        internal: one list of networks that are nobody's peer outside.
        lists: what is listed.
        plans: by dataset, the rules that see it; those on tool calls under ``TOOL_CALL``.
        sieves: by dataset of flows, what may matter before it is known whose it is.
        asked: what the rules ask of all rows together.
        urgency: what cannot wait until everything is judged.
        span: what a run over a part of time looks at, without its bounds.
        datasets: by number of its source, the format of flows; None for events that name their workload.
    """

    correlations: tuple[Correlation, ...]
    kinds: Mapping[str, str]
    tolerance: int
    internal: NetworkLists
    lists: Lists
    plans: Mapping[str, Plan]
    sieves: Mapping[str, Sieve]
    asked: Asked
    urgency: Urgency
    span: Span = field(default_factory=Span)
    datasets: tuple[str | None, ...] = ()

    @classmethod
    def of(
        cls,
        rules: Sequence[Rule],
        correlations: Sequence[Correlation],
        lists: Mapping[str, tuple[str, ...]],
        kinds: Mapping[str, str],
        datasets: Sequence[str | None],
        span: Span,
    ) -> Terms:
        """Compile what a job asks.

        Args:
            rules: of the job.
            correlations: likewise.
            lists: likewise.
            kinds: what vouches for each dataset.
            datasets: by number of its source, the format of flows; None for what names its workload.
            span: what a run over a part of time looks at, without its bounds.
        """
        listed, asked = Lists.of(lists), Asked.of(rules, correlations, lists)
        flows = sorted({name for name in datasets if name is not None})
        return cls(
            tuple(one for one in correlations if not one.off),
            dict(kinds),
            span.tolerance,
            NetworkLists.compile([[parse_network(entry) for entry in lists["internal"]]]),
            listed,
            {name: Plan.compile(rules, name, lists) for name in (*flows, TOOL_CALL)},
            {name: Sieve.of(rules, name, lists, listed) for name in flows},
            asked,
            Urgency.of(asked),
            span,
            tuple(datasets),
        )
