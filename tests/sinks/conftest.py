"""Clients of real servers, each test with names of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.sinks.documents import client_of, settings_of, tidy

from agenttrail.sinks.elasticsearch import connect, setup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server


@pytest.fixture
def prefix() -> str:
    """Give names that no other test uses."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
def client(elasticsearch: Server, monkeypatch: pytest.MonkeyPatch, prefix: str) -> Iterator[Elasticsearch]:
    """Give a client of a server that is set up for ``prefix``."""
    client = client_of(elasticsearch, monkeypatch)
    setup(client, prefix=prefix)
    yield client
    tidy(client, prefix)


@pytest.fixture
def secured(elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, prefix: str) -> Iterator[Elasticsearch]:
    """Give a client, by API key, of a server that the test may stop and that is set up for ``prefix``."""
    monkeypatch.setattr("agenttrail.sinks.elasticsearch_connection._LONGEST_WAIT", 2.0)  # seconds, so as not to idle
    owner = client_of(elasticsearch_secured, monkeypatch)
    monkeypatch.setenv("TEST_KEY", owner.security.create_api_key(name=prefix).body["encoded"])
    client = connect(settings_of(elasticsearch_secured, username=None, password=None, api_key="${TEST_KEY}"))
    setup(client, prefix=prefix)
    yield client
    if not elasticsearch_secured.runs():
        elasticsearch_secured.start()
    tidy(owner, prefix)
