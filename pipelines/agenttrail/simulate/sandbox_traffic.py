"""What clean sandboxes do: fetch packages and code, think aloud to the policy, upload results, and now and then err."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agenttrail.simulate import outside
from agenttrail.simulate.flow import ICMP, UDP, End, Fate, Flow
from agenttrail.simulate.neighbours import companions
from agenttrail.simulate.scene import EPHEMERAL, scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Party, Pod
    from agenttrail.simulate.scene import Scene

_TOOL_PORT, _HEALTH_PORT, _POLICY_PORT = 8765, 8080, 8000
_SANDBOX_PORTS = (5000, 5555, 6006, 8000, 8080, 8888, 9000)
_SILENCE = 15.0  # longest pause of a connection from inside the cluster, in seconds
_FEWEST_SECONDS = 5.0  # a sandbox that is at work for less does nothing worth recording


def sandbox_flows(dice: Dice, cluster: Cluster, pod: Pod, heir: int | None, horizon: int) -> Iterator[Flow]:
    """Yield the connections of a sandbox that does what it is meant to.

    Args:
        dice: what decides.
        cluster: the cluster that it runs in.
        pod: the sandbox.
        heir: when the next pod got its address; None if none did.
        horizon: end of the day in seconds.
    """
    scene = scene_of(dice, cluster, pod, horizon)
    if scene.length < _FEWEST_SECONDS:
        return
    for habit in _HABITS:
        yield from habit(scene)
    yield from _among_sandboxes(scene, pod)
    yield from _knocks(scene, pod)
    yield from _last_words(scene, pod, heir, horizon)


def _packages(scene: Scene) -> Iterator[Flow]:
    dice = scene.dice
    for _ in range(dice.whole(1, 4)):
        host, start = dice.pick(outside.MIRRORS), scene.moment(0.0, 0.35)
        sent, received = dice.log_uniform(800, 3e4), dice.log_uniform(2e4, 4e8)
        yield from scene.fetch(host, start, sent, received, idle=dice.uniform(0, 20))


def _code(scene: Scene) -> Iterator[Flow]:
    dice, host = scene.dice, scene.dice.pick(outside.GIT_HOSTS)
    if dice.happens(0.6):
        yield from scene.fetch(host, scene.moment(0.0, 0.2), dice.log_uniform(2e3, 4e4), dice.log_uniform(1e5, 5e8))
    if dice.happens(0.3):
        up, down = dice.log_uniform(3e3, 3e7), dice.log_uniform(5e3, 2e8)
        details: dict[str, Any] = {"port": outside.SSH, "application": "SSH", "idle": dice.log_uniform(0.5, 240)}
        yield from scene.fetch(host, scene.moment(0.1, 0.95), up, down, **details)


def _artefacts(scene: Scene) -> Iterator[Flow]:
    """Upload what the episode made: from a log to a checkpoint of gigabytes."""
    dice = scene.dice
    if dice.happens(0.45):
        host = dice.pick(outside.OBJECT_STORES)
        yield from scene.fetch(host, scene.moment(0.4, 0.9), dice.log_uniform(2e5, 8e9), dice.log_uniform(2e3, 6e4))
    if dice.happens(0.3):
        host = dice.pick(outside.OBJECT_STORES)
        yield from scene.fetch(host, scene.moment(0.0, 0.4), dice.log_uniform(2e3, 2e4), dice.log_uniform(1e6, 4e9))


def _tracking(scene: Scene) -> Iterator[Flow]:
    """Keep a session with the experiment tracker open for most of the episode."""
    dice, host = scene.dice, outside.TRACKERS[0]
    if dice.happens(0.4):
        start = scene.moment(0.0, 0.1)
        seconds = scene.length * dice.uniform(0.6, 1.0)
        sent, received = seconds * dice.log_uniform(40, 2e3), seconds * dice.uniform(20, 90)
        details: dict[str, Any] = {"pause": dice.uniform(5, 30), "application": "HTTPS", "domain": host.domain}
        yield from scene.call(End(host.ipv4, outside.HTTPS), start, seconds, sent, received, **details)


def _policy(scene: Scene) -> Iterator[Flow]:
    """Ask the policy server for the next action, over and over on one connection."""
    dice = scene.dice
    for _ in range(dice.whole(1, 2)):
        server = dice.pick(scene.cluster.of_role("inference"))
        start, seconds = scene.moment(0.0, 0.5), scene.length * dice.uniform(0.2, 1.0)
        sent, received = seconds * dice.log_uniform(300, 2e4), seconds * dice.log_uniform(100, 3e3)
        target = End(server.addresses[0], _POLICY_PORT, server)
        yield from scene.call(target, start, seconds, sent, received, pause=dice.uniform(2, 40))


class _Load(NamedTuple):
    """How long a connection lasts in seconds, and how many bytes go to and from its server."""

    seconds: float
    sent: float
    received: float


def _reached_by(scene: Scene, client: End, port: int, start: float, load: _Load) -> Iterator[Flow]:
    """Yield a connection that ``client`` opens to the sandbox."""
    if scene.begin <= start < scene.finish:
        server, end = End(scene.party.addresses[0], port, scene.party), min(start + load.seconds, scene.finish)
        pause = min(load.seconds, _SILENCE)
        yield Flow(
            client=client, server=server, start=start, end=end,
            sent=int(load.sent), received=int(load.received), pause=pause,
        )  # fmt: skip


def _client(scene: Scene, address: str, party: Party | None = None) -> End:
    """Return somebody as a client, on a fresh port."""
    return End(address, scene.dice.whole(*EPHEMERAL), party)


def _tool_calls(scene: Scene) -> Iterator[Flow]:
    """Let the trainer call the sandbox's tools."""
    dice = scene.dice
    trainer = dice.pick(scene.cluster.of_role("trainer"))
    start = scene.moment(0.0, 0.2)
    seconds = scene.length * dice.uniform(0.3, 0.8)
    load = _Load(seconds, seconds * dice.log_uniform(50, 2e3), seconds * dice.log_uniform(100, 2e4))
    yield from _reached_by(scene, _client(scene, trainer.addresses[0], trainer), _TOOL_PORT, start, load)


def _health(scene: Scene) -> Iterator[Flow]:
    """Let a node of the cluster ask how the sandbox is, and for some a load balancer too."""
    dice = scene.dice
    prober = dice.pick([node for node in scene.cluster.nodes if node.kind != "sandbox"])
    for at in dice.ticks(scene.begin, scene.finish, 240):
        load = _Load(dice.uniform(0.002, 0.05), 120, 180)
        yield from _reached_by(scene, _client(scene, prober.addresses[0], prober), _HEALTH_PORT, at, load)
    if dice.happens(0.15):
        balancer = f"100.{dice.whole(64, 127)}.{dice.whole(0, 255)}.{dice.whole(1, 254)}"
        for at in dice.ticks(scene.begin, scene.finish, 180):
            yield from _reached_by(scene, _client(scene, balancer), _HEALTH_PORT, at, _Load(0.02, 90, 140))


def _browsing(scene: Scene) -> Iterator[Flow]:
    """Look something up on hosts that nobody has listed; very rarely load something large from one."""
    dice = scene.dice
    for _ in range(dice.whole(0, 2)):
        host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
        yield from scene.fetch(host, scene.moment(), dice.log_uniform(900, 4e4), dice.log_uniform(4e3, 6e6))
    if dice.happens(0.02):
        host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
        yield from scene.fetch(host, scene.moment(0.0, 0.5), dice.log_uniform(2e3, 2e4), dice.log_uniform(2e8, 5e9))


def _long_polling(scene: Scene) -> Iterator[Flow]:
    """Wait on a host that nobody has listed for news that comes a few bytes at a time."""
    dice = scene.dice
    if dice.happens(0.12):
        host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
        start, seconds = scene.moment(0.0, 0.6), dice.uniform(300, 2_400)
        sent, received = 900 + seconds * dice.uniform(0.3, 2), 4_500 + seconds * dice.uniform(3, 12)
        yield from scene.look_up(host.domain, start)
        details: dict[str, Any] = {"pause": dice.uniform(10, 50), "application": "HTTPS", "domain": host.domain}
        yield from scene.call(End(host.ipv4, outside.HTTPS), start, seconds, sent, received, **details)


def _among_sandboxes(scene: Scene, pod: Pod) -> Iterator[Flow]:
    """Work together with other sandboxes of the cluster: for a moment, or for as long as both are there."""
    dice = scene.dice
    others = companions(scene.cluster, pod, scene.begin, scene.finish) if dice.happens(0.2) else []
    for _ in range(dice.whole(1, 3) if others else 0):
        other, begin, finish = dice.pick(others)
        start = round(dice.uniform(begin, finish), 3)
        seconds = (finish - start) * dice.uniform(0.5, 1.0) if dice.happens(0.4) else dice.log_uniform(0.02, 20)
        seconds = min(seconds, finish - start)
        target, weight = End(other.addresses[0], dice.pick(_SANDBOX_PORTS), other), max(seconds, 2.0)
        sent, received = weight * dice.log_uniform(30, 2e5), weight * dice.log_uniform(30, 2e4)
        yield from scene.call(target, start, seconds, sent, received, pause=min(seconds, _SILENCE))


def _refused(scene: Scene) -> Iterator[Flow]:
    """Try what is not allowed, and be refused at the interface, by the firewall, or by silence."""
    dice = scene.dice
    if not dice.happens(0.25):
        return
    target = outside.stranger(dice)
    fate = dice.pick((Fate.REJECTED, Fate.REJECTED, Fate.UNANSWERED, Fate.DROPPED))
    if scene.cluster.network.cloud == "aws" and fate is Fate.DROPPED:
        fate = Fate.REJECTED  # there is no firewall behind the security group
    # stray SSH is refused at the interface: if it were stopped behind it, the flow log would call it accepted
    port = outside.SSH if fate is Fate.REJECTED and dice.happens(0.3) else dice.pick(outside.STRAY_PORTS)
    at = scene.moment()
    for _ in range(dice.whole(1, 5)):
        yield from scene.call(End(target, port), at, dice.uniform(0.5, 8), 60, 1, fate=fate)
        at = round(at + dice.uniform(1, 40), 3)


def _small_things(scene: Scene) -> Iterator[Flow]:
    """Ask for the time, ask a public resolver, and ping."""
    dice = scene.dice
    if dice.happens(0.2):
        clock = End(outside.TIME_SERVERS[0].ipv4, outside.NTP)
        yield from scene.call(clock, scene.moment(), 0.03, 48, 48, protocol=UDP, application="NTP")
    if dice.happens(0.2):
        resolver = End(dice.pick(outside.RESOLVERS).ipv4, outside.DNS)
        yield from scene.call(resolver, scene.moment(), 0.03, 50, 150, protocol=UDP, application="DNS")
    if dice.happens(0.08):
        target = End(dice.pick(outside.GIT_HOSTS).ipv4, 0)
        for echo in scene.call(target, scene.moment(), 3.0, 168, 168, protocol=ICMP, application="ICMP"):
            echo.client.port = 0
            yield echo
    if scene.cluster.network.cloud == "alibaba" and dice.happens(0.2):
        shared = End(dice.pick(outside.SHARED_SERVICES), 8081)
        seconds, sent, received = dice.uniform(0.1, 20), dice.log_uniform(500, 1e5), dice.log_uniform(5e3, 2e7)
        yield from scene.call(shared, scene.moment(), seconds, sent, received)


def _knocks(scene: Scene, pod: Pod) -> Iterator[Flow]:
    """Let scans of the Internet knock at a sandbox that has a public address; none gets in."""
    dice = scene.dice
    for _ in range(dice.whole(1, 5) if pod.public else 0):
        client, at = _client(scene, outside.stranger(dice)), scene.moment()
        server = End(pod.addresses[0], dice.pick(outside.KNOCKED_PORTS), pod, pod.public)
        yield Flow(client=client, server=server, start=at, end=at, sent=8, received=1, fate=Fate.REJECTED)


def _last_words(scene: Scene, pod: Pod, heir: int | None, horizon: int) -> Iterator[Flow]:
    """Let the other side's last packet come when the pod has just gone, and before the next one has its address."""
    dice = scene.dice
    if pod.end is None or not dice.happens(0.2):
        return
    at = pod.end + dice.uniform(0.0, 1.9)
    if (heir is None or int(at) < heir) and at < horizon - 1:
        server = End(dice.pick(outside.MIRRORS + outside.TRACKERS).ipv4, outside.HTTPS)
        yield Flow(
            client=scene.own_end(), server=server, start=at, end=at, sent=1, received=1,
            reset=dice.happens(0.6), only_last_word=True, application="HTTPS",
        )  # fmt: skip


_HABITS: tuple[Callable[[Scene], Iterator[Flow]], ...] = (
    _packages, _code, _artefacts, _tracking, _policy, _tool_calls, _health, _browsing, _long_polling,
    _refused, _small_things,
)  # fmt: skip
