"""What a run leaves in its output directory, again and again, and what it leaves alone when it fails."""

from __future__ import annotations

import ipaddress
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.scenarios import hostile
from tests.scenarios.days import NAMED, events_of, with_events

from agenttrail.errors import AgentTrailError
from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.simulate import simulate
from agenttrail.sinks.files import claimed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TIME = pa.timestamp("us", tz="UTC")
_CONTRACT = {
    **dict.fromkeys(
        (
            "event.dataset", "source.ip", "destination.ip", "peer.ip", "network.transport", "network.direction",
            "event.outcome", "rule.name", "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name",
            "attribution.status", "attribution.level", "attribution.lease_id", "log.file.path",
        ),
        pa.string(),
    ),
    **dict.fromkeys(("event.start", "event.end"), _TIME),
    **dict.fromkeys(("source.port", "destination.port", "peer.port"), pa.int32()),
    **dict.fromkeys(("source.bytes", "destination.bytes", "log.offset"), pa.int64()),
}  # fmt: skip
"""The columns of events that others rely on, with their types."""

pytestmark = pytest.mark.xdist_group("output")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a day that has been run once."""
    folder = tmp_path_factory.mktemp("day")
    simulate(folder, agents=3, hours=1.0, seed=51)
    run(load_job(with_events(folder)))
    return folder


@pytest.fixture
def day(simulated: Path, tmp_path: Path) -> Path:
    """Return a copy of the day, to be changed."""
    subprocess.run(["cp", "-a", f"{simulated}/.", str(tmp_path)], check=True)  # noqa: S607 - from the path, as all do
    return tmp_path


def _files(out: Path) -> dict[str, bytes]:
    """Return the content of all files, of ``run.json`` without how long it took."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    summary = orjson.loads(found["run.json"])
    del summary["seconds"]
    return found | {"run.json": orjson.dumps(summary)}


def test_a_second_run_leaves_the_same_files(day: Path) -> None:
    """Byte for byte, and nothing beside them."""
    before = _files(day / "out")
    assert {name for name in before if not name.startswith(("events/", "timeline/"))} == {
        "incidents.ndjson", "findings.ndjson", "dead_letters.ndjson", "run.json",
    }  # fmt: skip
    assert any(name.startswith("timeline/") for name in before)
    assert all(before.values())
    run(load_job(day / "job.yml"))
    assert _files(day / "out") == before
    assert not (day / "out" / ".parts").exists()


def test_other_input_leaves_nothing_of_what_was(day: Path) -> None:
    """Events of files that are gone are gone; what somebody else has put there stays."""
    before = _files(day / "out")
    (day / "out" / "events" / "notes.parquet").write_bytes(b"mine")
    for path in sorted((day / "alibaba_vpc_flow").iterdir())[1:]:
        path.unlink()
    run(load_job(day / "job.yml"))
    after = _files(day / "out")
    assert after.pop("events/notes.parquet") == b"mine"
    assert after.keys() < before.keys()
    assert {path.split("/")[0] for path in events_of_alibaba(day)} == {"alibaba_vpc_flow"}
    assert len(set(events_of_alibaba(day))) == 1


def events_of_alibaba(day: Path) -> list[str]:
    """Return the files from which the Alibaba flow records of the output came."""
    (day / "out" / "events" / "notes.parquet").unlink(missing_ok=True)
    events = events_of(day / "out")
    chosen = events.filter(pc.equal(events.column("event.dataset"), "alibaba_vpc_flow"))
    return [str(path) for path in chosen.column("log.file.path").unique().to_pylist()]


def _break_metadata(day: Path) -> None:
    path = next((day / "k8s").iterdir())
    path.write_bytes(path.read_bytes()[:-100])


def _take_a_log_away(day: Path) -> None:
    next((day / "aws_vpc_flow").iterdir()).unlink()


@pytest.mark.parametrize("harm", [_break_metadata, _take_a_log_away])
def test_a_run_that_fails_leaves_the_output_of_the_earlier_one(day: Path, harm: Callable[[Path], None]) -> None:
    before = _files(day / "out")
    job = load_job(day / "job.yml")
    harm(day)
    with pytest.raises(AgentTrailError):
        run(job)
    assert _files(day / "out") == before
    assert not (day / "out" / ".parts").exists()


def test_a_run_that_is_killed_leaves_the_output_of_the_earlier_one(day: Path) -> None:
    """And the next run ends as if nothing had been."""
    before = _files(day / "out")
    process = subprocess.Popen(
        [sys.executable, "-m", "agenttrail.cli", "run", str(day / "job.yml")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    parts = day / "out" / ".parts"
    deadline = time.monotonic() + 60
    while not (parts.exists() and any(parts.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert any(parts.iterdir())
    assert {name: data for name, data in _files(day / "out").items() if not name.startswith(".parts")} == before
    run(load_job(day / "job.yml"))
    assert _files(day / "out") == before
    assert not parts.exists()


def test_files_exist_even_when_empty(tmp_path: Path) -> None:
    """A log without lines: every file is there, and the events are a table without rows."""
    (tmp_path / "flows.log").write_bytes(hostile.HEADER + b"\n")
    (tmp_path / "job.yml").write_text(
        "name: empty\nevents: [{format: aws_vpc_flow, path: flows.log}]\noutput: {directory: out, events: true}\n"
    )
    run(load_job(tmp_path / "job.yml"))
    for name in ("incidents", "findings", "dead_letters"):
        assert (tmp_path / "out" / f"{name}.ndjson").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "out" / "dead_letters.ndjson").stat().st_mode) == 0o600
    events = events_of(tmp_path / "out")
    assert events.num_rows == 0
    assert {name: events.schema.field(name).type for name in _CONTRACT} == _CONTRACT


def test_events_are_as_the_contract_says(simulated: Path) -> None:
    """Columns and types, canonical addresses, words."""
    parts = sorted((simulated / "out" / "events").iterdir())
    schemas = [pq.read_schema(path) for path in parts]
    assert all(schema.equals(schemas[0]) for schema in schemas)
    assert {name: schemas[0].field(name).type for name in _CONTRACT} == _CONTRACT
    events = events_of(simulated / "out")
    words: dict[str, set[str | None]] = {
        "event.dataset": {"aws_vpc_flow", "alibaba_vpc_flow", "alibaba_cloud_firewall", *NAMED},
        "network.transport": {"tcp", "udp", "icmp", None},
        "network.direction": {"egress", "ingress", None},
        "event.outcome": {"success", "failure", None},
        "attribution.status": {"attributed", "ambiguous", "unattributed"},
        "attribution.level": {"trajectory", "sandbox", "job", "host", "address"},
    }
    for name, known in words.items():
        assert set(events.column(name).unique().to_pylist()) <= known, name
    for name in ("source.ip", "destination.ip", "peer.ip"):
        for text in events.column(name).unique().to_pylist():
            assert text is None or str(ipaddress.ip_address(text)) == text
    attributed = events.filter(pc.equal(events.column("attribution.status"), "attributed"))
    itself = pc.equal(attributed.column("attribution.reason"), "named by the record itself: no lease proves it")
    assert set(attributed.filter(itself).column("event.dataset").unique().to_pylist()) <= set(NAMED)
    attributed = attributed.filter(pc.invert(itself))
    assert attributed.column("attribution.lease_id").null_count == 0
    assert pc.all(pc.less_equal(events.column("event.start"), events.column("event.end"))).as_py()


def test_options_of_a_run_do_not_show_in_its_output(day: Path) -> None:
    """Other ranges, blocks and shards: the same files but for how events are spread over theirs."""
    before = _files(day / "out")
    run(load_job(day / "job.yml"), RunOptions(range_bytes=50_000, block_bytes=30_000, shards=3))
    after = _files(day / "out")
    for name in ("incidents.ndjson", "findings.ndjson", "run.json"):
        assert after[name] == before[name]
    assert sorted(after["dead_letters.ndjson"].splitlines()) == sorted(before["dead_letters.ndjson"].splitlines())


def test_folders_whose_names_look_like_globs_are_taken_at_their_word(tmp_path: Path) -> None:
    """The job's own folder and its output: nothing beside them is read, and nothing beside them is removed."""
    folder = tmp_path / "[d]*y"
    simulate(folder, agents=2, hours=0.5, seed=52)
    beside = tmp_path / "[d]*y" / "outside"
    for name in (".parts", "events"):
        (beside / name).mkdir(parents=True)
        (beside / name / "000-0123456789abcdef-000000000000000.parquet").write_bytes(b"not ours")
    job = with_events(folder)
    for _ in range(2):
        run(load_job(job, output=str(folder / "out*")))
    assert (folder / "out*" / "incidents.ndjson").exists()
    assert len(list(beside.glob("*/*.parquet"))) == 2


def test_two_runs_do_not_write_into_one_directory_at_once(day: Path, tmp_path: Path) -> None:
    """The second is refused and touches nothing; when the first has ended, by whatever cause, it may."""
    job = load_job(day / "job.yml", output=str(tmp_path / "held"))
    with claimed(str(tmp_path / "held")):
        before = sorted((tmp_path / "held").iterdir())
        with pytest.raises(AgentTrailError, match="another run is writing there"):
            run(job)
        assert sorted((tmp_path / "held").iterdir()) == before
    run(job)
    assert (tmp_path / "held" / "run.json").exists()
