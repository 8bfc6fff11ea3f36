"""What is written to Kafka for the bench of streams: a generated log as fast as it goes, or evenly with acts in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tests.services.kafka import Kafka

PEER = "198.19.7.7"
"""An unlisted peer of the generator's world, to which the timed acts open SSH."""
PARTITIONS = 2


@dataclass(frozen=True)
class Act:
    """One SSH connection of a sandbox that does nothing else.

    Attributes:
        number: of the act.
        at: seconds after the beginning.
    """

    number: int
    at: float

    @property
    def address(self) -> str:
        """Return the address of its sandbox."""
        return f"10.65.{self.number // 200}.{self.number % 200 + 10}"

    @property
    def sandbox(self) -> str:
        """Return the name of its sandbox."""
        return f"timed-{self.number:04}"

    def lines(self, second: int) -> Iterator[bytes]:
        """Yield its record and that of the reply."""
        ends = (self.address, PEER, 50_000 + self.number, 22), (PEER, self.address, 22, 50_000 + self.number)
        for source, destination, port, to in ends:
            told = f"2 123456789012 eni-0 {source} {destination} {port} {to} 6 40 60000 {second} {second + 1} ACCEPT OK"
            yield told.encode()


def acts_of(seconds: int, count: int) -> list[Act]:
    """Return so many acts, evenly within so many seconds: from a third on, and until ten before the end."""
    first, last = seconds / 3, seconds - 10
    return [Act(number, first + (last - first) * number / count) for number in range(count)]


class Lines:
    """The lines of an input, in their order, without headers: those of version 2 need none."""

    def __init__(self, folder: Path) -> None:
        """Begin with the first of ``folder``."""
        self.lines = self._all(sorted(folder.glob("aws_vpc_flow-*")))
        self.taken = 0

    def _all(self, paths: Sequence[Path]) -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                next(file)
                for line in file:
                    self.taken += 1
                    yield line.rstrip(b"\n")

    def take(self, count: int) -> Iterator[bytes]:
        """Yield so many more."""
        for _, line in zip(range(count), self.lines, strict=False):
            yield line


def producer_for(broker: Kafka) -> Producer:
    """Return what writes to a broker."""
    settings = {"bootstrap.servers": broker.bootstrap, "linger.ms": 20, "enable.idempotence": True, "log_level": 0}
    return Producer(settings | {"queue.buffering.max.messages": 1_000_000, "compression.type": "lz4"})


def send(producer: Producer, topic: str, lines: Iterable[bytes]) -> None:
    """Hand lines over, to all partitions in turn."""
    for number, line in enumerate(lines):
        while True:
            try:
                producer.produce(topic, line, partition=number % PARTITIONS)
            except BufferError:
                producer.poll(0.05)
            else:
                break


def write(broker: Kafka, topic: str, lines: Iterable[bytes]) -> None:
    """Write lines as fast as it goes, until the broker has them all."""
    producer = producer_for(broker)
    send(producer, topic, lines)
    if producer.flush(120):
        msg = "Kafka did not take all lines"
        raise RuntimeError(msg)
