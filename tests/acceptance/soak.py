"""`make acceptance`: a stream for twenty minutes and more, many times faster than its days went by; into RESULTS.md.

Days are simulated, shuffled, doubled and late, and written to a real Kafka as they would come, only faster.  Every few
seconds it is looked how much memory the stream and its runner take, how many rows are held, and how far the watermark
is behind what was written last.  In the end what was said is laid beside what a batch run says.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402 - these need the path
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from tests.acceptance.accept import RESULTS, put  # noqa: E402
from tests.benchmarks.measure import resident, tree  # noqa: E402
from tests.benchmarks.stream_load import producer_for  # noqa: E402
from tests.services import kafka  # noqa: E402
from tests.streams.arrivals import as_topics, partitions_of  # noqa: E402
from tests.streams.kills import Day, day_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.services.kafka import Kafka
    from tests.streams.arrivals import Wire

MARKS = ("<!-- made by make acceptance, soak: begin -->\n", "<!-- made by make acceptance, soak: end -->\n")
_PATIENCE = 300.0  # seconds
_GROWTH = 1.25
"""So many times the rows and the memory of the second fifth may those of the last one be."""


@dataclass(frozen=True)
class Sample:
    """How a stream stands at one time.

    Attributes:
        second: since the beginning.
        stream: bytes of the stream's processes.
        runner: bytes of the runner's.
        rows: that are held.
        lag: event time, in seconds, from what the watermark has passed to what was written last.
        behind: lines that were written and not read yet.
    """

    second: float
    stream: int
    runner: int
    rows: int
    lag: float
    behind: int


@dataclass
class Clock:
    """What has been written so far.

    Attributes:
        at: time of the last line, in microseconds.
        lines: how many.
        over: that is set once all are.
    """

    at: int = 0
    lines: int = 0
    over: threading.Event = field(default_factory=threading.Event)


def write(wire: Wire, topics: Sequence[tuple[str, int]], broker: Kafka, speed: float, clock: Clock) -> None:
    """Write lines to the topics of their sources, ``speed`` times as fast as they came."""
    producer = producer_for(broker)
    for source, header in wire.headers.items():
        for partition in range(topics[source][1]):
            producer.produce(topics[source][0], header, partition=partition)
    began = time.monotonic()
    first = wire.lines[len(wire.lines) // 100].at  # the very first ones may tell no time at all
    for line in wire.lines:
        wait = (line.at - first) / speed / 1e6 - (time.monotonic() - began)
        if wait > 0.02:
            producer.poll(0)
            time.sleep(wait)
        topic, partitions = topics[line.source]
        producer.produce(topic, line.data, partition=clock.lines % partitions)
        clock.at, clock.lines = line.at, clock.lines + 1
        if clock.lines % 1_000 == 0:
            producer.poll(0)
    producer.flush(60)
    clock.over.set()


def watch(process: subprocess.Popen[str], url: str, clock: Clock, every: float) -> Iterator[Sample]:
    """Yield how the stream stands, until all lines are written and a little longer."""
    began, until = time.monotonic(), None
    while until is None or time.monotonic() < until:
        time.sleep(every)
        if process.poll() is not None:
            msg = f"the stream ended with {process.returncode}"
            raise RuntimeError(msg)
        yield _sample(process.pid, scraped(url), clock, began)
        if clock.over.is_set() and until is None:
            until = time.monotonic() + 6 * every


def _sample(root: int, told: dict[str, float], clock: Clock, began: float) -> Sample:
    size = {pid: resident(pid) for pid in tree(root)}
    runner = sum(bytes_ for pid, bytes_ in size.items() if _name(pid) == "prism")
    lag = told.get("agenttrail_watermark_lag_seconds")
    return Sample(
        time.monotonic() - began,
        sum(size.values()) - runner,
        runner,
        int(told["agenttrail_rows_held"]),
        0.0 if lag is None else clock.at / 1e6 - (time.time() - lag),
        clock.lines - int(told["agenttrail_lines_total"]),
    )


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""


def scraped(url: str) -> dict[str, float]:
    """Return the sums of all metrics by name."""
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the address is ours
        text = answer.read().decode()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def soak(day: Day, folder: Path, broker: Kafka, speed: float, every: float) -> tuple[list[Sample], list[str]]:
    """Run a stream while days are written, then to its end; return how it stood, and what a batch run says else."""
    path = as_topics(day.folder, day.wire, folder / "job", broker, 1, filled=False)
    job = yaml.safe_load(path.read_text())
    entries = [*job["events"], *job["leases"]]
    topics = [(one["kafka"]["topic"], partitions_of(job, number)) for number, one in enumerate(entries)]
    clock, samples = Clock(), []
    with _running(path, "--metrics-port", "0", "--log-format", "json") as (process, url):
        thread = threading.Thread(target=write, args=(day.wire, topics, broker, speed, clock), daemon=True)
        thread.start()
        for sample in watch(process, url, clock, every):
            samples.append(sample)
            sys.stderr.write(f"{sample}\n")
        thread.join()
    command = [sys.executable, "-m", "agenttrail", "run", str(path), "--streaming", "--end-of-input"]
    subprocess.run(command, check=True, timeout=_PATIENCE)
    return samples, day.unlike(path.parent / "out")


@contextmanager
def _running(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a stream until the block ends, and then tell it to end; gives it, and where its metrics are."""
    log = path.with_name("soak.log")
    with log.open("w", encoding="utf-8") as told:
        command = [sys.executable, "-m", "agenttrail", "run", str(path), "--streaming", *options]
        process = subprocess.Popen(command, stdout=told, stderr=told, text=True)
    try:
        yield process, _metrics_of(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(_PATIENCE)
    if status:
        msg = f"the stream ended with {status}: {log.read_text()[-2000:]}"
        raise RuntimeError(msg)


def _metrics_of(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", log.read_text())
        if found:
            return found[0]
        time.sleep(0.2)
    msg = f"the stream serves no metrics: {log.read_text()[-2000:]}"
    raise RuntimeError(msg)


# -- what is told


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Return how many times as large as in the second fifth each thing is in the last one."""
    fifth = max(len(samples) // 5, 1)
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    return {
        name: median(getattr(one, name) for one in late) / max(median(getattr(one, name) for one in early), 1)
        for name in ("stream", "runner", "rows")
    }


def chart(title: str, unit: str, samples: Sequence[Sample], values: Sequence[float]) -> str:
    """Return a line over minutes as Mermaid draws it, of at most sixty points."""
    step = max(len(values) // 60, 1)
    points = ", ".join(f"{value:.0f}" for value in values[::step])
    minutes = samples[-1].second / 60
    return "\n".join(
        [
            "```mermaid",
            "xychart-beta",
            f'  title "{title}"',
            f'  x-axis "minutes" 0 --> {minutes:.0f}',
            f'  y-axis "{unit}" 0 --> {max(values) * 1.2 + 1:.0f}',
            f"  line [{points}]",
            "```",
        ]
    )


def report(samples: Sequence[Sample], unlike: Sequence[str], given: argparse.Namespace, lines: int) -> str:
    """Return the results as Markdown."""
    grown, lags = growth(samples), sorted(one.lag for one in samples)
    verdict = f"{len(unlike)} differ, the first: {unlike[0]}" if unlike else "the same"
    sizes = [(one.stream + one.runner) / 1e6 for one in samples]
    return f"""
## Acceptance: soak

Made by `make acceptance`: {given.hours:g} simulated hours, agents: {given.agents}, {lines:,} lines, written to a real
Kafka at {given.speed:g} times real time as they would come: shuffled by two minutes either way, one in a hundred late,
one in a hundred twice, some beyond lateness.  {samples[-1].second / 60:.0f} minutes on Prism, a look every
{given.every:g} s.

| what | median of the second fifth | of the last | times |
|---|---|---|---|
{_row(samples, "stream", "MB of the stream", 1e6, grown)}
{_row(samples, "runner", "MB of Prism", 1e6, grown)}
{_row(samples, "rows", "rows held", 1, grown)}

How far the watermark was behind what had been written last, in event time: median {median(lags) / 60:.1f} min, most
{lags[-1] / 60:.1f} min, of which two minutes are the disorder that it waits for; at {given.speed:g} times real time a
minute passes in {60 / given.speed:.1f} s.  What was said in the end, beside a batch run's findings and incidents:
{verdict}.

{chart("memory of the stream and Prism", "MB", samples, sizes)}

{chart("rows held", "rows", samples, [one.rows for one in samples])}

{chart("watermark behind what was written last", "seconds of event time", samples, [one.lag for one in samples])}
"""


def _row(samples: Sequence[Sample], name: str, told: str, unit: float, grown: dict[str, float]) -> str:
    fifth = max(len(samples) // 5, 1)
    early, late = (
        median(getattr(one, name) for one in some) / unit for some in (samples[fifth : 2 * fifth], samples[-fifth:])
    )
    return f"| {told} | {early:,.0f} | {late:,.0f} | {grown[name]:.2f} |"


def main() -> int:
    """Soak, and write it down; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=52.0)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--speed", type=float, default=150.0, help="so many times real time")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("--seed", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agenttrail-soak-") as name:
        folder = Path(name)
        broker = kafka.obtain("alone", folder / "broker", os.getpid())
        try:
            day = day_of(folder / "day", given.seed, agents=given.agents, hours=given.hours)
            samples, unlike = soak(day, folder, broker, given.speed, given.every)
        finally:
            broker.remove()
    put(RESULTS, report(samples, unlike, given, len(day.wire.lines)), MARKS)
    grown = growth(samples)
    sys.stdout.write(f"{samples[-1].second / 60:.0f} min: grown {grown}; {len(unlike)} differ from a batch run\n")
    return 1 if unlike or max(grown.values()) > _GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
