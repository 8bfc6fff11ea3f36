"""kill -9 of the job, of a worker and of Elasticsearch: a re-run leaves what a run leaves to which nothing happened."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.disasters.kills import TWO_WORKERS, Moment, Undisturbed, endure, workers_of
from tests.disasters.runs import Place, simulated

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.elasticsearch import Elasticsearch as Server


@pytest.fixture(scope="module")
def undisturbed_by_server() -> dict[str, Undisturbed]:
    """Return what is known already."""
    return {}


@pytest.mark.parametrize("seed", [0, 1, 2], ids=lambda seed: Moment(seed).victim)
def test_a_run_after_a_kill_leaves_what_an_undisturbed_run_leaves(
    seed: int, elasticsearch_secured: Server, tmp_path_factory: pytest.TempPathFactory,
    undisturbed_by_server: dict[str, Undisturbed],
) -> None:  # fmt: skip
    """At a moment drawn by seed; `make acceptance` has twenty, half of them with a run that goes on with an earlier."""
    known = undisturbed_by_server
    if not known:
        folder = tmp_path_factory.mktemp("disasters")
        known["it"] = Undisturbed(simulated(folder / "day"), folder, elasticsearch_secured)
    _, unlike = endure(Moment(seed), known["it"], elasticsearch_secured)
    assert unlike == []


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_worker_that_dies_at_its_start_is_not_waited_for(seconds: float, tmp_path: Path) -> None:
    """Beam's runner would, for ever; nothing is left of the run."""
    place = Place(tmp_path / "job")
    place.prepare(simulated(tmp_path / "day"))
    with place.start(*TWO_WORKERS) as process:
        while not (found := workers_of(process.pid)):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(seconds)
        os.kill(found[0], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "agenttrail: a worker of the run was ended by signal 9 before its work was done" in said
    assert list(place.out.iterdir()) == []
