"""Beam's servers in Java for the tests, from Maven Central: Flink's job server, and the expansion service."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.guarded import Guarded, UnavailableError, fetching, free_port, run

if TYPE_CHECKING:
    from collections.abc import Mapping

_HERE = Path(__file__).resolve().parent
_OPENED = ("util", "lang", "net", "time")  # packages of java.base that Flink 1.19 looks into
_JAVA = "-XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


@dataclass(frozen=True)
class _Kind:
    """One kind of server.

    Attributes:
        version: of what it runs, for the folder of its jars.
        told: what is said before these are fetched.
        variable: of the environment that may name one that runs already.
        heap: its most memory.
        main: class that is run.
    """

    version: str
    told: str
    variable: str
    heap: str
    main: str


KINDS = {
    "flink": _Kind(
        "1.19-beam-2.62.0", "Flink from Maven Central (once, about 150 MB)", "FLINK_JOB_ENDPOINT", "768m",
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
    ),
    "expansion": _Kind(
        "2.73.0", "Beam's expansion service from Maven Central (once, about 140 MB)", "BEAM_EXPANSION_SERVICE", "256m",
        "org.apache.beam.sdk.expansion.service.ExpansionService",
    ),
}  # fmt: skip
"""A job server with a Flink of its own inside, and what turns Beam's sources in Java into parts of a graph."""

_START = 120.0  # seconds that a start may take


@dataclass(frozen=True)
class BeamServer:
    """One server.

    Attributes:
        endpoint: where it answers, ``host:port``.
        directory: everything that is its own; "" where it is not ours.
        command: what runs it.
        environment: in which.
        watch: pid of the test run, which it does not outlive.
    """

    endpoint: str
    directory: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    watch: int = 0

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            UnavailableError: it does not come up; with the end of its log.
        """
        self._guarded().launch()
        deadline = time.monotonic() + _START
        while not self.answers():
            if not self.runs() or time.monotonic() > deadline:
                self._guarded().stop()
                msg = f"Beam's server does not come up: {self._guarded().last_words()}"
                raise UnavailableError(msg)
            time.sleep(0.1)

    def flink_options(self) -> list[str]:
        """Return the options of Beam for a stream on Flink that ends; functions run in this process."""
        return [
            "--runner=PortableRunner", f"--job_endpoint={self.endpoint}", "--environment_type=LOOPBACK", "--streaming",
            "--parallelism=1", "--max_bundle_time_mills=200", "--shutdown_sources_after_idle_ms=1000",
        ]  # fmt: skip

    def stream_options(self, name: str) -> list[str]:
        """Return the options of ``agenttrail run --streaming`` for a stream on Flink, as a job of that name."""
        return ["--runner=PortableRunner", f"--job_endpoint={self.endpoint}", f"--job_name={name}"]

    def states(self, name: str) -> list[str]:
        """Return how the jobs of a name stand."""
        import grpc
        from apache_beam.portability.api import beam_job_api_pb2 as api
        from apache_beam.portability.api import beam_job_api_pb2_grpc as stubs

        with grpc.insecure_channel(self.endpoint) as channel:
            jobs = stubs.JobServiceStub(channel).GetJobs(api.GetJobsRequest(), timeout=30).job_info
        return [api.JobState.Enum.Name(job.state) for job in jobs if job.job_id.startswith(name)]

    def answers(self) -> bool:
        """Tell whether something listens there."""
        host, _, port = self.endpoint.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
            return True
        return False

    def runs(self) -> bool:
        """Tell whether its guard is at work."""
        return self._guarded().runs()

    def remove(self) -> None:
        """Stop it for good, with its data."""
        if self.directory:
            self._guarded().stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _guarded(self) -> Guarded:
        away = ["rm", "-rf", self.directory]
        return Guarded(self.directory, self.command, self.environment or {}, self.watch, farewell=away)


def obtain(kind: str, directory: Path, watch: int) -> BeamServer:
    """Return a server that answers.

    Args:
        kind: one of ``KINDS``.
        directory: where it may keep everything; made here.
        watch: pid of the test run.

    Raises:
        UnavailableError: none is to be had: neither in the environment, nor put together here.
    """
    given = os.environ.get(KINDS[kind].variable)
    if given:
        server = BeamServer(given)
        if not server.answers():
            msg = f"{KINDS[kind].variable} is set, but nothing answers at {given}"
            raise UnavailableError(msg)
        return server
    directory.mkdir(parents=True)
    server = _assembled(kind, directory, watch)
    server.start()
    return server


def _assembled(kind: str, directory: Path, watch: int) -> BeamServer:
    java = shutil.which("java")
    if java is None:
        msg = "java is not installed"
        raise UnavailableError(msg)
    asked = KINDS[kind]
    with fetching(f"{kind}-{asked.version}", f"fetching {asked.told}") as (home, empty):
        if empty:
            pieces = home.with_name(f"{home.name}.part")
            shutil.rmtree(pieces, ignore_errors=True)
            pom = _HERE / "maven" / kind / "pom.xml"
            maven = ("mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={pom}")
            run(*maven, "dependency:copy-dependencies", f"-DoutputDirectory={pieces}")
            pieces.rename(home)
    port = free_port()
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED]
    command = (java, f"-Xmx{asked.heap}", *_JAVA.split(), *opened, "-cp", f"{home}/*", asked.main)
    if kind == "expansion":
        arguments: tuple[str, ...] = (str(port),)
    else:
        arguments = (
            "--flink-master=[local]", "--job-host=127.0.0.1", f"--job-port={port}", f"--artifact-port={free_port()}",
            f"--expansion-port={free_port()}", f"--artifacts-dir={directory}/artifacts",
        )  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return BeamServer(f"127.0.0.1:{port}", str(directory), (*command, *arguments), environment, watch)
