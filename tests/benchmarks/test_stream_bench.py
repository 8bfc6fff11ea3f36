"""The bench of streams at a small size: all of it runs for real, and the results say what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.benchmarks.stream_bench import StreamBench, StreamSizes, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.elasticsearch import Elasticsearch
    from tests.services.kafka import Kafka


@pytest.mark.xdist_group("bench")
def test_every_act_becomes_an_incident_and_the_results_say_how_soon(
    tmp_path: Path, kafka: Kafka, elasticsearch: Elasticsearch, prism: Path
) -> None:
    assert prism.exists()
    sizes = StreamSizes(20_000, 60_000, a_day=2_000_000, rate=1_000, seconds=24, acts=6)
    found = StreamBench(tmp_path, sizes, kafka, elasticsearch.url).all()
    assert found.rules.large.cpu > 0
    assert 0 < found.whole.held < sizes.large
    assert len(found.delays.seconds) == sizes.acts
    assert 0 < found.delays.share(0) <= found.delays.share(0.5) <= found.delays.share(1) < 60
    text = told(found, sizes)
    for said in ("| Kafka → row rules |", "| the whole stream |", "thousand events / CPU-s | ≥ 60 |", "median | ≤ 3 |"):
        assert said in text
