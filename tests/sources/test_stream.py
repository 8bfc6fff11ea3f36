"""Streams on Prism: what stands behind a source sees every line, and event time as it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
from apache_beam.coders import VarIntCoder
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.utils.timestamp import Timestamp
from tests.sources.lines_seen import options

from agenttrail.accounting import EVENTS
from agenttrail.formats import FORMATS
from agenttrail.sources.documents import RereadDocuments
from agenttrail.sources.growing import GrowingFiles
from agenttrail.sources.kafka import KafkaTopic
from agenttrail.sources.positions import Progress, ProgressTracker
from agenttrail.sources.stream import ARRIVALS, BlocksOf, ReadStream, Sizes
from agenttrail.sources.watermarks import MedianTime, Pace
from agenttrail.transforms.parsing import Parse, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest
    from tests.services.kafka import Kafka

FORMAT = "aws_vpc_flow"
HEADERS = FORMATS[FORMAT].headers
BEGIN = 1_772_409_600
SECOND = 1_000_000
SOON = Sizes(block_seconds=0.1, bundle_seconds=0.2)


def _line(seconds: int) -> bytes:
    start = BEGIN + seconds
    return f"2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 1 40 {start} {start + 60} ACCEPT OK".encode()


class Alarms(beam.DoFn):
    """Sets an alarm at every hundredth second that it hears of, and writes down which go off."""

    TIMER = userstate.TimerSpec("alarm", TimeDomain.WATERMARK)
    DUE = userstate.SetStateSpec("due", VarIntCoder())

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self._path = path

    def process(
        self,
        keyed: tuple[int, int],
        alarm: Any = beam.DoFn.TimerParam(TIMER),  # noqa: B008 - how Beam asks for it
    ) -> Iterator[Any]:
        """Set an alarm."""
        alarm.set(Timestamp(seconds=keyed[0]))
        yield from ()

    @userstate.on_timer(TIMER)  # type: ignore[untyped-decorator]
    def rings(self, key: Any = beam.DoFn.KeyParam) -> Iterator[Any]:
        """Write down which alarm went off."""
        with self._path.open("a") as file:
            file.write(f"{key - BEGIN}\n")
        yield from ()


def _alarms(block: Any) -> list[tuple[int, int]]:
    starts = block.column("event.start").to_pylist()
    return [(second, 0) for second in {int(start.timestamp()) for start in starts} if second % 100 == 0]


def _rung(path: Path) -> list[int]:
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def _wait(done: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _events(pipeline: Any, number: int, stream: BlocksOf) -> Any:
    arrived = pipeline | f"Stream{number}" >> stream
    blocks = arrived[ARRIVALS] | f"Blocks{number}" >> beam.Map(lambda arrival: arrival.block)
    return (blocks | f"Parse{number}" >> Parse([Source(FORMAT, FORMAT, {})] * 2))[EVENTS]


def test_event_time_goes_as_far_as_the_slowest_partition(kafka: Kafka, prism: Path, tmp_path: Path) -> None:
    """And moves on where a partition has been quiet; a document beside the topic holds nobody up."""
    topic = kafka.topic(partitions=2)
    (tmp_path / "table.log").write_bytes(_line(0) + b"\n")
    pace = Pace(disorder=50 * SECOND, quiet=4.0)
    newest = MedianTime(FORMAT, {})
    pipeline = beam.Pipeline(options=options(prism))
    lines_ = _events(pipeline, 0, BlocksOf(
        0, FORMAT, KafkaTopic(topic, kafka.bootstrap), headers=HEADERS, newest=newest, pace=pace, sizes=SOON
    ))  # fmt: skip
    table = _events(pipeline, 1, BlocksOf(1, FORMAT, RereadDocuments(f"{tmp_path}/*.log"), sizes=SOON))
    of_lines = lines_ | "OfLines" >> beam.FlatMap(lambda told: _alarms(told[1]))
    of_table = table | "OfTable" >> beam.FlatMap(lambda _: [(BEGIN + 50, 0)])
    both = (of_lines, of_table)
    _ = both | beam.Flatten() | beam.ParDo(Alarms(tmp_path / "rung"))
    kafka.produce(topic, map(_line, (700, 701)), 1)  # one alone might have any time
    kafka.produce(topic, map(_line, range(401)), 0)  # the median of one block, 200
    running = pipeline.run()
    try:
        _wait(lambda: _rung(tmp_path / "rung") == [0, 50, 100])
        _wait(lambda: _rung(tmp_path / "rung") == [0, 50, 100, 200, 300, 400])  # nobody is awake
        kafka.produce(topic, [_line(800)] * 9, 0)
        kafka.produce(topic, [_line(900)] * 9, 1)
        _wait(lambda: _rung(tmp_path / "rung")[-1] == 700)
        time.sleep(1)
        assert _rung(tmp_path / "rung")[-1] == 700
    finally:
        running.cancel()


def test_a_source_that_is_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """A runner may do so at any time: what had been claimed is given, the rest is left, and nothing is given twice."""
    for name in "abc":
        (tmp_path / f"{name}.log").write_text(f"{name}\n")
    reading = BlocksOf(0, FORMAT, GrowingFiles(f"{tmp_path}/*.log"), to_end=True).reading
    source = ReadStream(reading, None, None)
    source.setup()
    seen: list[bytes] = []
    rest = Progress()
    for _ in range(3):
        tracker = ProgressTracker(rest)
        given = source.process(Progress(), tracker, ManualWatermarkEstimator(None))
        seen.append(next(given).value.block.data)
        cut = tracker.try_split(0)
        assert cut is not None
        rest = cut[1]
        assert list(given) == []
        tracker.check_done()
    source.teardown()
    assert sorted(seen) == [b"a\n", b"b\n", b"c\n"]


class _Turns(ProgressTracker):
    """Takes note of what is left for the next turn, as a runner does."""

    rest: Progress

    def defer_remainder(self, _wait: object) -> None:
        """Leave the rest."""
        cut = self.try_split(0)
        assert cut is not None
        self.rest = cut[1]


def test_a_part_that_was_seen_before_anything_of_it_was_given_begins_with_what_comes_first(tmp_path: Path) -> None:
    """As every small file does, whose first lines wait for more: where it was read to is told from its beginning on."""
    (tmp_path / "a.log").write_text("a\n")
    reading = BlocksOf(0, FORMAT, GrowingFiles(f"{tmp_path}/*.log"), sizes=SOON).reading
    source = ReadStream(reading, None, None)
    source.setup()
    arrived: list[Any] = []
    rest = Progress()
    deadline = time.monotonic() + 20
    while len(arrived) < 2:
        assert time.monotonic() < deadline
        tracker = _Turns(rest)
        for one in source.process(Progress(), tracker, ManualWatermarkEstimator(None)):
            if one.value.block.data:
                arrived.append(one.value)
                with (tmp_path / "a.log").open("a") as file:
                    file.write("b\n")
        rest = tracker.rest
        time.sleep(0.05)
    source.teardown()
    assert [(one.block.data, one.begins) for one in arrived] == [(b"a\n", True), (b"b\n", False)]


def test_that_a_file_was_removed_is_told_once_its_lines_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_LOOK", 0.0), ("_GRACE", 0.0), ("_REMEMBERED", 0.0)):
        monkeypatch.setattr(f"agenttrail.sources.growing.{name}", seconds)
    (tmp_path / "a.log").write_text("a\n")
    (tmp_path / "b.log").write_text("b\n")
    reading = BlocksOf(0, FORMAT, GrowingFiles(f"{tmp_path}/*.log"), sizes=SOON).reading
    source = ReadStream(reading, None, None)
    source.setup()
    lines: dict[str, bytes] = {}
    ended: list[tuple[bytes, int]] = []
    rest = Progress()
    deadline = time.monotonic() + 20
    while not ended:
        assert time.monotonic() < deadline
        tracker = _Turns(rest)
        for one in source.process(Progress(), tracker, ManualWatermarkEstimator(None)):
            arrival = one.value
            lines[arrival.part] = lines.get(arrival.part, b"") + arrival.block.data
            if arrival.ends:
                ended.append((lines[arrival.part], arrival.after.at))
        rest = tracker.rest
        if b"".join(sorted(lines.values())) == b"a\nb\n":
            (tmp_path / "a.log").unlink(missing_ok=True)
        time.sleep(0.02)
    source.teardown()
    assert ended == [(b"a\n", 2)]
    assert len(rest.positions) == 1


def test_a_source_that_is_quiet_goes_on_with_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.log").write_bytes(b"".join(_line(second) + b"\n" for second in range(20)))
    newest = MedianTime(FORMAT, {})
    pace = Pace(disorder=0, quiet=0.0)
    blocks = BlocksOf(0, FORMAT, GrowingFiles(f"{tmp_path}/*.log"), newest=newest, sizes=SOON, pace=pace)
    source = ReadStream(blocks.reading, None, newest)
    source.setup()
    clock, passed, rest = [1_000.0], [], Progress()
    monkeypatch.setattr("agenttrail.sources.stream.time.monotonic", lambda: clock[0])
    for _ in range(6):
        tracker, estimator = _Turns(rest), ManualWatermarkEstimator(None)
        list(source.process(Progress(), tracker, estimator))
        rest, told = tracker.rest, estimator.current_watermark()
        passed += [] if told is None else [told.micros // SECOND - BEGIN]
        clock[0] += 100
    source.teardown()
    assert passed[0] == 9  # the median
    assert np.diff(passed).tolist() == [100] * (len(passed) - 1)
    assert len(passed) > 3


def test_a_replay_of_files_parses_as_in_batch_and_ends(prism: Path, tmp_path: Path) -> None:
    """All alarms go off then."""
    (tmp_path / "a.log").write_bytes(b"\n".join(map(_line, range(500))))
    (tmp_path / "b.log").write_bytes(b"\n".join(map(_line, range(500, 1001))) + b"\n")
    pipeline = beam.Pipeline(options=options(prism))
    stream = BlocksOf(
        0, FORMAT, GrowingFiles(f"{tmp_path}/*.log"), headers=HEADERS, newest=MedianTime(FORMAT, {}), to_end=True
    )
    events = _events(pipeline, 0, stream)
    _ = events | beam.FlatMap(lambda told: _alarms(told[1])) | beam.ParDo(Alarms(tmp_path / "rung"))
    pipeline.run().wait_until_finish()
    assert _rung(tmp_path / "rung") == list(range(0, 1001, 100))
