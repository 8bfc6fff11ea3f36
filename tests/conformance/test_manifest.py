"""Every file of the manifest that belongs to these formats is read, or named with the reason why not."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tests.conformance.samples import NO_SAMPLES, SAMPLES, looks_like_ours, manifest

from agenttrail.formats import FORMATS

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_of_these_formats_is_read_or_named(data: Path) -> None:
    paths = [row["file"] for row in manifest(data)]
    suspects = {path for path in paths if looks_like_ours(path, (data / path).read_bytes())}
    read = {sample.path for sample in SAMPLES}
    named = {path: [glob for glob in NO_SAMPLES if fnmatchcase(path, glob)] for path in paths}
    assert len(paths) > 1000
    assert read <= set(paths)
    assert {path for path in suspects - read if len(named[path]) != 1} == set()
    assert {path for path in read if named[path]} == set()
    needed = {globs[0] for path, globs in named.items() if globs and path in suspects}
    assert set(NO_SAMPLES) - needed == set()


def test_the_samples_are_those_of_the_manifest(data: Path) -> None:
    """So that what is said of them here is said of the files that are there."""
    rows = {row["file"]: row for row in manifest(data)}
    files = {sample.path for sample in SAMPLES} | {sample.expected[0] for sample in SAMPLES if sample.expected}
    for path in files:
        assert hashlib.sha256((data / path).read_bytes()).hexdigest() == rows[path]["sha256"], path
    logs = [one for one in SAMPLES if FORMATS[one.format].gives == "events" and not one.derive]
    assert len(logs) == 7
    for sample in logs:
        assert sample.lines == int(rows[sample.path]["lines"]), sample.name


def test_formats_without_a_sample_are_known() -> None:
    assert set(FORMATS) - {sample.format for sample in SAMPLES} == {
        "alibaba_vpc_flow",
        "dcgm_prometheus",
        "otlp_spans",
        "training_progress",
    }
