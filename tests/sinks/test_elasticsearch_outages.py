"""A real Elasticsearch that is stopped and killed in the middle of things, and started again."""

from __future__ import annotations

import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from tests.sinks.documents import count, findings_of, ids_of, incidents_of, settings_of, sources, until

from agenttrail.errors import SinkError
from agenttrail.sinks.elasticsearch import BulkWriter, connect, stored_findings
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from tests.services.elasticsearch import Elasticsearch as Server


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_what_goes_on_when_a_server_goes_away_ends_well_when_it_is_back(
    secured: Elasticsearch, elasticsearch_secured: Server, prefix: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Findings are in the middle of being written, others of being read; incidents are written while it is away."""
    writer = BulkWriter(secured, prefix=prefix, most_actions=50)
    entity = ids_of(1, "incident")
    read_ids, *rest = findings_of(3_500, prefix, incident__id=entity.take(pa.array(np.zeros(3_500, dtype=int))))
    writer.index(read_ids, *rest)
    incidents = incidents_of(100, prefix)
    assert writer.replace(*incidents).created == 100
    before = sources(secured, f"{prefix}-incidents")
    pages = stored_findings(secured, entity, prefix=prefix)
    read = [next(pages)]

    total, index = 20_000, f"{prefix}-findings-2026.04"
    april = pa.array(["2026-04-01"] * total)
    batch = findings_of(total, prefix, entity__anchor=april, falsepositives=pa.array([["lorem ipsum " * 30]] * total))
    retries = TALLY.retries
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(3) as pool:
        writing = pool.submit(writer.index, *batch)
        until(lambda: bool(secured.indices.exists(index=index)) and count(secured, index) > total // 10)
        getattr(elasticsearch_secured, way)()
        assert not writing.done()
        reading, again = pool.submit(list, pages), pool.submit(writer.replace, *incidents)
        elasticsearch_secured.start()
        written = writing.result(300)
        read += reading.result(120)
        assert again.result(120).unchanged == 100
    assert "trying again" in caplog.text
    events = {record.__dict__["told"][0] for record in caplog.records if hasattr(record, "told")}
    assert events == {"elasticsearch_retry", "elasticsearch_back"}
    assert 0 < written.retries <= TALLY.retries - retries
    assert written.dead == []
    assert written.created + written.updated == total
    assert count(secured, index) == total
    assert [json.loads(text)["finding.id"] for page in read for text in page.to_pylist()] == sorted(
        read_ids.to_pylist()
    )
    assert sources(secured, f"{prefix}-incidents") == before


def test_patience_has_an_end_and_says_so_and_within_it_a_start_is_waited_for(
    secured: Elasticsearch, elasticsearch_secured: Server, prefix: str
) -> None:
    elasticsearch_secured.kill()
    with pytest.raises(
        SinkError, match=r"cannot be used after \d+ tries in 1 s: no connection .*check that it runs"
    ) as raised:
        BulkWriter(secured, patience=1.0).index(*findings_of(1, prefix))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301 - made here
    with pytest.raises(SinkError, match="cannot be used: no connection"):
        connect(settings_of(elasticsearch_secured))
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, settings_of(elasticsearch_secured), patience=120.0)
        elasticsearch_secured.start()
        assert connecting.result(120).info().body["tagline"]
