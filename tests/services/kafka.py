"""A real Kafka broker for the tests: the one in KAFKA_BOOTSTRAP_SERVERS, or put together from Maven Central."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from tests.services.guarded import Guarded, UnavailableError, fetching, free_port, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


VERSION = "4.4.0"
KINDS = ("shared", "alone")
"""One broker that all tests share, each with topics of its own, and one that a test may kill."""

_HERE = Path(__file__).resolve().parent
_HEAP = "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_START = 120.0  # seconds that a start may take
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "2000",  # a broker that was killed is let in again after so long
    "broker.heartbeat.interval.ms": "500",
    "log.retention.ms": "-1",  # tests replay old times, and retention goes by the time that a producer gives
}


@dataclass(frozen=True)
class Kafka:
    """One broker, which can be stopped, killed and started again on the same data and port.

    Attributes:
        bootstrap: where it answers, ``host:port``.
        directory: everything that is its own; "" where it is not ours to start or stop.
        command: what runs it.
        environment: in which.
        watch: pid of the test run, which it does not outlive.
    """

    bootstrap: str
    directory: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    watch: int = 0

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            UnavailableError: it does not come up; with the end of its log.
        """
        self._guarded().launch()
        deadline = time.monotonic() + _START
        while not self.answers():
            if not self.runs() or time.monotonic() > deadline:
                self.stop()
                msg = f"Kafka does not come up: {self._guarded().last_words()}"
                raise UnavailableError(msg)

    def answers(self, seconds: float = 2.0) -> bool:
        """Tell whether it says what topics it has."""
        try:
            self._admin().list_topics(timeout=seconds)
        except KafkaException:
            return False
        return True

    def topic(self, partitions: int = 1, **settings: str) -> str:
        """Make a topic and return its name, which no other test has."""
        name = f"test-{secrets.token_hex(6)}"
        admin = self._admin()
        admin.create_topics([_new_topic(name, partitions, settings)])[name].result(30)
        while name not in admin.list_topics(timeout=10).topics:
            time.sleep(0.05)
        return name

    def add_partitions(self, topic: str, count: int) -> None:
        """Let a topic have ``count`` partitions from now on."""
        admin = self._admin()  # held, since it takes what it has been asked with it when it goes
        admin.create_partitions([NewPartitions(topic, count)])[topic].result(30)

    def end_of(self, topic: str, partition: int) -> int:
        """Return the offset behind the last message of a partition."""
        client = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "tests", "log_level": 0})
        _, high = client.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        client.close()
        return int(high)

    def drop_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the messages of a partition before ``offset``, as retention would."""
        admin = self._admin()
        for done in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            done.result(30)

    def produce(
        self, topic: str, values: Iterable[bytes | None], partition: int = 0, *, at: int = 0, **settings: str
    ) -> None:
        """Write messages, and wait until the broker has them; ``at``: their time in milliseconds, 0 is now."""
        # idempotent, since otherwise what is sent again may come behind what was sent after it
        own = {"bootstrap.servers": self.bootstrap, "linger.ms": 20, "enable.idempotence": True, "log_level": 0}
        producer = Producer(own | settings)
        for value in values:
            while True:
                try:
                    producer.produce(topic, value, partition=partition, timestamp=at)
                except BufferError:
                    producer.poll(0.05)
                else:
                    break
        assert producer.flush(60) == 0

    def runs(self) -> bool:
        """Tell whether its guard is at work."""
        return self._guarded().runs()

    def stop(self) -> None:
        """End it politely and wait until it is gone."""
        self._guarded().stop()

    def kill(self) -> None:
        """End it with SIGKILL, as when a machine fails, and wait until it is gone."""
        self._guarded().kill()

    def remove(self) -> None:
        """Stop it for good, with its data."""
        if self.directory:
            self.stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})

    def _guarded(self) -> Guarded:
        away = ["rm", "-rf", self.directory]
        return Guarded(self.directory, self.command, self.environment or {}, self.watch, farewell=away)


def _new_topic(name: str, partitions: int, settings: Mapping[str, str]) -> NewTopic:
    return NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in settings.items()})


def obtain(kind: str, directory: Path, watch: int) -> Kafka:
    """Return a broker that answers.

    Args:
        kind: one of ``KINDS``.
        directory: where it may keep everything; made here.
        watch: pid of the test run.

    Raises:
        UnavailableError: none is to be had: neither in KAFKA_BOOTSTRAP_SERVERS, nor put together here.
    """
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given and kind == "shared":
        broker = Kafka(given)
        if not broker.answers(10):
            msg = f"KAFKA_BOOTSTRAP_SERVERS is set, but nothing answers at {given}"
            raise UnavailableError(msg)
        return broker
    directory.mkdir(parents=True)
    broker = _assembled(directory, watch)
    broker.start()
    return broker


def _assembled(directory: Path, watch: int) -> Kafka:
    java = shutil.which("java")
    if java is None:
        msg = "java is not installed"
        raise UnavailableError(msg)
    with fetching(f"kafka-{VERSION}", "fetching Kafka from Maven Central (once, about 40 MB)") as (home, empty):
        if empty:
            pieces = home.with_name(f"{home.name}.part")
            shutil.rmtree(pieces, ignore_errors=True)
            pom = _HERE / "maven" / "kafka" / "pom.xml"
            maven = ("mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={pom}")
            run(*maven, "dependency:copy-dependencies", f"-DoutputDirectory={pieces}")
            pieces.rename(home)
    port = free_port()
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{(controller := free_port())}"
    settings = _SETTINGS | {
        "listeners": listeners,
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": f"{directory}/data",
    }
    properties = directory / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    program = (java, *_HEAP.split(), "-cp", f"{home}/*")
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    storage = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
    run(*program, *storage, cwd=directory, environment=environment)
    return Kafka(f"127.0.0.1:{port}", str(directory), (*program, "kafka.Kafka", str(properties)), environment, watch)
