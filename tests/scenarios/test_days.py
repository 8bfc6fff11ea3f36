"""Days that nothing was tuned on: who did what is said right, and of nobody else."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from tests.scenarios.days import NAMES, OPENING, Day, run_day
from tests.simulate.simulated import leases_of, spans_in

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = "agenttrail, scenario day {number}"
_RECOGNISED = {
    "mining": "impact/mining-verdict",
    "metadata_access": "credential-access/instance-metadata-service",
    "bulk_exfiltration": "exfiltration/volume-to-unlisted-peer",
}
"""Kinds that single records of the network give away, and the rules that look at these."""


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


def test_each_behaviour_that_is_recognised_has_its_incident(day: Day) -> None:
    """Medium or above, for the right agent, trajectory and sandbox, with the technique, the peers and the time."""
    found = {
        one["k8s.pod.uid"]: one for one in day.incidents if one["incident.severity"] in OPENING and "k8s.pod.uid" in one
    }
    behaviours = day.behaviours()
    kinds = {one["kind"] for one in behaviours.values()}
    assert len(kinds) == 9
    assert kinds.issuperset(_RECOGNISED)
    for uid, behaviour in behaviours.items():
        if behaviour["kind"] not in _RECOGNISED:
            continue
        assert uid in found, behaviour
        incident = found[uid]
        assert [incident[name] for name in NAMES[:4]] == [behaviour[name] for name in NAMES[:4]]
        assert behaviour["technique"] in incident["threat.technique.id"], behaviour
        assert set(incident["destination.ip"]) == set(behaviour["peers"]), behaviour
        assert set(incident["destination.port"]) <= set(behaviour["ports"]), behaviour
        call = behaviour["tool_call"]
        begin = _time(call["start"] if behaviour["tells"] else behaviour["start"])
        assert begin <= _time(incident["incident.first_seen"])
        assert _time(incident["incident.last_seen"]) <= _time(behaviour["end"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_nobody_else_has_an_incident(day: Day) -> None:
    """Of these rules, every incident stands on records of a behaviour.

    One that names no sandbox could not tell whose they were.
    """
    guilty, holders, rules = day.behaviours(), _holders(day), set(_RECOGNISED.values())
    for incident in day.incidents:
        if not rules & set(incident["rule.name"]):
            continue
        if incident["attribution.status"] == "attributed":
            assert incident["k8s.pod.uid"] in guilty, incident["incident.title"]
        else:
            assert "sandbox.id" not in incident
            assert guilty.keys() & {holders[lease] for lease in incident["attribution.candidates"]}
    for finding in day.findings:
        if finding["finding.severity"] in OPENING and finding["rule.name"] in rules:
            for event in finding["finding.evidence"]:
                row = day.records[event["log.file.path"], event["log.offset"]]
                assert row["behaviour"], (finding["finding.title"], event)
                assert (finding["attribution.status"], finding.get("k8s.pod.uid")) in (
                    ("attributed", row["k8s.pod.uid"]), ("ambiguous", None),
                )  # fmt: skip
