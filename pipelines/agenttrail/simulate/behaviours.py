"""What must not be missed: a few sandboxes mine, open a way in, ask for credentials, or carry data off.

The parameters are drawn from ranges that the literature and the makers of the tools name, and from nothing else:

* mining: ports that public pools announce; a login, then jobs and shares every few seconds to minutes (Stratum);
* reverse tunnel: SSH keep-alives every 15 to 60 seconds (the customary ServerAliveInterval), commands between them;
* instance metadata: a token or role name first, then credentials, each a request of a few hundred bytes;
* exfiltration: model weights or data sets of one to some tens of gigabytes, whole or in parts, at the speed of a
  container's share of a gigabit to ten-gigabit link.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.simulate import outside
from agenttrail.simulate.flow import End, Flow, Threat
from agenttrail.simulate.scene import scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Pod
    from agenttrail.simulate.scene import Scene

MINING, TUNNEL, METADATA, EXFILTRATION = "mining", "reverse_ssh_tunnel", "metadata_access", "bulk_exfiltration"
TECHNIQUES = {MINING: "T1496.001", TUNNEL: "T1572", METADATA: "T1552.005", EXFILTRATION: "T1048"}

_POOL_PORTS = (443, 80, 3333, 3334, 4444, 5555, 7777, 8888, 9000, 9999, 10128, 14433, 14444, 20128, 45700)
_UPLOAD_PORTS = (443, 443, 443, 8443, 9000, 873, 80)
_SIGNATURES = (
    "Mining Pool Communication",
    "Stratum Protocol Login",
    "Cryptocurrency Miner Beacon",
    "CoinMiner Pool Connection",
)
_MINING_ATTACK = 12

_ROUNDS = (
    ((MINING, "alibaba"), (TUNNEL, "alibaba"), (METADATA, "aws"), (EXFILTRATION, "aws")),
    ((TUNNEL, "aws"), (METADATA, "alibaba"), (EXFILTRATION, "alibaba"), (MINING, "alibaba")),
)
"""What comes about where, in turn: after the first round each kind has been seen, after the second each place.

Mining comes about in one cloud only: the other has no firewall that could recognise it."""

_SHARE = 0.022  # of all sandboxes
_SHORTEST_STAY = 300  # seconds that a sandbox must last for something like this to develop


@dataclass(slots=True)
class Behaviour:
    """One instance: who did what, and the connections it made."""

    id: str
    kind: str
    pod: Pod
    flows: list[Flow] = field(default_factory=list)


def choose_culprits(dice: Dice, clusters: dict[str, Cluster], horizon: int) -> list[Behaviour]:
    """Choose which sandboxes misbehave, and how; none does twice.

    Args:
        dice: what decides.
        clusters: clusters by cloud.
        horizon: end of the day in seconds.
    """
    free = {
        cloud: [pod for pod in cluster.of_role("sandbox") if _can(pod, horizon)] for cloud, cluster in clusters.items()
    }
    sandboxes = sum(len(cluster.of_role("sandbox")) for cluster in clusters.values())
    wanted = max(len(_ROUNDS[0]), round(sandboxes * _SHARE))
    plan = [slot for one in _ROUNDS for slot in one]
    chosen: list[Behaviour] = []
    for turn in range(wanted):
        kind, cloud = plan[turn % len(plan)]
        cloud = cloud if free[cloud] or kind == MINING else next((other for other in free if free[other]), cloud)
        if free[cloud]:
            pod = free[cloud].pop(dice.whole(0, len(free[cloud]) - 1))
            chosen.append(Behaviour(f"b{len(chosen):03d}", kind, pod))
    return chosen


def behaviour_flows(dice: Dice, cluster: Cluster, behaviour: Behaviour, horizon: int) -> list[Flow]:
    """Return the connections of one instance; also noted in it, without the innocent ones around them."""
    pod = behaviour.pod
    scene = scene_of(dice, cluster, pod, horizon)
    flows = list(_DEEDS[behaviour.kind](scene))
    for flow in flows:
        if flow.application != "DNS":
            flow.behaviour = behaviour.id
            behaviour.flows.append(flow)
    return flows


def _can(pod: Pod, horizon: int) -> bool:
    return pod.start > 0 and (horizon if pod.end is None else pod.end) - pod.start >= _SHORTEST_STAY


def _mine(scene: Scene) -> Iterator[Flow]:
    """Talk Stratum to a pool: for long where the firewall lets it, again and again where it does not."""
    dice = scene.dice
    verdict = dice.pick(("pass", "alert", "alert", "drop"))
    domain = f"{dice.pick(('pool', 'eu', 'asia', 'xmr', 'rx'))}.{dice.letters(6)}.invalid"
    host = outside.Host(domain, outside.stranger(dice))
    pool, signature = End(host.ipv4, dice.pick(_POOL_PORTS)), dice.pick(_SIGNATURES)
    threat = Threat(
        "Mining Behavior", _MINING_ATTACK, signature, dice.uuid(), dice.whole(2, 3), verdict, named=dice.happens(0.7),
    )  # fmt: skip
    details = {
        "application": dice.pick(("Unknown", "Unknown", "JSON-RPC", "TLS")),
        "domain": domain,
        "threat": threat,
    }
    at, until = scene.moment(0.05, 0.4), scene.finish
    yield from scene.look_up(domain, at)
    sessions = dice.whole(1, 3) if verdict != "drop" else dice.whole(6, 40)
    for _ in range(sessions):
        every = dice.log_uniform(5, 60)  # seconds between shares
        seconds = dice.uniform(0.2, 3.0) if verdict == "drop" else (until - at) * dice.uniform(0.5, 1.0)
        shares = 1 + seconds / every
        sent, received = 250 + shares * dice.uniform(120, 350), 300 + shares * dice.uniform(200, 900)
        yield from scene.call(pool, at, seconds, sent, received, pause=every, **details)
        at = round(at + seconds + dice.log_uniform(2, 60), 3)


def _tunnel(scene: Scene) -> Iterator[Flow]:
    """Open an SSH connection outwards through which somebody comes in, and keep it open."""
    dice = scene.dice
    server = End(outside.stranger(dice), outside.SSH)
    at = scene.moment(0.05, 0.35)
    for _ in range(1 if dice.happens(0.7) else 2):
        seconds = (scene.finish - at) * dice.uniform(0.6, 1.0)
        rate = dice.log_uniform(5, 800)  # bytes per second, mostly of commands and what they print
        sent, received = 2_500 + rate * seconds, 2_800 + rate * dice.uniform(0.3, 1.5) * seconds
        details = {"pause": dice.uniform(15, 60), "reset": dice.happens(0.3), "application": "SSH"}
        yield from scene.call(server, at, seconds, sent, received, **details)
        at = round(at + seconds + dice.uniform(1, 20), 3)


def _ask_metadata(scene: Scene) -> Iterator[Flow]:
    """Ask the instance metadata service: for a token or a role, then for the role's credentials."""
    dice, services = scene.dice, scene.cluster.network.metadata
    over_ipv6 = len(scene.party.addresses) > 1 and len(services) > 1 and dice.happens(0.7)
    at = scene.moment(0.05, 0.8)
    for _ in range(dice.whole(2, 14)):
        server, seconds = End(services[1 if over_ipv6 else 0], 80), dice.uniform(0.003, 0.2)
        yield from scene.call(server, at, seconds, dice.whole(120, 450), dice.whole(180, 2_600), application="HTTP")
        at = round(at + dice.log_uniform(0.1, 30), 3)


def _carry_off(scene: Scene) -> Iterator[Flow]:
    """Upload weights or data to a host that nobody has listed, whole or in parts."""
    dice = scene.dice
    host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
    rate = dice.log_uniform(1.5e7, 1.5e8)  # bytes per second
    at, port = scene.moment(0.1, 0.5), dice.pick(_UPLOAD_PORTS)
    yield from scene.look_up(host.domain, at)
    for _ in range(1 if dice.happens(0.6) else dice.whole(2, 5)):
        size = dice.log_uniform(1e9, 4e10)
        application = "HTTPS" if port == outside.HTTPS else "Unknown"
        details = {"application": application, "domain": host.domain}
        yield from scene.call(End(host.ipv4, port), at, size / rate, size, size / dice.uniform(500, 3_000), **details)
        at = round(at + size / rate + dice.uniform(0.2, 15), 3)


_DEEDS: dict[str, Callable[[Scene], Iterator[Flow]]] = {
    MINING: _mine, TUNNEL: _tunnel, METADATA: _ask_metadata, EXFILTRATION: _carry_off,
}  # fmt: skip
