"""Every format gives of its golden sample what stands beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agenttrail.formats import FORMATS

sys.path.insert(0, str(Path(__file__).parent))
from tests.formats.golden import parsed_sample, sample_of, shown


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_golden_sample_gives_what_is_expected(name: str) -> None:
    expected = (sample_of(name).parent / "expected.jsonl").read_text(encoding="utf-8")
    assert shown(parsed_sample(name)).splitlines() == expected.splitlines()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_line_of_a_sample_is_accounted_for(name: str) -> None:
    parsed = parsed_sample(name)
    assert parsed.lines == parsed.with_records + parsed.skipped + parsed.dead.num_rows
    if FORMATS[name].gives != "leases":
        assert parsed.with_records == len(parsed.events.column("log.offset").unique()) > 0
