"""``agenttrail incidents``: list, show, triage and report what was found, in a directory or in Elasticsearch."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from agenttrail.columns.text import printable
from agenttrail.commands import triage
from agenttrail.commands.printing import print_json
from agenttrail.errors import InputError, shortened
from agenttrail.incident_filters import IncidentFilters, riskiest_first
from agenttrail.incident_shapes import SHORT_ID, ended
from agenttrail.incidents.scoring import LEVELS
from agenttrail.incidents.wording import headline
from agenttrail.timeline_story import MOST_MOMENTS, story, story_lines
from agenttrail.triage import entry_text, history, triage_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping, Sequence

    from agenttrail.report.advice import Step
    from agenttrail.report.same_act import Twin

Document = dict[str, Any]
_MOST_SHOWN = 5  # events of a finding that are printed
_MOST_CONTEXT = 2  # findings that opened nothing that are told one by one
_MOST_CANDIDATES = 12  # told by name
_CELL, _NAME, _LINE = 100, 200, 2_000  # characters; JSON has them all
_WIDTH, _NARROWEST, _WIDEST = 80, 60, 120  # characters of a line of a story: where no terminal tells, and its bounds


class Store(Protocol):
    """Where incidents are read from."""

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        """Return the incidents that pass."""

    def findings(self, incident: str) -> list[Document]:
        """Return the findings of one incident."""

    def holders(self, leases: Collection[str]) -> dict[str, Document]:
        """Return of each of some leases a finding that it alone proves; nothing of those that prove none alone."""

    def timeline(self, incident: str) -> list[Document]:
        """Return the timeline of one incident, by time; empty where none is stored."""


def add(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the parsers."""
    parser = subparsers.add_parser("incidents", help="list, show and triage incidents, and write reports of them")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list incidents, the riskiest first")
    _add_source(listing)
    _add_filters(listing)
    listing.set_defaults(command=_list)
    showing = actions.add_parser("show", help="show incidents with their story, findings and evidence")
    showing.add_argument("ids", metavar="INCIDENT", nargs="*", help="id, or the start of it; without one, the riskiest")
    _add_source(showing)
    _add_filters(showing)
    showing.add_argument("--all", action="store_true", help="the whole story, also where it is long, and every finding")
    showing.set_defaults(command=_show)
    reporting = actions.add_parser(
        "report",
        help="write a report for a browser: an index, and a page for each of the 200 riskiest incidents",
        description="Write a report for a browser: an index, a page for each agent, and one for each of the 200 "
        "riskiest incidents, or for those that are named.  It takes the place of the one before.",
    )
    reporting.add_argument("ids", metavar="INCIDENT", nargs="*", help="id, or the start of it: pages for these only")
    _add_place(reporting)
    reporting.add_argument("--output", metavar="DIR", help="where to (default: report in the output directory)")
    reporting.add_argument(
        "--rules", metavar="PATH", action="append", default=[], help="your own rules, to show their conditions, too"
    )
    _add_filters(reporting)
    reporting.set_defaults(command=_report)
    triage.add(actions)


def _add_source(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document a line")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        metavar="DIR|URL",
        default="out",
        help="output directory of a run, or address of an Elasticsearch (default out)",
    )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--severity", choices=LEVELS, help="this severity or worse")
    parser.add_argument("--agent", metavar="ID", help="of this agent")
    parser.add_argument("--entity", metavar="ID", help="of this trajectory, sandbox, job, host or address")
    parser.add_argument("--sandbox", metavar="ID", help="of this sandbox")
    parser.add_argument("--job", metavar="ID", help="of this training job")
    parser.add_argument("--host", metavar="NAME", help="on this host")
    parser.add_argument("--technique", metavar="ID", help="with this technique; T1496 means its sub-techniques, too")
    parser.add_argument("--rule", metavar="NAME", help="in which this rule fired")
    parser.add_argument("--peer", metavar="ADDRESS", help="with this peer, or one in this network")
    parser.add_argument("--status", metavar="STATUS", help="with this triage status; 'new' for none")
    parser.add_argument("--assignee", metavar="NAME", help="assigned to this analyst")
    parser.add_argument("--since", metavar="T", help="last seen at or after this time (RFC 3339)")
    parser.add_argument("--until", metavar="T", help="first seen before this time (RFC 3339)")


@dataclass(frozen=True)
class _Directory:
    path: str

    def incidents(self, filters: IncidentFilters) -> list[Document]:
        from agenttrail.incident_files import read_incidents

        return [incident for incident in read_incidents(self.path) if filters.passes(incident)]

    def findings(self, incident: str) -> list[Document]:
        from agenttrail.incident_files import read_findings

        return read_findings(self.path, incident)

    def holders(self, leases: Collection[str]) -> dict[str, Document]:
        from agenttrail.incident_files import read_holders

        return read_holders(self.path, leases)

    def timeline(self, incident: str) -> list[Document]:
        from agenttrail.incident_files import read_timeline

        return read_timeline(self.path, incident)


def _store(source: str) -> Store:
    if source.startswith(("http://", "https://")):
        from agenttrail.commands.elasticsearch import ElasticsearchStore

        return ElasticsearchStore(source)
    return _Directory(source)


def _list(arguments: argparse.Namespace) -> int:
    print_incidents(_store(arguments.source).incidents(_filters(arguments)), as_json=arguments.json)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from agenttrail.detect.rules import load_all
    from agenttrail.report.conditions import conditions
    from agenttrail.report.reading import Asked, Directory
    from agenttrail.report.writer import write_report
    from agenttrail.sinks.files import REPORT, join

    store = _store(arguments.source)
    local = isinstance(store, _Directory)
    folder = arguments.output or (join(arguments.source, REPORT) if local else REPORT)
    rules = load_all(["builtin", *arguments.rules])
    material = Directory(arguments.source) if local else Asked(store, arguments.source)
    known = conditions(rules.rules, rules.correlations)
    written = write_report(material, folder, known, _filters(arguments), arguments.ids)
    told = f"{written.incidents:,} incidents, {written.pages:,} with a page"
    sys.stdout.write(f"{told}: {printable(shortened(written.index, _LINE))}\n")
    return 0


def _filters(arguments: argparse.Namespace) -> IncidentFilters:
    return IncidentFilters(**{field.name: getattr(arguments, field.name) for field in fields(IncidentFilters)})


def print_incidents(incidents: Sequence[Document], *, as_json: bool = False) -> None:
    """Print incidents, the riskiest first."""
    from agenttrail.tables import print_table

    ordered = riskiest_first(incidents)
    if as_json:
        for incident in ordered:
            print_json(incident)
        return
    if not ordered:
        sys.stdout.write("no incidents\n")
        return
    print_table(
        ("incident", "severity", "risk", "first seen", "agent", "entity", "what"),
        [
            (
                incident["incident.id"][:SHORT_ID], incident["incident.severity"],
                f"{incident['incident.risk_score']:.0f}", incident["incident.first_seen"],
                shortened(incident.get("gen_ai.agent.id", ""), _CELL),
                shortened(f"{incident['entity.type']} {incident['entity.id']}", _CELL),
                shortened(headline(incident), _CELL),
            )
            for incident in ordered
        ],
    )  # fmt: skip


def _show(arguments: argparse.Namespace) -> int:
    from agenttrail.report.same_act import same_acts

    store = _store(arguments.source)
    filters = _filters(arguments)
    known = store.incidents(filters)
    riskiest = [incident["incident.id"] for incident in riskiest_first(known)[:1]]
    if not (arguments.ids or riskiest or arguments.json):
        print_incidents([])
    for prefix in arguments.ids or riskiest:
        found = [incident for incident in known if incident["incident.id"].startswith(prefix)]
        if len(found) != 1:
            msg = (
                f"no incident {shortened(prefix, _NAME)!r} in {arguments.source}"
                if not found
                else f"{prefix!r} is the start of {len(found)} incidents: write more of it"
            )
            raise InputError(msg)
        findings = sorted(
            store.findings(found[0]["incident.id"]),
            key=lambda finding: (
                -LEVELS.index(finding["finding.severity"]),
                finding["finding.first_seen"],
                finding["finding.id"],
            ),
        )
        timeline = store.timeline(found[0]["incident.id"])
        if arguments.json:
            print_json({**found[0], "findings": findings, "timeline": timeline})
        else:
            told = _story(timeline, findings, whole=arguments.all)
            # what is the same act need not pass the filters
            every = known if filters == IncidentFilters() else store.incidents(IncidentFilters())
            twins = same_acts(every).get(found[0]["incident.id"], [])
            candidates = found[0].get("attribution.candidates", [])[:_MOST_CANDIDATES]
            holders = store.holders(candidates) if candidates else {}
            sys.stdout.write(
                incident_text(found[0], findings, told, twins, holders, whole=arguments.all, source=arguments.source)
            )
    return 0


def _story(timeline: Sequence[Document], findings: Sequence[Document], *, whole: bool) -> list[str]:
    """Return the lines of a story, as wide as the terminal is."""
    from agenttrail.report.standing import told_by_all

    if not timeline:
        return ["  no timeline is stored of it: the run was one of an older agenttrail, or its timelines were removed"]
    columns = min(max(shutil.get_terminal_size((_WIDTH, 24)).columns, _NARROWEST), _WIDEST)
    return story_lines(told_by_all(story(timeline), findings), width=columns, most=None if whole else MOST_MOMENTS)


def incident_text(
    incident: Document,
    findings: Sequence[Document],
    timeline: Sequence[str],
    twins: Sequence[Twin] = (),
    holders: Mapping[str, Document] = MappingProxyType({}),
    *,
    whole: bool = True,
    source: str = "",
) -> str:
    """Return an incident for people to read: what, who and why it is sure, its story, what was seen, what to do.

    Args:
        incident: the incident.
        findings: its findings, the worst first.
        timeline: lines of its story.
        twins: incidents that are probably the same act.
        holders: of candidates, findings that they alone prove.
        whole: whether findings that are context are told one by one, too, and not only counted, and advice that says
            the same again.
        source: where incidents were read from; "" where that is not known.
    """
    from agenttrail.report.advice import authors, steps
    from agenttrail.report.names import OPENING
    from agenttrail.report.proof import proof
    from agenttrail.report.standing import standing

    reasons = "; ".join(incident.get("attribution.reason", []))
    proven, said = proof(incident, findings, {}), incident.get("recommendation", [])
    numbered = enumerate(steps(incident, findings, twins, source=source), start=1)
    told = [
        f"{incident['incident.severity'].upper()}  {incident['incident.title']}",
        f"  {incident['incident.summary']}",
        "",
        f"  incident      {incident['incident.id']}",
        *(f"  {label:<13} {shortened(str(incident[name]), _NAME)}" for label, name in _IDENTITY if incident.get(name)),
        f"  sure because  {reasons} ({incident['attribution.status']}, level {incident['attribution.level']})",
        f"  that is       {proven.verdict}" + (f"  {proven.held}" if proven.held else ""),
        f"  its sandbox   {standing(incident).text}",
        f"  connections   {_connections(findings)}",
        *(f"  same act as   {twin.id[:SHORT_ID]}, probably: {twin.title}; {twin.why}" for twin in twins),
        *(f"  history       {entry_text(entry)}" for entry in history(triage_of(incident))),
        *_proof(incident, holders),
        f"  techniques    {', '.join(incident.get('threat.technique.id', [])) or 'none'}",
        f"  risk          {incident['incident.risk_score']:.0f} = {', '.join(incident['incident.risk_factors'])}",
        *(f"  do            {number}. {_step_text(step)}" for number, step in numbered),
        *(f"  its rule says {text}" for text in (said if whole else authors(incident, findings))),
    ]
    told += ["", *timeline]
    context = [one for one in findings if one["finding.severity"] not in OPENING]
    folded = not whole and len(context) > _MOST_CONTEXT
    for finding in findings[: len(findings) - len(context)] if folded else findings:
        told += ["", *_finding_lines(finding)]
    if folded:
        told += ["", *_context(context)]
    return "\n".join(printable(shortened(line, _LINE)) for line in told) + "\n\n"


def _connections(findings: Sequence[Document]) -> str:
    """Return whether connections were let through, who says so, and what does not agree."""
    from agenttrail.report.standing import block_of, decided_on, verdict

    decided = decided_on(findings)
    blocked = block_of(findings, decided)
    against = f"; {blocked.against}" if blocked and blocked.against else ""
    return f"{verdict(decided)} by {blocked.by}{against}" if blocked else verdict(decided)


def _step_text(step: Step) -> str:
    return f"{step.text} {'; '.join(step.commands)}" if step.commands else step.text.rstrip(":")


def _context(findings: Sequence[Document]) -> list[str]:
    """Return what findings that opened nothing are about, counted."""
    counted = Counter(shortened(str(one["finding.title"]), _NAME) for one in findings)
    several = f"{len(findings):,} more finding{'' if len(findings) == 1 else 's'}"
    return [
        f"  context: {several}, which --all shows one by one",
        *(f"    {count:,} of: {title}" for title, count in counted.most_common(_MOST_SHOWN)),
    ]


_IDENTITY = (
    ("agent", "gen_ai.agent.id"), ("trajectory", "trajectory.id"), ("sandbox", "sandbox.id"), ("job", "job.id"),
    ("host", "host.name"),
    ("namespace", "k8s.namespace.name"), ("pod uid", "k8s.pod.uid"), ("triage", "triage.status"),
    ("assignee", "triage.assignee"),
)  # fmt: skip


def _proof(incident: Document, holders: Mapping[str, Document]) -> list[str]:
    """Return the leases that prove it, or the candidates, by name as far as one is known."""
    from agenttrail.report.proof import lease_text

    leases, candidates = incident.get("attribution.lease_id", []), incident.get("attribution.candidates", [])
    held = f"{f'{len(leases):,} leases of ' if len(leases) > 1 else ''}{lease_text(incident)}"
    ids = ", ".join(leases)
    lines = [f"  lease         {held} ({ids})" if lease_text(incident) else f"  lease         {ids}"] if leases else []
    for lease in candidates[:_MOST_CANDIDATES]:
        named = lease_text(holders.get(lease, {}))
        lines.append(f"  candidate     {named or f'lease {lease}, which no finding names'}")
    more = len(candidates) - _MOST_CANDIDATES
    return lines + ([f"  candidate     and {more:,} more"] if more > 0 else [])


def _finding_lines(finding: Document) -> list[str]:
    from agenttrail.report.amounts import grouped_pair
    from agenttrail.report.names import ends, whom_of

    whom = whom_of(finding)
    peer = f"peer{'' if len(whom) == 1 else 's'} {ends(whom)}" if whom else "no peer"
    ports = ", ".join(map(str, finding.get("peer.port", [])))
    transports, outcomes = (", ".join(finding.get(name, [])) for name in ("network.transport", "event.outcome"))
    sent, received = (finding.get(f"{side}.bytes", 0) for side in ("source", "destination"))
    seen = (
        f"{finding['event.count']:,} events from {finding['finding.first_seen']} to {ended(finding, 'finding')}; "
        f"seen by {', '.join(finding['event.dataset'])}; {outcomes}"
    )
    carried = f"{finding.get('network.conversations', 0):,} conversations: {sent:,} bytes out, {received:,} bytes in"
    evidence = finding.get("finding.evidence", [])
    lines = [
        f"  {finding['finding.severity']}: {finding['finding.title']} ({finding['rule.name']})",
        f"    {peer} port {ports or '-'}, {transports}; {seen}",
        f"    in {carried}",
        *(
            [f"    saw {', '.join(map(grouped_pair, finding['finding.values']))}"]
            if finding.get("finding.values")
            else []
        ),
        *_call_before(finding),
        *(f"    {event['event.start']}  {event.get('event.original', '')}" for event in evidence[:_MOST_SHOWN]),
    ]
    if finding["event.count"] > _MOST_SHOWN:
        lines.append(f"    … {finding['event.count'] - min(len(evidence), _MOST_SHOWN):,} more")
    return lines


def _call_before(finding: Document) -> list[str]:
    """Return the tool call before the first event, where one is known."""
    if not {"gen_ai.tool.call.start", "gen_ai.tool.call.gap"} <= finding.keys():
        return []
    call, tool = (shortened(str(finding.get(name, "")), _NAME) for name in ("gen_ai.tool.call.id", "gen_ai.tool.name"))
    gap, at = finding["gen_ai.tool.call.gap"], finding["gen_ai.tool.call.start"]
    named = " ".join(filter(None, (tool, call)))
    if not gap:
        return [f"    at tool call {named} at {at}"]
    return [f"    last tool call before it: {named} at {at}, {gap:,.1f} s earlier"]
