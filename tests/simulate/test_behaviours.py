"""The behaviours of a simulated day are what truth says, and as the makers of such tools describe them."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from tests.simulate.simulated import Day, parsed, whole_spans

from agenttrail.simulate import simulate

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    "mining", "gpu_diversion", "reverse_ssh_tunnel", "metadata_access", "bulk_exfiltration", "slow_exfiltration",
    "beacon", "internal_scan", "egress_probing",
}  # fmt: skip
_SEEDS = (2, 3, 5, 8)
_PLAIN_POOL_PORTS = {3333, 3334, 4444, 5555, 7777, 8888, 9999, 10128, 14444, 20128, 45700}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Day]:
    """Return some days of the usual size."""
    found = []
    for seed in _SEEDS:
        directory = tmp_path_factory.mktemp("day")
        truth = simulate(directory, seed=seed)
        found.append(Day(directory, truth, pq.read_table(directory / "truth" / "records.parquet").to_pylist()))
    return found


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _of(days: list[Day], *kinds: str) -> list[dict[str, Any]]:
    found = [one for day in days for one in day.truth.behaviours if one["kind"] in kinds]
    assert found
    return found


def _records(day: Day, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the flow records of behaviours, by behaviour, as the program's parsers read them."""
    guilty = {(row["log.file.path"], row["log.offset"]): row["behaviour"] for row in day.rows if row["behaviour"]}
    found = defaultdict(list)
    names = ("event.start", "event.end", "source.ip", "source.port", "destination.ip", "destination.port",
             "source.bytes", "event.outcome", "network.application", "log.file.path", "log.offset")  # fmt: skip
    for one, source in parsed(day):
        if not source["format"].endswith("_flow"):
            continue
        known, nothing = one.events.schema.names, [None] * one.events.num_rows
        columns = [one.events.column(name).to_pylist() if name in known else nothing for name in names]
        for values in zip(*columns, strict=True):
            row = dict(zip(names, values, strict=True))
            behaviour = guilty.get((row["log.file.path"], row["log.offset"]))
            if behaviour in wanted:
                found[behaviour].append(row)
    return found


def test_every_day_has_every_kind(days: list[Day]) -> None:
    """Few sandboxes, and none of them twice."""
    for day in days:
        told = day.truth.behaviours
        assert {one["kind"] for one in told} == _KINDS
        guilty = [one["k8s.pod.uid"] for one in told]
        assert 12 <= len(set(guilty)) == len(guilty) <= 0.1 * len(day.truth.sandboxes)
        assert {one["k8s.pod.uid"] for one in day.truth.sandboxes if one["behaviour"]} == set(guilty)
        assert max(Counter(one["kind"] for one in told).values()) <= 4


def test_some_days_have_every_kind_in_every_place_and_form(days: list[Day]) -> None:
    """On both clouds, on all classes of ports, with tool calls that tell and that do not; mining on one cloud only."""
    places, forms, telling = defaultdict(set), defaultdict(set), defaultdict(set)
    for one in _of(days, *_KINDS):
        places[one["kind"]].add(one["scope"][:7] == "vpc-bp1")
        forms[one["kind"]].add(one["parameters"].get("form"))
        if one["tool_call"]:
            telling[one["kind"]].add(one["tells"])
    assert places.pop("mining") == {True}
    assert all(found == {True, False} for found in places.values()), places
    assert forms["reverse_ssh_tunnel"] == {"22", "443", "high"}
    assert forms["gpu_diversion"] == {"pool", "tls"}
    for kind, found in telling.items():
        expected = {True, False} if kind in ("mining", "gpu_diversion", "reverse_ssh_tunnel") else {False}
        assert found == expected, kind


def test_a_behaviour_is_what_its_records_show(days: list[Day]) -> None:
    """It lies within its sandbox's time, and has the records, ports, first activity and sandbox that are told."""
    for day in days:
        sandboxes = {one["k8s.pod.uid"]: one for one in day.truth.sandboxes}
        counts = Counter(row["behaviour"] for row in day.rows if not row["duplicate"])
        for one in day.truth.behaviours:
            sandbox = sandboxes[one["k8s.pod.uid"]]
            assert sandbox["start"] < one["start"] < one["end"] <= (sandbox["end"] or day.truth.end)
            assert sandbox["missing"] == one["missing"]
            assert counts[one["id"]] == one["records"] > 0
            assert one["first_activity"] == one["start"]
        for row in day.rows:
            if row["behaviour"]:
                assert row["behaviour"] == sandboxes[row["k8s.pod.uid"]]["behaviour"]


def test_first_activity_is_the_start_of_the_earliest_record(days: list[Day]) -> None:
    wanted = {one["id"]: one for one in days[0].truth.behaviours}
    for behaviour, rows in _records(days[0], set(wanted)).items():
        assert min(row["event.start"] for row in rows).timestamp() == _at(wanted[behaviour]["first_activity"])


def test_each_begins_with_a_tool_call(days: list[Day]) -> None:
    """The first packet follows within seconds, and no other call starts in between; others come later."""
    for day in days:
        calls = defaultdict(list)
        for _, spans in whole_spans(day):
            for span in spans:
                if span["said"].get("gen_ai.operation.name") == "execute_tool":
                    calls[span["pod"]].append(span)
        later = 0
        for one in day.truth.behaviours:
            found = calls[one["sandbox.id"]]
            assert (one["tool_call"] is None) == (not found) == ("spans" in one["missing"])
            if not found:
                assert not one["tells"]
                continue
            told = one["tool_call"]
            by_id = {span["said"]["gen_ai.tool.call.id"]: span for span in found}
            span = by_id[told["id"]]
            called, first = _at(told["start"]), _at(one["first_activity"])
            assert int(span["startTimeUnixNano"]) == round(called * 1e3) * 10**6
            assert span["said"]["gen_ai.tool.name"] == told["name"]
            assert 0.3 - 1 < first - called <= 20
            starts = [int(other["startTimeUnixNano"]) / 1e9 for other in by_id.values() if other is not span]
            assert not any(called <= start <= first for start in starts)
            later += any(start > first for start in starts)
            text = str(span["said"]["gen_ai.tool.call.arguments"])
            assert ("stratum+" in text or "ssh -fN -R" in text) == one["tells"]
        assert later >= len(day.truth.behaviours) / 2


def test_parameters_are_drawn_from_their_ranges(days: list[Day]) -> None:
    for one in _of(days, "beacon"):
        assert 10 <= one["parameters"]["period_s"] <= 300
        assert 0 <= one["parameters"]["jitter"] <= 0.4
        assert one["parameters"]["connections"] >= 24
    for one in _of(days, "slow_exfiltration"):
        assert 1.5e9 <= one["parameters"]["bytes"] <= 2e10
        assert 600 <= one["parameters"]["duration_s"] <= 3_600
        assert 20e6 <= one["parameters"]["bytes"] / one["parameters"]["connections"] <= 150e6
        assert len(one["peers"]) == 1
    for one in _of(days, "gpu_diversion"):
        assert 600 <= one["parameters"]["duration_s"] <= 3_600
        assert one["parameters"]["connections"] <= 3
        assert one["missing"] in ([], ["spans"])
        assert set(one["ports"]) <= ({443} if one["parameters"]["form"] == "tls" else _PLAIN_POOL_PORTS)
    for one in _of(days, "reverse_ssh_tunnel"):
        assert one["parameters"]["form"] == (str(one["ports"][0]) if one["ports"][0] < 1_024 else "high")
        if one["parameters"]["form"] != "22" and one["scope"][:7] != "vpc-bp1":
            assert one["parameters"]["session_s"] >= 720
    for one in _of(days, "internal_scan"):
        assert 20 <= len(one["peers"]) <= 200
        assert len(one["ports"]) <= 5
        assert all(peer.startswith("10.") for peer in one["peers"])
        assert _at(one["end"]) - _at(one["start"]) <= 610
    for one in _of(days, "egress_probing"):
        assert 12 <= one["parameters"]["connections"] <= 60
        assert one["tool_call"] is None or _at(one["end"]) - _at(one["tool_call"]["start"]) <= 60


def test_time_goes_into_beacons_and_tunnels(days: list[Day]) -> None:
    """Beacons go on over at least 60 % of their sandbox's life, tunnels over 60 % of what is left of it."""
    for day in days:
        sandboxes = {one["k8s.pod.uid"]: one for one in day.truth.sandboxes}
        for one in _of([day], "beacon", "reverse_ssh_tunnel"):
            sandbox = sandboxes[one["k8s.pod.uid"]]
            end = _at(sandbox["end"] or day.truth.end)
            whole = end - (_at(sandbox["start"]) if one["kind"] == "beacon" else _at(one["start"]) + 5)
            assert _at(one["end"]) - _at(one["start"]) >= 0.59 * whole, one


def test_more_leaves_through_a_tunnel_than_comes_in(days: list[Day]) -> None:
    for day in days:
        told = {one["id"]: one for one in _of([day], "reverse_ssh_tunnel")}
        for behaviour, rows in _records(day, set(told)).items():
            peer = told[behaviour]["peers"][0]
            weights = Counter[bool]()
            for row in rows:
                weights[_text(row["destination.ip"]) == peer] += row["source.bytes"]
            assert weights[False] < 0.95 * weights[True]


def _text(address: bytes) -> str:
    return ".".join(map(str, address[-4:]))


def test_what_is_refused_is_refused_and_scans_find_little(days: list[Day]) -> None:
    for day in days:
        told = {one["id"]: one for one in _of([day], "egress_probing", "internal_scan")}
        for behaviour, rows in _records(day, set(told)).items():
            answers = [row for row in rows if _text(row["source.ip"]) in told[behaviour]["peers"]]
            refused = [row for row in rows if row["event.outcome"] == "failure"]
            if told[behaviour]["kind"] == "internal_scan":
                assert len(answers) < len(rows) / 2
            else:
                assert not answers
                assert bool(refused) == (told[behaviour]["parameters"]["refused_by"] == "interface")


def test_small_days_have_what_fits(tmp_path: Path) -> None:
    truth = simulate(tmp_path, agents=4, hours=1.5, seed=7)
    assert len(truth.behaviours) >= 3
