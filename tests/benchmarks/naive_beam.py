"""The work of `make bench` as one would first write it in Beam: a dict per line, elements through windows."""

from __future__ import annotations

import argparse
import bisect
import csv
import functools
import ipaddress
import json
import sys
import tempfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from tests.benchmarks.conditions import PROTOCOLS, python

from agenttrail.detect.rules import load_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

Event = dict[str, Any]
_NAMES = {number: name for name, number in PROTOCOLS.items()}
_IDENTITY = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name")


def parse(line: str, header: list[str]) -> Event:
    """Turn a line into an event."""
    row = dict(zip(header, line.split(" "), strict=True))
    return {
        "event.start": int(row["start"]), "event.end": int(row["end"]), "observer.name": row["interface-id"],
        "source.ip": row["srcaddr"], "source.port": int(row["srcport"]),
        "destination.ip": row["dstaddr"], "destination.port": int(row["dstport"]),
        "network.transport": _NAMES[int(row["protocol"])],
        "source.packets": int(row["packets"]), "source.bytes": int(row["bytes"]),
        "event.outcome": "success" if row["action"] == "ACCEPT" else "failure",
    }  # fmt: skip


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else float("inf")


class Attribute(beam.DoFn):
    """Says whose each event is."""

    def __init__(self, leases: str, internal: tuple[str, ...]) -> None:
        """Look up the leases of a CSV file."""
        self._path, self._internal = leases, internal

    def setup(self) -> None:
        """Read the leases."""
        self._leases: dict[str, list[tuple[float, float, Event]]] = {}
        with Path(self._path).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                names = {name: row[name] for name in _IDENTITY}
                self._leases.setdefault(row["address"], []).append(
                    (_seconds(row["start"]), _seconds(row["end"]), names)
                )
        for leases in self._leases.values():
            leases.sort(key=lambda lease: lease[0])

    def _find(self, address: str, time: int) -> Event | None:
        leases = self._leases.get(address, ())
        place = bisect.bisect_right(leases, time, key=lambda lease: lease[0]) - 1
        return leases[place][2] if place >= 0 and time < leases[place][1] else None

    def process(self, event: Event) -> Iterator[Event]:
        """Attribute one event."""
        holders = [self._find(event[f"{side}.ip"], event["event.start"]) for side in ("source", "destination")]
        kinds = [_kind(event[f"{side}.port"]) for side in ("source", "destination")]
        client = None if 0 in kinds or kinds[0] == kinds[1] else int(kinds[0] < kinds[1])
        both = all(holder is not None for holder in holders)
        owner = client if both else next((side for side in (0, 1) if holders[side] is not None), None)
        inside = [_listed(self._internal, event[f"{side}.ip"]) for side in ("source", "destination")]
        side = owner if owner is not None else int(inside[1] and not inside[0])
        far = ("destination", "source")[side]
        event = {**event, "peer.ip": event[f"{far}.ip"], "peer.port": event[f"{far}.port"]}
        if both and owner is None:
            first, second = (holder or {} for holder in holders)
            event |= {name: first[name] for name in _IDENTITY if first[name] == second[name]}
            known = [level for level in ("sandbox", "job", "host") if event.get(_RUNGS[level])]
            yield {**event, "attribution.status": "ambiguous", "attribution.level": (*known, "address")[0]}
            return
        event["network.direction"] = ("egress", "ingress")[side]
        if client is not None:
            event["network.initiator"] = "workload" if client == side else "peer"
        if owner is None:
            yield {**event, "attribution.status": "unattributed", "attribution.level": "address"}
        else:
            yield {
                **event,
                **(holders[owner] or {}),
                "attribution.status": "attributed",
                "attribution.level": "trajectory",
            }


_RUNGS = {"sandbox": "sandbox.id", "job": "job.id", "host": "host.name"}


def _kind(port: int) -> int:
    return 0 if not port else 1 if port < 1_024 else 2 if port < 32_768 else 3


@functools.cache
def _network(text: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(text)


@functools.lru_cache(maxsize=1 << 16)
def _listed(networks: tuple[str, ...], address: str) -> bool:
    """Tell whether an address is in any of the networks; remembered, as one soon would."""
    parsed = ipaddress.IPv4Address(address)
    return any(parsed in _network(network) for network in networks)


class Evaluate(beam.DoFn):
    """Yields the id of every rule that an event matches."""

    def __init__(self, conditions: dict[str, str], lists: dict[str, tuple[str, ...]]) -> None:
        """Take the conditions as Python, by rule."""
        self._conditions, self._lists = conditions, lists

    def setup(self) -> None:
        """Compile the conditions."""
        names = {
            "listed": lambda name, address: _listed(self._lists[name], address),
            "inside": lambda address, network: _listed((network,), address),
        }
        self._rules = {id_: eval(f"lambda e: {text}", names) for id_, text in self._conditions.items()}  # noqa: S307 - made from our own rules

    def process(self, event: Event) -> Iterator[str]:
        """Evaluate all rules on one event."""
        for id_, holds in self._rules.items():
            if holds(event):
                yield id_


class _Sums(beam.CombineFn):  # type: ignore[misc, unused-ignore]
    """Adds up pairs."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, sums: tuple[int, int], pair: tuple[int, int]) -> tuple[int, int]:
        return sums[0] + pair[0], sums[1] + pair[1]

    def merge_accumulators(self, many: Any) -> tuple[int, int]:
        firsts, seconds = zip(*many, strict=True)
        return sum(firsts), sum(seconds)

    def extract_output(self, sums: tuple[int, int]) -> tuple[int, int]:
        return sums


class _PutInWindow(beam.DoFn):
    """Puts the window beside each sum, as a number."""

    def __init__(self, width: int) -> None:
        self._width = width

    def process(self, item: tuple[Any, tuple[int, int]], window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        yield item[0], int(window.start) // self._width, item[1]


def _weighed(item: tuple[Any, int, tuple[int, int]]) -> tuple[str, tuple[int, ...]]:
    key, window, (first, second) = item
    if isinstance(key, str):
        weight = (window % 97 + 1) * (zlib.crc32(key.encode()) % 89 + 1)
        return "A", (1, first, second, first * weight, second * weight)
    weight = (window % 89 + 1) * (key % 97 + 1)
    return "B", (1, first, second, first * weight, second * weight)


def build(pipeline: beam.Pipeline, path: Path, output: str) -> None:
    """Build the graph."""
    job = yaml.safe_load(path.read_text(encoding="utf-8"))
    lists = {name: tuple(entries) for name, entries in job["lists"].items()}
    conditions = {
        rule.id: python(rule.condition) for rule in load_rules([path.parent / folder for folder in job["rules"]], lists)
    }
    pattern = path.parent / job["events"][0]["path"]
    with min(path.parent.glob(job["events"][0]["path"])).open(encoding="utf-8") as file:
        header = file.readline().split()
    events = (
        pipeline
        | beam.io.ReadFromText(str(pattern), skip_header_lines=1)
        | beam.Map(parse, header)
        | beam.ParDo(Attribute(str(path.parent / job["leases"][0]["path"]), lists["internal"]))
    )
    hits = events | beam.ParDo(Evaluate(conditions, lists)) | "Hits" >> beam.combiners.Count.PerElement()
    timed = events | beam.Map(lambda event: TimestampedValue(event, event["event.start"]))
    sandboxes = (
        timed
        | beam.Filter(lambda event: event["attribution.status"] == "attributed")
        | "By sandbox"
        >> beam.Map(lambda e: (e["sandbox.id"], (1, e["source.bytes"] if e["network.direction"] == "egress" else 0)))
        | "Minutes" >> beam.WindowInto(FixedWindows(60))
        | "Sum by sandbox" >> beam.CombinePerKey(_Sums())
        | "Minute" >> beam.ParDo(_PutInWindow(60))
    )
    known = lists["internal"] + lists["egress_allow"]
    networks = (
        timed
        | "Unlisted" >> beam.Filter(lambda event: not _listed(known, event["peer.ip"]))
        | "By network"
        >> beam.Map(
            lambda e: (int(ipaddress.IPv4Address(e["peer.ip"])) >> 8, (1, int(e["event.outcome"] == "failure")))
        )
        | "Five minutes" >> beam.WindowInto(FixedWindows(300))
        | "Sum by network" >> beam.CombinePerKey(_Sums())
        | "Slot" >> beam.ParDo(_PutInWindow(300))
    )
    everywhere = beam.WindowInto(beam.window.GlobalWindows())
    sums = (
        (sandboxes | "A everywhere" >> everywhere, networks | "B everywhere" >> everywhere)
        | beam.Flatten()
        | "Weigh" >> beam.Map(_weighed)
        | "Totals" >> beam.CombinePerKey(lambda rows: tuple(map(sum, zip(*rows, strict=True))))
    )
    counts = (
        events
        | "Statuses" >> beam.Map(lambda event: event["attribution.status"])
        | "Count statuses" >> beam.combiners.Count.PerElement()
    )
    parts = {"hits": beam.pvalue.AsDict(hits), "sums": beam.pvalue.AsDict(sums), "counts": beam.pvalue.AsDict(counts)}
    _ = pipeline | beam.Create([(output, list(conditions))]) | "Write" >> beam.Map(_write, **parts)


def _write(where: tuple[str, list[str]], hits: dict[str, int], sums: dict[str, Any], counts: dict[str, int]) -> None:
    output, rules = where
    answers: dict[str, Any] = {
        "rows": sum(counts.values()), "dead": 0,
        **{status: counts.get(status, 0) for status in ("attributed", "ambiguous", "unattributed")},
        "hits": {id_: hits.get(id_, 0) for id_ in rules},
    }  # fmt: skip
    for name, value in (("A", "bytes"), ("B", "blocked")):
        keys = ("groups", "rows", value, "rows_checksum", f"{value}_checksum")
        answers[name] = dict(zip(keys, sums[name], strict=True))
    answers["unlisted"] = answers["B"]["rows"]
    Path(output).write_text(json.dumps(answers), encoding="utf-8")


def main() -> None:
    """Run a job on the in-process runner and print its answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "answers.json")
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            build(pipeline, given.job, output)
        sys.stdout.write(Path(output).read_text(encoding="utf-8") + "\n")


if __name__ == "__main__":
    main()
