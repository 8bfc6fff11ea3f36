"""Timelines in a real Elasticsearch: what stands there is what was told last of each incident."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.sinks.documents import DAY, MEBI, batch_of, count, ids_of, settings_of, sources
from tests.sinks.test_run_elasticsearch import _job

from agenttrail import jobs, timeline
from agenttrail.casebook.ledger import Changes
from agenttrail.columns.batches import as_one_batch
from agenttrail.columns.json_text import json_objects
from agenttrail.jobs import RunOptions
from agenttrail.schema import TIMESTAMP
from agenttrail.simulate import simulate
from agenttrail.sinks.elasticsearch import stored_timeline
from agenttrail.sinks.elasticsearch_changes import ChangesWriter
from agenttrail.sinks.elasticsearch_timeline import replace_timelines

if TYPE_CHECKING:
    from pathlib import Path

    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server

MINUTE = 60_000_000


def _incidents(count: int, *anchors: str) -> pa.RecordBatch:
    anchor = {"entity__anchor": pa.array(anchors)} if anchors else {}
    return batch_of("incident", count, **anchor)


def _calls(incidents: pa.RecordBatch, rows: list[tuple[int, int, str]]) -> pa.RecordBatch:
    """Return a timeline of tool calls: of which incident, in which minute, with which arguments."""
    columns: dict[str, pa.Array] = {name: pa.nulls(len(rows), pa.string()) for name in timeline.WHOM}
    columns["incident.id"] = incidents.column("incident.id").take(pa.array([row[0] for row in rows], pa.int64()))
    columns["event.start"] = columns["event.end"] = pa.array([DAY + row[1] * MINUTE for row in rows]).view(TIMESTAMP)
    columns["gen_ai.tool.call.id"] = pa.array([f"call-{row[1]}" for row in rows])
    columns["gen_ai.tool.call.arguments"] = pa.array([row[2] for row in rows])
    calls = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return timeline.ordered([timeline.tool_calls(calls)])


def _fates(written: list[Any]) -> dict[str, int]:
    """Return how many documents met which fate."""
    names = ("created", "updated", "unchanged", "deleted")
    counted = {name: sum(getattr(one, name) for one in written) for name in names}
    return {name: number for name, number in counted.items() if number}


def _documents(entries: pa.RecordBatch) -> dict[str, dict[str, Any]]:
    return {one["timeline.id"]: one for one in map(json.loads, json_objects(entries).to_pylist())}


def test_what_is_told_again_takes_the_place_of_what_was_told(client: Elasticsearch, prefix: str) -> None:
    """Entries that vanished vanish; other incidents' stay; one without any, which is superseded, loses all."""
    incidents, name = _incidents(3), f"{prefix}-timeline"
    first = _calls(incidents, [(0, 1, "make"), (0, 2, "ls"), (1, 1, "cat"), (2, 1, "id")])
    assert _fates(replace_timelines(client, first, incidents, prefix=prefix)) == {"created": 4}
    assert sources(client, name) == _documents(first)
    assert _fates(replace_timelines(client, first, incidents, prefix=prefix)) == {"updated": 4}
    again = _calls(incidents, [(0, 2, "ls -l"), (0, 3, "make")])
    touched = incidents.slice(0, 2)
    assert _fates(replace_timelines(client, again, touched, prefix=prefix)) == {
        "created": 2, "deleted": 3,
    }  # fmt: skip
    assert sources(client, name) == _documents(again) | {
        id_: one for id_, one in _documents(first).items() if one["incident.id"] == ids_of(3, "incident")[2].as_py()
    }
    told = stored_timeline(client, incidents.column("incident.id")[0].as_py(), prefix=prefix)
    assert [one["gen_ai.tool.call.arguments"] for one in told] == ["ls -l", "make"]
    assert stored_timeline(client, "0" * 32, prefix=prefix) == []


def test_what_is_told_at_once_leaves_the_timeline_that_stands(
    client: Elasticsearch, prefix: str, elasticsearch: Server
) -> None:
    """A stream tells an incident again before its timeline, which comes with everything else."""
    incidents, name = _incidents(2), f"{prefix}-timeline"
    entries = _calls(incidents, [(0, 1, "make"), (1, 1, "cat")])
    none = Changes.none()
    whole = replace(none, incidents=incidents, timeline=entries)
    writer = ChangesWriter(settings_of(elasticsearch, prefix=prefix))
    assert [kind for kind, _ in writer.write(whole)] == ["incidents", "timeline"]
    assert [kind for kind, _ in writer.write(replace(none, incidents=incidents, stories=False))] == ["incidents"]
    client.indices.refresh(index=f"{name}-*")
    assert sources(client, name) == _documents(entries)
    writer.write(replace(none, incidents=incidents))
    client.indices.refresh(index=f"{name}-*")
    assert sources(client, name) == {}


def test_with_an_incident_its_timeline_goes(client: Elasticsearch, prefix: str, elasticsearch: Server) -> None:
    """A stream takes back an incident of an address when it comes to know whose it was."""
    incidents, name = _incidents(2), f"{prefix}-timeline"
    entries = _calls(incidents, [(0, 1, "make"), (0, 2, "ls"), (1, 1, "cat")])
    whole = replace(Changes.none(), incidents=incidents, timeline=entries)
    writer = ChangesWriter(settings_of(elasticsearch, prefix=prefix))
    writer.write(whole)
    gone = incidents.column("incident.id").slice(0, 1)
    writer.write(replace(Changes.none(), gone_incidents=gone, successors=gone))
    client.indices.refresh(index=f"{name}-*")
    assert [one["gen_ai.tool.call.arguments"] for one in sources(client, name).values()] == ["cat"]


def test_entries_stand_in_the_month_of_their_incident(client: Elasticsearch, prefix: str) -> None:
    """Also where it was told before in another one."""
    entries = [(0, 1, "make")]
    for month in ("2026-01", "2026-02"):
        incidents = _incidents(1, f"{month}-28")
        replace_timelines(client, _calls(incidents, entries), incidents, prefix=prefix)
        assert count(client, f"{prefix}-timeline") == count(client, f"{prefix}-timeline-{month.replace('-', '.')}") == 1


def test_arguments_of_a_mebibyte_and_what_looks_like_json_are_kept(client: Elasticsearch, prefix: str) -> None:
    incidents = _incidents(1)
    entries = _calls(incidents, [(0, 1, "x" * MEBI), (0, 2, '"}\n{"delete":{"_index":"*"}}\n\x1b[2J\u202e')])
    (written,) = replace_timelines(client, entries, incidents, prefix=prefix)
    assert (written.created, written.dead) == (2, [])
    assert sources(client, f"{prefix}-timeline") == _documents(entries)


@pytest.mark.parametrize("again", [RunOptions(), RunOptions(shards=3, block_bytes=100_000)])
def test_a_run_leaves_the_entries_of_its_files_however_often(
    again: RunOptions, tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    simulate(tmp_path / "day", agents=4, hours=1.5, seed=5)
    job = _job(tmp_path / "day", tmp_path / "out", elasticsearch, prefix)
    jobs.run(job)
    written = _documents(as_one_batch(pq.read_table(tmp_path / "out" / "timeline")))
    assert {"lease_start", "finding", "egress"} <= {one["timeline.kind"] for one in written.values()}
    assert sources(client, f"{prefix}-timeline") == written
    told = json.loads((tmp_path / "out" / "run.json").read_text())["elasticsearch"]["timeline"]
    assert told == {"created": len(written)}
    stale = next(iter(written.values()))
    client.index(index=f"{prefix}-timeline-2020.01", id="e" * 32, document=stale | {"timeline.id": "e" * 32})
    jobs.run(job, again)
    assert sources(client, f"{prefix}-timeline") == written
    told = json.loads((tmp_path / "out" / "run.json").read_text())["elasticsearch"]["timeline"]
    assert told == {"updated": len(written), "deleted": 1}


def test_entries_of_entities_without_an_incident_are_for_files(
    tmp_path: Path, elasticsearch: Server, client: Elasticsearch, prefix: str
) -> None:
    simulate(tmp_path / "day", agents=4, hours=1.5, seed=5)
    jobs.run(replace(_job(tmp_path / "day", tmp_path / "out", elasticsearch, prefix), every_timeline=True))
    written = _documents(as_one_batch(pq.read_table(tmp_path / "out" / "timeline")))
    incidents = [json.loads(line) for line in (tmp_path / "out" / "incidents.ndjson").read_text().splitlines()]
    named = {one["incident.id"] for one in incidents}
    of_incidents = {id_: one for id_, one in written.items() if one["incident.id"] in named}
    assert 0 < len(of_incidents) < len(written)
    assert sources(client, f"{prefix}-timeline") == of_incidents
