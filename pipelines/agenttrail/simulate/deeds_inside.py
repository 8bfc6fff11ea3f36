"""Deeds that look around: ask for credentials, ask who is there, and try what gets out.

* instance metadata: a token or role name first, then credentials, each a request of a few hundred bytes;
* scan of the inside: some tens to hundreds of addresses on ports of what clusters run; most do not answer;
* probing of the way out: a burst of connections of all kinds, all refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate import outside
from agenttrail.simulate.flow import End, Fate
from agenttrail.simulate.neighbours import holder_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.fleet import Party
    from agenttrail.simulate.flow import Flow
    from agenttrail.simulate.scene import Scene

_SCANNED_PORTS = (22, 80, 443, 445, 2375, 3306, 5432, 6379, 8080, 10250)
_OFFERED = {"system": (22, 80, 443, 8080, 10250), "node": (22, 10250), "pod": (80, 443, 8080)}
_PROBED_PORTS = (21, 22, 25, 53, 80, 443, 587, 853, 1080, 1194, 3128, 4444, 5222, 6667, 8080, 8443, 9001, 51820)
_TRY = 2.0  # seconds, the longest that a probe waits


def ask_metadata(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Ask the instance metadata service: for a token or a role, then for the role's credentials."""
    dice, services = scene.dice, scene.cluster.network.metadata
    over_ipv6 = len(scene.party.addresses) > 1 and len(services) > 1 and dice.happens(0.7)
    at, requests = behaviour.at, dice.whole(2, 14)
    behaviour.parameters |= {"port": 80, "connections": requests}
    for _ in range(requests):
        server, seconds = End(services[1 if over_ipv6 else 0], 80), dice.uniform(0.003, 0.2)
        yield from scene.call(server, at, seconds, dice.whole(120, 450), dice.whole(180, 2_600), application="HTTP")
        at = round(at + dice.log_uniform(0.1, 30), 3)


def scan(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Ask many addresses of the cluster's networks what they offer."""
    dice = scene.dice
    ports = dice.some(_SCANNED_PORTS, dice.whole(1, 5))
    targets = _targets(scene, behaviour.parameters["targets"], behaviour.at)
    questions = [(address, port) for address in targets for port in ports]
    silent_fate = dice.pick((Fate.UNANSWERED, Fate.UNANSWERED, Fate.REJECTED))
    every = behaviour.seconds / len(questions)
    behaviour.parameters |= {"ports": len(ports), "connections": len(questions)}
    for place, (address, port) in enumerate(questions):
        at = round(behaviour.at + every * (place + (dice.uniform(0, 0.8) if place else 0.0)), 3)
        party = holder_at(scene.cluster, address, at)
        if party is not None and port in _offers(party) and dice.happens(0.7):
            answer = {"seconds": dice.uniform(0.002, 0.3), "sent": dice.whole(60, 300), "received": dice.whole(60, 900)}
            yield from scene.call(End(address, port, party), at, **answer, reset=dice.happens(0.5))
        else:
            seen = party if silent_fate is Fate.UNANSWERED else None  # what is rejected here never gets there
            yield from scene.call(End(address, port, seen), at, dice.uniform(0.01, _TRY), 60, 1, fate=silent_fate)


def probe_egress(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Try many ways out within seconds, and be refused on all of them: at the interface, or by the firewall."""
    dice, count = scene.dice, behaviour.parameters["connections"]
    behind = scene.cluster.network.cloud == "alibaba" and dice.happens(0.5)
    fate = Fate.DROPPED if behind else Fate.REJECTED
    behaviour.parameters["refused_by"] = "firewall" if behind else "interface"
    finish = behaviour.called + behaviour.parameters["duration_s"]
    hosts = [outside.stranger(dice) for _ in range(dice.whole(3, count))]
    for place in range(count):
        at = behaviour.at + (finish - behaviour.at) * (place / count) * (dice.uniform(0.97, 1) if place else 1)
        server = End(dice.pick(hosts), dice.pick(_PROBED_PORTS))
        yield from scene.call(server, round(at, 3), dice.uniform(0.05, _TRY), 60, 1, fate=fate)


def _targets(scene: Scene, count: int, at: float) -> list[str]:
    """Return internal addresses in the order in which they are asked; the sensors see the first question."""
    dice, own = scene.dice, set(scene.party.addresses)
    known = [one for pod in scene.cluster.pods for one in pod.addresses[:1] if pod.role != "sandbox"]
    known += [node.addresses[0] for node in scene.cluster.nodes]
    blocks = sorted({address.rpartition(".")[0] for address in known} | {scene.party.addresses[0].rpartition(".")[0]})
    wanted = dict.fromkeys(f"{dice.pick(blocks)}.{dice.whole(1, 254)}" for _ in range(count))
    for address in dice.some(sorted(set(known)), count // 5):
        wanted[address] = None
    found = [address for address in wanted if address not in own]
    order = dice.some(found, min(count, len(found)))
    first = next((one for one in order if not _beside(scene, holder_at(scene.cluster, one, at))), order[0])
    return [first, *(one for one in order if one != first)]


def _beside(scene: Scene, party: Party | None) -> bool:
    """Tell whether traffic to somebody stays on the workload's own interface."""
    return party is not None and party.interface is scene.party.interface


def _offers(party: Party) -> tuple[int, ...]:
    kind = getattr(party, "kind", "pod")
    return _OFFERED["system"] if kind == "system" else _OFFERED["pod" if kind == "pod" else "node"]
