"""``pytest tests/conformance --data DIR``: without real samples there is nothing to collect here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conformance.runs import Ran, run_samples
from tests.conformance.samples import MANIFEST

if TYPE_CHECKING:
    import os


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the samples."""
    parser.addoption("--data", type=Path, help="folder of real samples, with its MANIFEST.tsv")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a folder that holds no samples: nothing could fail there."""
    folder = config.getoption("data", None)
    if folder is not None and not (folder / MANIFEST).is_file():
        msg = f"--data {folder}: there is no {MANIFEST} in it"
        raise pytest.UsageError(msg)


def pytest_ignore_collect(collection_path: os.PathLike[str], config: pytest.Config) -> bool | None:
    """Leave this folder out of a run that names no samples: they are not part of the project."""
    del collection_path
    return True if config.getoption("data", None) is None else None


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """Return the folder of samples."""
    folder: Path = request.config.getoption("data")
    return folder.resolve()


@pytest.fixture(scope="session")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Return what one real run over all samples gave."""
    return run_samples(data, tmp_path_factory.mktemp("conformance"))
