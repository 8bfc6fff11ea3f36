"""What stands beside a safe point: what was found on rows that are not read again from there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pytest

from agenttrail.casebook.desk import SafePoint, name_of
from agenttrail.casebook.ledger import Changes
from agenttrail.errors import SinkError
from agenttrail.incident_files import read_timeline, timelines
from agenttrail.schema import conform, record
from agenttrail.sinks.versions import SAFE_POINT, Versions
from agenttrail.streams.graph import _sums

if TYPE_CHECKING:
    from pathlib import Path

_FIRST, _SECOND = b"what was found", b"and some more"


def _naming(sums: bytes | None) -> bytes:
    return SafePoint(sums=name_of(sums)).to_json()


def _beside(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("sums-*")}


def test_a_safe_point_names_what_stands_beside_it_and_what_no_one_names_goes(tmp_path: Path) -> None:
    versions = Versions(str(tmp_path))
    versions.begin()
    for sums in (_FIRST, _FIRST, _SECOND):
        versions.safe(_naming(sums), sums)
        assert _beside(tmp_path) == {name_of(sums)}
        stored = versions.begin()
        assert _sums(str(tmp_path), stored) == sums
    versions.safe(_naming(None), None)
    assert _beside(tmp_path) == set()
    assert _sums(str(tmp_path), versions.begin()) is None


def test_what_a_run_that_was_killed_left_beside_the_safe_point_before_it_is_no_harm(tmp_path: Path) -> None:
    versions = Versions(str(tmp_path))
    versions.begin()
    versions.safe(_naming(_FIRST), _FIRST)
    named = (tmp_path / SAFE_POINT).read_bytes()
    versions.safe(_naming(_SECOND), _SECOND)
    (tmp_path / str(name_of(_FIRST))).write_bytes(_FIRST)
    (tmp_path / SAFE_POINT).write_bytes(named)
    assert _sums(str(tmp_path), versions.begin()) == _FIRST
    versions.safe(_naming(_FIRST), _FIRST)
    assert _beside(tmp_path) == {name_of(_FIRST)}


@pytest.mark.parametrize(("left", "why"), [(None, "it is gone"), (b"something else", "it is not as it was written")])
def test_what_is_gone_or_damaged_is_told_with_its_place(tmp_path: Path, left: bytes | None, why: str) -> None:
    versions = Versions(str(tmp_path))
    versions.begin()
    versions.safe(_naming(_FIRST), _FIRST)
    path = tmp_path / str(name_of(_FIRST))
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    with pytest.raises(SinkError) as told:
        _sums(str(tmp_path), versions.begin())
    assert str(told.value) == (f"{path}: is damaged: {why}; name another directory with --output to begin anew")


def _told(number: int, incident: int = 0) -> Changes:
    entry = {
        "timeline.id": f"{number:032x}", "incident.id": f"{incident:032x}", "timeline.kind": "finding",
        "@timestamp": 1_772_000_000_000_000 + number,
    }  # fmt: skip
    timeline = conform(pa.RecordBatch.from_pylist([entry]), record("timeline"))
    return replace(Changes.none(), timeline=timeline)


def _stands(folder: Path, *incidents: int) -> None:
    lines = [orjson.dumps({"incident.id": f"{one:032x}"}) + b"\n" for one in incidents]
    (folder / "incidents.ndjson").write_bytes(b"".join(lines))


def _last(folder: Path, incident: int) -> list[int]:
    return [int(one["timeline.id"], 16) for one in read_timeline(str(folder), f"{incident:032x}")]


def test_of_timelines_the_one_written_last_holds_however_many_there_were(tmp_path: Path) -> None:
    versions = Versions(str(tmp_path))
    versions.begin()
    _stands(tmp_path, 0)
    versions.append(_told(1))
    (tmp_path / "timeline" / "timeline-00000.parquet").rename(tmp_path / "timeline" / "timeline-99999.parquet")
    versions.append(_told(2))
    versions.append(_told(3))
    names = {path.name for path in (tmp_path / "timeline").iterdir()}
    assert names == {"timeline-99999.parquet", "timeline-100000.parquet", "timeline-100001.parquet"}
    assert _last(tmp_path, 0) == [3]
    assert [(id_, batch.num_rows) for id_, batch in timelines(str(tmp_path), [f"{0:032x}"])] == [(f"{0:032x}", 1)]
    versions.begin()
    assert len(list((tmp_path / "timeline").iterdir())) == 1
    assert _last(tmp_path, 0) == [3]


def test_files_of_timelines_become_one_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agenttrail.sinks.versions._MANY_TIMELINES", 5)
    versions = Versions(str(tmp_path))
    versions.begin()
    _stands(tmp_path, 0, 1)
    most = 0
    for number in range(20):
        versions.append(_told(number, number % 3))  # an incident that does not stand any more among them
        most = max(most, len(list((tmp_path / "timeline").iterdir())))
    assert most == 5
    assert (_last(tmp_path, 0), _last(tmp_path, 1)) == ([18], [19])
