"""Beam's own sources, behind the interface of ours; the graph alone, since Dataflow is not to be had here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from agenttrail.accounting import EVENTS
from agenttrail.sources.kafka import KafkaTopic
from agenttrail.sources.managed import GatherBlocks, ManagedKafka, ManagedPubSub
from agenttrail.sources.stream import ARRIVALS
from agenttrail.transforms.parsing import Parse, Source

if TYPE_CHECKING:
    from tests.services.beam_servers import BeamServer


def _told(arrival: Any) -> tuple[str, bytes, list[int], int, int]:
    block = arrival.block
    return arrival.part, block.data, block.numbers.tolist(), arrival.before.at, arrival.after.at


def test_messages_of_a_bundle_become_blocks() -> None:
    """One that is large enough does not wait for the end."""
    messages = [("t/0", 3, b"one"), ("t/1", 9, b"x" * 20), ("t/0", 4, b"two\nthree"), ("t/1", 10, None)]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        gathered = pipeline | beam.Create([messages]) | beam.FlatMap(list) | beam.ParDo(GatherBlocks(1, 16))
        assert_that(
            gathered | beam.Map(_told),
            equal_to([
                ("t/0", b"one\ntwo\nthree\n", [3, 4, 4], 3, 5),
                ("t/1", b"x" * 20 + b"\n", [9], 9, 10),
                ("t/1", b"\n", [10], 10, 11),
            ]),
        )  # fmt: skip


def test_a_subscription_feeds_the_same_graph() -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(["--streaming"]))
    arrived = pipeline | "Stream" >> ManagedPubSub(0, "projects/abcdef/subscriptions/flow")
    blocks = arrived[ARRIVALS] | beam.Map(lambda arrival: arrival.block)
    parsed = blocks | Parse([Source("flow", "aws_vpc_flow", {})])
    assert isinstance(parsed[EVENTS], beam.PCollection)
    graph = str(pipeline.to_runner_api())
    assert "beam:transform:pubsub_read:v1" in graph
    assert "projects/abcdef/subscriptions/flow" in graph


def test_a_topic_feeds_the_same_graph(expansion: BeamServer) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(["--streaming"]))
    topic = KafkaTopic("flow", "broker:9092", tls=True)
    arrived = pipeline | "Stream" >> ManagedKafka(0, topic, expansion_service=expansion.endpoint)
    blocks = arrived[ARRIVALS] | beam.Map(lambda arrival: arrival.block)
    parsed = blocks | Parse([Source("flow", "aws_vpc_flow", {})])
    assert isinstance(parsed[EVENTS], beam.PCollection)
    names = {step.unique_name for step in pipeline.to_runner_api().components.transforms.values()}
    assert any("KafkaIO.ReadSourceDescriptors" in name for name in names), names


@pytest.mark.parametrize(
    "settings",
    [
        {"username": "me", "password": "${KAFKA_PASSWORD}"},
        {"tls": True, "ca_certs": "ca.pem"},
    ],
)
def test_a_login_does_not_go_into_the_job_graph(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="in the job graph"):
        ManagedKafka(0, KafkaTopic("flow", "b:9092", **settings))
