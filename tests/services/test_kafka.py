"""The broker that other tests rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from tests.services.kafka import Kafka


def _messages(kafka: Kafka, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "tests", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, 30)]
    finally:
        consumer.close()


def test_what_was_written_is_there_after_a_kill(kafka_alone: Kafka) -> None:
    topic = kafka_alone.topic()
    kafka_alone.produce(topic, [b"one", b"two"])
    kafka_alone.kill()
    assert not kafka_alone.answers(0.5)
    kafka_alone.start()
    assert _messages(kafka_alone, topic, 2) == [b"one", b"two"]
