"""Where a workload's connections come from: one pod, the time it is at work in, and whom it can reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.simulate.flow import UDP, End, Flow
from agenttrail.simulate.outside import DNS, HTTPS

if TYPE_CHECKING:
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Party, Pod
    from agenttrail.simulate.outside import Host

EPHEMERAL = 32_768, 60_999
"""First and last port of the range from which Linux takes the ports of clients."""
_WARM_UP, _WIND_DOWN = 2.0, 0.5  # seconds without traffic after a pod's start and before its end
_BEFORE_MIDNIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Scene:
    """One workload at work, from ``begin`` to ``finish``."""

    dice: Dice
    cluster: Cluster
    party: Party
    begin: float
    finish: float

    @property
    def length(self) -> float:
        """Seconds at work."""
        return self.finish - self.begin

    def moment(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return an instant between two shares of the time at work."""
        return round(self.begin + self.length * self.dice.uniform(low, high), 3)

    def own_end(self, *, ipv6: bool = False) -> End:
        """Return the workload as a client, on a fresh port."""
        address = self.party.addresses[1 if ipv6 else 0]
        return End(address, self.dice.whole(*EPHEMERAL), self.party, self.cluster.network.public)

    def call(
        self, server: End, start: float, seconds: float, sent: float, received: float, **details: Any
    ) -> list[Flow]:
        """Return a connection to ``server``; none where nothing of it fits into the time at work.

        What is cut short by the end carries the share of its payload that fits.

        Args:
            server: the other end.
            start: instant at which it opens.
            seconds: how long it takes.
            sent: bytes to the server.
            received: bytes from the server.
            details: further attributes of the flow.
        """
        if not self.begin <= start < self.finish:
            return []
        end = min(start + max(seconds, 0.001), self.finish)
        share = (end - start) / max(seconds, 0.001)
        flow = Flow(
            client=self.own_end(ipv6=":" in server.address), server=server, start=round(start, 3), end=round(end, 3),
            sent=max(1, int(sent * share)), received=max(1, int(received * share)), **details,
        )  # fmt: skip
        return [flow]

    def fetch(
        self, host: Host, start: float, sent: float, received: float, *, idle: float = 0.0, **details: Any
    ) -> list[Flow]:
        """Return a connection to a host outside that lasts as long as its payload takes, with its name look-up."""
        seconds = 0.05 + (sent + received) / self.dice.log_uniform(4e6, 2.5e8) + idle
        ipv6 = len(self.party.addresses) > 1 and bool(host.ipv6) and self.dice.happens(0.6)
        server = End(host.ipv6 if ipv6 else host.ipv4, details.pop("port", HTTPS))
        details.setdefault("application", "HTTPS" if server.port == HTTPS else "Unknown")
        flows = self.call(server, start, seconds, sent, received, domain=host.domain, **details)
        return [*self.look_up(host.domain, start), *flows] if flows else []

    def look_up(self, domain: str, before: float) -> list[Flow]:
        """Return the question to cluster DNS that comes before a connection, unless the answer was still known."""
        start = before - self.dice.uniform(0.01, 0.25)
        if not domain or self.dice.happens(0.4):
            return []
        server = self.dice.pick(self.cluster.of_role("dns"))
        end = End(server.addresses[0], DNS, server)
        sent, received = 30 + len(domain), 60 + len(domain) + self.dice.whole(0, 180)
        return self.call(end, start, self.dice.uniform(0.001, 0.06), sent, received, protocol=UDP, application="DNS")


def scene_of(dice: Dice, cluster: Cluster, pod: Pod, horizon: int) -> Scene:
    """Return the scene of a pod on a day of ``horizon`` seconds."""
    return work(dice, cluster, pod, (pod.start, pod.end), horizon)


def work(dice: Dice, cluster: Cluster, party: Party, interval: tuple[int, int | None], horizon: int) -> Scene:
    """Return the scene of whoever runs in an ``interval`` of whole seconds, which may have no end."""
    start, end = interval
    begin, last = start + _WARM_UP, horizon - _BEFORE_MIDNIGHT
    return Scene(dice, cluster, party, begin, max(begin, last if end is None else min(end - _WIND_DOWN, last)))
