"""What a stream costs and how soon it tells, from a real Kafka on Prism into a real Elasticsearch; for `make bench`.

Costs are slopes of CPU seconds of the stream and its runner, Kafka's left out.  How soon: lines are written to Kafka at
an even rate, as they would come from a cluster, and among them acts of sandboxes that do nothing else; each is timed
from when Kafka has taken its line until a search finds its incident in Elasticsearch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from elasticsearch import ApiError, Elasticsearch  # noqa: E402 - these need the path
from tests.acceptance.accept import RESULTS, put  # noqa: E402
from tests.benchmarks.generate import MIDNIGHT, generate  # noqa: E402
from tests.benchmarks.measure import Cost, measure, tree  # noqa: E402
from tests.benchmarks.stream_load import PARTITIONS, Act, Lines, acts_of, producer_for, send, write  # noqa: E402
from tests.services import elasticsearch, kafka  # noqa: E402

from agenttrail.prism import install  # noqa: E402
from agenttrail.sinks.elasticsearch import setup  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.services.kafka import Kafka

SEED = 7
MARKS = ("<!-- made by make bench, streams: begin -->\n", "<!-- made by make bench, streams: end -->\n")


@dataclass(frozen=True)
class StreamSizes:
    """How much is streamed.

    Attributes:
        small: lines of the small topic,
        large: and of the large one, both of a day of ``a_day`` lines.
        a_day: lines.
        rate: lines a second while it is timed how soon the stream tells.
        seconds: how long.
        acts: that are timed, within the last two thirds.
    """

    small: int = 1_000_000
    large: int = 4_000_000
    a_day: int = 20_000_000
    rate: int = 30_000
    seconds: int = 90
    acts: int = 120


@dataclass(frozen=True)
class StreamSlope:
    """What a stream of two sizes costs."""

    name: str
    small: Cost
    large: Cost
    rows: tuple[int, int]
    held: int

    @property
    def speed(self) -> float:
        """Events, in thousands, by CPU second."""
        return (self.rows[1] - self.rows[0]) / (self.large.cpu - self.small.cpu) / 1e3


@dataclass(frozen=True)
class Delays:
    """How soon incidents stood in Elasticsearch, in seconds, sorted; and what that took.

    Attributes:
        seconds: of each timed act.
        rate: lines a second that were written.
        cpu: share of one core that the stream and its runner took meanwhile.
        lines: that were written meanwhile.
    """

    seconds: tuple[float, ...]
    rate: float
    cpu: float
    lines: int

    def share(self, part: float) -> float:
        """Return the delay that so large a part of them does not pass."""
        return self.seconds[min(int(part * len(self.seconds)), len(self.seconds) - 1)]


@dataclass(frozen=True)
class StreamResults:
    """All that was measured: row rules alone, everything, and how soon."""

    rules: StreamSlope
    whole: StreamSlope
    delays: Delays


class StreamBench:
    """One run of all measurements, in one folder, with servers of its own."""

    def __init__(self, folder: Path, sizes: StreamSizes, broker: Kafka, url: str) -> None:
        """Measure in ``folder``, from a broker, into the Elasticsearch at ``url``."""
        self.folder, self.sizes, self.broker, self.url = folder, sizes, broker, url

    def all(self) -> StreamResults:
        """Measure everything."""
        sizes = self.sizes
        inputs = [self._input(f"cost-{lines}", lines, sizes.a_day) for lines in (sizes.small, sizes.large)]
        topics = [self._filled(folder) for folder in inputs]
        rules = self._slope("Kafka → row rules", ["./rules"], inputs, topics)
        return StreamResults(rules, self._slope("the whole stream", ["builtin"], inputs, topics), self.delays())

    def _slope(self, name: str, rules: Sequence[str], inputs: Sequence[Path], topics: Sequence[str]) -> StreamSlope:
        costs, held = [], 0
        rows = self.sizes.small, self.sizes.large
        for folder, topic, wanted in zip(inputs, topics, rows, strict=True):
            out = folder / f"out-{rules[0].strip('./')}"
            shutil.rmtree(out, ignore_errors=True)  # of an earlier run, from whose safe point this one would go on
            job = _job(folder, rules, topic, self.broker.bootstrap, out)
            costs.append(measure([sys.executable, "-m", "agenttrail", "run", str(job), *_ENDING], self.folder))
            books = json.loads(costs[-1].output)
            held = books["rows_held"]
            sys.stderr.write(f"{name}: {wanted:,} lines, {costs[-1].cpu:.1f} CPU-s in {costs[-1].wall:.1f} s\n")
            if books["total"]["events"] != wanted:
                msg = f"{name}: read {books['total']['events']} of {wanted} events"
                raise RuntimeError(msg)
        return StreamSlope(name, costs[0], costs[1], rows, held)

    def delays(self) -> Delays:
        """Time how soon acts stand in Elasticsearch as incidents."""
        sizes = self.sizes
        lines = sizes.rate * sizes.seconds
        acts = acts_of(sizes.seconds, sizes.acts)
        folder = self._input("delays", lines, sizes.rate * 86_400, acts)
        topic = self.broker.topic(PARTITIONS)
        prefix = f"bench{uuid4().hex[:8]}"
        shutil.rmtree(folder / "out", ignore_errors=True)
        client = Elasticsearch(self.url)
        setup(client, prefix=prefix)
        job = _job(
            folder, ["builtin"], topic, self.broker.bootstrap, folder / "out", {"url": self.url, "prefix": prefix}
        )
        with _running(job, self.folder) as process:
            source = Lines(folder)
            write(self.broker, topic, source.take(sizes.rate))
            _until_incidents(client, prefix, process)
            began, cpu = time.monotonic(), _cpu(process.pid)
            watch = _Watch(client, prefix)
            sent = self._evenly(topic, source, acts, watch)
            spent = time.monotonic() - began
            cpu = (_cpu(process.pid) - cpu) / spent
            watch.rest(sent, 60)
        _remove(client, prefix)
        lost = sorted(sent.keys() - watch.found.keys())
        if lost:
            msg = f"{len(lost)} of {len(sent)} timed acts never became incidents: {lost[:3]}"
            raise RuntimeError(msg)
        seconds = tuple(sorted(watch.found[name] - at for name, at in sent.items()))
        return Delays(seconds, source.taken / spent, cpu, source.taken)

    def _evenly(self, topic: str, source: Lines, acts: Sequence[Act], watch: _Watch) -> dict[str, float]:
        """Write lines ten times a second, with an act among them at its turn; return when each act was taken."""
        sizes, sent = self.sizes, {}
        producer = producer_for(self.broker)
        began = time.monotonic()
        waiting = list(acts)
        for tick in range(10 * (sizes.seconds - 2)):
            send(producer, topic, source.take(sizes.rate // 10))
            while waiting and waiting[0].at <= tick / 10:
                act = waiting.pop(0)
                send(producer, topic, act.lines(MIDNIGHT + int(source.taken / sizes.rate)))
                producer.flush(10)
                sent[act.sandbox] = time.monotonic()
            producer.poll(0)
            watch.look()
            time.sleep(max(0.0, began + (tick + 1) / 10 - time.monotonic()))
        producer.flush(60)
        return sent

    def _input(self, name: str, lines: int, a_day: int, acts: Sequence[Act] = ()) -> Path:
        folder = self.folder / name
        if not (folder / "job.yml").exists():
            generate(folder, "aws", lines, a_day, SEED)
            with (folder / "leases.csv").open("a", encoding="utf-8") as leases:
                leases.writelines(
                    f"{one.address},2025-06-01T00:00:00Z,,timed,,{one.sandbox},job,gpu-49\n" for one in acts
                )
        return folder

    def _filled(self, folder: Path) -> str:
        """Write all lines of an input to a topic of its own."""
        topic = self.broker.topic(PARTITIONS)
        source = Lines(folder)
        write(self.broker, topic, source.lines)
        return topic


_ENDING = ("--streaming", "--end-of-input", "--json")


class _Watch:
    """Looks in Elasticsearch for incidents of timed sandboxes, and remembers when each was found first."""

    def __init__(self, client: Elasticsearch, prefix: str) -> None:
        self._client, self._index = client, f"{prefix}-incidents"
        self.found: dict[str, float] = {}
        self._looked = 0.0

    def look(self) -> None:
        """Search, at most five times a second."""
        if time.monotonic() - self._looked < 0.2:
            return
        self._looked = time.monotonic()
        mine = {"prefix": {"sandbox.id": "timed-"}}
        told = self._client.search(
            index=self._index, query=mine, source_includes=["sandbox.id"], size=10_000, ignore_unavailable=True
        )
        now = time.monotonic()
        for hit in told["hits"]["hits"]:
            self.found.setdefault(hit["_source"]["sandbox.id"], now)

    def rest(self, sent: dict[str, float], seconds: float) -> None:
        """Look on until all are found, or so many seconds have gone by."""
        deadline = time.monotonic() + seconds
        while sent.keys() - self.found.keys() and time.monotonic() < deadline:
            self.look()
            time.sleep(0.1)


@contextmanager
def _running(job: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a stream until the block ends, and then tell it to end."""
    log = folder / "delays.log"
    with log.open("wb") as told:
        command = [sys.executable, "-m", "agenttrail", "run", str(job), "--streaming", "--json"]
        process = subprocess.Popen(command, stdout=told, stderr=told)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(120)
    if status:
        msg = f"the stream ended with {status}: {log.read_text()[-2000:]}"
        raise RuntimeError(msg)


def _job(
    folder: Path,
    rules: Sequence[str],
    topic: str,
    bootstrap: str,
    out: Path,
    into: dict[str, str] | None = None,
) -> Path:
    job: dict[str, Any] = yaml.safe_load((folder / "job.yml").read_text(encoding="utf-8"))
    job["rules"] = list(rules)
    job["events"] = [{"format": "aws_vpc_flow", "kafka": {"topic": topic, "bootstrap": bootstrap}}]
    job["output"] = {"directory": str(out)} | ({"elasticsearch": into} if into else {})
    path = folder / f"{out.name}.yml"
    path.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return path


def _until_incidents(client: Elasticsearch, prefix: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the stream has said something: it has begun."""
    deadline = time.monotonic() + 120
    while not _count(client, f"{prefix}-findings"):
        if process.poll() is not None or time.monotonic() > deadline:
            msg = f"the stream says nothing: {process.poll()}"
            raise RuntimeError(msg)
        time.sleep(0.1)


def _remove(client: Elasticsearch, prefix: str) -> None:
    """Remove what stands there, by name: a server may refuse to remove by wildcard."""
    for name in list(client.indices.get(index=f"{prefix}-*", expand_wildcards="all")):
        client.indices.delete(index=name, ignore_unavailable=True)


def _count(client: Elasticsearch, index: str) -> int:
    try:
        return int(client.count(index=index, ignore_unavailable=True)["count"])
    except ApiError:  # it is being made just now
        return 0


def _cpu(root: int) -> float:
    """Return the CPU seconds of a process and of those that it started."""
    ticks = 0
    for pid in tree(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def told(found: StreamResults, sizes: StreamSizes) -> str:
    """Return the results as Markdown."""
    rows = [
        f"| {one.name} | {one.speed:.0f} | {one.small.memory / 1e6:.0f} / {one.large.memory / 1e6:.0f} | {one.held:,} "
        f"({one.held / one.rows[1]:.1%}) | {one.large.wall:.0f} | {one.large.others:.0%} |"
        for one in (found.rules, found.whole)
    ]
    delays = found.delays
    targets = [
        ("Kafka → row rules, thousand events / CPU-s", "≥", 100.0, found.rules.speed),
        ("the whole stream, thousand events / CPU-s", "≥", 60.0, found.whole.speed),
        ("seconds from Kafka to the incident in Elasticsearch, median", "≤", 3.0, delays.share(0.5)),
        ("the same, 99 of 100", "≤", 10.0, delays.share(0.99)),
    ]
    met = [
        f"| {name} | {sign} {bound:g} | {value:.1f} | {'yes' if (value >= bound) == (sign == '≥') else '**no**'} |"
        for name, sign, bound, value in targets
    ]
    within = [f"{delays.share(part):.1f} s" for part in (0.0, 0.5, 0.99, 1.0)]
    return f"""## As a stream

From a topic of a real Kafka, one line a message, on Prism, which is in the figures; Kafka is not.  Slopes between
{sizes.small:,} and {sizes.large:,} lines of the same mix, read as fast as it goes.

| what | thousand events / CPU-s | peak MB, small / large | rows held at the end | seconds | others |
|---|---|---|---|---|---|
{_lines(rows)}

How soon: {delays.rate:,.0f} lines a second for {sizes.seconds} s into the whole stream with a real Elasticsearch, and
{len(delays.seconds)} acts of sandboxes that do nothing else; the stream with its runner took {delays.cpu:.2f} of
one core.  From when Kafka had the line until a search found the incident: least {within[0]}, median {within[1]}, 99 of
100 within {within[2]}, most {within[3]}.

| what | asked for | measured | met |
|---|---|---|---|
{_lines(met)}
"""


def _lines(rows: Sequence[str]) -> str:
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in vars(StreamSizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--keep", type=Path, help="generate the input here and leave it for the next time")
    parser.add_argument("--only", choices=["delays"], help="measure this alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    sizes = StreamSizes(**{name: getattr(given, name) for name in vars(StreamSizes())})
    folder = (given.keep or Path(tempfile.mkdtemp(prefix="agenttrail-stream-bench-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # the servers run as another user
    os.chdir(ROOT)
    install()  # to build Prism is no part of what a stream costs
    with tempfile.TemporaryDirectory(prefix="agenttrail-bench-servers-") as name:
        Path(name).chmod(0o755)
        server = elasticsearch.obtain("plain", Path(name) / "elasticsearch", os.getpid())
        broker = kafka.obtain("alone", Path(name) / "kafka", os.getpid())
        try:
            bench = StreamBench(folder, sizes, broker, server.url)
            if given.only:
                sys.stdout.write(f"{bench.delays()}\n")
                return
            text = told(bench.all(), sizes)
            sys.stdout.write(text)
            put(given.results, f"\n{text}", MARKS)
        finally:
            broker.remove()
            server.remove()


if __name__ == "__main__":
    main()
