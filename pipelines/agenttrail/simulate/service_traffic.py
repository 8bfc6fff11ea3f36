"""What the clusters do all day beside the sandboxes: trainers, policy servers, cluster services, and the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate import outside
from agenttrail.simulate.flow import UDP, End, Fate, Flow
from agenttrail.simulate.scene import EPHEMERAL, scene_of, work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Node, Pod
    from agenttrail.simulate.scene import Scene

_COLLECTIVE_PORT, _WEIGHTS_PORT, _METRICS_PORT, _KUBERNETES_PORT, _HTTP = 29_500, 29_600, 9_100, 6_443, 80


def service_flows(dice: Dice, cluster: Cluster, horizon: int) -> Iterator[Flow]:
    """Yield the connections of everything that runs all day, on a day of ``horizon`` seconds."""
    trainers = cluster.of_role("trainer")
    for place, trainer in enumerate(trainers):
        scene = scene_of(dice, cluster, trainer, horizon)
        yield from _gradients(scene, trainers[(place + 1) % len(trainers)], place)
        yield from _training(scene, horizon)
    for server in cluster.of_role("inference"):
        yield from _weights(dice, trainers[0], server, horizon)
    for resolver in cluster.of_role("dns"):
        yield from _forwarded_questions(scene_of(dice, cluster, resolver, horizon), horizon)
    for monitor in cluster.of_role("monitor"):
        yield from _scrapes(scene_of(dice, cluster, monitor, horizon), horizon)
    for daemon in cluster.of_role("daemon"):
        yield from _daemon_reports(scene_of(dice, cluster, daemon, horizon), horizon)
    for node in cluster.nodes:
        yield from _node_flows(work(dice, cluster, node, (-3_600, None), horizon), horizon)
        yield from _node_errands(dice, cluster, node, horizon)


def knocks(dice: Dice, cluster: Cluster, horizon: int) -> Iterator[Flow]:
    """Yield the scans of the Internet that knock at the nodes with a public address; none gets in."""
    for node in cluster.nodes:
        for at in dice.ticks(0, horizon - 1, 45) if node.public else ():
            client = End(outside.stranger(dice), dice.whole(*EPHEMERAL))
            server = End(node.addresses[0], dice.pick(outside.KNOCKED_PORTS), node, node.public)
            yield Flow(client=client, server=server, start=at, end=at, sent=8, received=1, fate=Fate.REJECTED)


def _gradients(scene: Scene, following: Pod, place: int) -> Iterator[Flow]:
    """Pass gradients around the ring of trainers, on connections that were opened before the day began."""
    rate = scene.dice.log_uniform(2e6, 6e7)
    start, seconds = -scene.dice.uniform(60, 3_600), scene.finish + 3_600
    server = End(following.addresses[0], _COLLECTIVE_PORT + place, following)
    yield from scene.call(server, start, seconds, rate * seconds, rate / 200 * seconds)


def _training(scene: Scene, horizon: int) -> Iterator[Flow]:
    """Load data, save checkpoints of gigabytes, and report to the tracker."""
    dice, store = scene.dice, outside.OBJECT_STORES
    for at in dice.ticks(0, horizon, 2_400):
        yield from scene.fetch(store[0], at, dice.log_uniform(1e9, 4e10), dice.log_uniform(1e4, 1e5))
    for at in dice.ticks(0, horizon, 900):
        yield from scene.fetch(store[2], at, dice.log_uniform(5e3, 5e4), dice.log_uniform(5e7, 8e9))
    at, tracker = -dice.uniform(0, 3_600), outside.TRACKERS[0]
    while at < scene.finish:
        seconds = dice.uniform(1_800, 14_400)
        sent, received = seconds * dice.log_uniform(100, 4e3), seconds * dice.uniform(20, 90)
        details = {"pause": dice.uniform(5, 30), "application": "HTTPS", "domain": tracker.domain}
        yield from scene.call(End(tracker.ipv4, outside.HTTPS), at, seconds, sent, received, **details)
        at = round(at + seconds + dice.uniform(0.1, 5), 3)


def _weights(dice: Dice, trainer: Pod, server: Pod, horizon: int) -> Iterator[Flow]:
    """Push new weights to a policy server after every few steps."""
    for at in dice.ticks(0, horizon - 60, 600):
        client = End(trainer.addresses[0], dice.whole(*EPHEMERAL), trainer)
        target = End(server.addresses[0], _WEIGHTS_PORT, server)
        end, size = at + dice.uniform(2, 50), int(dice.log_uniform(1e9, 3e10))
        yield Flow(client=client, server=target, start=at, end=end, sent=size, received=20_000)


def _forwarded_questions(scene: Scene, horizon: int) -> Iterator[Flow]:
    """Ask the listed resolvers what cluster DNS does not know."""
    dice = scene.dice
    for at in dice.ticks(0, horizon, 60):
        server = End(dice.pick(outside.RESOLVERS).ipv4, outside.DNS)
        seconds, received = dice.uniform(0.005, 0.1), dice.whole(80, 400)
        yield from scene.call(server, at, seconds, 60, received, protocol=UDP, application="DNS")


def _scrapes(scene: Scene, horizon: int) -> Iterator[Flow]:
    """Collect metrics from every node."""
    dice = scene.dice
    for node in scene.cluster.nodes:
        for at in dice.ticks(0, horizon, 300):
            server = End(node.addresses[0], _METRICS_PORT, node)
            yield from scene.call(server, at, dice.uniform(0.05, 0.6), 400, dice.log_uniform(2e4, 3e5))


def _daemon_reports(scene: Scene, horizon: int) -> Iterator[Flow]:
    """Report to the Kubernetes API, from the address of the node."""
    dice, api = scene.dice, scene.cluster.network.control_plane
    for at in dice.ticks(max(scene.begin, 0), min(scene.finish, horizon), 300):
        sent, received = dice.log_uniform(600, 2e4), dice.log_uniform(500, 8e3)
        yield from scene.call(End(api, _KUBERNETES_PORT), at, dice.uniform(0.02, 2), sent, received)


def _node_flows(scene: Scene, horizon: int) -> Iterator[Flow]:
    """Keep in touch with the Kubernetes API and renew credentials: what a node does with or without pods."""
    dice, network = scene.dice, scene.cluster.network
    at = -dice.uniform(0, 1_800)
    while at < horizon:
        seconds = dice.uniform(1_200, 7_200)
        api = End(network.control_plane, _KUBERNETES_PORT)
        yield from scene.call(api, at, seconds, seconds * 300, seconds * 200, pause=10.0)
        at = round(at + seconds + dice.uniform(0.2, 2), 3)
    for at in dice.ticks(0, horizon, 1_500):
        service = End(network.metadata[0], _HTTP)
        yield from scene.call(service, at, dice.uniform(0.01, 0.2), 300, 1_500, application="HTTP")


def _node_errands(dice: Dice, cluster: Cluster, node: Node, horizon: int) -> Iterator[Flow]:
    """Pull images and set the clock, outside, while the node has pods."""
    pods = [pod for pod in cluster.pods if pod.node is node]
    if not pods:
        return
    end = None if any(pod.end is None for pod in pods) else max(pod.end or 0 for pod in pods)
    scene = work(dice, cluster, node, (min(pod.start for pod in pods), end), horizon)
    for at in dice.ticks(max(scene.begin, 0), scene.finish, 1_024):
        clock = End(outside.TIME_SERVERS[0].ipv4, outside.NTP)
        yield from scene.call(clock, at, 0.03, 48, 48, protocol=UDP, application="NTP")
    for at in dice.ticks(max(scene.begin, 0), scene.finish, 1_800):
        registry = dice.pick(outside.REGISTRIES)
        yield from scene.fetch(registry, at, dice.log_uniform(2e3, 2e4), dice.log_uniform(2e7, 4e9))
