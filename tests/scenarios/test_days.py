"""Days that nothing was tuned on: who did what is said right, and of nobody else."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.scenarios.days import NAMES, OPENING, Day, run_day
from tests.simulate.simulated import leases_of, spans_in

from agenttrail.simulate.scoring import score

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = "agenttrail, scenario day {number}"


def _seed(number: int) -> int:
    """Return a seed that nobody chose: the first four bytes of the digest of a text fixed before any run."""
    return int.from_bytes(hashlib.sha256(_TEXT.format(number=number).encode()).digest()[:4])


@pytest.fixture(
    scope="module",
    params=[pytest.param(_seed(number), marks=pytest.mark.xdist_group(f"day {number}")) for number in (1, 2, 3)],
)
def day(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Return one day, run once for all tests of it."""
    return run_day(tmp_path_factory.mktemp("day"), agents=12, hours=6.0, seed=request.param)


def _wrong(day: Day, kind: str) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the records of one kind of which the job says something else than truth."""
    for place, row in day.records.items():
        if row["kind"] == kind and row["attribution.status"]:
            names = NAMES if row["attribution.status"] == "attributed" else ()
            for said in [day.events[place]] if kind == "flow" else day.telemetry[place]:
                different = [name for name in ("attribution.status", *names) if said[name] != row[name]]
                if different:
                    yield place, f"{different[0]}: {said[different[0]]} for {row[different[0]]}"
                    break


def test_every_line_is_accounted_for(day: Day) -> None:
    kinds = Counter(row["kind"] for row in day.records.values())
    total = day.summary["total"]
    assert day.events.keys() == {place for place, row in day.records.items() if row["kind"] in ("flow", "gap")}
    assert day.telemetry.keys() == {place for place, row in day.records.items() if row["kind"] == "telemetry"}
    assert {(row["log.file.path"], row["log.offset"]) for row in day.dead_letters} == {
        place for place, row in day.records.items() if row["kind"] == "broken"
    }
    logs = [one for one in day.summary["sources"] if not one["name"].startswith("kubernetes_pods")]
    told = [sum(one[what] for one in logs) for what in ("lines", "with_events", "skipped", "dead")]
    assert told == [
        len(day.records), kinds["flow"] + kinds["gap"] + kinds["telemetry"],
        kinds["header"] + kinds["blank"] + kinds["unmeasured"], kinds["broken"],
    ]  # fmt: skip
    events = len(day.events) + sum(map(len, day.telemetry.values()))
    assert total["attributed"] + total["ambiguous"] + total["unattributed"] == events


def test_records_are_attributed_right(day: Day) -> None:
    """At least 999 of 1,000 flow records; the day is no easy one."""
    flows = Counter(row["attribution.status"] for row in day.records.values() if row["kind"] == "flow")
    wrong = list(_wrong(day, "flow"))
    assert len(wrong) <= flows.total() / 1_000, wrong[:10]
    assert list(_wrong(day, "telemetry")) == []
    assert flows["attributed"] > 10_000
    assert min(flows.values()) > 100


def test_ambiguous_are_exactly_those_that_are_so_in_truth(day: Day) -> None:
    """With exactly the candidates that truth names."""
    holders = _holders(day)
    said = {
        place: sorted(holders[lease] for lease in row["attribution.candidates"])
        for place, row in day.events.items()
        if row["attribution.status"] == "ambiguous"
    }
    assert said == {
        place: row["candidates"] for place, row in day.records.items() if row["attribution.status"] == "ambiguous"
    }


def _holders(day: Day) -> dict[str, str]:
    """Return whose each lease is: a pod's uid or a node's name."""
    leases = leases_of(day.directory, spans_in(day.directory))
    ids, uids, hosts = (leases.column(name).to_pylist() for name in ("lease.id", "k8s.pod.uid", "host.name"))
    return {lease: uid or host for lease, uid, host in zip(ids, uids, hosts, strict=True)}


def test_each_behaviour_has_its_incident(day: Day) -> None:
    """Whether its tool call tells or not: for the right agent, trajectory and sandbox, with a fitting technique.

    First seen at the second of its first activity, and with the tool call that started it; of no clean sandbox is there
    any.
    """
    told = score(day.truth, day.incidents)
    assert len({one.behaviour["kind"] for one in told.verdicts}) == 9
    assert [(one.behaviour["kind"], one.behaviour["parameters"]) for one in told.missed] == []
    assert [(one.behaviour["kind"], one.wrong) for one in told.wrong] == []
    assert [one["incident.title"] for one in told.innocent] == []
    assert told.clean > 100
    for one in told.verdicts:
        assert one.incident
        assert set(one.incident["destination.port"]) <= set(one.behaviour["ports"]), one.behaviour
        assert one.incident["incident.last_seen"] <= one.behaviour["end"] or one.behaviour["kind"] == "gpu_diversion"


def test_nobody_else_has_an_incident(day: Day) -> None:
    """Every incident stands on records of a behaviour; one that names no sandbox could not tell whose they were."""
    guilty, holders = day.behaviours(), _holders(day)
    for incident in day.incidents:
        if incident["attribution.status"] == "attributed":
            assert incident["k8s.pod.uid"] in guilty, incident["incident.title"]
        else:
            assert "sandbox.id" not in incident
            assert guilty.keys() & {holders[lease] for lease in incident["attribution.candidates"]}
    for finding in day.findings:
        if finding["finding.severity"] in OPENING:
            for event in finding["finding.evidence"]:
                row = day.records[event["log.file.path"], event["log.offset"]]
                if row["kind"] == "telemetry":
                    assert row["k8s.pod.uid"] in guilty
                    continue
                assert row["behaviour"], (finding["finding.title"], event)
                assert (finding["attribution.status"], finding.get("k8s.pod.uid")) in (
                    ("attributed", row["k8s.pod.uid"]), ("ambiguous", None),
                )  # fmt: skip
