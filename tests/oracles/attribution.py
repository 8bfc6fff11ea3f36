"""Attribution row by row, as the design says it: what the columns must agree with."""

from __future__ import annotations

from dataclasses import dataclass

RUNGS = ("trajectory.id", "sandbox.id", "job.id", "host.name")
NAMES = ("gen_ai.agent.id", *RUNGS, "k8s.namespace.name", "k8s.pod.uid")
EPHEMERAL, RESERVED = 32_768, 1_024


@dataclass(frozen=True)
class Lease:
    """One lease; ``end`` None is open."""

    id: str
    scope: str
    address: str
    start: int
    end: int | None
    names: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Event:
    """One flow record."""

    scope: str | None
    source: str | None
    source_port: int | None
    destination: str | None
    destination_port: int | None
    start: int
    client: str | None
    sensor: str | None


@dataclass(frozen=True)
class Verdict:
    """Whose the event is."""

    status: str
    level: str
    lease_id: str | None
    candidates: tuple[str, ...]
    names: tuple[tuple[str, str | None], ...]


def covering(leases: list[Lease], address: str | None, scope: str | None, at: int, slack: int = 0) -> list[Lease]:
    """Return the leases on an address that hold an instant; an event without a scope may be in any."""
    return [
        lease
        for lease in leases
        if lease.address == address
        and scope in (None, "", lease.scope)
        and lease.start - slack <= at
        and (lease.end is None or (at < lease.end + slack and lease.start < lease.end))
    ]


def client_of(event: Event) -> str | None:
    """Return who opened the connection, as the sensor or the ports tell."""
    if event.client:
        return event.client
    if not event.source_port or not event.destination_port:
        return None
    kinds = [
        0 if port < RESERVED else 1 if port < EPHEMERAL else 2 for port in (event.source_port, event.destination_port)
    ]
    return "source" if kinds[0] > kinds[1] else "destination" if kinds[0] < kinds[1] else None


def attribute_one(event: Event, leases: list[Lease], tolerance: int) -> Verdict:
    """Say whose one event is."""
    for slack in (0, tolerance):
        ends = {
            "source": covering(leases, event.source, event.scope, event.start, slack),
            "destination": covering(leases, event.destination, event.scope, event.start, slack),
        }
        held = [side for side, found in ends.items() if found]
        if len(held) == 2:
            side = client_of(event) or event.sensor
            if side is None and ends["source"] == ends["destination"]:
                side = "source"
            return (
                _verdict(ends[side])
                if side
                else _verdict(sorted({*ends["source"], *ends["destination"]}, key=lambda lease: lease.id))
            )
        if held:
            return _verdict(ends[held[0]])
    return Verdict("unattributed", "address", None, (), tuple((name, None) for name in NAMES))


def _verdict(found: list[Lease]) -> Verdict:
    if len(found) == 1:
        names = dict(found[0].names)
        return Verdict("attributed", _level(names), found[0].id, (), tuple((name, names.get(name)) for name in NAMES))
    agreed = {}
    for name in NAMES:
        values = {dict(lease.names).get(name) for lease in found}
        agreed[name] = next(iter(values)) if len(values) == 1 else None
    ids = tuple(sorted(lease.id for lease in found))
    return Verdict("ambiguous", _level(agreed), None, ids, tuple((name, agreed[name]) for name in NAMES))


def _level(names: dict[str, str | None]) -> str:
    return next((rung.split(".")[0] for rung in RUNGS if names.get(rung)), "address")
