"""The acts of an incident: what its findings are on, each with its own peer and times, and who may have done each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agenttrail.incident_shapes import ended
from agenttrail.report.meanings import act
from agenttrail.report.names import OPENING, is_of_a_call, peer_names, peer_of, whom_of
from agenttrail.report.pages import clock, micros, short
from agenttrail.report.standing import decided_on, let_through
from agenttrail.timeline_story import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.report.same_act import Twin

Document = dict[str, Any]
MOST_ACTS = 3
"""Acts that are told one by one."""
_CLOCKS = 30_000_000
"""Microseconds by which a lease may miss an act, as clocks differ."""
_SHOWN = 12
"""Characters of the id of a lease."""


@dataclass(frozen=True)
class Act:
    """What one or more findings on one peer are about.

    Attributes:
        did: what was done, in a word or two, with the word that leads to the peer.
        name: the same without that word.
        peers: the peers.
        whom: them and their port, as "address:port"; "" of a tool call.
        first: when it began, in microseconds since 1970.
        last: when it ended.
        span: both, beside the date of the incident.
        carried: what went and came back, "" where that is not known.
        named: what logs call the peer.
        verdict: whether it was let through.
        candidates: leases that fit, of an act of which several do.
        single: whether it is one conversation, which one holder had from its begin to its end.
    """

    did: str
    name: str
    peers: tuple[str, ...]
    whom: str
    first: int
    last: int
    span: str
    carried: str
    named: str
    verdict: str
    candidates: tuple[str, ...]
    single: bool


def acts_of(incident: Document, findings: Sequence[Document]) -> list[Act]:
    """Return the acts of an incident, the worst first; those of the same kind and on the same peer are one."""
    grouped: dict[tuple[str, tuple[str, ...]], list[Document]] = {}
    for one in findings:
        if one["finding.severity"] in OPENING:
            peers = () if is_of_a_call(one) else tuple(map(str, whom_of(one)))
            did = act(str(one.get("rule.name", ""))) or f"{short(one['finding.title'], 60)}:"
            grouped.setdefault((did, peers), []).append(one)
    return [_act(incident, did, peers, own, findings) for (did, peers), own in grouped.items()]


def several_acts(acts: Sequence[Act]) -> bool:
    """Tell whether acts are on more than one peer, so that no one sentence fits them all."""
    return len({one.peers for one in acts if one.peers}) > 1


def _act(
    incident: Document, did: str, peers: tuple[str, ...], own: Sequence[Document], findings: Sequence[Document]
) -> Act:
    first = min(micros(one["finding.first_seen"]) for one in own)
    last = max(micros(ended(one, "finding")) for one in own)
    up, down = (max(one.get(f"{side}.bytes", 0) for one in own) for side in ("source", "destination"))
    beside = [one for one in findings if one in own or (one.get("peer.ip") in peers)]
    return Act(
        did=did,
        name=" ".join(did.rstrip(":").split()[:-1]) if did.endswith(_LEADING) else did.rstrip(":"),
        peers=peers,
        whom=_end(own[0]) if peers else "",
        first=first,
        last=last,
        span=_span(first, last, incident["incident.first_seen"]),
        carried=f"{size(up)} up, {size(down)} down" if up or down else "",
        named=peer_names({"destination.ip": peers}, own),
        verdict=let_through(beside, decided_on(own)) if peers else "",
        candidates=tuple(dict.fromkeys(str(id_) for one in own for id_ in one.get("attribution.candidates", ()))),
        single=sum(one.get("network.conversations", 0) for one in own) == 1,
    )


_LEADING = (" to", " with", " at", " of")
"""Words that lead to a peer."""


def _end(finding: Document) -> str:
    peers, ports = whom_of(finding), finding.get("peer.port") or finding.get("destination.port") or []
    if len(peers) == 1 and len(ports) == 1:
        shown = short(peers[0], 60)
        return f"[{shown}]:{short(ports[0])}" if ":" in shown else f"{shown}:{short(ports[0])}"
    if len(peers) > MOST_ACTS:
        on = f" on {len(ports):,} ports" if len(ports) > 1 else f" port {short(ports[0])}" if ports else ""
        return f"{len(peers):,} addresses ({short(peers[0], 60)} and others){on}"
    return peer_of(finding | {"destination.ip": peers})


def _span(first: int, last: int, beside: str) -> str:
    start, stop = (clock(one, beside)[: -len(":00")] for one in (first, last))
    return start if start == stop else f"{start} to {stop}"


def by_peer(acts: Sequence[Act]) -> list[tuple[str, str]]:
    """Return what acts are called and when they were; those on the same peer are told together."""
    grouped: dict[tuple[str, ...], list[Act]] = {}
    for one in acts:
        grouped.setdefault(one.peers, []).append(one)
    return [named_together(own) for own in grouped.values()]


def named_together(acts: Sequence[Act]) -> tuple[str, str]:
    """Return what acts on the same peer are called, and when they were: of those at different times, each."""
    names, spans = (dict.fromkeys(texts) for texts in ([one.name for one in acts], [one.span for one in acts]))
    return " and ".join(names), " and ".join(spans)


class Candidate(NamedTuple):
    """Who may have done an act.

    Attributes:
        lease: its id.
        names: whose the lease is, or that it is not known whose.
        twin: the incident on that lease that is probably the same act; None without one.
    """

    lease: str
    names: str
    twin: Twin | None


def candidates_of(
    one: Act,
    twins: Sequence[Twin],
    holders: Mapping[str, Mapping[str, str]],
    held: Mapping[str, tuple[str, str]],
) -> list[Candidate]:
    """Return who may have done an act: who is known to have done the same first; whose lease does not fit, never.

    Args:
        one: the act.
        twins: incidents that are probably the same act as some of its incident.
        holders: whose leases are, by their ids, as far as it is known.
        held: from when to when leases last, as far as it is known.
    """
    known = {lease: twin for twin in twins_of(one, twins) for lease in twin.leases if lease in one.candidates}
    fit = [id_ for id_ in one.candidates if id_ in known or _fits(one, held.get(id_))]
    ordered = sorted(fit or one.candidates, key=lambda id_: (id_ not in known, not holders.get(id_)))
    return [Candidate(id_, whose(id_, holders.get(id_, {})), known.get(id_)) for id_ in ordered]


def twins_of(one: Act, twins: Sequence[Twin]) -> list[Twin]:
    """Return the incidents that are probably this act: they share its peer, and its time."""
    return [
        twin for twin in twins if set(twin.peers) & set(one.peers) and twin.first <= one.last and twin.last >= one.first
    ]


def _fits(one: Act, lease: tuple[str, str] | None) -> bool:
    """Tell whether a lease covers one conversation, or any time of several; of an unknown one nobody can tell."""
    try:
        start, stop = (micros(time) if time else None for time in lease or ("", ""))
    except ValueError:  # only times of an incident and its findings are known to be some
        return True
    first, last = (one.first, one.last) if one.single else (one.last, one.first)
    return (start is None or start - _CLOCKS <= first) and (stop is None or stop + _CLOCKS >= last)


def whose(lease: str, names: Mapping[str, str]) -> str:
    """Return whose a lease is; of one that nothing names, which one it is."""
    told = ", ".join(short(value) for value in list(names.values())[:3])
    return told or f"unknown sandbox (lease {short(lease[:_SHOWN])}…)"
