"""What stands beside a safe point: what was found on rows that are not read again from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenttrail.casebook.desk import SafePoint, name_of
from agenttrail.errors import SinkError
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
