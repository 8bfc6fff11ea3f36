"""A run over the real samples accounts for every line, and every file is told to be what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.runs import Ran, agenttrail
from tests.conformance.samples import API_SERVER, SAMPLES, Sample, manifest

from agenttrail.accounting import COUNTS
from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_line_is_accounted_for(sample: Sample, ran: Ran) -> None:
    books = ran.books[sample.name]
    told = tuple(books[what] for what in ("lines", "with_events", "skipped", "dead"))
    assert told == (sample.lines, sample.with_events, sample.skipped, sample.dead)
    assert sample.lines == sample.with_events + sample.skipped + sample.dead
    if FORMATS[sample.format].gives == "events":
        assert (books["events"], books["dead"]) == (len(ran.events[sample.name]), len(ran.dead[sample.name]))


def test_the_sums_of_the_run_are_those_of_its_sources(ran: Ran) -> None:
    total = ran.summary["total"]
    for what in COUNTS:
        assert total.get(what, 0) == sum(source.get(what, 0) for source in ran.summary["sources"]), what
    assert total["lines"] == total["with_events"] + total["skipped"] + total["dead"]
    assert total["events"] == total["attributed"] + total["ambiguous"] + total["unattributed"]
    assert total["lines"] > sum(sample.lines for sample in SAMPLES)  # the flows at pods are lines, too


def test_detect_names_the_format_of_every_sample_and_of_nothing_else(data: Path, ran: Ran) -> None:
    inputs = {str(ran.inputs[sample.name]): "unknown" if sample.undetected else sample.format for sample in SAMPLES}
    paths = [row["file"] for row in manifest(data) if not row["file"].endswith(".yml")]  # but for detection rules
    others = {str(data / path): "unknown" for path in paths}
    assert len(others) > 500
    expected = others | inputs
    done = agenttrail("formats", "detect", *expected)
    said = {path: name for path, name, _ in (line.split("\t") for line in done.stdout.splitlines()[1:])}
    assert {path: name for path, name in said.items() if name != expected[path]} == {}
    assert said.keys() == expected.keys()
    assert done.returncode == 1  # some are of no format


def test_pods_in_yaml_fail_as_a_whole_with_their_place(data: Path) -> None:
    parse = FORMATS[API_SERVER.format].parser({})
    with pytest.raises(InputError, match=r"pods\.yaml:1:1: not valid JSON"):
        parse(Block((data / API_SERVER.path).read_bytes(), API_SERVER.path, 0))
