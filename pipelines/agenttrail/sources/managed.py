"""Topics read by Beam's own sources, for runners that look after such streams themselves, as Dataflow does.

They give what :class:`~agenttrail.sources.stream.BlocksOf` gives.  How far a topic has been read is the runner's to
know, and so is the watermark; a header line is in force only in the block that it stands in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MAX_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from agenttrail.accounting import ACCOUNT, DEAD
from agenttrail.parsing import Block
from agenttrail.sources.kafka import lines_of
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import ARRIVALS, Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.sources.kafka import KafkaTopic

BLOCK_BYTES = 1 << 20


@dataclass
class _Gathered:
    """Messages of one part in this bundle, with the smallest of their timestamps."""

    values: list[bytes | None] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    size: int = 0
    time: Any = MAX_TIMESTAMP


class GatherBlocks(beam.DoFn):
    """(part, number, value) of each message to arrivals: of 1 MiB, or of what a bundle holds."""

    def __init__(self, source: int, block_bytes: int = BLOCK_BYTES) -> None:
        """Gather messages of source number ``source``."""
        self._source, self._block_bytes = source, block_bytes
        self._parts: dict[str, _Gathered] = {}

    def start_bundle(self) -> None:
        """Begin anew: what a bundle that failed has left will come again."""
        self._parts = {}

    def process(
        self,
        message: tuple[str, int, bytes | None],
        time: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        """Put a message to its part."""
        part, number, value = message
        gathered = self._parts.setdefault(part, _Gathered())
        gathered.values.append(value)
        gathered.numbers.append(number)
        gathered.size += len(value or b"")
        gathered.time = min(gathered.time, time)
        if gathered.size >= self._block_bytes:
            yield self._block(part, self._parts.pop(part))

    def finish_bundle(self) -> Iterator[Any]:
        """Give what is left."""
        for part, gathered in self._parts.items():
            yield self._block(part, gathered)
        self._parts = {}

    def _block(self, part: str, gathered: _Gathered) -> WindowedValue:
        data, numbers = lines_of(gathered.values, gathered.numbers)
        first, after = min(gathered.numbers), max(gathered.numbers) + 1
        block = Block(data, part, first, b"", self._source, numbers)
        return WindowedValue(Arrival(block, part, Position(first), Position(after)), gathered.time, (GlobalWindow(),))


class ManagedKafka(beam.PTransform):
    """A topic of Kafka by Beam's ``ReadFromKafka``, whose messages carry the time at which they were made."""

    def __init__(self, source: int, topic: KafkaTopic, expansion_service: str | None = None) -> None:
        """Read ``topic`` as source number ``source``.

        Args:
            source: number of the job's source.
            topic: without a login and without files of certificates.
            expansion_service: ``host:port`` of one that runs; None to have Beam start its own, by Java.

        Raises:
            ValueError: the topic's settings cannot travel: a password would stand in the job graph in clear, and files
                of certificates are not on the workers.
        """
        super().__init__()
        if topic.username or topic.ca_certs or topic.certificate:
            msg = (
                "ReadFromKafka would carry the login in the job graph, where all can read it, and certificates that "
                "its workers do not have: let the network vouch for the workers, or run on Prism or Flink"
            )
            raise ValueError(msg)
        self._source, self._topic, self._expansion_service = source, topic, expansion_service

    def expand(self, begin: beam.pvalue.PBegin) -> Any:
        """Return the outputs by tag; the main one is ``ARRIVALS``."""
        settings = {name: str(value) for name, value in self._topic.settings().items()} | {
            "auto.offset.reset": "earliest"
        }
        read = ReadFromKafka(
            consumer_config=settings,
            topics=[self._topic.topic],
            timestamp_policy=ReadFromKafka.create_time_policy,
            with_metadata=True,
            expansion_service=self._expansion_service,
        )
        told = begin | "Read" >> read | "Told" >> beam.Map(_of_kafka)
        return _arrivals(told, self._source)


class ManagedPubSub(beam.PTransform):
    """A subscription of Pub/Sub by Beam's ``ReadFromPubSub``."""

    def __init__(self, source: int, subscription: str, time: str | None = None) -> None:
        """Read a subscription as source number ``source``.

        Args:
            source: number of the job's source.
            subscription: ``projects/<project>/subscriptions/<name>``.
            time: attribute of the messages that holds their event time; None for when they were published.
        """
        super().__init__()
        self._source, self._subscription, self._time = source, subscription, time

    def expand(self, begin: beam.pvalue.PBegin) -> Any:
        """Return the outputs by tag; the main one is ``ARRIVALS``."""
        part = self._subscription
        read = beam.io.ReadFromPubSub(subscription=part, timestamp_attribute=self._time)
        told = begin | "Read" >> read | "Told" >> beam.Map(lambda value: (part, 0, value))
        return _arrivals(told, self._source)


def _of_kafka(record: Any) -> tuple[str, int, bytes | None]:
    return f"{record.topic}/{record.partition}", record.offset, record.value


def _arrivals(told: Any, source: int) -> Any:
    gather = beam.ParDo(GatherBlocks(source)).with_output_types(Arrival)
    return told | "Gather" >> gather.with_outputs(DEAD, ACCOUNT, main=ARRIVALS)
