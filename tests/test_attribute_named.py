"""Events that name their workload: what proves it, what outranks what, and what stays open."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from agenttrail.attribute_named import NameTable, attribute_named
from agenttrail.columns.batches import stacked
from agenttrail.entities import each_once, holders_of, name_holders
from agenttrail.leases import resolve
from agenttrail.schema import TIMESTAMP, conform, record

_T0 = 1_772_409_600_000_000


def _leases(*rows: dict[str, Any]) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name in record("lease").fields:
        if name in ("lease.start", "lease.end"):
            times = [None if row.get(name) is None else _T0 + row[name] * 1_000_000 for row in rows]
            columns[name] = pa.array(times, pa.int64()).cast(TIMESTAMP)
        elif name == "lease.address":
            columns[name] = pa.array([bytes(15) + bytes([row[name]]) for row in rows], pa.binary(16))
        elif name != "lease.id":
            columns[name] = pa.array([row.get(name) for row in rows], pa.string())
    return resolve([conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("lease"))])


def _pod(name: str, address: int = 1, start: int = 0, end: int | None = 100, **names: str) -> dict[str, Any]:
    held = {key.replace("__", "."): value for key, value in names.items()}
    return {"lease.address": address, "lease.start": start, "lease.end": end, "sandbox.id": name} | held


def _named(leases: pa.RecordBatch, *, at: int = 50, tolerance: int = 0, **said: str) -> dict[str, Any]:
    columns = {"event.start": pa.array([_T0 + at * 1_000_000]).cast(TIMESTAMP)}
    columns |= {key.replace("__", "."): pa.array([value]) for key, value in said.items()}
    event = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    found = attribute_named(event, NameTable.build(leases, tolerance * 1_000_000))
    holders, _ = name_holders(found)
    told: dict[str, Any] = found.to_pylist()[0]
    return told | {name: holders.column(name)[0].as_py() for name in holders.schema.names}


def test_a_pod_with_two_addresses_is_one_pod() -> None:
    """The name is held once, whatever number of addresses it has."""
    leases = _leases(
        _pod("a", 1, k8s__pod__uid="u", trajectory__id="t"), _pod("a", 2, k8s__pod__uid="u", trajectory__id="t")
    )
    found = _named(leases, sandbox__id="a")
    assert (found["attribution.status"], found["trajectory.id"], found["entity.anchor"]) == ("attributed", "t", "u")


def test_pods_of_one_name_are_told_apart_by_namespace_or_uid_or_not_at_all() -> None:
    """Without either all are candidates, and only what they agree on is said."""
    leases = _leases(
        _pod("a", 1, k8s__namespace__name="x", k8s__pod__uid="u1", job__id="j", gen_ai__agent__id="ann"),
        _pod("a", 2, k8s__namespace__name="y", k8s__pod__uid="u2", job__id="j", gen_ai__agent__id="bob"),
    )
    assert _named(leases, sandbox__id="a", k8s__namespace__name="x")["gen_ai.agent.id"] == "ann"
    assert _named(leases, sandbox__id="a", k8s__pod__uid="u2")["gen_ai.agent.id"] == "bob"
    open_ = _named(leases, sandbox__id="a")
    assert (open_["attribution.status"], len(open_["attribution.candidates"])) == ("ambiguous", 2)
    assert (open_["sandbox.id"], open_["job.id"], open_["gen_ai.agent.id"]) == ("a", "j", None)


def test_pods_of_one_name_in_two_clusters_are_told_apart_by_the_scope_of_the_source() -> None:
    """As addresses are; where the source names no scope, both are candidates."""
    both = _leases(
        _pod("a", 1, lease__scope="vpc-a", k8s__pod__uid="u1"), _pod("a", 1, lease__scope="vpc-b", k8s__pod__uid="u2")
    )
    assert _named(both, sandbox__id="a", attribution__scope="vpc-b")["k8s.pod.uid"] == "u2"
    assert _named(both, sandbox__id="a")["attribution.status"] == "ambiguous"
    assert _named(both, sandbox__id="a", attribution__scope="vpc-c")["attribution.lease_id"] is None


@pytest.mark.parametrize(("at", "tolerance", "status"), [
    (99, 0, "lease"), (100, 0, "itself"), (101, 2, "lease"), (103, 2, "itself"), (-1, 2, "lease"), (-1, 0, "itself"),
])  # fmt: skip
def test_a_lease_is_half_open_and_tolerance_helps_what_none_covers(at: int, tolerance: int, status: str) -> None:
    """As for addresses."""
    found = _named(_leases(_pod("a", job__id="j")), at=at, tolerance=tolerance, sandbox__id="a")
    assert (found["job.id"] == "j") == (status == "lease")
    assert (found["attribution.lease_id"] is not None) == (status == "lease")
    assert found["sandbox.id"] == "a"


def test_an_address_reused_within_seconds_does_not_touch_names() -> None:
    """Each name keeps its own interval."""
    leases = _leases(_pod("a", 1, 0, 50, trajectory__id="ta"), _pod("b", 1, 50, 100, trajectory__id="tb"))
    assert _named(leases, at=49, tolerance=5, sandbox__id="a")["trajectory.id"] == "ta"
    assert _named(leases, at=52, tolerance=5, sandbox__id="a")["trajectory.id"] == "ta"
    assert _named(leases, at=52, sandbox__id="b")["trajectory.id"] == "tb"


def test_metadata_outranks_what_the_record_says() -> None:
    """A span may not move its pod to another trajectory; an agent's name is taken where metadata has none."""
    leases = _leases(_pod("a", trajectory__id="t", job__id="j"))
    found = _named(leases, sandbox__id="a", trajectory__id="another", job__id="k", gen_ai__agent__id="ann")
    assert (found["trajectory.id"], found["job.id"], found["gen_ai.agent.id"]) == ("t", "j", "ann")


@pytest.mark.parametrize(("said", "level", "entity"), [
    ({"trajectory__id": "t", "sandbox__id": "a"}, "trajectory", "t"), ({"sandbox__id": "a"}, "sandbox", "a"),
    ({"job__id": "j"}, "job", "j"), ({"host__name": "h"}, "host", "h"),
])  # fmt: skip
def test_without_a_lease_the_record_is_all_there_is(said: dict[str, Any], level: str, entity: str) -> None:
    """It names the level reached, no lease, and the day as anchor."""
    found = _named(_leases(_pod("other")), **said)
    assert (found["attribution.status"], found["attribution.level"]) == ("attributed", level)
    assert (found["entity.id"], found["entity.anchor"], found["attribution.lease_id"]) == (entity, "2026-03-02", None)
    assert found["attribution.reason"] == "named by the record itself: no lease proves it"


def test_a_record_that_names_nothing_is_nobodys() -> None:
    """It is counted as such."""
    found = _named(_leases(_pod("other")))
    assert (found["attribution.status"], found["attribution.level"]) == ("unattributed", "address")
    assert found["attribution.reason"] == "the record names no workload"


def test_no_leases_at_all() -> None:
    """Telemetry alone can be told, too."""
    assert _named(resolve([]), sandbox__id="a")["attribution.level"] == "sandbox"


def test_what_a_record_calls_an_agent_is_kept_where_holders_that_come_again_are_one() -> None:
    """A lease says who its holder is, but for the agent that it does not name."""
    leases = _leases(_pod("a", 1, k8s__pod__uid="u"), _pod("b", 2, k8s__pod__uid="v", gen_ai__agent__id="bob"))
    said = [("a", "ann"), ("a", "eve"), ("a", None), ("b", "eve"), ("b", None)]
    columns = {
        "event.start": pa.array([_T0 + 50_000_000] * len(said)).cast(TIMESTAMP),
        "sandbox.id": pa.array([name for name, _ in said]),
        "gen_ai.agent.id": pa.array([agent for _, agent in said]),
    }
    events = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    found = attribute_named(events, NameTable.build(leases, 0))
    together = stacked([holders_of(found.slice(row, 1))[0] for row in range(len(said))] * 2)
    once, which = each_once(together)
    assert once.take(pa.array(which)).to_pylist() == together.to_pylist()
    agents = zip(once.column("sandbox.id").to_pylist(), once.column("gen_ai.agent.id").to_pylist(), strict=True)
    assert sorted(agents, key=str) == [("a", "ann"), ("a", "eve"), ("a", None), ("b", "bob")]
