"""A stream that is killed, or whose servers are, leaves in the end what an undisturbed one leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.streams.kills import VICTIMS, Day, Moment, Stage, day_of, endure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.elasticsearch import Elasticsearch as Server
    from tests.services.kafka import Kafka


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return day_of(tmp_path_factory.mktemp("day"), 12)


@pytest.mark.usefixtures("prism")
@pytest.mark.parametrize("seed", range(3), ids=VICTIMS)
def test_what_is_killed_makes_no_difference(
    day: Day, tmp_path: Path, kafka_alone: Kafka, elasticsearch_secured: Server, seed: int
) -> None:
    stage = Stage(day, tmp_path, kafka_alone, elasticsearch_secured, f"moment-{seed}")
    try:
        assert endure(Moment(seed), stage) == []
    finally:
        stage.remove()
