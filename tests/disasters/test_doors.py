"""An Elasticsearch that lets nobody in, is not to be trusted, or takes nothing: a sentence, and a re-run mends it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.disasters.runs import HALF, Left, Place, simulated
from tests.sinks.documents import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.elasticsearch import Elasticsearch as Server


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated day."""
    return simulated(tmp_path_factory.mktemp("doors") / "day")


@pytest.fixture(scope="module")
def left(day: Path) -> dict[str, Left]:
    """Return what an undisturbed run leaves, once one was asked for."""
    assert day.exists()
    return {}


@pytest.fixture
def place(day: Path, left: dict[str, Left], elasticsearch_secured: Server, tmp_path: Path) -> Iterator[Place]:
    """Return a place for a job over that day."""
    if not left:
        undisturbed = Place(day.parent / "undisturbed", elasticsearch_secured, "doors-undisturbed")
        undisturbed.prepare(day)
        undisturbed.run()
        left["it"] = undisturbed.left()
        undisturbed.remove()
    place = Place(tmp_path, elasticsearch_secured, "doors")
    place.prepare(day)
    yield place
    place.remove()


def test_wrong_credentials(place: Place, left: dict[str, Left]) -> None:
    said = place.fail(TEST_PASSWORD="wrong")  # noqa: S106 - that is the point
    assert "refuses the credentials (401" in said
    assert "check the API key, or the user and password, and whether they have expired" in said
    assert not place.out.exists()
    place.run()
    assert place.left().unlike(left["it"]) == []


def test_an_expired_certificate(place: Place, left: dict[str, Left], elasticsearch_secured: Server) -> None:
    """One that was good until yesterday."""
    server = elasticsearch_secured
    _sign(server, days=-1)
    until(lambda: not server.answers())
    try:
        said = place.fail()
    finally:
        _sign(server, days=2)
        until(server.answers)
    assert "the certificate of Elasticsearch at https://127.0.0.1" in said
    assert "has expired" in said
    assert "renew it there, or set this machine's clock if that is wrong, and run again" in said
    assert not place.out.exists()
    place.run()
    assert place.left().unlike(left["it"]) == []


def _sign(server: Server, *, days: int) -> None:
    """Have the authority sign the server's key anew; the server takes notice within seconds."""
    folder = Path(server.directory) / "config" / "certs"
    command = [
        "openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-extfile", "names.cnf", "-days", str(days),
    ]  # fmt: skip
    made = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "server.crt").write_bytes(made.stdout)


@pytest.mark.parametrize("kind", ["findings", "timeline"])
def test_an_index_that_is_blocked_for_writing(kind: str, place: Place, left: dict[str, Left]) -> None:
    """As an administrator does it before a migration; what earlier runs left in the directory stays."""
    place.run("--end", HALF)
    before = {path.name: path.read_bytes() for path in place.out.glob("*.*")}
    client = place.client()
    (index,) = client.indices.get(index=f"{place.prefix}-{kind}-*", filter_path="*.aliases").body
    client.indices.put_settings(index=index, settings={"index.blocks.write": True})
    said = place.fail()
    assert re.search(r"lets nothing be written to doors-\w+-2026\.03 \(403: .*blocked", said)
    assert f"remove the block from the settings of {index} and run again" in said
    assert {path.name: path.read_bytes() for path in place.out.glob("*.*")} == before
    client.indices.put_settings(index=index, settings={"index.blocks.write": None})
    place.run()
    assert place.left().unlike(left["it"]) == []


def test_an_index_that_is_blocked_since_its_disk_is_full(place: Place, left: dict[str, Left]) -> None:
    """Elasticsearch blocks it by itself, and takes the block away when there is room again: a run waits for that."""
    place.run("--end", HALF)
    client = place.client()
    full = "index.blocks.read_only_allow_delete"
    client.indices.put_settings(index=f"{place.prefix}-findings-*", settings={full: True})
    with place.start() as process:
        assert process.stderr
        waiting = next(line for line in process.stderr if "trying again" in line)
        assert "disk usage exceeded" in waiting
        client.indices.put_settings(index=f"{place.prefix}-findings-*", settings={full: None})
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert place.left().unlike(left["it"]) == []
