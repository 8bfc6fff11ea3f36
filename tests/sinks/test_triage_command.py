"""``agenttrail incidents triage`` as an analyst runs it: by name and key, over TLS, against a real Elasticsearch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from tests.sinks.documents import client_of, incidents_of, sources, tidy

from agenttrail.cli import main
from agenttrail.sinks.elasticsearch import BulkWriter, setup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

HOSTILE = "\x1b[2Ja\u202eb\nc {{7*7}} %s"
PASTED = f"{HOSTILE} PASSWORD=hunter2hunter2 ./run.sh"


@pytest.fixture
def administrator(elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elasticsearch]:
    """Store three incidents under the names that commands use, and put an analyst's key into the environment."""
    client = client_of(elasticsearch_secured, monkeypatch)
    tidy(client, "agenttrail")
    setup(client)
    texts = ("incident__title", "incident__summary", "attribution__status", "attribution__level")
    columns = {name: pa.array(["x"] * 3) for name in texts} | {
        "incident__severity": pa.array(["low", "medium", "high"]), "incident__risk_factors": pa.array([["y"]] * 3),
    }  # fmt: skip
    BulkWriter(client).replace(*incidents_of(3, "agenttrail", **columns))
    client.indices.refresh(index="agenttrail-*")
    rights = [
        {"names": ["agenttrail-*"], "privileges": ["read"]},
        {"names": ["agenttrail-incidents-*"], "privileges": ["write"]},
    ]
    key = client.security.create_api_key(name="analyst", role_descriptors={"analyst": {"indices": rights}}).body
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"ELASTICSEARCH_{name}", raising=False)
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", key["encoded"])
    monkeypatch.setenv("ELASTICSEARCH_CA_CERTS", elasticsearch_secured.ca_certs)
    monkeypatch.setenv("ELASTICSEARCH_URL", elasticsearch_secured.url)
    yield client
    tidy(client, "agenttrail")


def test_an_analyst_works_on_an_incident(
    administrator: Elasticsearch, elasticsearch_secured: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sources(administrator, "agenttrail-incidents")
    one, *_ = before

    def said(*command: str) -> str:
        capsys.readouterr()
        assert main(["incidents", *command]) == 0
        return capsys.readouterr().out

    def listed(*filters: str) -> list[Any]:
        lines = said("list", "--from", elasticsearch_secured.url, "--json", *filters).splitlines()
        return [json.loads(line)["incident.id"] for line in lines]

    told = said("triage", one[:12], "--status", "in_progress", "--assignee", "mei", "--by", "mei")
    assert told == f"incident {one}: in_progress, assigned to mei; 1 entry in its history\n"
    told = said("triage", one, "--note", PASTED, "--by", "tom\x9b", "--json", "--from", elasticsearch_secured.url)
    written = json.loads(told)
    assert [entry["by"] for entry in written["triage"]["history"]] == ["mei", "tom\x9b"]
    assert written["triage"]["history"][1]["note"] == f"{HOSTILE} PASSWORD=[REDACTED] ./run.sh"
    stored = sources(administrator, "agenttrail-incidents")
    assert stored == before | {one: before[one] | {"triage": written["triage"]}}
    assert listed("--assignee", "mei") == listed("--status", "in_progress") == [one]
    assert listed("--assignee", "tom") == listed("--assignee", "mei", "--status", "closed") == []
    assert set(listed("--status", "new")) == before.keys() - {one}
    shown = said("show", "--from", elasticsearch_secured.url, "--assignee", "mei")
    assert all(char.isprintable() or char == "\n" for char in shown)
    for text in (
        "triage        in_progress",
        "assignee      mei",
        "tom\\x9b: note: ",
        "mei: status in_progress, assignee mei",
    ):
        assert text in shown


def test_what_cannot_be_done_is_told_in_a_line(
    administrator: Elasticsearch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = sources(administrator, "agenttrail-incidents")
    assert main(["incidents", "triage", "zz", "--note", "x"]) == 1
    assert capsys.readouterr().err.startswith("agenttrail: no incident 'zz' in Elasticsearch at https://")
    rights = {"reader": {"indices": [{"names": ["agenttrail-*"], "privileges": ["read"]}]}}
    key = administrator.security.create_api_key(name="reader", role_descriptors=rights).body
    monkeypatch.setenv("ELASTICSEARCH_API_KEY", key["encoded"])
    assert main(["incidents", "triage", one, "--note", "x"]) == 1
    told = capsys.readouterr()
    assert "does not permit this (403" in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "triage" not in sources(administrator, "agenttrail-incidents")[one]
