"""Streams in processes of their own, and what they leave when something is killed at a moment drawn by seed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import yaml
from tests.sinks.documents import settings_of, sources, tidy
from tests.streams.arrivals import as_files, as_topics, last_versions, over_the_wire, without_places

from agenttrail import jobs
from agenttrail.job_files import load_job
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import connect, setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.services.elasticsearch import Elasticsearch as Server
    from tests.services.kafka import Kafka
    from tests.streams.arrivals import Wire

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = ("pipeline", "elasticsearch", "kafka")
_PROGRAM = (sys.executable, "-m", "tests.streams.quick")
_LONG = 300.0  # seconds that a run may take
_SPREAD = 8.0  # seconds after the first thing said within which something is killed


@dataclass
class Day:
    """A day over the wire, and what a batch run of it leaves.

    Attributes:
        folder: where it was simulated.
        wire: how it comes.
        findings: that the batch run leaves.
        incidents: likewise.
    """

    folder: Path
    wire: Wire
    findings: dict[str, Any]
    incidents: dict[str, Any]

    @property
    def too_late(self) -> set[str]:
        """Return the lines that come later than is allowed."""
        return {line.data.decode() for line in self.wire.lines if line.too_late}

    def unlike(self, out: Path) -> list[str]:
        """Return what an output directory does not have in common with what the batch run leaves."""
        held = {"finding": self.findings, "incident": self.incidents}
        wrong = []
        for kind, wanted in held.items():
            found = last_versions(out, kind)
            wrong += _differing(kind, found, wanted)
        letters = [json.loads(line) for line in (out / "dead_letters.ndjson").read_text().splitlines()]
        late = {one["event.original"] for one in letters if one["error.stage"] == "late"}
        return wrong + [f"late: {line}" for line in sorted(late ^ self.too_late)]


def day_of(folder: Path, seed: int, *, agents: int = 2, hours: float = 4.0) -> Day:
    """Simulate a small day, and run the batch job on it."""
    simulate(folder, agents=agents, hours=hours, seed=seed)
    wire = over_the_wire(folder, seed)
    out = folder / "out-batch"
    jobs.run(load_job(str(as_files(folder, wire, folder / "batch")), output=str(out)))
    return Day(folder, wire, last_versions(out, "finding"), last_versions(out, "incident"))


def in_elasticsearch(client: Any, prefix: str, out: Path) -> list[str]:
    """Return what Elasticsearch does not have in common with the files."""
    wrong = []
    for kind in ("finding", "incident"):
        lines = map(json.loads, (out / f"{kind}s.ndjson").read_text().splitlines())
        written = {one[f"{kind}.id"]: _plain(one) for one in lines if not one.get("superseded")}
        held = {id_: _plain(one) for id_, one in sources(client, f"{prefix}-{kind}s").items()}
        wrong += [f"{told} in Elasticsearch" for told in _differing(kind, held, written)]
    return wrong


def _differing(kind: str, found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return what documents found do not have in common with those wanted, by id, and how."""
    wrong = []
    for id_ in sorted(found.keys() | wanted):
        one, other = found.get(id_), wanted.get(id_)
        if one is None or other is None:
            wrong.append(f"{kind} {id_}: {'missing' if one is None else 'not wanted'}")
        elif one != other:
            names = sorted(name for name in one.keys() | other if one.get(name) != other.get(name))
            first = names[0]
            wrong.append(f"{kind} {id_}: {', '.join(names)}; {first} {one.get(first)!r} for {other.get(first)!r}")
    return wrong


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in without_places(document).items() if not name.startswith("triage.")}


@dataclass(frozen=True)
class Moment:
    """What is killed, and when.

    Attributes:
        seed: from which it is drawn.
    """

    seed: int

    @property
    def victim(self) -> str:
        """Return what is killed."""
        return VICTIMS[self.seed % len(VICTIMS)]

    @property
    def after(self) -> float:
        """Return how many seconds after the first thing was said."""
        return Random(self.seed).random() * _SPREAD


class Stage:
    """A job that reads topics and writes to a directory and Elasticsearch, as a process that can be killed."""

    def __init__(
        self, day: Day, folder: Path, broker: Kafka, server: Server | None, name: str, flags: Sequence[str] = ()
    ) -> None:
        """Produce the day, and set the server up; None: it writes to the directory alone.  ``flags`` name a runner."""
        self._flags = flags
        self._day, self._broker, self._server, self._prefix = day, broker, server, f"k{os.getpid()}-{name}"
        self.folder = folder / name
        path = as_topics(day.folder, day.wire, self.folder, broker, 1)
        if server is None:
            return
        where = f"{{url: '{server.url}', prefix: {self._prefix}"
        if server.password:
            where += f", username: elastic, password: '${{TEST_PASSWORD}}', ca_certs: '{server.ca_certs}'"
        path.write_text(path.read_text().replace("directory: out", f"directory: out\n  elasticsearch: {where}}}"))
        self._client = self._connected()
        setup(self._client, prefix=self._prefix)

    def _connected(self) -> Any:
        assert self._server
        os.environ["TEST_PASSWORD"] = self._server.password or "none"
        return connect(settings_of(self._server), patience=60.0)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the stream in the background."""
        return subprocess.Popen(
            [*_PROGRAM, "run", "job.yml", "--streaming", *options, *self._flags], cwd=self.folder, env=_environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run_batch(self, job: Path, out: Path) -> subprocess.CompletedProcess[str]:
        """Run a batch job into a directory."""
        return subprocess.run(
            [*_PROGRAM, "run", str(job), "--output", str(out)], env=_environment(), capture_output=True, text=True,
            check=False, timeout=_LONG,
        )  # fmt: skip

    def wait_until_said(self, process: subprocess.Popen[str], what: Path | None = None) -> None:
        """Wait until something stands in a file, that of the findings where none is given, or the run is over."""
        path, deadline = what or self.folder / "out" / "findings.ndjson", time.monotonic() + _LONG
        while process.poll() is None and not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, "nothing was said"
            time.sleep(0.05)

    def kill(self, moment: Moment, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Kill at a moment; return how the stream ended, and what it told."""
        self.wait_until_said(process)
        time.sleep(moment.after)
        if moment.victim == "pipeline":
            for pid in [process.pid, *below(process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            server: Any = self._server if moment.victim == "elasticsearch" else self._broker
            server.kill()
            server.start()
        _, told = process.communicate(timeout=_LONG)
        return process.returncode, told

    def finish(self) -> None:
        """Run to the end, which must be a good one."""
        with self.start("--end-of-input") as process:
            _, told = process.communicate(timeout=_LONG)
        assert process.returncode == 0, told

    def unlike(self) -> list[str]:
        """Return what is not as a batch run leaves it."""
        out = self.folder / "out"
        there = in_elasticsearch(self._client, self._prefix, out) if self._server else []
        return [*self._day.unlike(out), *there]

    def ends(self) -> list[tuple[str, int, int]]:
        """Return the topics of flows with their partitions, and where each ends."""
        job = yaml.safe_load((self.folder / "job.yml").read_text())
        topics = [entry["kafka"]["topic"] for entry in job["events"] if "flow" in entry["format"]]
        return [(topic, number, self._broker.end_of(topic, number)) for topic in topics for number in range(2)]

    def remove(self) -> None:
        """Remove its indices."""
        if self._server:
            tidy(self._client, self._prefix)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "pipelines")])}


def endure(moment: Moment, stage: Stage) -> list[str]:
    """Kill at a moment, start again with the same command, and return what is not as after no kill."""
    with stage.start("--end-of-input") as process:
        status, told = stage.kill(moment, process)
    wanted = (-signal.SIGKILL, 0) if moment.victim == "pipeline" else (0, 1)
    assert status in wanted, told
    assert "Traceback" not in told, told
    stage.finish()
    return stage.unlike()


def below(pid: int) -> Iterator[int]:
    """Give the processes that a process started, and those that these did."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from below(child)
