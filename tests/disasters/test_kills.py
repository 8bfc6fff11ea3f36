"""kill -9 of the job, of a worker and of Elasticsearch: a re-run leaves what a run leaves to which nothing happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.disasters.kills import Moment, Undisturbed, endure
from tests.disasters.runs import simulated

if TYPE_CHECKING:
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
