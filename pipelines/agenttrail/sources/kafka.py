"""Kafka: the messages of a topic as blocks of lines, one block at a time of each partition.

One consumer a source and process, without a group: where it stands is told by positions, which are no broker's.  A
message is a line, or several; ``log.file.path`` is ``topic/partition`` and ``log.offset`` the message's offset.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agenttrail.columns.text import printable
from agenttrail.errors import InputError, shortened
from agenttrail.parsing import Block
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import Piece, Sizes, Standing
from agenttrail.telling import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LOG = logging.getLogger(__name__)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_TUNED: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,  # the broker says where a partition ends: only then is it quiet
    "auto.offset.reset": "error",
    "queued.min.messages": 1_000_000,  # with the defaults, reading takes three times as long
    "queued.max.messages.kbytes": 64 << 10,
    "fetch.max.bytes": 64 << 20,
    "fetch.message.max.bytes": 8 << 20,
    "fetch.wait.max.ms": 50,
    "reconnect.backoff.max.ms": 2000,
    "log_level": 0,  # what matters is said by this module
}
_AWAY = frozenset({
    KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT,  # noqa: SLF001 - so named
    KafkaError._TIMED_OUT_QUEUE, KafkaError._WAIT_COORD, KafkaError.LEADER_NOT_AVAILABLE,  # noqa: SLF001 - as above
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.UNKNOWN_TOPIC_OR_PART,
})  # fmt: skip
"""Errors that pass by themselves.  A broker that comes back may not know its topics for a moment."""
_MOST_MESSAGES = 4096  # at a time: each may hold a megabyte
_POLL = 0.02  # seconds for the client to hand over what it has fetched
_ASKING = 5.0  # seconds that a broker has for an answer
_LOOK = 30.0  # seconds between two looks at what partitions there are
_LOOK_AWAY = 2.0  # the same while the broker is away
_SAY = 30.0  # seconds between two lines about a broker that is away


@dataclass(frozen=True)
class KafkaTopic:
    """A topic.

    Attributes:
        topic: its name.
        bootstrap: brokers, ``host:port`` and commas.
        tls: whether they are spoken to over TLS.
        ca_certs: file of the authority that signed their certificates; "" for those of the system.
        certificate: file of our own certificate, and
        key: of its key; "" for none.
        mechanism: of SASL, where a username is given.
        username: or ``${VARIABLE}``.
        password: always ``${VARIABLE}``, read from the environment where the consumer is made.
    """

    topic: str
    bootstrap: str
    tls: bool = False
    ca_certs: str = ""
    certificate: str = ""
    key: str = ""
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = ""

    def __post_init__(self) -> None:
        """Refuse a password in clear, and half of a login.

        Raises:
            ValueError: does not repeat what it refuses.
        """
        if self.password and not _VARIABLE.fullmatch(self.password):
            msg = "password: secrets come from the environment only: write ${NAME} and set NAME"
            raise ValueError(msg)
        if bool(self.username) != bool(self.password):
            msg = "username and password belong together"
            raise ValueError(msg)
        if bool(self.certificate) != bool(self.key):
            msg = "certificate and key belong together"
            raise ValueError(msg)
        if (self.ca_certs or self.certificate) and not self.tls:
            msg = "certificates are for TLS: add tls: true"
            raise ValueError(msg)

    def settings(self) -> dict[str, Any]:
        """Return what a client is made of; secrets are read from the environment here.

        Raises:
            InputError: a variable is not set.
        """
        named = {
            "bootstrap.servers": self.bootstrap,
            "ssl.ca.location": self.ca_certs,
            "ssl.certificate.location": self.certificate,
            "ssl.key.location": self.key,
            "sasl.username": self.username,
            "sasl.password": self.password,
            "sasl.mechanism": self.mechanism if self.username else "",
        }
        out = {name: _filled(value) for name, value in named.items() if value}
        protocol = ("SASL_" if self.username else "") + ("SSL" if self.tls else "PLAINTEXT")
        return out | {"security.protocol": protocol}

    def open(self, source: int, sizes: Sizes, *, to_end: bool) -> KafkaReader:
        """Return a reader of the topic."""
        return KafkaReader(self, source, sizes, to_end=to_end)


def _filled(value: str) -> str:
    missing = [name for name in _VARIABLE.findall(value) if not os.environ.get(name)]
    if missing:
        msg = f"Kafka: the environment variable {missing[0]} is not set here; every worker needs it"
        raise InputError(msg)
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


@dataclass
class _Held:
    """Messages of one partition that wait to become a block."""

    since: float
    values: list[bytes | None]
    numbers: list[int]
    size: int = 0


class KafkaReader:
    """Reads all partitions of a topic; see :class:`~agenttrail.sources.stream.Reader`."""

    def __init__(self, topic: KafkaTopic, source: int, sizes: Sizes, *, to_end: bool) -> None:
        """Make the consumer; the broker is asked when reading begins."""
        self._topic, self._source, self._sizes, self._to_end = topic, source, sizes, to_end
        self._consumer: Consumer | None = None
        self._told: dict[int, int] | None = None  # what was given and taken, by partition; None: to be assigned anew
        self._stops: dict[int, int | None] = {}
        self._held: dict[int, _Held] = {}
        self._ends: dict[int, int] = {}  # partitions of which the broker said that they end here
        self._wanted: dict[int, Position] = {}
        self._failed: InputError | None = None
        self._looked, self._away_since, self._said = 0.0, 0.0, 0.0

    def go_to(self, positions: Mapping[str, Position]) -> None:
        """Read on from ``positions``; the consumer keeps what it has where it stands there already."""
        self._wanted = {self._partition(part): position for part, position in positions.items()}
        known = {partition: position.at for partition, position in self._wanted.items()}
        if self._told is not None and any(known.get(partition, at) != at for partition, at in self._told.items()):
            self._told = None

    def _partition(self, part: str) -> int:
        topic, _, number = part.rpartition("/")
        if topic != self._topic.topic or not number.isdigit():
            msg = (
                f"the safe point beside the output stands at {printable(shortened(part))}, which is no partition of "
                f"the topic {self._topic.topic}: name the topic that it is of, or begin anew in another directory with "
                "--output"
            )
            raise InputError(msg)
        return int(number)

    def _part(self, partition: int) -> str:
        return f"{self._topic.topic}/{partition}"

    def lose(self) -> None:
        """Forget where it stands."""
        self._told = None

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._told = None

    def read(self) -> Iterator[Piece]:
        """Yield a block of each partition that has enough, or whose first message has waited long enough.

        Raises:
            InputError: there is no such topic, or the broker does not let us read it.
        """
        ready = self._ready()
        if self._failed is not None:
            raise self._failed
        if not ready:
            return
        while not (ripe := self._ripe()):
            messages = self._client().consume(_MOST_MESSAGES, _POLL)
            self._take(messages)
            if len(messages) < _MOST_MESSAGES:
                ripe = self._ripe()
                break
        for partition in ripe:
            if self._told is None:  # what was fetched is lost: an error of one partition has all assigned anew
                return
            yield self._piece(partition)

    def _ripe(self) -> list[int]:
        now = time.monotonic() - self._sizes.block_seconds
        return [
            partition
            for partition, held in self._held.items()
            if held.size >= self._sizes.block_bytes or held.since <= now or self._stopped(partition, held)
        ]

    def _stopped(self, partition: int, held: _Held) -> bool:
        """Tell whether a bounded replay has all that it will get of a partition."""
        stop = self._stops.get(partition)
        return stop is not None and (held.numbers[-1] + 1 >= stop or self._ends.get(partition, -1) >= stop)

    def _piece(self, partition: int) -> Piece:
        """Make a block of what is held of a partition; when it is asked for the next one, this one was taken."""
        held = self._held.pop(partition)
        data, numbers = lines_of(held.values, held.numbers)
        after = held.numbers[-1] + 1
        told, stop = self._told or {}, self._stops.get(partition)
        before, position = Position(told[partition], stop=stop), Position(after, stop=stop)
        self._told = told | {partition: after}
        self._wanted[partition] = position
        path = self._part(partition)
        block = Block(data, path, held.numbers[0], None, self._source, numbers)
        return Piece(path, block, before, position, top=before.at == 0)

    def standing(self) -> Standing:
        """Tell how the partitions stand."""
        if self._told is None or (self._away_since and not self._to_end):
            known = {self._part(partition) for partition in self._told or {}} or {self._topic.topic}
            return Standing({}, frozenset(), frozenset(known), ended=False)
        positions = {
            self._part(partition): Position(at, stop=self._stops.get(partition)) for partition, at in self._told.items()
        }
        unread = {partition for partition in self._told if not self._read_up(partition)}
        ended = self._to_end and not unread
        return Standing(positions, frozenset(), frozenset(map(self._part, unread)), ended=ended)

    def _read_up(self, partition: int) -> bool:
        """Tell whether a partition has been read to its end: its stop, or where the broker says that it ends."""
        if partition in self._held:
            return False
        at, end, stop = (self._told or {})[partition], self._ends.get(partition, -1), self._stops.get(partition)
        return end >= at if stop is None else at >= stop or end >= stop

    def _take(self, messages: Sequence[Message]) -> None:
        """Put messages aside by partition; every message is looked at, so no loop of Python's does it."""
        if any(map(Message.error, messages)):
            messages = [message for message in messages if not self._is_error(message)]
        if not messages or self._told is None:
            return
        self._is_back()
        partitions = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        for partition in np.unique(partitions).tolist():
            of = list(compress(messages, partitions == partition))
            self._hold(partition, list(map(Message.value, of)), list(map(Message.offset, of)))

    def _hold(self, partition: int, values: list[Any], numbers: list[Any]) -> None:
        stop = self._stops.get(partition)
        if stop is not None and numbers[-1] >= stop:
            count = int(np.searchsorted(np.array(numbers), stop))
            values, numbers = values[:count], numbers[:count]
            self._ends[partition] = stop
        if not values:
            return
        held = self._held.setdefault(partition, _Held(time.monotonic(), [], []))
        held.values += values
        held.numbers += numbers
        held.size += sum(map(len, filter(None, values)))

    def _is_error(self, message: Message) -> bool:
        """Tell whether a message is none, and see to what it tells."""
        error = message.error()
        if error is None:
            return False
        code, partition = error.code(), message.partition()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - so named
            if partition is not None:
                self._ends[partition] = message.offset() or 0
                self._is_back()
        elif code == KafkaError._AUTO_OFFSET_RESET or code == KafkaError.OFFSET_OUT_OF_RANGE:  # noqa: PLR1714, SLF001
            self._told = None  # some of it is no longer there: _assign tells what
        else:
            self._heed(error)
        return True

    def _heed(self, error: KafkaError) -> None:
        """Wait where an error passes by itself; it is also called by the client, for errors of no message.

        Otherwise the next round raises: what is raised in here, the client may swallow.
        """
        if error.code() in _AWAY:
            self._is_away(error.str())
        else:
            self._failed = InputError(f"Kafka at {self._topic.bootstrap}: {self._topic.topic}: {error.str()}")

    def _client(self) -> Consumer:
        if self._consumer is None:
            settings = {"group.id": "agenttrail", "error_cb": self._heed, **_TUNED, **self._topic.settings()}
            try:
                self._consumer = Consumer(settings)
            except KafkaException as error:
                msg = f"Kafka at {self._topic.bootstrap}: {error.args[0].str()}"
                raise InputError(msg) from error
        return self._consumer

    def _ready(self) -> bool:
        """Make sure that all partitions are being read; False where the broker cannot be asked now."""
        now = time.monotonic()
        if self._told is not None and now - self._looked < (_LOOK_AWAY if self._away_since else _LOOK):
            return True
        self._looked = now
        try:
            partitions = self._partitions()
            if self._told is None or (not self._to_end and set(partitions) != set(self._told)):
                self._assign(partitions)
        except KafkaException as error:
            self._heed(error.args[0])
            return self._told is not None
        return True

    def _partitions(self) -> list[int]:
        found = self._client().list_topics(self._topic.topic, timeout=_ASKING).topics[self._topic.topic]
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and not self._wanted:
            msg = f"Kafka at {self._topic.bootstrap}: there is no topic {self._topic.topic!r}"
            raise InputError(msg)
        if found.error is not None:
            raise KafkaException(found.error)
        self._is_back()
        return sorted(found.partitions)

    def _assign(self, partitions: list[int]) -> None:
        """Let the consumer read all partitions: from where they were left, new ones from their beginning."""
        places: dict[int, int] = {}
        for partition in partitions:
            low, high = self._client().get_watermark_offsets(
                TopicPartition(self._topic.topic, partition), timeout=_ASKING
            )
            known = self._wanted.get(partition)
            at = (self._told or {}).get(partition, known.at if known else None)
            if at is not None and not low <= at <= high:
                self._tell_loss(partition, at, low, high)
                at = None
            places[partition] = low if at is None else at
            if self._to_end:
                kept = known.stop if known else None
                self._stops[partition] = high if kept is None else kept
        self._held.clear()
        self._ends.clear()
        self._client().assign([
            TopicPartition(self._topic.topic, partition, at) for partition, at in places.items()
        ])  # fmt: skip
        self._told = places

    def _tell_loss(self, partition: int, at: int, low: int, high: int) -> None:
        part = self._part(partition)
        if at < low:
            told = f"{part}: messages {at} to {low - 1} are no longer there and were not read: retention is short"
            tell(_LOG, "kafka_messages_lost", told, logging.WARNING, part=part, first=at, last=low - 1)
        else:
            told = (
                f"{part}: was read up to {at}, but ends at {high}: it is another topic of that name, read from its "
                "beginning"
            )
            tell(_LOG, "kafka_topic_replaced", told, logging.WARNING, part=part, read=at, end=high)

    def _is_away(self, why: str) -> None:
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._said >= _SAY or not self._said:
            self._said = now
            told = f"Kafka at {self._topic.bootstrap}: {printable(why)}; waiting until it is back"
            tell(_LOG, "kafka_unreachable", told, logging.WARNING, **self._broker(), reason=why)

    def _is_back(self) -> None:
        if self._away_since:
            away = time.monotonic() - self._away_since
            told = f"Kafka at {self._topic.bootstrap} is back after {away:.0f} s"
            tell(_LOG, "kafka_reachable", told, logging.WARNING, **self._broker(), seconds=round(away, 1))
            self._away_since = self._said = 0.0

    def _broker(self) -> dict[str, str]:
        return {"bootstrap": self._topic.bootstrap, "topic": self._topic.topic}


def lines_of(values: Sequence[bytes | None], numbers: Sequence[int]) -> tuple[bytes, np.ndarray[Any, Any]]:
    """Return messages as lines, and for each line the offset of its message.

    A message may hold several lines, and the last one its line end; a message without a value is a blank line.
    """
    data = b"\n".join([value or b"" for value in values]) + b"\n"
    offsets = np.array(numbers, dtype=np.int64)
    if data.count(b"\n") == len(values):
        return data, offsets
    trimmed = [(value or b"").removesuffix(b"\n") for value in values]
    counts = [value.count(b"\n") + 1 for value in trimmed]
    return b"\n".join(trimmed) + b"\n", np.repeat(offsets, counts)
