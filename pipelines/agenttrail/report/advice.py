"""What to do about an incident, step by step, with the names in it: another thing once its sandbox has ended."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from agenttrail.report.acts import acts_of, by_peer, twins_of
from agenttrail.report.commands import command
from agenttrail.report.names import OPENING, agent_file, agent_name, incident_file, peer_of
from agenttrail.report.pages import clock, short, when
from agenttrail.report.standing import block_of, decided_on, standing, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.report.acts import Act
    from agenttrail.report.same_act import Twin

_ALIKE = 0.6
"""Share of the words of a piece of advice that were said before from which on it is not said again."""
_ID, _SHORT = 32, 8
_SHORTEST = 4
"""Letters of a word that counts."""
_MOST_ADVICE, _MOST_TWINS, _MOST_PEERS = 6, 3, 3
_INSIDE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
"""Private networks: not all that a job may call internal, but what nobody blocks as if it were outside."""
_METADATA_SERVICES = ("169.254.169.254", "100.100.100.200", "fd00:ec2::254")
"""Where clouds tell an instance its role's credentials."""
_OF_CREDENTIALS = "T1552"


@dataclass(frozen=True)
class Step:
    """One thing to do: a text, and the page or the commands that help with it; "" for none.

    Attributes:
        brief: the same beside all names, for the first screen; "" where the text is short enough.
    """

    text: str
    page: str = ""
    link: str = ""
    commands: tuple[str, ...] = ()
    brief: str = ""


def steps(
    incident: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    twins: Sequence[Twin] = (),
    paged: AbstractSet[str] = frozenset(),
    decided: AbstractSet[str] | None = None,
    source: str = "",
) -> list[Step]:
    """Return what to do, the most urgent first.

    Args:
        incident: the incident.
        findings: its findings.
        twins: incidents that are probably the same act.
        paged: ids of incidents that have a page.
        decided: what sensors decided on its connections; None: what ``findings`` tell of that.
        source: where incidents were read from; "" where that is not known.
    """
    decided = decided_on(findings) if decided is None else decided
    acts = acts_of(dict(incident), [dict(one) for one in findings]) if twins else []
    who, revoked = _first(incident, twins, paged, source, acts), _credentials(incident)
    # a sandbox that runs would fetch new ones
    first = [*who, *revoked] if standing(incident).state == "running" else [*revoked, *who]
    told = [*first, *_sent(incident, findings), *_peer(incident, findings, decided, source), *_call(incident)]
    agent = incident.get("gen_ai.agent.id")
    if agent:
        told.append(Step(f"See what else {agent_name(agent)} did:", agent_file(str(agent)), "its page"))
    return told


def _sent(incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Return what the authors of rules advise first where something was carried out."""
    carried = [one for one in findings if "exfiltration" in one.get("threat.tactic.name", ())]
    advised = {text for one in carried for text in one.get("recommendation", ())}
    return [Step(text) for text in [text for text in authors(incident, carried) if text in advised][:1]]


def _credentials(incident: Mapping[str, Any]) -> list[Step]:
    """Return what to do about credentials, which outlive the sandbox that may have fetched them."""
    techniques = [str(one) for one in incident.get("threat.technique.id", ())]
    if not (is_metadata_service(incident) and any(one.startswith(_OF_CREDENTIALS) for one in techniques)):
        return []
    what = "rollout" if incident["entity.type"] == "trajectory" else "sandbox"  # which its sandbox may outlive
    now = f"The {what} has ended; credentials that it may have fetched may still work"
    now = now if standing(incident).state == "ended" else "It may have fetched credentials, which outlive the sandbox"
    since = when(incident["incident.first_seen"])
    brief = f"Revoke the sessions of the node's role issued since {since[11:]}: credentials outlive the sandbox."
    return [Step(f"{now}: revoke the sessions of the node's role that were issued since {since}.", brief=brief)]


def _first(
    incident: Mapping[str, Any], twins: Sequence[Twin], paged: AbstractSet[str], source: str, acts: Sequence[Act]
) -> list[Step]:
    """Return what to do about who it was."""
    status = incident["attribution.status"]
    at = when(incident["incident.first_seen"])
    known = [_twin(twin, paged, source, acts) for twin in twins if twin.agent][:_MOST_TWINS]
    if status == "ambiguous" and known:  # what one address did on a day may be what several did
        return known
    if status == "ambiguous":
        return [
            Step(
                f"Find out which of the {len(incident.get('attribution.candidates', []))} candidates it was before you "
                f"stop one: their hosts know the connections that each had at {at}."
            )
        ]
    if status != "attributed":
        return [Step(f"Find out who held {_named(incident)} at {at}: the metadata that was read does not say.")]
    return [_sandbox(incident)]


def _twin(twin: Twin, paged: AbstractSet[str], source: str, acts: Sequence[Act]) -> Step:
    own = by_peer([one for one in acts if twins_of(one, [twin])])
    label, whole = (" and ".join(texts) for texts in ([name for name, _ in own], [f"{n} ({span})" for n, span in own]))
    label, whole = (f"{text[:1].upper()}{text[1:]}: " if text else "" for text in (label, whole))
    whose = f"{agent_name(twin.agent)}{f', {twin.sandbox}' if twin.sandbox else ''}"
    text = f"{whole}go to the incident that is probably the same act, attributed to {whose}:"
    text = text if label else f"G{text[1:]}"
    brief = f"{label}probably {agent_name(twin.agent)}, go to" if label else ""
    if twin.id in paged:
        return Step(text, incident_file(twin.id), short(twin.id[:_SHORT]), brief=brief)
    return Step(text, commands=(command("show", source, short(twin.id, _ID)),), brief=brief)


def _named(incident: Mapping[str, Any]) -> str:
    return f"{incident['entity.type']} {short(incident['entity.id'])}"


def _sandbox(incident: Mapping[str, Any]) -> Step:
    """Return what to do with the sandbox, as far as it is known to run."""
    now = standing(incident)
    if not incident.get("sandbox.id"):
        return Step(f"Find out which sandbox of {_named(incident)} it was; {now.text}.")
    name = f"sandbox {short(incident['sandbox.id'])}"
    where = _where(incident)
    if now.state == "ended" and incident["entity.type"] == "trajectory":
        return Step(
            f"The rollout in {name}{where} has ended.  Make sure that the sandbox is gone, too: if it still runs, keep "
            f"its process list and disk, then stop it.  Preserve its image, volumes and logs before they go.",
            brief="Make sure the sandbox is gone; if not, keep its process list and disk, then stop it.",
        )
    if now.state == "ended":
        return Step(
            f"Nothing is left to stop: {name}{where} has ended.  Preserve its image, volumes and logs before they are "
            f"cleared away.",
            brief="Nothing is left to stop: preserve the sandbox's image, volumes and logs.",
        )
    if now.state == "running":
        return Step(
            f"Keep the process list and disk of {name}{where}, then stop it: as far as leases tell, it still ran.",
            brief="Keep the process list and disk of the sandbox, then stop it.",
        )
    find_out = "still runs; if it does, keep its process list and disk, then stop it."
    return Step(f"Find out whether {name}{where} {find_out}", brief=f"Find out whether the sandbox {find_out}")


def _where(incident: Mapping[str, Any]) -> str:
    told = [
        f"{label} {short(incident[name])}"
        for label, name in (("job", "job.id"), ("namespace", "k8s.namespace.name"), ("host", "host.name"))
        if incident.get(name)
    ]
    return f" ({', '.join(told)})" if told else ""


def _peer(
    incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], decided: AbstractSet[str], source: str
) -> list[Step]:
    """Return what to do about the other end."""
    peer = peer_of(incident)
    if not peer:
        return []
    if is_metadata_service(incident):
        # a hop limit alone holds back the answer that has the token: where none is demanded, all else gets through
        how = "by a network policy, or by demanding tokens with a hop limit of 1 (AWS)"
        return [
            Step(f"Deny pods the metadata service ({peer}): {how}.", brief=f"Deny pods the metadata service: {how}.")
        ]
    blocked, was = block_of(findings, decided), verdict(decided)
    if not any(map(_outside, incident.get("destination.ip", ()))):
        text = f"Find out what it wanted of {peer}, which is inside, and what it reached there."
        return [Step(text, brief="Find out what it wanted of the peers, which are inside, and what it reached there.")]
    searched = _searched(incident, source)
    search = f"  Then see who else talked to {'them' if len(searched) > 1 else 'it'}:" if searched else ""
    whom = peer if len(incident["destination.ip"]) == 1 else f"those of {peer} that it must not reach, perhaps not all,"
    if blocked:
        alone = len(incident["destination.ip"]) == 1
        stay, them = ("stays", "it was") if alone else ("stay", "they were")
        doubt = f"  But {blocked.against}: find out what got through." if blocked.against else ""
        text = f"Check that {peer} {stay} blocked, as {blocked.by} says {them}.{doubt}"
        through = ", and find out what got through" if blocked.against else ""
        brief = f"Check that the peer{'' if alone else 's'} {stay} blocked{through}."
    elif was == "partly blocked":
        text = f"Block {whom} for all sandboxes: only some of the connections were blocked."
        brief = "Block, for all sandboxes, what it must not reach: only some connections were blocked."
    else:
        let = "its connections were allowed" if was == "allowed" else "no log says whether it was let through"
        text = f"Block {whom} for all sandboxes, or find out why they may reach it: {let}."
        brief = "Block the peer, unless sandboxes need it."
        if len(incident["destination.ip"]) > 1:
            brief = "Block, for all sandboxes, those peers that it must not reach."
    return [Step(text + search, commands=searched, brief=brief)]


def _outside(address: str) -> bool:
    """Tell whether an address is none of one's own networks, as the list ``internal`` that ships has them."""
    try:
        one = ip_address(address)
    except ValueError:
        return True
    return not any(one in network for network in _INSIDE if network.version == one.version)


def _searched(incident: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """Return a command for each of its first peers that lists incidents with it; none where that is no address."""
    peers = [str(peer) for peer in incident.get("destination.ip", ())][:_MOST_PEERS]
    return tuple(command("list", source, "--peer", peer) for peer in peers if _canonical(peer))


def _canonical(address: str) -> bool:
    """Tell whether a text is an IP address and nothing else: only such a one may stand in a command."""
    try:
        return str(ip_address(address)) == address and "%" not in address
    except ValueError:
        return False


def is_metadata_service(incident: Mapping[str, Any]) -> bool:
    """Tell whether all peers of an incident are the metadata service of a cloud."""
    peers = incident.get("destination.ip", ())
    return bool(peers) and all(peer in _METADATA_SERVICES for peer in peers)


def _call(incident: Mapping[str, Any]) -> list[Step]:
    start = incident.get("gen_ai.tool.call.start")
    whose = incident.get("trajectory.id") or incident.get("sandbox.id")
    if not (start and whose):
        return []
    call = f" (call {short(incident['gen_ai.tool.call.id'])})" if incident.get("gen_ai.tool.call.id") else ""
    since = clock(start, incident["incident.first_seen"])
    return [
        Step(
            f"Read {short(whose)} from {when(start)} on{call}: what the agent was after.",
            brief=f"Read what the agent was after, from {since} on.",
        )
    ]


def authors(incident: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the authors of the rules advise, the worst finding's first; what was said before is left out."""
    wanted = incident.get("recommendation", [])
    opened = [one for one in findings if one["finding.severity"] in OPENING]
    ordered = dict.fromkeys(text for one in opened for text in one.get("recommendation", []))
    return unlike([*(text for text in ordered if text in wanted), *wanted])[:_MOST_ADVICE]


def unlike(texts: Iterable[str]) -> list[str]:
    """Return texts without what only says again, in other words or order, what stood before it."""
    said: set[str] = set()
    out = []
    for text in dict.fromkeys(texts):
        clauses = [(clause, _words(clause)) for clause in text.rstrip(".").split("; ")]
        new = [clause for clause, words in clauses if not words or len(words & said) < _ALIKE * len(words)]
        said.update(*(words for _, words in clauses))
        if new:
            told = "; ".join(new)
            out.append(told[:1].upper() + told[1:] + ("." if text.endswith(".") else ""))
    return out


def _words(text: str) -> set[str]:
    return {word for word in "".join(c if c.isalnum() else " " for c in text.lower()).split() if len(word) >= _SHORTEST}
