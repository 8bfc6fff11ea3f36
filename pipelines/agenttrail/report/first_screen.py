"""What an analyst is told within a minute: who did what, whether it was let through, whether it is over, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.incident_shapes import ended
from agenttrail.incidents.scoring import LEVELS
from agenttrail.report.acts import MOST_ACTS, Act, acts_of, several_acts
from agenttrail.report.fired import TEXT
from agenttrail.report.meanings import done
from agenttrail.report.names import OPENING, agent_name, headline, is_of_a_call, peer_names, peer_of
from agenttrail.report.pages import clock, lasting, micros, short, when
from agenttrail.report.standing import let_through, standing, verdict
from agenttrail.timeline_story import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.report.advice import Step
    from agenttrail.report.fired import Term

Document = dict[str, Any]
_SECOND = 1_000_000
_MUCH = 100_000_000
"""Bytes from which on it is told first that they were sent."""
_TRIES = ("tried", "knocked at", "sent what a firewall calls mining to")
"""What is done, too, where all of it was blocked."""
_MOST_TERMS = 2
"""Values of the first rule that fired that stand unfolded."""
_MOST_WORDS = 166
"""Words before the timeline, without its headings and without what leads to what is folded."""
_METADATA = "credential-access/instance-metadata-service"
"""Of which it counts how often it was asked, and whether it answered."""
_SAYS_LITTLE = ("GPU use", "evenness", "regularity", "largest record")
"""Values that others say more than: for how long, how often, how much in all."""
_IN_LEAD = ("peer", "port", "sent in all", "received in all", "sent", "peers")
"""Values that the lead tells."""


@dataclass(frozen=True)
class Lead:
    """The parts of the sentence that says what happened.

    Attributes:
        what: the title.
        who: the agent, or what is known instead.
        names: its rollout and its sandbox.
        did: what it did, to be followed by the peer.
        whom: the peer; "" where there is none.
        named: what logs call it.
        carried: what went and came back; "" where that is not known.
        verdict: whether it was let through; "" where it has no peer.
        since: when it began, with its date.
        span: how long it lasted.
        acts: what it did to whom and when, one by one, where no one sentence fits all; else none.
        further: how many more there are.
    """

    what: str
    who: str
    names: Sequence[str]
    did: str
    whom: str
    named: str
    carried: str
    verdict: str
    since: str
    span: str
    acts: Sequence[Act] = ()
    further: int = 0


def lead_of(incident: Document, findings: Sequence[Document], decided: AbstractSet[str]) -> Lead:
    """Return what happened.

    Args:
        incident: the incident.
        findings: its findings, the worst first.
        decided: what sensors decided on its connections.
    """
    agent, whom = incident.get("gen_ai.agent.id"), peer_of(incident)
    first, last = incident["incident.first_seen"], ended(incident, "incident")
    acts = acts_of(incident, findings)
    acts = acts if several_acts(acts) else []
    seconds = micros(last) // _SECOND - micros(first) // _SECOND  # as the times are shown
    return Lead(
        what=headline(incident),
        who=_capital(agent_name(agent))
        if agent
        else f"{incident['entity.type'].capitalize()} {short(incident['entity.id'])}",
        names=_names(incident),
        did=_did(incident, findings, decided, whom),
        whom=whom,
        named=peer_names(incident, findings),
        carried=carried(findings),
        verdict=let_through(findings, decided) if whom else "",
        since=when(first),
        span=lasting(seconds * _SECOND),
        acts=acts[:MOST_ACTS],
        further=len(acts[MOST_ACTS:]),
    )


def _capital(name: str) -> str:
    """Return what an agent is called at the begin of a sentence; a name of its own stays as it is."""
    return f"A{name[1:]}" if name.startswith("agent ") else name


def _names(incident: Mapping[str, Any]) -> list[str]:
    """Return rollout and sandbox; without the word where the name begins with it."""
    named = (("rollout", incident.get("trajectory.id")), ("sandbox", incident.get("sandbox.id")))
    whose = [(label, short(name)) for label, name in named if name]
    return [name if name.startswith(f"{label}-") else f"{label} {name}" for label, name in whose]


def _did(incident: Document, findings: Sequence[Document], decided: AbstractSet[str], whom: str) -> str:
    """Return what was done, to be followed by the peer."""
    opened = [one for one in findings if one["finding.severity"] in OPENING]
    shipped = done(str(opened[0].get("rule.name", ""))) if opened else ""
    if shipped and is_of_a_call(opened[0]):  # of whom only its text tells
        if not whom:
            return shipped
        return f"{shipped} to" if _names_a_peer(incident, opened[0]) else f"{shipped}, and talked to"
    if not whom:
        return "set this off"
    if verdict(decided) == "blocked" and shipped not in _TRIES:
        return "tried to reach"
    return shipped or "talked to"


def _names_a_peer(incident: Document, finding: Document) -> bool:
    texts = [str(event.get("gen_ai.tool.call.arguments", "")) for event in finding.get("finding.evidence", ())]
    return any(str(peer) in text for peer in incident.get("destination.ip", ()) for text in texts)


def carried(findings: Sequence[Document]) -> str:
    """Return what went and came back; several findings may be of the same connections: of each peer the most."""
    most: dict[str, tuple[int, int]] = {}
    for one in findings:
        if one["finding.severity"] in OPENING:
            up, down = (one.get(f"{side}.bytes", 0) for side in ("source", "destination"))
            before = most.get(peer := str(one.get("peer.ip", "")), (0, 0))
            most[peer] = max(before[0], up), max(before[1], down)
    alone = {peer: both for peer, both in most.items() if peer} or most  # what has several peers has their bytes, too
    up, down = (max(sum(both[way] for both in alone.values()), most.get("", (0, 0))[way]) for way in (0, 1))
    return f"{size(up)} up, {size(down)} down" if up or down else ""


def over(incident: Document, latest: str, ends: str) -> tuple[str, str]:
    """Return whether it is over in two or three words, and how that is known.

    Args:
        incident: the incident.
        latest: the last time that its timeline knows; "" where it has none.
        ends: when the logs of the run end; "" where that is not known.
    """
    first, last = incident["incident.first_seen"], ended(incident, "incident")
    now, record = standing(incident), f"last record {clock(last, first)}"
    if now.state == "running":
        known = f"the logs end {_beside(ends, first)}" if ends else f"its timeline ends {_beside(latest, first)}"
        return "Still running", f"as far as leases tell: {f'{known}, ' if ends or latest else ''}{record}."
    if now.state != "ended":
        return "Whether it is over", f"is {now.text}; {record}."
    rollout = incident["entity.type"] == "trajectory"
    stopped = f"{'rollout' if rollout else 'sandbox'} ended {clock(now.until, first)}"
    if _outlasted(last, now.until):
        return "Whether it is over", f"is not known: {stopped}, but {record}."
    return "Over:", f"{record}; {stopped}{'; that the sandbox is gone was not seen' if rollout else ''}."


def _beside(time: str, beside: str) -> str:
    return time.removeprefix(f"{when(beside)[:10]} ")


def _outlasted(last: str, until: str) -> bool:
    try:
        return micros(last) > micros(until) + _SECOND
    except ValueError:  # only times of an incident and its findings are known to be some
        return False


@dataclass(frozen=True)
class Reason:
    """Why a rule fired, beside the lead.

    Attributes:
        id: of the finding on the page.
        title: of the finding; "" where the title of the page says it.
        why: why it is suspicious; "" where nobody says so, or it is not the first.
        values: what says most of what it asked for; of the first only.
    """

    id: str
    title: str
    why: str
    values: Sequence[str]


def reasons(fired: Sequence[dict[str, Any]], headline_: str) -> list[Reason]:
    """Return the first rule that fired, and the next other one.

    Args:
        fired: findings that are told, as the page has them.
        headline_: the title of the page.
    """
    firsts = list({one["rule"]: one for one in reversed(fired)}.values())[::-1]
    firsts.sort(key=lambda one: not headline_.startswith(one["title"]))
    told = []
    for one in firsts[:2]:
        first = one is firsts[0]
        said = _values(one) if first else []
        why = one["why"] if first else ""
        title = "" if first and headline_.startswith(one["title"]) else one["title"]
        told.append(Reason(one["id"], title, why, said))
    return told


def _values(finding: dict[str, Any]) -> list[str]:
    terms: Sequence[Term] = [term for term in finding["terms"] if term.label not in _IN_LEAD]
    said = [f"{term.label} {term.value}" for term in terms if term.label != TEXT]
    said = [text for text in said if "." not in text.partition(" ")[0]]  # which has no name for people
    said.sort(key=lambda text: text.startswith(_SAYS_LITTLE))
    said = [f"the call has {term.value}" for term in terms if term.label == TEXT][:1] or said
    if finding["rule"] == _METADATA and finding["conversations"]:
        count, received = finding["conversations"], size(finding["received"])
        said = [f"asked {count:,} time{'' if count == 1 else 's'}, answered with {received}"]
    return [text[:1].upper() + text[1:] if not number else text for number, text in enumerate(said[:_MOST_TERMS])]


@dataclass(frozen=True)
class Unfolded:
    """What stands unfolded beside what always does: as much as is read within a minute.

    Attributes:
        reasons: the first rule that fired, and perhaps another.
        harmless: what may be harmless of the first one; "" where it is folded.
        folded: all else that may be.
        steps: what to do first.
    """

    reasons: Sequence[Reason]
    harmless: str
    folded: Sequence[str]
    steps: Sequence[Step]


def unfolded(
    always: Sequence[str], told: Sequence[Reason], fired: Sequence[dict[str, Any]], steps: Sequence[Step]
) -> Unfolded:
    """Return what stands unfolded; what matters most to a verdict is taken first.

    Args:
        always: texts that stand unfolded in any case.
        told: why rules fired.
        fired: findings that are told, as the page has them.
        steps: all that is to be done.
    """
    first_told = sorted(fired, key=lambda one: one["id"] not in [reason.id for reason in told[:1]])
    benign = list(dict.fromkeys(str(text) for one in first_told for text in one["benign"]))
    left = _MOST_WORDS - sum(map(_words, always))
    left -= sum(_words(" ".join((one.title, one.why, *one.values))) for one in told[:1])
    left -= sum(map(_length, steps[:1]))
    wanted = [
        ("second", [_length(one) for one in steps[1:2]]),
        ("harmless", [_words(f"May be harmless: {text}") for text in benign[:1]]),
        ("also", [_words(f"Also {one.title}") for one in told[1:2]]),
        ("third", [_length(one) for one in steps[2:3]]),
    ]
    if _is_worse(told, fired):  # or the page would not say why it is as severe as it says
        wanted.insert(0, wanted.pop(2))
    kept: Counter[str] = Counter()
    for what, lengths in wanted:
        for length in lengths:
            if length <= left:
                left -= length
                kept[what] += 1
    todo = [*steps[:1], *steps[1 : 1 + kept["second"]], *steps[2 : 2 + kept["third"]]]
    number = kept["harmless"]
    return Unfolded(told[: 1 + kept["also"]], "".join(benign[:number]), benign[number:], todo)


def _is_worse(told: Sequence[Reason], fired: Sequence[dict[str, Any]]) -> bool:
    """Tell whether the second reason is worse than the first."""
    severity = {one["id"]: LEVELS.index(one["severity"]) for one in fired}
    first, second = ([severity.get(one.id, 0) for one in some] for some in (told[:1], told[1:2]))
    return second > first


def _length(step: Step) -> int:
    return _words(step.brief or step.text)


def _words(text: str) -> int:
    return len(text.split())
