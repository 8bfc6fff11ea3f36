"""What a report is made of: incidents, the findings that weigh most in each, and their timelines, read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson
import pyarrow as pa

from agenttrail.errors import InputError
from agenttrail.incident_files import finding_lines, read_incidents, timeline_schema, timelines
from agenttrail.incident_shapes import checked
from agenttrail.incidents.scoring import LEVELS
from agenttrail.metadata import parse_time
from agenttrail.report.names import OPENING
from agenttrail.report.standing import accepted_elsewhere, outcomes
from agenttrail.sinks.files import join, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from agenttrail.incident_filters import IncidentFilters

Document = dict[str, Any]
MOST_FINDINGS = 24
"""Findings of an incident that its page shows; the heaviest."""
MOST_SANDBOXES = 300
"""Sandboxes that the page of an agent lists."""
_MOST_TITLES = 50
"""Different titles of findings that are kept of one sandbox."""
_MOST_ACTS = 100
"""Findings of an incident that are compared with those of another."""
_ACT = (
    "rule.id", "peer.ip", "destination.ip", "peer.port", "finding.first_seen", "finding.last_seen", "event.count",
    "event.dataset", "network.conversations", "source.bytes", "destination.bytes",
)  # fmt: skip
"""What two findings on the same records have in common."""
_EVIDENCE = b',"finding.evidence":'
_KEY = frozenset({"finding.id", "finding.severity", "finding.first_seen"})
_WHOM = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name")


class _Context(msgspec.Struct):
    """What is looked at first of a finding: all that most of them add to what is known."""

    id: str = msgspec.field(name="finding.id")
    severity: str = msgspec.field(name="finding.severity")
    first_seen: str = msgspec.field(name="finding.first_seen")
    incident: str = msgspec.field(name="incident.id")
    agent: str = msgspec.field(name="gen_ai.agent.id", default="")
    trajectory: str = msgspec.field(name="trajectory.id", default="")
    sandbox: str = msgspec.field(name="sandbox.id", default="")
    lease_start: str = msgspec.field(name="attribution.lease_start", default="")
    leases: tuple[str, ...] = msgspec.field(name="attribution.lease_id", default=())
    peer: str = msgspec.field(name="peer.ip", default="")
    title: str = msgspec.field(name="finding.title", default="")

    def weight(self) -> tuple[Any, ...]:
        """Return the same as :func:`weight` of the whole finding."""
        return -LEVELS.index(self.severity), self.first_seen, self.id


_CONTEXT = msgspec.json.Decoder(_Context)


def _context(line: bytes) -> _Context | None:
    """Return what is looked at first of a finding that opens no incident; None for any other line."""
    head, found, _ = line.partition(_EVIDENCE)
    try:
        told = _CONTEXT.decode(head + b"}" if found else line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # which is told once the line is read as a whole
    return told if told.severity in LEVELS and told.severity not in OPENING else None


class Store(Protocol):
    """Where incidents are read from one by one."""

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""

    def findings(self, incident: str) -> list[Document]:
        """Return the findings of one incident."""

    def timeline(self, incident: str) -> list[Document]:
        """Return the timeline of one incident, by time."""


@dataclass
class Case:
    """All that the page of one incident is made of.

    Attributes:
        incident: the incident.
        findings: the heaviest of its findings, worst first, then by time.
        counted: how many it has in all.
        timeline: its entries in the columns of the record "timeline", by time; addresses as text.
    """

    incident: Document
    findings: list[Document]
    counted: int
    timeline: pa.RecordBatch


@dataclass
class Sandbox:
    """What findings tell of one occupancy of a sandbox.

    Attributes:
        whom: agent, trajectory, sandbox, job and host, as far as they are known.
        start: start of its lease, "" where none is known.
        stop: its end, "" where it had none yet.
        findings: how many.
        incidents: ids.
        found: titles of findings, and how bad the worst of each is; not all where there are very many.
    """

    whom: dict[str, str]
    start: str = ""
    stop: str = ""
    findings: int = 0
    incidents: set[str] = field(default_factory=set)
    found: dict[str, int] = field(default_factory=dict)

    def note(self, title: str, severity: str) -> None:
        """Take note of a finding."""
        self.findings += 1
        if title in self.found or len(self.found) < _MOST_TITLES:
            self.found[title] = max(self.found.get(title, 0), LEVELS.index(severity) if severity in LEVELS else 0)


@dataclass
class Told:
    """What the findings of a run tell beside their incidents.

    Attributes:
        agents: whose sandboxes are wanted.
        candidates: leases whose holders are wanted.
        sandboxes: of each agent, by what tells occupancies apart; at most ``MOST_SANDBOXES``.
        leases: whose each lease is.
        held: from when to when each lasts; "" for an end that was not read.
        outcomes: what sensors decided on connections of each incident.
        disputed: ids of incidents to whose peers findings that are context show accepted connections.
        acts: of each incident, what its findings that opened it count: the same counts, bytes and times are the same
            connections; of incidents with very many, not all.
        possible: of ambiguous incidents with a page, the agents that are candidates.
        names: of incidents with a page, what logs call their peers.
        earliest: of incidents with a page, the first time that logs tell of, in microseconds since 1970.
        latest: the last one.
        whole: whether findings without an incident were looked at, too.
    """

    agents: AbstractSet[str]
    candidates: AbstractSet[str]
    sandboxes: dict[str, dict[tuple[str, ...], Sandbox]] = field(default_factory=dict)
    leases: dict[str, dict[str, str]] = field(default_factory=dict)
    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    outcomes: dict[str, set[str]] = field(default_factory=dict)
    disputed: set[str] = field(default_factory=set)
    acts: dict[str, set[tuple[Any, ...]]] = field(default_factory=dict)
    possible: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    earliest: dict[str, int] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    whole: bool = True

    def add_outcomes(self, finding: Mapping[str, Any], peers: Sequence[str] = ()) -> None:
        """Take note of what sensors decided, as a finding of an incident that is shown tells it."""
        id_ = finding["incident.id"]
        self.outcomes.setdefault(id_, set()).update(outcomes(finding))
        if accepted_elsewhere(finding, peers):
            self.disputed.add(id_)
        acts = self.acts.setdefault(id_, set())
        if finding["finding.severity"] in OPENING and len(acts) < _MOST_ACTS:
            acts.add(tuple(str(finding.get(name)) for name in _ACT))

    def add(self, document: Mapping[str, Any], *, finding: bool) -> None:
        """Take note of an incident or a finding."""
        agent = document.get("gen_ai.agent.id", "")
        leases = self.candidates and [id_ for id_ in document.get("attribution.lease_id", ()) if id_ in self.candidates]
        if not leases and agent not in self.agents:
            return
        start = str(document.get("attribution.lease_start", ""))
        if leases and start and len(document["attribution.lease_id"]) == 1:
            self.held.setdefault(leases[0], (start, str(document.get("attribution.lease_end", ""))))
        key = (str(document.get("trajectory.id", "")), str(document.get("sandbox.id", "")), start)
        known = self.sandboxes.setdefault(agent, {}) if agent in self.agents else {}
        sandbox = known.get(key)
        if leases or sandbox is None:
            whom = {name: document[name] for name in _WHOM if document.get(name)}
            for lease in leases or ():
                self.leases.setdefault(lease, whom)
            if sandbox is None and agent in self.agents and len(known) < MOST_SANDBOXES:
                sandbox = known[key] = Sandbox(whom, start, str(document.get("attribution.lease_end", "")))
        if sandbox is not None:
            if finding:
                sandbox.note(str(document.get("finding.title", "")), str(document.get("finding.severity", "")))
            if document.get("incident.id"):
                sandbox.incidents.add(document["incident.id"])

    def counted(self, finding: _Context) -> bool:
        """Count a finding on a sandbox whose incidents are known with it; False where it has more to tell."""
        if self.candidates and not self.candidates.isdisjoint(finding.leases):
            return False
        if finding.agent not in self.agents:
            return True
        key = (finding.trajectory, finding.sandbox, finding.lease_start)
        known = self.sandboxes.get(finding.agent, {})
        sandbox = known.get(key)
        if sandbox is None:
            return len(known) >= MOST_SANDBOXES
        if finding.incident not in sandbox.incidents:
            return False
        sandbox.note(finding.title, finding.severity)
        return True


def runs_now(told: Told, agent: str, but: AbstractSet[str] = frozenset()) -> list[str]:
    """Return the sandboxes that an agent runs when the logs end, as far as leases tell, the latest first.

    Args:
        told: what findings tell.
        agent: the agent, one of those whose sandboxes are wanted.
        but: sandboxes that are told of elsewhere.
    """
    known = sorted(told.sandboxes.get(agent, {}).values(), key=lambda one: one.start, reverse=True)
    names = [one.whom.get("sandbox.id", "") for one in known if one.start and not one.stop]
    return [name for name in dict.fromkeys(names) if name and name not in but]


class Material(Protocol):
    """Where a report is made from."""

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""

    def place(self) -> str:
        """Return where it lies, as ``--from`` names it; "" where that is not known."""

    def run(self) -> Document:
        """Return ``run.json``; empty where there is none."""

    def cases(self, incidents: Sequence[Document], told: Told) -> Iterator[Case]:
        """Yield what the page of each incident is made of, in whatever order; add what findings tell to ``told``."""


def weight(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a key by which the finding that says most comes first."""
    return -LEVELS.index(finding["finding.severity"]), finding["finding.first_seen"], finding["finding.id"]


# -- an output directory


@dataclass(frozen=True)
class Directory:
    """An output directory; findings are read line by line, each file of timelines once."""

    path: str

    def place(self) -> str:
        """Return its path."""
        return self.path

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""
        return [incident for incident in read_incidents(self.path) if filters.passes(incident)]

    def run(self) -> Document:
        """Return ``run.json``; empty where it is none."""
        try:
            told = orjson.loads(read_all(join(self.path, "run.json")))
        except (OSError, orjson.JSONDecodeError):
            return {}
        return told if isinstance(told, dict) else {}

    def cases(self, incidents: Sequence[Document], told: Told) -> Iterator[Case]:
        """Yield what the page of each incident is made of."""
        wanted = {incident["incident.id"]: incident for incident in incidents}
        heaviest = self._findings(wanted, told)
        for id_, timeline in timelines(self.path, list(wanted)):
            found = heaviest.pop(id_)
            yield Case(wanted.pop(id_), found.documents(), found.counted, timeline)
        nothing = pa.RecordBatch.from_pylist([], timeline_schema())
        for id_, incident in wanted.items():
            found = heaviest.pop(id_)
            yield Case(incident, found.documents(), found.counted, nothing)

    def _findings(self, wanted: Mapping[str, Document], told: Told) -> dict[str, _Heaviest]:
        """Return the heaviest findings of each incident."""
        heaviest = {id_: _Heaviest() for id_ in wanted}
        peers = {id_: frozenset(incident.get("destination.ip", ())) for id_, incident in wanted.items()}
        for place, line in finding_lines(self.path):
            context = _context(line)
            # most findings are context that says of its incident and its sandbox nothing that was not said before
            if context is None or not _adds_a_count(context, heaviest.get(context.incident), peers, told):
                self._finding(place, line, wanted, heaviest, told)
        return heaviest

    def _finding(
        self, place: str, line: bytes, wanted: Mapping[str, Document], heaviest: Mapping[str, _Heaviest], told: Told
    ) -> None:
        head = _head(line, place)
        try:
            told.add(head, finding=True)
            of_incident = heaviest.get(head.get("incident.id", ""))
            if of_incident is not None:
                of_incident.add(weight(head), place, line)
                told.add_outcomes(head, wanted[head["incident.id"]].get("destination.ip", ()))
        except (TypeError, KeyError, ValueError, AttributeError):
            checked(_loaded(line, place), "finding", place)  # which says what is wrong with it
            raise


def _adds_a_count(
    finding: _Context, of_incident: _Heaviest | None, peers: Mapping[str, AbstractSet[str]], told: Told
) -> bool:
    """Count a finding of which no more is to be known; False, and nothing is counted, where more is."""
    if of_incident is None:
        return told.counted(finding)
    if finding.peer in peers[finding.incident] or not of_incident.outweighs(finding.weight()):
        return False
    counted = told.counted(finding)
    of_incident.counted += counted
    return counted


class _Heaviest:
    """The heaviest findings of an incident, as lines, and how many it has."""

    def __init__(self) -> None:
        self.counted = 0
        self._kept: list[tuple[tuple[Any, ...], str, bytes]] = []
        self._bound: tuple[Any, ...] | None = None

    def outweighs(self, key: tuple[Any, ...]) -> bool:
        """Tell whether a finding whose :func:`weight` is ``key`` is none of the heaviest."""
        return self._bound is not None and key > self._bound

    def add(self, key: tuple[Any, ...], place: str, line: bytes) -> None:
        """Take a finding whose :func:`weight` is ``key``."""
        if not all(isinstance(text, str) for text in key[1:]):
            raise TypeError(key)
        self.counted += 1
        if self._bound is not None and key > self._bound:
            return
        self._kept.append((key, place, line))
        if len(self._kept) >= 4 * MOST_FINDINGS:
            self._cut()
            self._bound = self._kept[-1][0]

    def _cut(self) -> None:
        self._kept.sort()
        del self._kept[MOST_FINDINGS:]

    def documents(self) -> list[Document]:
        """Return them, the heaviest first."""
        self._cut()
        return [checked(_loaded(line, place), "finding", place) for _, place, line in self._kept]


def _loaded(line: bytes, place: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        msg = f"{place}: not valid JSON: {error.msg}"
        raise InputError(msg) from error


def _head(line: bytes, place: str) -> Document:
    """Return a finding without its evidence, which is most of it; what stands in text has its quotes escaped."""
    head, found, _ = line.partition(_EVIDENCE)
    told = _loaded(head + b"}" if found else line, place)
    if not isinstance(told, dict) or not _KEY.issubset(told):
        told = _loaded(line, place)
    return told if isinstance(told, dict) and _KEY.issubset(told) else checked(told, "finding", place)


# -- a store that is asked incident by incident


@dataclass(frozen=True)
class Asked:
    """A store that answers for one incident at a time, such as Elasticsearch."""

    store: Store
    address: str = ""

    def place(self) -> str:
        """Return its address."""
        return self.address

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""
        return self.store.incidents(filters)

    def run(self) -> Document:
        """Return nothing: a store has no ``run.json``."""
        return {}

    def cases(self, incidents: Sequence[Document], told: Told) -> Iterator[Case]:
        """Yield what the page of each incident is made of."""
        told.whole = False
        for incident in incidents:
            findings = sorted(self.store.findings(incident["incident.id"]), key=weight)
            for finding in findings:
                told.add(finding, finding=True)
                told.add_outcomes(finding, incident.get("destination.ip", ()))
            entries = batch_of(self.store.timeline(incident["incident.id"]))
            yield Case(incident, findings[:MOST_FINDINGS], len(findings), entries)


def batch_of(entries: Sequence[Document]) -> pa.RecordBatch:
    """Return timeline entries that are documents as columns."""
    names = ("@timestamp", "event.end")
    rows = [entry | {name: parse_time(entry[name], name) for name in names if name in entry} for entry in entries]
    return pa.RecordBatch.from_pylist(rows, timeline_schema())
