"""The work of `make bench` by agenttrail's own functions on Beam's in-process runner.

Parse, attribute, 30 row rules, two windowed sums.  Batches of columns go through; the window is a column, each batch is
summed on its own, and only those partial sums are shuffled.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from agenttrail import coders  # noqa: F401 - registers them
from agenttrail.attribute import STATUSES, LeaseTable, attribute
from agenttrail.columns import addresses
from agenttrail.columns.dictionaries import addresses_decoded
from agenttrail.columns.memory import keep_freed_memory
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.numbers import numbers
from agenttrail.detect.plan import Plan
from agenttrail.detect.rules import load_rules
from agenttrail.detect.signals import Lists
from agenttrail.formats import FORMATS
from agenttrail.formats.aws_vpc_flow import is_header
from agenttrail.leases import resolve
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from agenttrail.detect.rules import Rule
    from agenttrail.parsing import Parsed

    Numbers = NDArray[np.int64]

BLOCK_BYTES, RANGE_BYTES = 16 << 20, 64 << 20
SECOND = 1_000_000
MINUTE, FIVE_MINUTES, HOUR, DAY = 60 * SECOND, 300 * SECOND, 3_600 * SECOND, 86_400 * SECOND
PER_SANDBOX, PER_NETWORK, COUNTS = "per sandbox", "per network", "counts"


# -- the kernel, ready to move to agenttrail.columns


def sum_by_window(keys: Numbers, times: Numbers, width: int, values: dict[str, Numbers]) -> dict[str, Numbers]:
    """Sum ``values`` per key and tumbling window of ``width``.

    Args:
        keys: what to group by; rows with a negative key are left out.
        times: instant of each row, in the unit of ``width``.
        width: length of a window; windows start at multiples of it.
        values: integer columns, summed exactly.

    Returns:
        ``key``, ``window`` (its start), ``rows`` if that is not among the values, and the sums; one row per group, by
        window, then key.  Sums of sums are sums: partial results put together and summed again give the whole.
    """
    if not len(keys):
        return {"key": keys, "window": times, **({} if "rows" in values else {"rows": keys}), **values}
    window = times // width
    first = int(window.min())
    span = int(keys.max()) + 2  # one more for the rows without a key
    place = (window - first) * span + np.maximum(keys, -1) + 1
    groups, found = _number(place, span * (int(window.max()) - first + 1))
    kept = np.flatnonzero(found % span)
    sums = {name: _sums(groups, len(found), column)[kept] for name, column in values.items()}
    if "rows" not in values:
        sums = {"rows": np.bincount(groups, minlength=len(found))[kept], **sums}
    return {"key": found[kept] % span - 1, "window": (found[kept] // span + first) * width, **sums}


def _number(place: Numbers, space: int) -> tuple[Numbers, Numbers]:
    """Number the distinct values of ``place``, all below ``space``; return the number of each row, and the values."""
    if space > 8 * len(place):
        found, groups = np.unique(place, return_inverse=True)
        return groups.astype(np.int64, copy=False), found
    used = np.zeros(space, dtype=bool)
    used[place] = True
    found = np.flatnonzero(used)
    renumbered = np.empty(space, dtype=np.int64)
    renumbered[found] = np.arange(len(found))
    return renumbered[place], found


def _sums(groups: Numbers, count: int, values: Numbers) -> Numbers:
    out = np.zeros(count, dtype=np.int64)
    np.add.at(out, groups, values)
    return out


# -- partial sums, as what is shuffled


def sandbox_minutes(events: pa.RecordBatch) -> pa.RecordBatch:
    """Sum rows and egress bytes of attributed events per sandbox and minute."""
    sandbox = events.column("sandbox.id")
    status = events.column("attribution.status")
    attributed = np.array([word == "attributed" for word in status.dictionary.to_pylist()])
    named = attributed & np.asarray(sandbox.dictionary.is_valid())
    code = numbers(sandbox.indices)
    outward = _is(events.column("network.direction"), "egress")
    sums = sum_by_window(
        np.where(named[code], code, -1),
        _micros(events),
        MINUTE,
        {"bytes": np.where(outward, numbers(events.column("source.bytes")), 0)},
    )
    used, index = np.unique(sums["key"], return_inverse=True)
    names = pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), sandbox.dictionary.take(pa.array(used)))
    return pa.RecordBatch.from_arrays(
        [names, *(pa.array(sums[name]) for name in ("window", "rows", "bytes"))],
        names=["sandbox.id", "window", "rows", "bytes"],
    )


def network_windows(events: pa.RecordBatch, unlisted: NDArray[np.bool_]) -> pa.RecordBatch:
    """Count rows and blocked rows with an unlisted peer per /24 network of the peer and five minutes."""
    chosen = events.select(["peer.ip", "event.start", "event.outcome"]).take(pa.array(np.flatnonzero(unlisted)))
    some = addresses_decoded(chosen)
    networks = (addresses.ipv4(some.column("peer.ip"))[0] >> 8).astype(np.int64)
    blocked = _is(some.column("event.outcome"), "failure").astype(np.int64)
    sums = sum_by_window(networks, _micros(some), FIVE_MINUTES, {"blocked": blocked})
    return pa.RecordBatch.from_pydict(sums)


def _micros(events: pa.RecordBatch) -> Numbers:
    return numbers(events.column("event.start").cast(pa.int64()))


def _is(column: pa.DictionaryArray, word: str) -> NDArray[np.bool_]:
    table = np.array([known == word for known in column.dictionary.to_pylist()] + [False])
    return table[numbers(column.indices, -1)]


def sandboxes_summary(partials: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Put partial sums per sandbox and minute together; return their number, totals and checksum."""
    table = pa.Table.from_batches(list(partials)).unify_dictionaries().combine_chunks()
    names = table.column("sandbox.id").chunk(0)
    values = {name: numbers(table.column(name).chunk(0)) for name in ("rows", "bytes")}
    sums = sum_by_window(numbers(names.indices), numbers(table.column("window").chunk(0)), MINUTE, values)
    by_name = np.array([zlib.crc32(name.encode()) % 89 + 1 for name in names.dictionary.to_pylist()])
    weights = (sums["window"] // MINUTE % 97 + 1) * by_name[sums["key"]]
    return _summary(sums, weights, ("rows", "bytes"))


def networks_summary(partials: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Put partial counts per network and window together; return their number, totals and checksums."""
    table = pa.Table.from_batches(list(partials)).combine_chunks()
    columns = {name: numbers(table.column(name).chunk(0)) for name in table.column_names}
    sums = sum_by_window(columns.pop("key"), columns.pop("window"), FIVE_MINUTES, columns)
    weights = (sums["window"] // FIVE_MINUTES % 89 + 1) * (sums["key"] % 97 + 1)
    return _summary(sums, weights, ("rows", "blocked"))


def _summary(sums: dict[str, Numbers], weights: Numbers, names: tuple[str, ...]) -> dict[str, int]:
    totals = {name: int(sums[name].sum()) for name in names}
    return {
        "groups": len(weights),
        **totals,
        **{f"{name}_checksum": int((sums[name] * weights).sum()) for name in names},
    }


# -- the job


@dataclass(frozen=True)
class Job:
    """What the steps need to know."""

    format: str
    logs: tuple[Path, ...]
    leases: Path
    rules: tuple[Rule, ...]
    lists: dict[str, tuple[str, ...]]
    aggregates: bool


def load(path: Path, *, aggregates: bool) -> Job:
    """Read a job file as `generate.py` writes it."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    (events,), (metadata,) = given["events"], given["leases"]
    lists = {name: tuple(entries) for name, entries in given["lists"].items()}
    rules = load_rules([path.parent / folder for folder in given["rules"]], lists)
    logs = tuple(sorted(path.parent.glob(events["path"])))
    return Job(events["format"], logs, path.parent / metadata["path"], tuple(rules), lists, aggregates)


def lease_table(path: Path) -> LeaseTable:
    """Read leases as `generate.py` writes them."""
    parsed = FORMATS["address_leases"].parser({})(Block(path.read_bytes(), str(path), 0))
    return LeaseTable.build(resolve([parsed.events]))


@dataclass(frozen=True)
class Range:
    """The lines of a file that start in [start, stop)."""

    path: str
    start: int
    stop: int
    header: bytes


def ranges(logs: Iterable[Path]) -> Iterator[Range]:
    """Cut files into ranges; the header line of a file, if it has one, is in force in all of its ranges."""
    for path in logs:
        with path.open("rb") as file:
            first = file.readline()
        size = path.stat().st_size
        for start in range(0, size, RANGE_BYTES):
            yield Range(str(path), start, min(start + RANGE_BYTES, size), first if is_header(first) else b"")


def read(part: Range) -> Iterator[Block]:
    """Yield the lines of a range in blocks of about 16 MiB."""
    with Path(part.path).open("rb") as file:
        if part.start:  # a line that begins before the range belongs to the one before
            file.seek(part.start - 1)
            file.readline()
        offset = file.tell()
        while offset < part.stop:
            data = file.read(min(BLOCK_BYTES, part.stop - offset))
            if not data.endswith(b"\n"):
                data += file.readline()
            yield Block(data, part.path, offset, part.header if offset else None)
            offset += len(data)


class ParseBlocks(beam.DoFn):
    """Blocks to batches of events; lines and dead letters are counted."""

    def __init__(self, format_: str) -> None:
        """Parse logs of ``format_``."""
        self._format = format_
        self._parse: Callable[[Block], Parsed] | None = None

    def setup(self) -> None:
        """Make the parser."""
        keep_freed_memory()
        self._parse = FORMATS[self._format].parser({})

    def process(self, block: Block) -> Iterator[Any]:
        """Parse one block."""
        parsed = self._parse(block)  # type: ignore[misc] # set up
        yield parsed.events
        yield beam.pvalue.TaggedOutput(COUNTS, (None, {"rows": parsed.events.num_rows, "dead": parsed.dead.num_rows}))


class AttributeEvents(beam.DoFn):
    """Events to attributed events."""

    def __init__(self, job: Job) -> None:
        """Attribute with the internal networks of ``job``."""
        self._internal = job.lists["internal"]

    def setup(self) -> None:
        """Compile the networks."""
        self._networks = NetworkLists.compile([[parse_network(entry) for entry in self._internal]])

    def process(self, events: pa.RecordBatch, table: LeaseTable) -> Iterator[pa.RecordBatch]:
        """Attribute one batch."""
        yield attribute(events, table, self._networks)


class Evaluate(beam.DoFn):
    """Attributed events to hits per rule and partial sums."""

    def __init__(self, job: Job) -> None:
        """Evaluate the rules of ``job``."""
        self._job = job

    def setup(self) -> None:
        """Compile rules and lists."""
        self._plan = Plan.compile(self._job.rules, self._job.format, self._job.lists)
        self._lists = Lists.of(self._job.lists)

    def process(self, events: pa.RecordBatch) -> Iterator[Any]:
        """Evaluate one batch."""
        hits = self._plan.run(events)
        counts = {f"hits {rule.id}": len(rows) for rule, rows in zip(self._plan.rules, hits, strict=True)}
        counts |= {**_statuses(events), "unlisted": int(self._lists.unlisted(events).sum())}
        yield beam.pvalue.TaggedOutput(COUNTS, (None, counts))
        if not self._job.aggregates:
            return
        minutes = sandbox_minutes(events)
        hours = numbers(minutes.column("window")) // HOUR  # ascending, so that the rows of an hour are a slice
        for hour in np.unique(hours).tolist():
            first, past = np.searchsorted(hours, [hour, hour + 1]).tolist()
            yield beam.pvalue.TaggedOutput(PER_SANDBOX, (hour, minutes.slice(first, past - first)))
        yield beam.pvalue.TaggedOutput(PER_NETWORK, (0, network_windows(events, self._lists.unlisted(events))))


def _statuses(events: pa.RecordBatch) -> dict[str, int]:
    """Count rows by attribution status."""
    status = events.column("attribution.status")
    return {word: int(np.count_nonzero(_is(status, word))) for word in STATUSES}


class Summarise(beam.DoFn):
    """Partial sums of one shard to their summary."""

    def __init__(self, name: str, summary: Callable[[Iterable[pa.RecordBatch]], dict[str, int]]) -> None:
        """Name what comes out ``name``."""
        self._name, self._summary = name, summary

    def process(self, shard: tuple[int, Iterable[pa.RecordBatch]]) -> Iterator[Any]:
        """Summarise one shard."""
        found = self._summary(shard[1])
        yield None, {f"{self._name} {key}": value for key, value in found.items()}


class Write(beam.DoFn):
    """All counts to one JSON file."""

    def __init__(self, path: str) -> None:
        """Write to ``path``."""
        self._path = path

    def process(self, counts: tuple[None, Iterable[dict[str, int]]]) -> None:
        """Add up and write."""
        total: dict[str, int] = {}
        for some in counts[1]:
            for name, value in some.items():
                total[name] = total.get(name, 0) + value
        nested: dict[str, Any] = {}
        for name, value in sorted(total.items()):
            group, _, key = name.partition(" ")
            if key:
                nested.setdefault(group, {})[key] = value
            else:
                nested[name] = value
        Path(self._path).write_text(json.dumps(nested), encoding="utf-8")


def build(pipeline: beam.Pipeline, job: Job, output: str) -> None:
    """Build the graph."""
    table = pipeline | "Leases" >> beam.Create([job.leases]) | beam.Map(lease_table)
    parsed = (
        pipeline
        | beam.Create(list(ranges(job.logs)))
        | beam.FlatMap(read).with_output_types(Block)
        | beam.ParDo(ParseBlocks(job.format)).with_output_types(pa.RecordBatch).with_outputs(COUNTS, main="events")
    )
    evaluated = (
        parsed["events"]
        | beam.ParDo(AttributeEvents(job), beam.pvalue.AsSingleton(table)).with_output_types(pa.RecordBatch)
        | beam.ParDo(Evaluate(job)).with_outputs(COUNTS, PER_SANDBOX, PER_NETWORK)
    )
    counts = [parsed[COUNTS], evaluated[COUNTS]]
    for tag, name, summary in ((PER_SANDBOX, "A", sandboxes_summary), (PER_NETWORK, "B", networks_summary)):
        keyed = evaluated[tag] | f"Key {name}" >> beam.Map(lambda pair: pair).with_output_types(
            tuple[int, pa.RecordBatch]
        )
        grouped = keyed | f"Group {name}" >> beam.GroupByKey()
        counts.append(grouped | f"Summarise {name}" >> beam.ParDo(Summarise(name, summary)))
    _ = counts | beam.Flatten() | beam.GroupByKey() | beam.ParDo(Write(output))


def main() -> None:
    """Run a job on the in-process runner and print its answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--no-aggregates", action="store_true", help="parse, attribute and evaluate rules only")
    given = parser.parse_args()
    keep_freed_memory()
    job = load(given.job, aggregates=not given.no_aggregates)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "answers.json"
        # named, since the bare DirectRunner first tries to download another one
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            build(pipeline, job, str(output))
        sys.stdout.write(output.read_text(encoding="utf-8") + "\n")


if __name__ == "__main__":
    main()
