"""Observations to occupancies, one by one: what resolve() must agree with."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

WHO = ("k8s.pod.uid", "sandbox.id", "k8s.namespace.name", "job.id", "host.name")
LABELS = ("trajectory.id", "gen_ai.agent.id")
NAMES = (*WHO, *LABELS)


@dataclass(frozen=True)
class Observation:
    """What one metadata object says of one address; ``end`` None is open."""

    scope: str | None
    address: str
    start: int
    end: int | None
    names: tuple[tuple[str, str | None], ...]
    path: str = "a"

    def name(self, of: str) -> str | None:
        """Return one name."""
        return dict(self.names).get(of)


@dataclass(frozen=True)
class Occupancy:
    """One lease."""

    scope: str | None
    address: str
    start: int
    end: int | None
    names: tuple[tuple[str, str | None], ...]
    path: str


def occupancies(observations: list[Observation]) -> set[Occupancy]:
    """Return one occupancy for all observations of it."""
    together: dict[object, list[Observation]] = defaultdict(list)
    for observation in observations:
        together[_occupant(observation)].append(observation)
    return {_one(members) for members in together.values()}


def is_node(observation: Observation) -> bool:
    """Tell whether the observation names a host and nothing on it."""
    return [name for name in NAMES if observation.name(name) is not None] == ["host.name"]


def _occupant(observation: Observation) -> object:
    place = observation.scope, observation.address
    if observation.name("k8s.pod.uid") is not None:
        return place, observation.name("k8s.pod.uid")
    if is_node(observation):
        return place, "a node", observation.name("host.name")
    who = [observation.name(name) for name in WHO]
    # the labels of a sandbox may come later; where there is no sandbox, they are all that tells two apart
    labels = [] if observation.name("sandbox.id") is not None else [observation.name(name) for name in LABELS]
    return place, observation.start, tuple(who), tuple(labels)


def _one(members: list[Observation]) -> Occupancy:
    ends = [member.end for member in members if member.end is not None]
    lasts = not ends or (is_node(members[0]) and len(ends) < len(members))
    end = None if lasts else max(ends) if is_node(members[0]) else min(ends)
    names = {name: {member.name(name) for member in members} - {None} for name in NAMES}
    return Occupancy(
        members[0].scope,
        members[0].address,
        min(member.start for member in members),
        end,
        tuple((name, values.pop() if len(values) == 1 else None) for name, values in names.items()),
        min(member.path for member in members),
    )
