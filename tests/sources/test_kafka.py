"""Messages of a real broker: each is read once, whatever happens to the broker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.sources.lines_seen import kept, lines, start

from agenttrail.errors import InputError
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block
from agenttrail.sources.kafka import KafkaReader, KafkaTopic, lines_of
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import BlocksOf, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.services.kafka import Kafka

SOON = Sizes(block_seconds=0.2)


def _values(count: int, name: str = "line") -> list[bytes | None]:
    return [f"{name} {number}".encode() for number in range(count)]


def _texts(count: int, name: str = "line") -> list[str]:
    return [f"{name} {number}" for number in range(count)]


def _reader(kafka: Kafka, topic: str, sizes: Sizes = SOON, *, to_end: bool = False) -> KafkaReader:
    return KafkaTopic(topic, kafka.bootstrap).open(3, sizes, to_end=to_end)


def _until(reader: KafkaReader, enough: Callable[[list[Block]], bool], seconds: float = 20) -> list[Block]:
    blocks: list[Block] = []
    deadline = time.monotonic() + seconds
    while not enough(blocks):
        assert time.monotonic() < deadline, blocks
        for piece in reader.read():
            assert isinstance(piece.content, Block)
            blocks.append(piece.content)
    return blocks


def _read(reader: KafkaReader, count: int) -> list[str]:
    blocks = _until(reader, lambda blocks: sum(block.data.count(b"\n") for block in blocks) >= count)
    return b"".join(block.data for block in blocks).decode().splitlines()


@pytest.mark.parametrize("runner", ["prism", "flink"])
def test_every_line_arrives_once(runner: str, kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    topic = kafka.topic(partitions=3)
    for partition in range(3):
        kafka.produce(topic, _values(20_000, f"p{partition}"), partition)
    stream = BlocksOf(0, "aws_vpc_flow", KafkaTopic(topic, kafka.bootstrap), to_end=True, sizes=Sizes(1 << 16))
    start(request.getfixturevalue(runner), stream, tmp_path / "seen").wait_until_finish()
    blocks = kept(tmp_path / "seen")
    assert sorted(lines(tmp_path / "seen")) == sorted(
        text for partition in range(3) for text in _texts(20_000, f"p{partition}")
    )
    assert len(blocks) > 3
    for block in blocks:
        assert block["path"] == block["part"] == f"{topic}/{block['lines'][0][1]}"
        assert block["numbers"] == list(range(block["before"], block["after"]))
        assert [int(line.split()[1]) for line in block["lines"]] == block["numbers"]


def test_a_restart_goes_on_from_positions(kafka: Kafka, prism: Path, tmp_path: Path) -> None:
    """A partition without a position is read from its beginning."""
    topic = kafka.topic(partitions=2)
    kafka.produce(topic, _values(10, "a"), 0)
    kafka.produce(topic, _values(10, "b"), 1)
    begin = {f"{topic}/0": Position(7)}
    stream = BlocksOf(0, "aws_vpc_flow", KafkaTopic(topic, kafka.bootstrap), to_end=True, start=begin)
    start(prism, stream, tmp_path / "seen").wait_until_finish()
    assert sorted(lines(tmp_path / "seen")) == [*_texts(10, "a")[7:], *_texts(10, "b")]


def test_a_bounded_replay_leaves_what_came_after_it_began(kafka: Kafka) -> None:
    topic = kafka.topic()
    kafka.produce(topic, _values(5))
    reader = _reader(kafka, topic, to_end=True)
    reader.go_to({})
    assert not reader._ready() or not reader.standing().ended  # noqa: SLF001 - to have it begin
    kafka.produce(topic, _values(5, "later"))
    assert _read(reader, 5) == _texts(5)
    assert reader.standing().ended
    reader.close()


def test_small_blocks_wait_and_large_ones_do_not(kafka: Kafka) -> None:
    topic = kafka.topic()
    kafka.produce(topic, [b"x" * 1000] * 3000)
    reader = _reader(kafka, topic, Sizes(block_bytes=1 << 20, block_seconds=1.0))
    reader.go_to({})
    blocks = _until(reader, lambda blocks: sum(len(block.data) for block in blocks) >= 3_003_000)
    assert all(len(block.data) >= 1 << 20 for block in blocks[:-1])
    kafka.produce(topic, [b"last"])
    began = time.monotonic()
    assert _read(reader, 1) == ["last"]
    assert time.monotonic() - began < 3
    reader.close()


def test_what_was_not_taken_is_given_again(kafka: Kafka) -> None:
    """Also where the consumer had fetched ahead."""
    topic = kafka.topic()
    kafka.produce(topic, _values(100))
    reader = _reader(kafka, topic)
    reader.go_to({})
    assert len(_read(reader, 100)) == 100
    reader.lose()
    reader.go_to({f"{topic}/0": Position(40)})
    assert _read(reader, 60) == _texts(100)[40:]
    reader.go_to({f"{topic}/0": Position(100)})
    assert reader.standing().unread == set()
    reader.close()


def test_the_end_of_a_partition_is_heard_of(kafka: Kafka) -> None:
    """It is told once only, and may come in one go with the messages before it."""
    topic = kafka.topic()
    reader = _reader(kafka, topic)
    reader.go_to({})
    for number in range(20):
        kafka.produce(topic, _values(3))
        time.sleep(0.02 * (number % 5))
        _read(reader, 3)
        _until(reader, lambda _: not reader.standing().unread, seconds=5)
    reader.close()


def test_a_new_partition_is_read_from_its_beginning(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agenttrail.sources.kafka._LOOK", 0.5)
    topic = kafka.topic()
    kafka.produce(topic, _values(3))
    reader = _reader(kafka, topic)
    reader.go_to({})
    assert _read(reader, 3) == _texts(3)
    kafka.add_partitions(topic, 2)
    kafka.produce(topic, _values(3, "new"), 1)
    assert _read(reader, 3) == _texts(3, "new")
    assert set(reader.standing().positions) == {f"{topic}/0", f"{topic}/1"}
    reader.close()


def test_messages_that_retention_took_are_told(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    topic = kafka.topic()
    kafka.produce(topic, _values(10))
    kafka.drop_before(topic, 0, 6)
    reader = _reader(kafka, topic)
    reader.go_to({f"{topic}/0": Position(2)})
    assert _read(reader, 4) == _texts(10)[6:]
    assert f"{topic}/0: messages 2 to 5 are no longer there" in caplog.text
    reader.close()


def test_transactions_leave_gaps_and_an_end_without_a_message(kafka: Kafka) -> None:
    """Numbers of lines are those of the messages, and the marker behind them does not keep a replay from ending."""
    from confluent_kafka import Producer

    topic = kafka.topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for number in range(3):
        producer.begin_transaction()
        producer.produce(topic, f"line {number}".encode(), partition=0)
        producer.commit_transaction(30)
    reader = _reader(kafka, topic, to_end=True)
    reader.go_to({})
    blocks = _until(reader, lambda _: reader.standing().ended)
    assert [number for block in blocks for number in (block.numbers if block.numbers is not None else [])] == [0, 2, 4]
    reader.close()


def test_no_such_topic_is_an_error(kafka: Kafka) -> None:
    reader = _reader(kafka, "absent")
    reader.go_to({})
    with pytest.raises(InputError, match="there is no topic 'absent'"):
        list(reader.read())
    reader.close()


@pytest.mark.parametrize("part", ["other/0", "flow/x", "flow", "\x1b[2Jflow/0"])
def test_a_safe_point_of_another_topic_says_what_to_do(part: str) -> None:
    reader = KafkaTopic("flow", "127.0.0.1:1").open(0, Sizes(), to_end=True)
    with pytest.raises(InputError, match=r"no partition of the topic flow: name the topic .* --output") as told:
        reader.go_to({part: Position(3)})
    assert "\x1b" not in str(told.value)


def test_a_message_of_several_lines() -> None:
    data, numbers = lines_of([b"one", b"two\nthree\n", None, b"", b"four\r\n"], [5, 6, 9, 10, 11])
    assert data == b"one\ntwo\nthree\n\n\nfour\r\n"
    assert numbers.tolist() == [5, 6, 6, 9, 10, 11]


def test_evidence_names_the_message_that_it_stands_in() -> None:
    """Events and dead letters alike."""
    line = b"2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 1772409600 1772409660 ACCEPT OK"
    data, numbers = lines_of([line, b"junk\n" + line, line], [5, 7, 9])
    parsed = FORMATS["aws_vpc_flow"].parser({})(Block(data, "flow/3", 5, b"", 0, numbers))
    assert parsed.events.column("log.offset").to_pylist() == [5, 7, 9]
    assert parsed.events.column("log.file.path").to_pylist() == ["flow/3"] * 3
    assert parsed.dead.column("log.offset").to_pylist() == [7]


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "in clear", "username": "me"},
        {"username": "me"},
        {"tls": True, "key": "k.pem"},
        {"ca_certs": "ca.pem"},
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"environment|together|TLS") as caught:
        KafkaTopic("t", "localhost:9092", **wrong)  # type: ignore[arg-type]
    assert "in clear" not in str(caught.value)


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = KafkaTopic("t", "b:9093", tls=True, username="${KAFKA_USER}", password="${KAFKA_PASSWORD}")  # noqa: S106
    monkeypatch.setenv("KAFKA_USER", "me")
    monkeypatch.setenv("KAFKA_PASSWORD", "hidden")
    assert topic.settings() == {
        "bootstrap.servers": "b:9093",
        "sasl.username": "me",
        "sasl.password": "hidden",
        "sasl.mechanism": "SCRAM-SHA-512",
        "security.protocol": "SASL_SSL",
    }
    assert "hidden" not in repr(topic)
    monkeypatch.delenv("KAFKA_PASSWORD")
    with pytest.raises(InputError, match="KAFKA_PASSWORD is not set"):
        topic.settings()


def test_a_killed_broker_is_waited_for(
    kafka_alone: Kafka, prism: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is killed while a stream reads, and gets more lines when it is back: each arrives once."""
    topic = kafka_alone.topic(partitions=2)
    seen = tmp_path / "seen"
    for partition in range(2):
        kafka_alone.produce(topic, _values(1000, f"p{partition}"), partition)
    running = start(prism, BlocksOf(0, "aws_vpc_flow", KafkaTopic(topic, kafka_alone.bootstrap)), seen)
    try:
        _wait(lambda: len(lines(seen)) == 2000)
        kafka_alone.kill()
        _wait(lambda: "waiting until it is back" in caplog.text)
        kafka_alone.start()
        for partition in range(2):
            kafka_alone.produce(topic, _values(1000, f"q{partition}"), partition)
        _wait(lambda: len(lines(seen)) >= 4000)
    finally:
        running.cancel()
    told = [record.__dict__["told"] for record in caplog.records if hasattr(record, "told")]
    assert {"kafka_unreachable", "kafka_reachable"} == {event for event, _ in told}
    assert {(facts["bootstrap"], facts["topic"]) for _, facts in told} == {(kafka_alone.bootstrap, topic)}
    assert sorted(lines(seen)) == sorted(text for name in ("p0", "p1", "q0", "q1") for text in _texts(1000, name))


def _wait(done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
