"""simulate(): the day is what it says it is, and its truth is true."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.simulate.simulated import LOGS, NAMED, Day, leases_of, lines, logs, parsed, spans_in

from agenttrail.attribute import LeaseTable, attribute
from agenttrail.attribute_named import NameTable, attribute_named
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.formats import FORMATS
from agenttrail.job_files import load_job
from agenttrail.simulate import simulate

_NAMES = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name", "k8s.pod.uid")
_SECOND = 1_000_000
_START = 1_772_409_600


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Return a small day."""
    directory = tmp_path_factory.mktemp("day")
    truth = simulate(directory, agents=7, hours=2.5, seed=11)
    return Day(directory, truth, pq.read_table(directory / "truth" / "records.parquet").to_pylist())


def _pods(day: Day) -> dict[str, list[dict[str, Any]]]:
    """Return the pods by scope."""
    job = yaml.safe_load((day.directory / "job.yml").read_text())
    return {
        source["scope"]: orjson.loads((day.directory / source["path"]).read_bytes())["items"]
        for source in job["leases"]
    }


def _end(pod: dict[str, Any]) -> str | None:
    finished = [one["state"].get("terminated", {}).get("finishedAt") for one in pod["status"]["containerStatuses"]]
    return max(finished) if all(finished) else None


def _stays(pods: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """Return from when to when pods without hostNetwork had each address; "~" sorts behind every time."""
    stays: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for pod in pods:
        if not pod["spec"].get("hostNetwork"):
            for entry in pod["status"].get("podIPs", []):
                stays[entry["ip"]].append((pod["status"]["startTime"], _end(pod) or "~"))
    return {address: sorted(found) for address, found in stays.items()}


def _seconds(text: str) -> int:
    hours, minutes, seconds = text[11:19].split(":")
    return int(text[8:10]) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + int(seconds)


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    """Two runs with one seed write the same files; another seed writes another day."""
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    truths = [simulate(path, agents=3, hours=1, seed=seed) for path, seed in ((first, 4), (second, 4), (other, 5))]
    assert _files(first) == _files(second)
    assert truths[0] == truths[1]
    assert all(_files(first).get(path) != data for path, data in _files(other).items() if path != "job.yml")


def test_an_earlier_simulation_is_replaced(tmp_path: Path) -> None:
    """A shorter day in the same directory leaves nothing of the longer one behind."""
    simulate(tmp_path / "used", agents=2, hours=2, seed=1)
    simulate(tmp_path / "used", agents=2, hours=0.5, seed=2)
    simulate(tmp_path / "fresh", agents=2, hours=0.5, seed=2)
    assert _files(tmp_path / "used") == _files(tmp_path / "fresh")


def test_logs_of_others_are_left_alone(tmp_path: Path) -> None:
    """A directory with logs that no simulation wrote is refused, and nothing in it changes."""
    theirs = tmp_path / "alibaba_cloud_firewall" / "real.jsonl"
    theirs.parent.mkdir()
    theirs.write_text("{}\n")
    with pytest.raises(FileExistsError, match=r"real\.jsonl"):
        simulate(tmp_path, agents=1, hours=0.1)
    assert _files(tmp_path) == {"alibaba_cloud_firewall/real.jsonl": b"{}\n"}


@pytest.mark.parametrize("wrong", [{"agents": 0}, {"hours": 0}, {"hours": -1}, {"hours": 1e6}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A day needs an agent, some time, and a seed."""
    with pytest.raises(ValueError, match="needs at least one agent"):
        simulate(tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("agents", "hours"), [(1, 0.05), (1, 1.0), (2, 0.2), (25, 0.5)])
def test_any_size_is_a_day(tmp_path: Path, agents: int, hours: float) -> None:
    """Very small and lopsided days are written whole."""
    truth = simulate(tmp_path, agents=agents, hours=hours, seed=3)
    assert truth.records["lines"] == len(lines(Day(tmp_path, truth, [])))
    assert len({one["gen_ai.agent.id"] for one in truth.sandboxes}) <= agents


def test_truth_accounts_for_every_line(day: Day) -> None:
    """The rows of truth are the lines of the logs, one to one, by file and byte offset."""
    assert {(row["log.file.path"], row["log.offset"]) for row in day.rows} == set(lines(day))
    assert len(day.rows) == len(lines(day)) == day.truth.records["lines"]


def test_offsets_point_at_the_lines_they_speak_of(day: Day) -> None:
    """A header row is a header, a blank one is blank, and a record of a behaviour names one of its peers."""
    written = lines(day)
    peers = {one["id"]: one["peers"] for one in day.truth.behaviours}
    for row in day.rows:
        line = written[row["log.file.path"], row["log.offset"]]
        assert (row["kind"] == "blank") == (not line.strip())
        assert (row["kind"] == "header") == line.startswith((b"version ", b"# TYPE"))
        if row["kind"] == "gap":
            assert b"NODATA" in line or b"SKIPDATA" in line
        if row["behaviour"]:
            assert any(peer.encode() in line for peer in peers[row["behaviour"]])


def test_each_kind_of_line_comes_about(day: Day) -> None:
    """The day has lines of all kinds, and duplicates; the counts are those of the rows."""
    kinds = {"flow", "gap", "telemetry", "unmeasured", "broken", "blank", "header"}
    assert {row["kind"] for row in day.rows} == kinds
    for dataset in FORMATS.keys() - {"kubernetes_pods", "address_leases"}:
        counts = Counter(row["kind"] for row in day.rows if row["event.dataset"] == dataset)
        told = dict(day.truth.records[dataset])
        assert told.pop("duplicates") == sum(row["duplicate"] for row in day.rows if row["event.dataset"] == dataset)
        assert {kind: count for kind, count in told.items() if count} == counts


def test_duplicates_are_exact_and_the_only_ones(day: Day) -> None:
    """A row is a duplicate if and only if the same line came before; no two other records are equal."""
    written, seen = lines(day), Counter[bytes]()
    for row in day.rows:
        if row["kind"] in ("flow", "gap", "telemetry"):
            seen[written[row["log.file.path"], row["log.offset"]]] += 1 if not row["duplicate"] else 0
    duplicates = [written[row["log.file.path"], row["log.offset"]] for row in day.rows if row["duplicate"]]
    assert duplicates
    assert set(seen.values()) == {1}
    assert all(seen[line] == 1 for line in duplicates)


def test_lines_come_late_and_out_of_order(day: Day) -> None:
    """Within a file starts go back by minutes, and files overlap in time."""
    spans = []
    for path, data in logs(day.directory).items():
        if path.startswith("alibaba_vpc_flow"):
            starts = []
            for line in data.splitlines():
                try:
                    starts.append(int(orjson.loads(line)["start"]))
                except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                    continue
            good = [start for start in starts if start >= _START]
            assert any(later < earlier - 60 for earlier, later in itertools.pairwise(good))
            spans.append((min(good), max(good)))
    assert any(following[0] < before[1] for before, following in itertools.pairwise(spans))


def test_addresses_are_reused_within_seconds(day: Day) -> None:
    """On one address the next pod mostly starts within 20 s of the end of the one before, and never before that end."""
    gaps = []
    for pods in _pods(day).values():
        for stays in _stays(pods).values():
            gaps += [_seconds(start) - _seconds(end) for (_, end), (start, _) in itertools.pairwise(stays)]
    assert len(gaps) > 20
    assert min(gaps) >= 1
    assert sum(gap <= 20 for gap in gaps) > len(gaps) / 2
    assert sum(gap <= 3 for gap in gaps) > 3


def test_both_networks_use_the_same_addresses_at_the_same_time(day: Day) -> None:
    """Some sandboxes of the two networks hold one address at one time."""
    ours, theirs = (_stays(pods) for pods in _pods(day).values())
    together = [
        address
        for address in ours.keys() & theirs.keys()
        for start, end in ours[address]
        if any(start < other_end and other_start < end for other_start, other_end in theirs[address])
    ]
    assert any(address.startswith("10.20.3") for address in together)


def test_pods_come_in_all_shapes(day: Day) -> None:
    """Pods wait without an address, run on, fail, share their node's address, or have a second address."""
    pods = [pod for found in _pods(day).values() for pod in found]
    phases = Counter(pod["status"]["phase"] for pod in pods)
    assert phases.keys() == {"Pending", "Running", "Succeeded", "Failed"}
    assert all("podIP" not in pod["status"] for pod in pods if pod["status"]["phase"] == "Pending")
    assert all(_end(pod) is None for pod in pods if pod["status"]["phase"] == "Running")
    assert any(len(pod["status"].get("podIPs", ())) > 1 for pod in pods if not pod["spec"].get("hostNetwork"))
    assert any("deletionTimestamp" in pod["metadata"] for pod in pods)
    shared = Counter(pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("hostNetwork"))
    assert max(shared.values()) >= 2
    assert shared.keys() < {pod["spec"].get("nodeName") for pod in pods}
    for pod in pods:
        if pod["spec"].get("hostNetwork"):
            assert pod["status"]["podIP"] == pod["status"]["hostIP"]


def test_the_job_file_is_one_the_program_takes(day: Day) -> None:
    """The job file loads without a problem and names every log and every pod list."""
    job = load_job(day.directory / "job.yml")
    named = {Path(file.path).name for file in job.files}
    written = {path.name for pattern in (*LOGS, "k8s/*.json") for path in day.directory.glob(pattern)}
    assert named == written
    assert job.tolerance == 2 * _SECOND


def test_exactly_the_broken_lines_are_dead_letters(day: Day) -> None:
    """The parsers turn flows, gaps and telemetry into events, skip headers and blanks, and refuse what is broken."""
    events: set[tuple[str, int]] = set()
    dead: set[tuple[str, int]] = set()
    skipped = 0
    for one, _ in parsed(day):
        for found, batch in ((events, one.events), (dead, one.dead)):
            found |= set(
                zip(*(batch.column(name).to_pylist() for name in ("log.file.path", "log.offset")), strict=True)
            )
        skipped += one.skipped
    places: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in day.rows:
        places[row["kind"]].add((row["log.file.path"], row["log.offset"]))
    assert dead == places["broken"]
    assert events == places["flow"] | places["gap"] | places["telemetry"]
    assert skipped == len(places["header"] | places["blank"] | places["unmeasured"])


def _attributed(day: Day, leases: pa.RecordBatch) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return what the program says of the events of every line."""
    table = LeaseTable.build(leases, tolerance=2 * _SECOND)
    names = NameTable.build(leases, tolerance=2 * _SECOND)
    internal = NetworkLists.compile([[parse_network("10.0.0.0/8"), parse_network("172.16.0.0/12")]])
    wanted = ["log.file.path", "log.offset", "attribution.status", "attribution.candidates", *_NAMES]
    found = defaultdict(list)
    for one, source in parsed(day):
        events, scope = one.events, source["scope"]
        if source["format"] in NAMED:
            events = attribute_named(events, names)
        else:
            named = FORMATS[source["format"]].scopes.get(scope)
            column = events.column(named) if named else pa.array([scope] * events.num_rows)
            events = attribute(events.append_column("attribution.scope", column), table, internal)
        columns = {name: events.column(name).to_pylist() for name in wanted}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(wanted, values, strict=True))
            found[row["log.file.path"], row["log.offset"]].append(row)
    return found


def test_attribution_agrees_with_truth(day: Day) -> None:
    """At least 999 of 1,000 records are attributed right, and ambiguous are exactly those that are so in truth."""
    leases = leases_of(day.directory, spans_in(day.directory))
    found = _attributed(day, leases)
    holders = [leases.column(name).to_pylist() for name in ("lease.id", "k8s.pod.uid", "host.name")]
    holder_of = {lease: uid or host for lease, uid, host in zip(*holders, strict=True)}
    wrong, records, statuses = [], 0, Counter[str]()
    for row in day.rows:
        status = row["attribution.status"]
        if row["kind"] not in ("flow", "gap", "telemetry") or not status:
            continue
        records, statuses[status] = records + 1, statuses[status] + 1
        for said in found[row["log.file.path"], row["log.offset"]]:
            assert (said["attribution.status"] == "ambiguous") == (status == "ambiguous")
            if status == "ambiguous":
                assert sorted(holder_of[lease] for lease in said["attribution.candidates"]) == row["candidates"]
            elif said["attribution.status"] != status or any(said[name] != row[name] for name in _NAMES):
                wrong.append((row, said))
    assert len(wrong) <= records / 1_000, wrong[:5]
    assert min(statuses.values()) > 50
    assert statuses["attributed"] > records / 2
