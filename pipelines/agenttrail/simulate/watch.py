"""The sensors of a cluster at work: what they see, written down and sent off, with the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.simulate.delivery import Feed
from agenttrail.simulate.firewall_lines import sessions
from agenttrail.simulate.flow_log_lines import DEFAULT_HEADER, FULL_HEADER, flow_log_line, gap_line
from agenttrail.simulate.interfaces import records
from agenttrail.simulate.ledger import UNATTRIBUTED, Judgement
from agenttrail.simulate.truth import FLOW, GAP, Label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster
    from agenttrail.simulate.flow import Flow
    from agenttrail.simulate.ledger import Ledger

_SKIPPED_EVERY = 7_200  # seconds between two windows in which an interface skipped records
_IDLE_WINDOW = 600  # seconds


def open_feeds() -> dict[str, Feed]:
    """Return an empty feed for every layout of the interfaces, and one for the firewall."""
    full, default = "aws_vpc_flow/full-{hour}.log.gz", "aws_vpc_flow/default-{hour}.log.gz"
    return {
        "alibaba": Feed("alibaba_vpc_flow", "alibaba_vpc_flow/{hour}.jsonl.gz", slowest=90),
        "aws-full": Feed("aws_vpc_flow", full, slowest=240, header=FULL_HEADER),
        "aws-default": Feed("aws_vpc_flow", default, slowest=240, header=DEFAULT_HEADER),
        "firewall": Feed("alibaba_cloud_firewall", "alibaba_cloud_firewall/{hour}.jsonl", slowest=45),
    }


@dataclass(frozen=True)
class Watch:
    """All sensors of one cluster.

    Attributes:
        ledger: who really held which address.
        feeds: where each sensor sends its lines.
        horizon: end of the day in seconds.
        firsts: start of the earliest record of each behaviour so far.
    """

    dice: Dice
    cluster: Cluster
    ledger: Ledger
    feeds: dict[str, Feed]
    horizon: int
    firsts: dict[str, int]
    _labels: dict[Label, Label] = field(default_factory=dict)

    def observe(self, flows: Iterable[Flow]) -> None:
        """Write down what the sensors see of ``flows``."""
        for flow in flows:
            self._at_interfaces(flow)
            if self.cluster.network.cloud == "alibaba":
                self._at_firewall(flow)

    def _at_interfaces(self, flow: Flow) -> None:
        ends = (flow.client.address, flow.client.party), (flow.server.address, flow.server.party)
        for record in records(self.dice, self.cluster, flow, self.horizon):
            label = self._label(self.ledger.judge(self.cluster.network.vpc, *ends, record.start), flow)
            self.feeds[record.interface.layout].send(self.dice, record.closes, flow_log_line(record), label)
            self._note_first(flow, record.start)

    def _at_firewall(self, flow: Flow) -> None:
        for session in sessions(self.dice, self.cluster.network, flow, self.horizon):
            ends = (session.source, flow.client.party), (session.destination, flow.server.party)
            label = self._label(self.ledger.judge(session.scope, *ends, session.start), flow)
            self.feeds["firewall"].send(self.dice, session.end, session.text, label)
            self._note_first(flow, session.start)

    def _note_first(self, flow: Flow, start: int) -> None:
        if flow.behaviour:
            self.firsts[flow.behaviour] = min(start, self.firsts.get(flow.behaviour, start))

    def _label(self, judgement: Judgement, flow: Flow) -> Label:
        """Return the truth of a record; equal ones are one object, since there are few of them and many records."""
        label = Label(FLOW, judgement, flow.behaviour)
        return self._labels.setdefault(label, label)

    def note_gaps(self) -> None:
        """Let an interface without traffic say so, and the others now and then that they missed something."""
        label = Label(GAP, Judgement(UNATTRIBUTED, None, ()))
        idle, horizon = self.cluster.idle, self.horizon
        for start in range(0, horizon, _IDLE_WINDOW):
            end = min(start + _IDLE_WINDOW, horizon)
            self.feeds[idle.layout].send(self.dice, end, gap_line(idle, start, end - 1, "NODATA"), label)
        for interface in [node.interface for node in self.cluster.nodes]:
            for at in self.dice.ticks(0, horizon - interface.window, _SKIPPED_EVERY):
                end = int(at) + interface.window
                text = gap_line(interface, int(at), end - 1, "SKIPDATA")
                self.feeds[interface.layout].send(self.dice, end, text, label)
