"""Who misbehaves on a day, in which way and when.

Parameters are drawn first and a sandbox that they fit into is looked for then, so that they are spread as they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agenttrail.simulate.behaviours import (
    BEACON,
    DIVERSION,
    EXFILTRATION,
    METADATA,
    MINING,
    PROBING,
    SCAN,
    TRICKLE,
    TUNNEL,
    Behaviour,
)  # fmt: skip
from agenttrail.simulate.fleet import CLOUDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Pod


class _Shape(NamedTuple):
    """When an instance of a kind begins, as shares of its sandbox's time, and the forms that it comes in."""

    earliest: float
    latest: float
    forms: tuple[str, ...] = ("",)


_SHAPES = {
    TUNNEL: _Shape(0.05, 0.35, ("22", "443", "high")),
    DIVERSION: _Shape(0.03, 0.5, ("pool", "tls")),
    MINING: _Shape(0.05, 0.4),
    METADATA: _Shape(0.05, 0.8),
    EXFILTRATION: _Shape(0.1, 0.5),
    TRICKLE: _Shape(0.05, 0.5),
    BEACON: _Shape(0.02, 0.25),
    SCAN: _Shape(0.05, 0.7),
    PROBING: _Shape(0.05, 0.8),
}
_MANIFOLD = (TUNNEL, DIVERSION)
"""Kinds of several forms, which come up twice in each round."""
_TELLING = (MINING, DIVERSION, TUNNEL)
"""Kinds of which there are commands that say what they do; every other instance uses one."""

_SHARE = 0.085  # of all sandboxes
_FEWEST = 4  # instances of a day, however small it is
_SHORTEST_STAY = 300  # seconds that a sandbox must last for something like this to develop
_WARM_UP, _WIND_DOWN = 4.0, 3.0  # seconds after a sandbox's start and before its end in which nothing begins
_SOONEST, _LATEST = 0.3, 20.0  # seconds from the start of the tool call to the first packet
_ATTEMPTS = 60  # draws of parameters until they fit into a sandbox that is left
_BRIEF, _LENGTHY = 600, 3_600  # seconds
_LEAST_TUNNEL, _LEAST_REST = 720, 0.6
"""Seconds of a tunnel that only its shape gives away, and the share of the time left that any takes."""
_LEAST_SHARE, _LEAST_BEACONS = 0.62, 26  # of the sandbox's time that check-ins go on for, and their number


def choose_culprits(dice: Dice, clusters: dict[str, Cluster], horizon: int) -> list[Behaviour]:
    """Choose which sandboxes misbehave, and how; none does twice.

    Args:
        dice: what decides.
        clusters: clusters by cloud.
        horizon: end of the day in seconds.
    """
    free = {
        cloud: [pod for pod in cluster.of_role("sandbox") if pod.start > 0 and _stay(pod, horizon) >= _SHORTEST_STAY]
        for cloud, cluster in clusters.items()
    }
    sandboxes = sum(len(cluster.of_role("sandbox")) for cluster in clusters.values())
    turns, chosen = _turns(dice), list[Behaviour]()
    for _ in range(max(_FEWEST, round(sandboxes * _SHARE))):
        turn = next(turns)
        for cloud in (turn.cloud, *(other for other in CLOUDS if other != turn.cloud and turn.kind != MINING)):
            found = _settle(dice, turn, free[cloud], horizon)
            if found is not None:
                found.id = f"b{len(chosen):03d}"
                chosen.append(found)
                free[cloud].remove(found.pod)
                break
    return chosen


class _Turn(NamedTuple):
    kind: str
    cloud: str
    form: str
    tells: bool


def _turns(dice: Dice) -> Iterator[_Turn]:
    """Yield without end what comes about next.

    Every kind goes through its clouds and forms in turn, from a place that differs from day to day; so does whether
    the tool call tells.  Mining comes about in one cloud only: the other has no firewall that could recognise it.
    """
    places = {kind: dice.whole(0, 23) for kind in _SHAPES}
    order = [*_SHAPES, *_MANIFOLD]
    while True:
        for kind in order:
            place, forms = places[kind], _SHAPES[kind].forms
            places[kind] += 1
            # with an even number of forms the clouds change places after each round of them
            cloud = CLOUDS[(place + (place // len(forms) if len(forms) % 2 == 0 else 0)) % len(CLOUDS)]
            tells = kind in _TELLING and (place + place // 4) % 2 == 0
            yield _Turn(kind, CLOUDS[0] if kind == MINING else cloud, forms[place % len(forms)], tells)
        order = dice.some(order, len(order))  # few days come to the end of the second round


def _settle(dice: Dice, turn: _Turn, free: list[Pod], horizon: int) -> Behaviour | None:
    """Return an instance in a sandbox that it fits into; None where there is no such sandbox."""
    shape = _SHAPES[turn.kind]
    for _ in range(_ATTEMPTS):
        parameters = _drawn(dice, turn.kind)
        fit = [pod for pod in free if _fits(pod, turn, parameters, horizon)]
        if not fit:
            continue
        pod = dice.pick(fit)
        stay = _stay(pod, horizon)
        begin, finish = pod.start + _WARM_UP, pod.start + stay - _WIND_DOWN
        needed = _needed(pod, turn, parameters, stay)
        latest = min(begin + shape.latest * stay, finish - needed - _LATEST)
        called = round(dice.uniform(min(begin + shape.earliest * stay, latest), latest), 3)
        at = round(called + dice.uniform(_SOONEST, _slowest(turn.kind, parameters)), 3)
        tells = turn.tells and "spans" not in pod.missing
        seconds = needed
        if turn.kind in (TUNNEL, BEACON):
            seconds = dice.uniform(max(needed, _LEAST_REST * (finish - at) * (turn.kind == TUNNEL)), finish - at)
        return Behaviour("", turn.kind, pod, turn.form, called, at, seconds, tells, parameters)
    return None


def _stay(pod: Pod, horizon: int) -> int:
    return (horizon if pod.end is None else pod.end) - pod.start


def _slowest(kind: str, parameters: dict[str, Any]) -> float:
    """Return the longest time from the tool call to the first packet, in seconds."""
    return min(_LATEST, parameters["duration_s"] / 2) if kind == PROBING else _LATEST


def _drawn(dice: Dice, kind: str) -> dict[str, Any]:
    """Return what is settled of an instance before its sandbox is."""
    if kind == DIVERSION:
        return {"duration_s": dice.log_uniform(_BRIEF, _LENGTHY)}
    if kind == TRICKLE:
        return {"duration_s": dice.log_uniform(_BRIEF, _LENGTHY), "bytes": int(dice.log_uniform(1.5e9, 2e10))}
    if kind == BEACON:
        return {"period_s": dice.log_uniform(10, 300), "jitter": round(dice.uniform(0, 0.4), 3)}
    if kind == SCAN:
        return {"duration_s": dice.log_uniform(5, 600), "targets": dice.whole(30, 200)}
    if kind == PROBING:
        return {"duration_s": dice.log_uniform(5, 50), "connections": dice.whole(12, 60)}
    return {}


def _needed(pod: Pod, turn: _Turn, parameters: dict[str, Any], stay: int) -> float:
    """Return the seconds from the first packet that an instance needs in a sandbox of ``stay`` seconds."""
    if turn.kind == TUNNEL and turn.form != "22" and pod.node is not None and pod.node.network.cloud == "aws":
        return _LEAST_TUNNEL
    if turn.kind == TUNNEL:
        return _SHORTEST_STAY / 3
    if turn.kind == BEACON:
        return float(max(_LEAST_SHARE * stay, _LEAST_BEACONS * parameters["period_s"]))
    return float(parameters.get("duration_s", 0.0))


def _fits(pod: Pod, turn: _Turn, parameters: dict[str, Any], horizon: int) -> bool:
    """Tell whether an instance has room in a sandbox; GPUs are diverted where their use and the steps are seen."""
    if turn.kind == DIVERSION and (not pod.gpus or "gpu" in pod.missing or "steps" in pod.missing):
        return False
    stay = _stay(pod, horizon)
    earliest = _WARM_UP + _SHAPES[turn.kind].earliest * stay
    return earliest + _LATEST + _needed(pod, turn, parameters, stay) + _WIND_DOWN <= stay
