"""Deeds: mine, on what the firewall knows as a pool, or on the GPUs that were given for training.

Ports are those that public pools announce.  A miner logs in, then gets jobs and hands in shares every few seconds to
minutes (Stratum, plain or in TLS), and comes back within seconds when its pool hangs up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate import outside
from agenttrail.simulate.flow import End, Threat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.flow import Flow
    from agenttrail.simulate.scene import Scene

_POOL_PORTS = (443, 80, 3333, 3334, 4444, 5555, 7777, 8888, 9000, 9999, 10128, 14433, 14444, 20128, 45700)
_PLAIN_PORTS = (3333, 3334, 4444, 5555, 7777, 8888, 9999, 10128, 14444, 20128, 45700)
_SIGNATURES = (
    "Mining Pool Communication",
    "Stratum Protocol Login",
    "Cryptocurrency Miner Beacon",
    "CoinMiner Pool Connection",
)
_MINING_ATTACK = 12
_MINERS = ("./miner", "~/.cache/xmr", "./build/t-rex", "nohup ./lolm")


def mine(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Talk Stratum to a pool: for long where the firewall lets it, again and again where it does not."""
    dice = scene.dice
    verdict = dice.pick(("pass", "alert", "alert", "drop"))
    domain = _pool(dice)
    host = outside.Host(domain, outside.stranger(dice))
    server, signature = End(host.ipv4, dice.pick(_POOL_PORTS)), dice.pick(_SIGNATURES)
    threat = Threat(
        "Mining Behavior", _MINING_ATTACK, signature, dice.uuid(), dice.whole(2, 3), verdict, named=dice.happens(0.7),
    )  # fmt: skip
    details = {
        "application": dice.pick(("Unknown", "Unknown", "JSON-RPC", "TLS")),
        "domain": domain,
        "threat": threat,
    }
    behaviour.telling = _miner(dice, domain, server.port)
    at, until = behaviour.at, scene.finish
    yield from scene.look_up(domain, at)
    sessions = dice.whole(1, 3) if verdict != "drop" else dice.whole(6, 40)
    behaviour.parameters |= {"port": server.port, "connections": sessions, "verdict": verdict}
    for _ in range(sessions):
        seconds = dice.uniform(0.2, 3.0) if verdict == "drop" else (until - at) * dice.uniform(0.5, 1.0)
        yield from _session(scene, server, at, seconds, **details)
        at = round(at + seconds + dice.log_uniform(2, 60), 3)


def divert(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Mine on the sandbox's GPUs, in one session or a few, to a pool that nothing on the way recognises."""
    dice = scene.dice
    domain, secure = _pool(dice), behaviour.form == "tls"
    server = End(outside.stranger(dice), outside.HTTPS if secure else dice.pick(_PLAIN_PORTS))
    details = {"application": dice.pick(("TLS", "HTTPS")) if secure else "Unknown", "domain": domain if secure else ""}
    behaviour.telling = _miner(dice, domain, server.port)
    yield from scene.look_up(domain, behaviour.at)
    at, finish = behaviour.at, behaviour.at + behaviour.seconds
    sessions = 1 if dice.happens(0.6) else dice.whole(2, 3)
    shares = [dice.uniform(0.5, 1.5) for _ in range(sessions)]
    lengths = [behaviour.seconds * share / sum(shares) for share in shares]
    behaviour.parameters |= {"port": server.port, "connections": sessions, "session_s": round(max(lengths), 3)}
    for length in lengths:
        away = dice.uniform(1, 8)
        last = length is lengths[-1]
        yield from _session(scene, server, at, finish - at if last else length - away, **details)
        at = round(at + length, 3)


def _session(scene: Scene, server: End, at: float, seconds: float, **details: object) -> list[Flow]:
    """Return one session with a pool; what it weighs goes by the shares that are handed in."""
    dice = scene.dice
    every = dice.log_uniform(5, 60)  # seconds between shares
    shares = 1 + seconds / every
    sent, received = 250 + shares * dice.uniform(120, 350), 300 + shares * dice.uniform(200, 900)
    return scene.call(server, at, seconds, sent, received, pause=every, **details)


def _pool(dice: Dice) -> str:
    return f"{dice.pick(('pool', 'eu', 'asia', 'xmr', 'rx'))}.{dice.letters(6)}.invalid"


def _miner(dice: Dice, domain: str, port: int) -> str:
    """Return the command of somebody who does not hide what it does."""
    scheme = "stratum+ssl" if port == outside.HTTPS else "stratum+tcp"
    wallet, worker = dice.letters(34), dice.letters(4)
    return f"{dice.pick(_MINERS)} -o {scheme}://{domain}:{port} -u {wallet}.{worker} -p x"
