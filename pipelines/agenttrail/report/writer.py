"""write_report(): all pages of a report, which take the place of the one before at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agenttrail.errors import InputError, SinkError, shortened
from agenttrail.incident_filters import riskiest_first
from agenttrail.report.commands import command
from agenttrail.report.incident_page import Around, incident_page, observed
from agenttrail.report.names import incident_file, peer_names
from agenttrail.report.overview import agent_page, agent_pages, ends_of, index_page, notes_of, readers_of, sources_of
from agenttrail.report.reading import Told
from agenttrail.report.same_act import same_acts
from agenttrail.report.suspects import possible_agents
from agenttrail.sinks.files import REPORT, claimed, join
from agenttrail.sinks.report_files import INDEX, put_in_place, stage, write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.incident_filters import IncidentFilters
    from agenttrail.report.conditions import Condition
    from agenttrail.report.reading import Case, Material

Document = dict[str, Any]
MOST_PAGES = 200
"""Incidents with a page, the riskiest ones, unless some are asked for by name."""


@dataclass(frozen=True)
class Written:
    """What a report holds.

    Attributes:
        index: path of its first page.
        incidents: how many it lists.
        pages: how many of them have a page.
    """

    index: str
    incidents: int
    pages: int


def write_report(
    material: Material,
    folder: str,
    rules: Mapping[str, Condition],
    filters: IncidentFilters,
    only: Sequence[str] = (),
) -> Written:
    """Write a report; the pages of an earlier one in the same folder go, other files there stay.

    Args:
        material: where incidents, findings and timelines come from.
        folder: where to.
        rules: what rules ask for, by their ids.
        filters: which incidents are wanted.
        only: ids of incidents, or what they begin with; empty: all, with pages for the riskiest.

    Raises:
        InputError: what is to be read cannot be, or an id is none.
        SinkError: a page cannot be written, or another run writes there.
    """
    incidents = riskiest_first(material.incidents(filters))
    chosen = _chosen(incidents, only)
    agents = agent_pages(incidents)
    told = Told(agents.keys(), {lease for one in chosen for lease in one.get("attribution.candidates", [])})
    for incident in incidents:
        told.add(incident, finding=False)
    run = material.run()
    paged = {incident["incident.id"] for incident in chosen}
    around = Around(
        told,
        notes_of(run),
        readers_of(run),
        sources_of(run),
        same_acts(incidents),
        paged,
        material.place(),
        ends_of(run),
    )
    with claimed(folder):
        stage(folder)
        names = []
        for case in material.cases(chosen, told):
            names.append(incident_file(case.incident["incident.id"]))
            write_page(folder, names[-1], _page(case, rules, around))
            _note(case, around)
        for agent, name in agents.items():
            own = [one for one in incidents if one.get("gen_ai.agent.id") == agent]
            perhaps = [one for one in incidents if agent in told.possible.get(one["incident.id"], ())]
            write_page(folder, name, agent_page(agent, own, perhaps, around))
        asked = _asked(filters, only)
        write_page(folder, INDEX, index_page(incidents, around, agents, run, asked))
        put_in_place(folder, [*names, *agents.values(), INDEX])
    return Written(join(folder, INDEX), len(incidents), len(chosen))


def _note(case: Case, around: Around) -> None:
    """Take note of what the first page says of an incident and only its findings and its timeline tell."""
    id_, told = case.incident["incident.id"], around.told
    told.possible[id_] = possible_agents(case, around)
    told.names[id_] = peer_names(case.incident, case.findings)
    times = observed(case.timeline)
    if times is not None:
        told.earliest[id_], told.latest[id_] = times


def _page(case: Any, rules: Mapping[str, Condition], around: Around) -> bytes:
    try:
        return incident_page(case, rules, around)
    except (ValueError, TypeError, KeyError) as error:
        id_ = shortened(str(case.incident["incident.id"]), 40)
        msg = f"incident {id_}: its findings or its timeline cannot be shown: {shortened(str(error))}"
        raise InputError(msg) from error


def _chosen(incidents: Sequence[Document], only: Sequence[str]) -> list[Document]:
    if not only:
        return list(incidents[:MOST_PAGES])
    chosen = []
    for prefix in only:
        found = [one for one in incidents if one["incident.id"].startswith(prefix)]
        if not found:
            msg = f"no incident {shortened(prefix, 100)!r} among those that are asked for"
            raise InputError(msg)
        chosen += [one for one in found if one not in chosen]
    return chosen


def _asked(filters: IncidentFilters, only: Sequence[str]) -> str:
    said = [f"{name} {value}" for name, value in asdict(filters).items() if value]
    return ", ".join([*said, *([f"a page for {len(only)} that were named"] if only else [])])


def report_after_run(directory: str, rules: Mapping[str, Condition]) -> tuple[str, str]:
    """Write the report of an output directory after a run, and do not let that be the end of the run.

    Returns:
        Path of the first page, or "", and what went wrong, or "".  What a run found lies in its files by
        then: a page that cannot be made is told, and the pages of an earlier run, which say something else, go.
    """
    from agenttrail.incident_filters import IncidentFilters
    from agenttrail.report.reading import Directory

    folder = join(directory, REPORT)
    try:
        return write_report(Directory(directory), folder, rules, IncidentFilters()).index, ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is whole
        again = f"the incidents are written; for the report run: {command('report', directory)}"
        return "", f"no report: {_gone(folder)}{type(error).__name__}: {shortened(str(error))}; {again}"


def _gone(folder: str) -> str:
    try:
        put_in_place(folder, [])
    except (OSError, SinkError):
        return "and the pages of an earlier run are still there: "
    return ""
