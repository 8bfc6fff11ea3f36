"""Consecutive runs over parts of a morning leave in Elasticsearch what one run leaves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from tests.scenarios.days import lines_of
from tests.scenarios.mornings import DAY, THIRDS, write_longer_morning
from tests.sinks.documents import tidy

from agenttrail.job_files import load_job
from agenttrail.jobs import RunOptions, run
from agenttrail.sinks.elasticsearch import search_incidents, setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

Documents = dict[str, dict[str, Any]]
_PARTS = list(pairwise((DAY + second) * 1_000_000 for second in THIRDS))


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the job of a morning."""
    return write_longer_morning(tmp_path_factory.mktemp("morning"))


@pytest.fixture
def whole(client: Elasticsearch, prefix: str) -> Iterator[str]:
    """Return the prefix of indices for the one run."""
    name = f"{prefix}-whole"
    setup(client, prefix=name)
    yield name
    tidy(client, name)


def _run(job: Path, out: Path, server: Server, prefix: str, start: int, stop: int) -> None:
    loaded = load_job(job, output=str(out))
    run(replace(loaded, elasticsearch={"url": server.url, "prefix": prefix}), RunOptions(start, stop))


def _stored(client: Elasticsearch, prefix: str, kind: str) -> Documents:
    client.indices.refresh(index=f"{prefix}-{kind}-*")
    hits = client.search(index=f"{prefix}-{kind}-*", size=10_000).body["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


@pytest.mark.parametrize("apart", [False, True], ids=["one directory", "a directory each"])
def test_thirds_leave_what_one_run_leaves(
    morning: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str, whole: str, *, apart: bool
) -> None:
    """Also where runs share nothing but the indices; and the middle once more changes nothing."""
    _run(morning, tmp_path / "whole", elasticsearch, whole, _PARTS[0][0], _PARTS[-1][1])
    for number, part in enumerate([*_PARTS, _PARTS[1]]):
        _run(morning, tmp_path / str(number if apart else 0), elasticsearch, prefix, *part)
        if number == 0:
            beacons = [one for one in _stored(client, prefix, "findings").values() if "beacon" in one["rule.name"]]
            assert len(beacons) == 1
            assert beacons[0]["incident.id"] in _stored(client, prefix, "incidents")
        if number >= 2:
            for kind in ("findings", "incidents"):
                assert _stored(client, prefix, kind) == _stored(client, whole, kind)
                written = lines_of(tmp_path / "whole" / f"{kind}.ndjson")
                assert len(_stored(client, whole, kind)) == len(written) > 0
            entries = _stored(client, prefix, "timeline")
            assert {one["incident.id"] for one in entries.values()} == _stored(client, prefix, "incidents").keys()
            if not apart:
                assert entries == _stored(client, whole, "timeline")


def test_an_incident_that_somebody_works_on_stays_and_is_hidden(
    morning: Path, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    """When nothing opens it any more."""
    _run(morning, tmp_path, elasticsearch, prefix, *_PARTS[0])
    beacon = next(one for one in _stored(client, prefix, "findings").values() if "beacon" in one["rule.name"])
    incident = beacon["incident.id"]
    (hit,) = client.search(index=f"{prefix}-incidents-*", query={"ids": {"values": [incident]}}).body["hits"]["hits"]
    client.update(index=hit["_index"], id=incident, doc={"triage.status": "open"}, refresh=True)
    _run(morning, tmp_path, elasticsearch, prefix, *_PARTS[1])
    left = _stored(client, prefix, "incidents")[incident]
    assert left == hit["_source"] | {"triage.status": "open", "incident.superseded_by": incident}
    assert beacon["finding.id"] not in _stored(client, prefix, "findings")
    assert incident not in {one["incident.id"] for one in search_incidents(client, prefix=prefix)}
