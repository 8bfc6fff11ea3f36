"""resolve() agrees with putting observations together one by one; and what becomes of real metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.leases import NAMES, Observation, Occupancy, occupancies

from agenttrail.columns.addresses import address, format_addresses
from agenttrail.formats import FORMATS
from agenttrail.leases import resolve
from agenttrail.metadata import lease_batch
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from random import Random

BASE = 1_772_409_600_000_000  # 2026-03-02 in microseconds
SECOND = 1_000_000


@st.composite
def _observation(draw: st.DrawFn) -> Observation:
    start = draw(st.integers(0, 4))
    length = draw(st.none() | st.integers(0, 6))
    few = {
        "k8s.pod.uid": (None, None, "u1", "u2"),
        "sandbox.id": (None, "s1", "s2"),
        "k8s.namespace.name": (None, "n1"),
        "job.id": (None, "j1", "j2"),
        "host.name": (None, "h1", "h2"),
        "trajectory.id": (None, None, "t1", "t2"),
        "gen_ai.agent.id": (None, None, "a1"),
    }
    names = {name: draw(st.sampled_from(values)) for name, values in few.items()}
    if draw(st.integers(0, 3)) == 0:  # a node's own address
        names = dict.fromkeys(few) | {"host.name": draw(st.sampled_from(["h1", "h2"]))}
    return Observation(
        draw(st.sampled_from([None, "vpc-a"])),
        draw(st.sampled_from(["10.0.0.1", "fd00::1"])),
        BASE + start * SECOND,
        None if length is None else BASE + (start + length) * SECOND,
        tuple(names.items()),
        draw(st.sampled_from(["a.json", "b.json"])),
    )


@st.composite
def _observations(draw: st.DrawFn) -> list[Observation]:
    """Some observations, and others that differ from one of them in a thing or two."""
    found = draw(st.lists(_observation(), max_size=6))
    for _ in range(draw(st.integers(0, 6)) if found else 0):
        one, other = draw(st.sampled_from(found)), draw(_observation())
        changed = draw(st.sets(st.sampled_from(["start", "end", "path", *NAMES]), min_size=1, max_size=2))
        names = tuple((name, other.name(name) if name in changed else value) for name, value in one.names)
        rest = {name: getattr(other, name) for name in changed if name not in NAMES}
        varied = replace(one, names=names, **rest)
        found.append(varied if varied.end is None or varied.start <= varied.end else replace(varied, end=None))
    return found


_OBSERVATIONS = _observations()


def _batches(observations: list[Observation]) -> list[pa.RecordBatch]:
    paths = sorted({one.path for one in observations})
    return [lease_batch([_row(one) for one in observations if one.path == path], path) for path in paths]


def _row(one: Observation) -> dict[str, Any]:
    return {
        "lease.scope": one.scope,
        "lease.address": address(one.address),
        "lease.start": one.start,
        "lease.end": one.end,
        **dict(one.names),
    }


def _said(leases: pa.RecordBatch) -> list[Occupancy]:
    texts = format_addresses(leases.column("lease.address")).to_pylist()
    starts, ends = (leases.column(f"lease.{name}").cast(pa.int64()).to_pylist() for name in ("start", "end"))
    rows = leases.select(["lease.scope", "log.file.path", *NAMES]).to_pylist()
    return [
        Occupancy(row["lease.scope"], text, start, end, tuple((n, row[n]) for n in NAMES), row["log.file.path"])
        for row, text, start, end in zip(rows, texts, starts, ends, strict=True)
    ]


def _ids(leases: pa.RecordBatch) -> list[str]:
    return list(leases.column("lease.id").to_pylist())


@given(_OBSERVATIONS)
def test_one_lease_an_occupancy_as_the_oracle_says(observations: list[Observation]) -> None:
    leases = resolve(_batches(observations))
    said = _said(leases)
    assert set(said) == occupancies(observations)
    assert len(said) == len(set(said))


@given(_OBSERVATIONS)
def test_every_lease_has_an_id_of_its_own(observations: list[Observation]) -> None:
    ids = _ids(resolve(_batches(observations)))
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


@given(_OBSERVATIONS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_repetition_and_batches_change_nothing(
    observations: list[Observation], random: Random, size: int
) -> None:
    shuffled = observations + observations[::2]
    random.shuffle(shuffled)
    pieces = [shuffled[first : first + size] for first in range(0, len(shuffled), size)]
    batches = [batch for piece in pieces for batch in _batches(piece)]
    assert resolve(batches).equals(resolve(_batches(observations)))


@given(_OBSERVATIONS.filter(bool), st.data())
def test_an_end_that_becomes_known_changes_no_id(observations: list[Observation], data: st.DataObject) -> None:
    """An analyst's link to a lease holds while it lasts and after."""
    place = data.draw(st.integers(0, len(observations) - 1))
    later = list(observations)
    later[place] = replace(later[place], end=later[place].start + data.draw(st.integers(0, 9)) * SECOND)
    assert _ids(resolve(_batches(later))) == _ids(resolve(_batches(observations)))


def test_no_metadata_give_no_leases() -> None:
    assert resolve([]).num_rows == 0
    assert resolve([lease_batch([], "a")]).num_rows == 0
    assert resolve([]).schema == resolve(_batches([Observation(None, "10.0.0.1", BASE, None, ())])).schema


def test_a_label_that_comes_later_makes_no_second_holder() -> None:
    """Of a sandbox that no uid names: its episode was set while it ran."""
    before = Observation(None, "10.0.0.1", BASE, None, (("sandbox.id", "s1"),))
    after = replace(before, names=(("sandbox.id", "s1"), ("trajectory.id", "t1")))
    leases = resolve(_batches([before, after]))
    assert _ids(leases) == _ids(resolve(_batches([before])))
    assert leases.column("trajectory.id").to_pylist() == ["t1"]


# -- from real metadata

_TIME = "2026-03-02T00:{:02d}:{:02d}Z"


def _pod(name: str, start: int, *, ip: str = "10.0.0.7", host: str = "192.168.0.4", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "rl", "uid": f"uid-{name}", "labels": {}},
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Running", "startTime": _at(start), "podIPs": [{"ip": ip}], "hostIP": host, **status,
        },
    }  # fmt: skip


def _at(second: int) -> str:
    return _TIME.format(*divmod(second, 60))


def _finished(second: int, phase: str = "Succeeded") -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"state": {"terminated": {"finishedAt": _at(second)}}}]}


def _resolved(
    *objects: Any, settings: dict[str, Any] | None = None, format_: str = "kubernetes_pods"
) -> pa.RecordBatch:
    data = b"\n".join(map(orjson.dumps, objects))
    return resolve([FORMATS[format_].parser(settings or {})(Block(data, "pods", 0)).events])


def _intervals(leases: pa.RecordBatch, ip: str) -> dict[str | None, tuple[int, int | None]]:
    """Return by sandbox (None: the node) the seconds from when to when it held an address."""
    found: dict[str | None, tuple[int, int | None]] = {}
    for one in _said(leases):
        if one.address == ip:
            name = dict(one.names)["sandbox.id"]
            assert name not in found
            found[name] = (one.start - BASE) // SECOND, None if one.end is None else (one.end - BASE) // SECOND
    return found


def test_a_lease_ends_with_the_terminal_phase_not_with_the_deletion() -> None:
    deleted = _pod("one", 10, **_finished(40))
    deleted["metadata"]["deletionTimestamp"] = _at(300)
    assert _intervals(_resolved(deleted), "10.0.0.7") == {"one": (10, 40)}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_the_last_container_to_finish_ends_it(phase: str) -> None:
    several: dict[str, Any] = {
        "phase": phase,
        "containerStatuses": [*_finished(40)["containerStatuses"], *_finished(55)["containerStatuses"]],
    }
    assert _intervals(_resolved(_pod("one", 10, **several)), "10.0.0.7") == {"one": (10, 55)}


def test_a_pod_with_one_container_done_still_holds_its_address() -> None:
    running = _finished(40, "Running")["containerStatuses"]
    pod = _pod("one", 10, containerStatuses=[*running, {"state": {"running": {"startedAt": _at(11)}}}])
    assert _intervals(_resolved(pod), "10.0.0.7") == {"one": (10, None)}


def test_an_address_reused_within_seconds_has_two_leases_that_do_not_meet() -> None:
    leases = _resolved(_pod("one", 10, **_finished(40)), _pod("two", 41, **_finished(90)), _pod("three", 90))
    assert _intervals(leases, "10.0.0.7") == {"one": (10, 40), "two": (41, 90), "three": (90, None)}


def test_a_name_used_again_is_another_holder() -> None:
    """A StatefulSet's pod comes back under its name; the uid tells the two apart."""
    first, second = _pod("worker-0", 10, **_finished(40)), _pod("worker-0", 60)
    second["metadata"]["uid"] = "uid-again"
    leases = _resolved(first, second)
    held = [(one.start, dict(one.names)["k8s.pod.uid"]) for one in _said(leases) if one.address == "10.0.0.7"]
    assert sorted(held) == [(BASE + 10 * SECOND, "uid-worker-0"), (BASE + 60 * SECOND, "uid-again")]


def test_the_events_of_a_watch_are_one_pod() -> None:
    """Seen running, then labelled, then done, then deleted: one lease with all of its names."""
    labelled = _pod("one", 10)
    labelled["metadata"]["labels"] = {"ep": "t-9"}
    done = _pod("one", 10, **_finished(40))
    done["metadata"]["labels"] = {"ep": "t-9"}
    watch = [
        {"type": kind, "object": pod}
        for kind, pod in (("ADDED", _pod("one", 10)), ("MODIFIED", labelled), ("MODIFIED", done), ("DELETED", done))
    ]
    leases = _resolved(*watch, settings={"identity": {"trajectory.id": 'metadata.labels["ep"]'}})
    (held,) = [one for one in _said(leases) if one.address == "10.0.0.7"]
    assert (held.start, held.end) == (BASE + 10 * SECOND, BASE + 40 * SECOND)
    assert dict(held.names)["trajectory.id"] == "t-9"


def test_a_node_holds_its_address_from_its_first_pod_to_its_last() -> None:
    leases = _resolved(
        _pod("one", 10, ip="10.0.0.1", **_finished(40)),
        _pod("two", 20, ip="10.0.0.2", **_finished(30)),
        _pod("three", 60, ip="10.0.0.3", **_finished(90)),
    )
    assert _intervals(leases, "192.168.0.4") == {None: (10, 90)}
    (node,) = [one for one in _said(leases) if one.address == "192.168.0.4"]
    assert {name: value for name, value in node.names if value} == {"host.name": "node-1"}


def test_a_node_with_a_pod_that_runs_still_holds_its_address() -> None:
    leases = _resolved(_pod("one", 10, ip="10.0.0.1", **_finished(40)), _pod("two", 20, ip="10.0.0.2"))
    assert _intervals(leases, "192.168.0.4") == {None: (10, None)}


def test_pods_on_the_host_network_hold_the_nodes_address_beside_it() -> None:
    leases = _resolved(_pod("one", 10, ip="192.168.0.4", **_finished(40)), _pod("two", 20, ip="192.168.0.4"))
    assert _intervals(leases, "192.168.0.4") == {"one": (10, 40), "two": (20, None), None: (10, None)}


def test_both_addresses_of_a_dual_stack_pod_are_leased() -> None:
    leases = _resolved(_pod("one", 10, podIPs=[{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]))
    assert _intervals(leases, "10.0.0.7") == _intervals(leases, "fd00::7") == {"one": (10, None)}


def test_scopes_keep_equal_addresses_apart() -> None:
    parser = FORMATS["kubernetes_pods"].parser
    block = Block(orjson.dumps(_pod("one", 10)), "pods", 0)
    leases = resolve([parser({"scope": scope})(block).events for scope in ("vpc-a", "vpc-b", "vpc-a")])
    assert sorted((one.scope, one.address) for one in _said(leases)) == [
        ("vpc-a", "10.0.0.7"), ("vpc-a", "192.168.0.4"), ("vpc-b", "10.0.0.7"), ("vpc-b", "192.168.0.4"),
    ]  # fmt: skip
    assert len(set(_ids(leases))) == 4


def test_plain_leases_and_pods_make_one_table() -> None:
    pods = FORMATS["kubernetes_pods"].parser({})(Block(orjson.dumps(_pod("one", 10)), "pods", 0)).events
    plain = FORMATS["address_leases"].parser({})(
        Block(f"address,start,end,sandbox.id\n10.0.0.7,{_at(1)},{_at(9)},earlier\n".encode(), "leases.csv", 0)
    )
    assert plain.dead.num_rows == 0
    assert _intervals(resolve([pods, plain.events]), "10.0.0.7") == {"earlier": (1, 9), "one": (10, None)}
