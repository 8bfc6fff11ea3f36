"""Fixtures for real services: each is started at most once per test run, by whichever worker needs it first.

Also the hooks that begin and end this; the tests' ``conftest.py`` names this module in ``pytest_plugins``.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
from tests.services import beam_servers, chromium, elasticsearch, kafka
from tests.services.beam_servers import BeamServer
from tests.services.elasticsearch import Elasticsearch
from tests.services.guarded import UnavailableError
from tests.services.kafka import Kafka

from agenttrail import prism as runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

_RUN = (
    "AGENTTRAIL_TEST_RUN"  # environment variable that workers inherit: "<pid of the test run>:<folder of its services>"
)
_OWN = pytest.StashKey[Path]()
_SERVICES: dict[str, tuple[Any, Any]] = {
    "elasticsearch": (Elasticsearch, elasticsearch.obtain),
    "beam": (BeamServer, beam_servers.obtain),
    "kafka": (Kafka, kafka.obtain),
}


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder that all processes of this test run share; it is made when the first service is."""
    if _RUN not in os.environ:
        config.stash[_OWN] = _base() / f"agenttrail-tests-{os.getpid()}-{secrets.token_hex(4)}"
        os.environ[_RUN] = f"{os.getpid()}:{config.stash[_OWN]}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests that have a server for themselves to one worker: others would wait for their turn."""
    for item in items:
        if "elasticsearch_secured" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("elasticsearch-secured"))
        if "kafka_alone" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("kafka-alone"))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("browser"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started; the guards would, but a little later."""
    folder = config.stash.get(_OWN, None)
    if folder is None:
        return
    del os.environ[_RUN]
    for state in folder.glob("*.json"):
        told = json.loads(state.read_text())
        if "unavailable" not in told:
            _SERVICES[state.name.partition("-")[0]][0](**told).remove()
    shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    """Return a folder for short-lived files that every user may enter: a server may not run as root."""
    folder = Path(tempfile.gettempdir())
    return folder if all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents)) else Path("/var/tmp")  # noqa: S108 - ours has a random name


def _started(service: str, kind: str) -> Any:
    """Return the server of that kind, started if this is the first call for it in the test run."""
    made, obtain = _SERVICES[service]
    run, _, name = os.environ[_RUN].partition(":")
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    state = folder / f"{service}-{kind}.json"
    with state.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            try:
                told = asdict(obtain(kind, folder / f"{service}-{kind}", int(run)))
            except UnavailableError as error:
                told = {"unavailable": str(error)}
            state.touch(0o600)
            state.write_text(json.dumps(told))
        told = json.loads(state.read_text())
    if "unavailable" in told:
        _give_up(f"{service} ({kind})", told["unavailable"])
    return made(**told)


@contextmanager
def _turn(server: Elasticsearch | Kafka) -> Iterator[None]:
    """Let one test at a time have a server for itself, and find it running."""
    with Path(server.directory).with_suffix(".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not server.runs():
            server.start()
        yield


def _give_up(service: str, why: str) -> NoReturn:
    """Skip the test aloud, or fail it where services must be there."""
    message = f"NO {service.upper()} HERE, NOT TESTED: {why}"
    if os.environ.get("AGENTTRAIL_REQUIRE_SERVICES") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(name="elasticsearch", scope="session")
def _plain() -> Elasticsearch:
    """Give a server without security: the one in ELASTICSEARCH_URL, or our own."""
    return cast("Elasticsearch", _started("elasticsearch", "plain"))


@pytest.fixture
def elasticsearch_secured() -> Iterator[Elasticsearch]:
    """Give a server with users, API keys and roles, behind TLS by an authority that nobody knows.

    A test has it for itself and may stop and start it.  ``http.max_content_length`` is 16 MB.
    """
    server: Elasticsearch = _started("elasticsearch", "secured")
    with _turn(server):
        yield server


@pytest.fixture(name="kafka", scope="session")
def _shared_broker() -> Kafka:
    """Give a broker that all tests share: the one in KAFKA_BOOTSTRAP_SERVERS, or our own."""
    return cast("Kafka", _started("kafka", "shared"))


@pytest.fixture
def kafka_alone() -> Iterator[Kafka]:
    """Give a broker that a test has for itself and may kill and start."""
    broker: Kafka = _started("kafka", "alone")
    with _turn(broker):
        yield broker


@pytest.fixture(scope="session")
def flink() -> BeamServer:
    """Give a job server of Flink that all tests share: the one at FLINK_JOB_ENDPOINT, or our own."""
    return cast("BeamServer", _started("beam", "flink"))


@pytest.fixture(scope="session")
def expansion() -> BeamServer:
    """Give Beam's expansion service with its source for Kafka: the one at BEAM_EXPANSION_SERVICE, or our own."""
    return cast("BeamServer", _started("beam", "expansion"))


@pytest.fixture(scope="session")
def prism() -> Path:
    """Give the program of Beam's streaming runner, built where it is missing."""
    try:
        return runner.install()
    except runner.PrismError as error:
        return _give_up("Prism", str(error))


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """Give a real browser; all tests that want one share it, so each sets what it needs."""
    try:
        yield from chromium.obtain().opened()
    except UnavailableError as error:
        _give_up("Chromium", str(error))
