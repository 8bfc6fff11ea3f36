"""From a job to a graph, and the run of it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import orjson
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from agenttrail.accounting import ACCOUNT, DEAD, EVENTS, Account, check, total
from agenttrail.counters import Count
from agenttrail.coverage import unseen
from agenttrail.detect.correlation_needs import within_a_workload
from agenttrail.detect.correlations import lookbacks
from agenttrail.errors import DefinitionError, InputError, Problem
from agenttrail.formats import FORMATS
from agenttrail.lists import ADDRESS_LISTS, shipped_lists
from agenttrail.recognition import recognise
from agenttrail.seams import EVER, Span
from agenttrail.settling import SETTLEMENT, TOGETHER, HearOf, InSpan, Say, Settle, Settlement
from agenttrail.sinks import files as sink
from agenttrail.sinks.earlier import INCIDENTS, ReadEarlier, carry_over, covered
from agenttrail.sinks.files import WriteDeadLetters, WriteEvents, WriteSorted, WriteTimeline
from agenttrail.sinks.versions import refuse_stream
from agenttrail.sources.files import BLOCK_BYTES, RANGE_BYTES, WHOLE_FILES, ReadBlocks, ReadDocuments
from agenttrail.transforms.attributing import Attribute, AttributeNamed, Resolve
from agenttrail.transforms.detecting import Detect
from agenttrail.transforms.gathering import Gather
from agenttrail.transforms.grouping import AddFindings, Correlate, Group, Slim
from agenttrail.transforms.parsing import Parse
from agenttrail.transforms.timed import LEASES, PROGRESS, ROLLED, SEEN, TIMELINE, UNITS
from agenttrail.transforms.timelines import EgressByList, Timeline
from agenttrail.workers import watched
from agenttrail.yaml_files import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agenttrail.detect.correlations import Correlation
    from agenttrail.job_files import Job
    from agenttrail.sources.files import InputFile

POD_NAMES = ("k8s.pod.uid", "sandbox.id", "trajectory.id")
"""Columns whose values set pods apart: what is grouped by one of them is looked at as a whole with the pod."""
SHARDS = 8
"""Slices of all entities on one machine."""
KINDS = {name: format_.kind for name, format_ in FORMATS.items()}
"""What vouches for each dataset."""


@dataclass(frozen=True)
class RunOptions:
    """What one run adds to its job.

    Attributes:
        start: only findings whose last event starts at or after this, in microseconds; None is open.
        stop: and before this.
        range_bytes: size of the ranges in which a plain file is read; None for what suits the runner.
        block_bytes: size of the blocks in which lines travel.
        shards: slices of all entities.
        flags: options of Beam.
    """

    start: int | None = None
    stop: int | None = None
    range_bytes: int | None = None
    block_bytes: int = BLOCK_BYTES
    shards: int = SHARDS
    flags: tuple[str, ...] = ()


@dataclass
class _Signals:
    """What the graph makes of all files, up to what leaves the batches.

    Attributes:
        signals: (shard, packed signals).
        rolled: roll-ups of what is none.
        progress: reports of training progress; None where no source may tell of it.
        events: (source, attributed events), for each way by which events are attributed.
        by_address: the lease table, as a singleton.
        dead: dead letters.
        accounts: of all steps.
    """

    signals: Any
    rolled: Any
    progress: Any
    events: list[Any]
    by_address: Any
    dead: list[Any]
    accounts: list[Any]


def _signals(pipeline: beam.Pipeline, job: Job, options: RunOptions, span: Span | None) -> _Signals:
    """Read, parse and attribute all files, and evaluate the rules on them.

    What tells of workloads by name is a branch of its own, since it tells of leases, too, and is read before the logs
    are attributed.  A job without such sources has no such branch: what two branches give is copied once more where
    they meet.
    """
    formats = {number: FORMATS[source.format] for number, source in enumerate(job.sources)}
    metadata = [file for file in job.files if formats[file.source].gives == "leases"]
    named = [file for file in job.files if formats[file.source].named]
    logs = [file for file in job.files if file not in metadata and file not in named]

    leases = pipeline | ReadDocuments(metadata) | "ParseLeases" >> Parse(job.sources)
    events, dead, accounts = _parsed(pipeline, job, options, logs, "Logs")
    told, *books = _parsed(pipeline, job, options, named, "Named") if named else (None, [], [])
    observed = [leases[EVENTS]] if told is None else [leases[EVENTS], told[LEASES]]
    by_address, by_name, resolved = observed | "AllLeases" >> beam.Flatten() | Resolve(job.tolerance)
    heard = None if span is None or told is None else told[EVENTS] | HearOf(span)
    attributed = events[EVENTS] | Attribute(by_address, job.lists["internal"], span, heard)
    detect = (job.sources, job.rules, job.lists, options.shards)
    signals = attributed[EVENTS] | Detect(*detect)
    dead += [leases[DEAD], *books[0]]
    accounts += [leases[ACCOUNT], resolved, attributed[ACCOUNT], signals[ACCOUNT], *books[1]]
    if told is None:
        return _Signals(signals[EVENTS], signals[ROLLED], None, [attributed[EVENTS]], by_address, dead, accounts)
    called = told[EVENTS] | AttributeNamed(by_name, span, heard)
    of_named = called[EVENTS] | "DetectNamed" >> Detect(*detect)
    together = (signals[EVENTS], of_named[EVENTS]) | "AllSignals" >> beam.Flatten()
    accounts += [called[ACCOUNT], of_named[ACCOUNT]]
    both = [attributed[EVENTS], called[EVENTS]]
    return _Signals(together, signals[ROLLED], called[PROGRESS], both, by_address, dead, accounts)


def _parsed(
    pipeline: beam.Pipeline, job: Job, options: RunOptions, files: list[InputFile], label: str
) -> tuple[Any, list[Any], list[Any]]:
    """Return what the lines of files hold by tag, and dead letters and accounts of reading and of parsing them."""
    formats = {number: FORMATS[source.format] for number, source in enumerate(job.sources)}
    sizes = {"range_bytes": options.range_bytes or RANGE_BYTES, "block_bytes": options.block_bytes}
    blocks, remains, read = pipeline | f"Read{label}" >> ReadBlocks(files, formats, **sizes)
    parsed = blocks | f"Parse{label}" >> Parse(job.sources)
    return parsed, [remains, parsed[DEAD]], [read, parsed[ACCOUNT]]


def build(pipeline: beam.Pipeline, job: Job, options: RunOptions, span: Span | None = None) -> None:
    """Build the graph of ``job`` on ``pipeline``; its last step turns the parts into the output directory.

    A run over a ``span`` of time goes on with what earlier runs left there; without, it takes their place.
    """
    directory = str(job.directory)
    read = _signals(pipeline, job, options, span)
    dead, accounts = read.dead, read.accounts
    earlier: Any = {} if span is None else pipeline | ReadEarlier(directory)
    stored, opened = (earlier["findings"], earlier[INCIDENTS]) if span else (None, None)
    gathered = read.signals | Gather(
        job.rules, job.correlations, job.lists, read.progress, span, opened, every=job.every_timeline
    )
    accounts.append(gathered[ACCOUNT])
    found = [gathered[EVENTS]]
    if any(not one.off for one in job.correlations):
        correlated = gathered[UNITS] | Correlate(job.correlations, options.shards, span, stored)
        found.append(correlated[EVENTS])
        accounts.append(correlated[ACCOUNT])
    written = found if span is None else [one | f"Say{number}" >> Say(span) for number, one in enumerate(found)]
    # what waits for correlations lies in memory: incidents are made without the evidence, which is most of a finding
    slim = [one | f"Slim{number}" >> Slim() for number, one in enumerate(written)]
    if span is None:
        whole = slim[0] if len(slim) == 1 else slim[0] | AddFindings(slim[1], options.shards)
        incidents, settlement = whole | Group(KINDS), None
    else:
        settle = Settle(span, _ran(job), KINDS, options.shards, stored, opened, gathered[SEEN])
        settled = slim | beam.Flatten() | settle
        incidents, whole, settlement = settled["incidents"], settled[TOGETHER], settled[SETTLEMENT]
    rolled = read.rolled | EgressByList(read.by_address, incidents, options.shards, every=job.every_timeline)
    accounts.append(rolled[ACCOUNT])
    timelines = (gathered[TIMELINE], rolled[EVENTS], whole) | Timeline(incidents, every=job.every_timeline)

    if job.elasticsearch:
        for upserts in (_upserts(found, job, options, span, gathered[SEEN]), _upserted(timelines, job, incidents)):
            dead.append(upserts[DEAD])
            accounts.append(upserts[ACCOUNT])
    parts = {
        "findings": [
            one | f"WriteFindings{number}" >> WriteSorted(directory, "findings") for number, one in enumerate(written)
        ]
        | "FindingParts" >> beam.Flatten(),
        "incidents": incidents | "WriteIncidents" >> WriteSorted(directory, "incidents"),
        "dead_letters": _write_dead_letters(dead, directory),
        "timeline": timelines | "WriteTimeline" >> WriteTimeline(directory),
    }
    if job.write_events:
        parts["events"] = _written_events(read.events, span) | WriteEvents(directory)
    books = accounts | "Accounts" >> beam.Flatten() | Count() | "Books" >> beam.CombineGlobally(total)
    _ = parts | Finish(job, books, span, settlement)


def _upserts(
    found: Sequence[beam.PCollection[Any]], job: Job, options: RunOptions, span: Span | None, seen: Any
) -> Any:
    """Return what came of writing the findings to Elasticsearch, and the incidents that they make there."""
    from agenttrail.sinks.elasticsearch_settling import SettleIncidents
    from agenttrail.sinks.elasticsearch_upserts import UpsertIncidents

    whole = found[0] if len(found) == 1 else found[0] | "AddWhole" >> AddFindings(found[1], options.shards)
    settings = job.elasticsearch or {}
    if span is None:
        return whole | UpsertIncidents(settings, KINDS)
    return whole | SettleIncidents(settings, KINDS, span, _ran(job), seen)


def _upserted(timelines: beam.PCollection[Any], job: Job, incidents: beam.PCollection[Any]) -> Any:
    """Return what came of writing the timelines of ``incidents`` to Elasticsearch."""
    from agenttrail.sinks.elasticsearch_timeline import UpsertTimeline

    return timelines | UpsertTimeline(job.elasticsearch or {}, incidents)


def _written_events(events: Sequence[beam.PCollection[Any]], span: Span | None) -> beam.PCollection[Any]:
    """Return the events that a run writes: of those that it looks at, those in its span."""
    every = events | "AllEvents" >> beam.Flatten()
    return every if span is None else every | InSpan(span)


def _write_dead_letters(dead: list[beam.PCollection[Any]], directory: str) -> beam.PCollection[str]:
    """Write dead letters where they arise: flattened first, all of them would lie in memory at once."""
    parts = [letters | f"DeadLetters{number}" >> WriteDeadLetters(directory) for number, letters in enumerate(dead)]
    return parts | "DeadLetterParts" >> beam.Flatten()


class Finish(beam.PTransform):
    """Once all parts are written: check the books and put the output directory together."""

    def __init__(
        self,
        job: Job,
        account: beam.PCollection[Account],
        span: Span | None = None,
        settlement: beam.PCollection[Settlement] | None = None,
    ) -> None:
        """Finish a run of ``job`` whose whole account is the only element of ``account``.

        One over a ``span`` carries over what stays of earlier runs, by the only element of ``settlement``.
        """
        super().__init__()
        self._job, self._account, self._span, self._settlement = job, account, span, settlement

    def expand(self, parts: dict[str, beam.PCollection[Any]]) -> beam.PCollection[None]:
        """Return an empty collection."""
        sides = {name: beam.pvalue.AsList(part) for name, part in parts.items()}
        if self._settlement is not None:
            sides["settlement"] = beam.pvalue.AsSingleton(self._settlement)
        once = self._account.pipeline | beam.Create([None])
        return once | beam.ParDo(_Finish(self._job, self._span), beam.pvalue.AsSingleton(self._account), **sides)


class _Finish(beam.DoFn):
    def __init__(self, job: Job, span: Span | None) -> None:
        self._job, self._span = job, span

    def process(
        self,
        _: None,
        account: Account,
        *,
        findings: list[tuple[str, dict[str, int]]],
        incidents: list[tuple[str, dict[str, int]]],
        dead_letters: list[str],
        timeline: list[str],
        events: list[str] | None = None,
        settlement: Settlement | None = None,
    ) -> Iterator[None]:
        job, directory = self._job, str(self._job.directory)
        check(account, [source.name for source in job.sources])
        parts = {
            "findings": [path for path, _ in findings],
            "incidents": [path for path, _ in incidents],
            "dead_letters": list(dead_letters),
            "timeline": list(timeline),
            "events": list(events or ()),
        }
        keep: frozenset[str] = frozenset()
        if self._span is not None and settlement is not None:
            try:
                keep = carry_over(directory, parts, self._span, settlement.gone, events=job.write_events)
            except OSError as error:
                raise sink.cannot(directory, "finished", error) from error
        stay = {} if settlement is None else settlement.stay
        counted = {
            kind: _by_severity(written, stay.get(kind, {}))
            for kind, written in (("findings", findings), ("incidents", incidents))
        }
        told = report(job, account, counted) | covers(self._span, settlement)
        summary = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        # before anything is published: a disk that fills up is to do so while all of the earlier output stands
        sink.write(sink.join(directory, sink.PARTS, "run.json"), summary)
        sink.finish(directory, parts, events=job.write_events, keep=keep)
        sink.publish(directory, "run.json")
        sink.clean_up(directory)
        yield from ()


def _by_severity(parts: list[tuple[str, dict[str, int]]], stay: dict[str, int]) -> dict[str, int]:
    counted: Counter[str] = Counter(stay)
    for _, severities in parts:
        counted.update(severities)
    return dict(sorted(counted.items()))


def report(job: Job, account: Account, counted: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return what ``run.json`` says of a run.

    Args:
        job: what ran.
        account: of the whole run.
        counted: findings and incidents by severity.
    """
    return {
        "job": job.name,
        "sources": [
            {"name": source.name, "format": source.format, **account.of_source(number)}
            for number, source in enumerate(job.sources)
        ],
        "total": account.total(len(job.sources)),
        "findings": sum(counted["findings"].values()),
        "findings_by_severity": counted["findings"],
        "incidents": sum(counted["incidents"].values()),
        "incidents_by_severity": counted["incidents"],
        "rules": {
            "on": len(job.rules) + len(job.correlations) - len(_off(job)),
            "off": _off(job),
        },
        **({"elasticsearch": _written(account)} if job.elasticsearch else {}),
        "coverage": {what: count for what, count in account.coverage.items() if count},
        "notes": notes(job, account),
        "seconds": {stage: round(seconds, 3) for stage, seconds in sorted(account.seconds.items())},
    }


def covers(span: Span | None, settlement: Settlement | None) -> dict[str, Any]:
    """Return what ``run.json`` says of the time that a run was over, and of what it made of earlier findings."""
    if span is None or settlement is None:
        return {"start": None, "end": None, "covered": [[None, None]]}
    told = [[_time(start), _time(stop)] for start, stop in span.told]
    return {
        "start": _time(span.start), "end": _time(span.stop), "covered": told,
        "findings_of_earlier_runs": settlement.counts,
    }  # fmt: skip


def _time(microseconds: int) -> str | None:
    """Return a time as text, None for an open end."""
    if abs(microseconds) >= EVER:
        return None
    return f"{datetime.fromtimestamp(microseconds // 10**6, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds % 10**6:06}Z"


def _ran(job: Job) -> tuple[str, ...]:
    """Return the ids of the rules and correlations that run."""
    return (*(rule.id for rule in job.rules if not rule.off), *(one.id for one in job.correlations if not one.off))


def _off(job: Job) -> dict[str, str]:
    """Return the rules and correlations that do not run, and why."""
    off = {rule.name: rule.off for rule in job.rules if rule.off}
    return off | {one.name: one.off for one in job.correlations if one.off}


def _written(account: Account) -> dict[str, dict[str, int]]:
    """Return what became of the documents of each kind."""
    told: dict[str, dict[str, int]] = {"findings": {}, "incidents": {}, "timeline": {}}
    for (kind, what), count in sorted(account.written.items()):
        told[kind][what] = count
    return told


def notes(job: Job, account: Account) -> list[str]:
    """Return what whoever runs the job should know: what was off, and what could not be seen."""
    said = [*_unreadable(job, account), *_stray_lists(job)]
    said += [f"rule {name} is off: {why}" for name, why in _off(job).items()]
    if not any(FORMATS[source.format].gives == "leases" for source in job.sources):
        said.append("the job names no leases: nothing can be attributed to a workload")
    said += unseen({FORMATS[source.format].kind for source in job.sources}, account.coverage)
    for scope, rows in account.most_unknown():
        said.append(f"{rows} events are in scope {scope!r}, in which there is no lease")
    if len(account.unknown_scopes) > len(account.most_unknown()):
        said.append(f"{len(account.unknown_scopes)} scopes in all have events and no lease")
    for number, source in enumerate(job.sources):
        dead, lines = account.counts[number, "dead"], account.counts[number, "lines"]
        if dead and not _nothing_read(account, number):
            said.append(f"{source.name}: {dead} of {lines} lines could not be read; see dead_letters.ndjson")
        if zoneless := account.counts[number, "without_zone"]:
            leases = account.counts[number, "leases"]
            said.append(
                f"{source.name}: {zoneless} of {leases} leases have a time without a zone, which is taken for UTC"
            )
    refused = sum(count for (_, what), count in account.written.items() if what == "refused")
    if refused:
        said.append(f"Elasticsearch refused {refused} documents; see dead_letters.ndjson")
    return said


def _nothing_read(account: Account, source: int) -> bool:
    return bool(account.counts[source, "dead"]) and not account.counts[source, "with_events"]


def _unreadable(job: Job, account: Account) -> list[str]:
    """Return which sources gave nothing but dead letters, each with the format that its first file looks like."""
    said = []
    for number, source in enumerate(job.sources):
        if _nothing_read(account, number):
            lines = account.counts[number, "lines"] - account.counts[number, "skipped"]
            seems = _other_format(job, number)
            looks = f"it looks like {seems}" if seems else "is that its format?"
            said.append(f"{source.name}: not one of {lines} lines could be read: {looks}; see dead_letters.ndjson")
    return said


def _other_format(job: Job, source: int) -> str:
    """Return the format that the first file of a source looks like, "" where that is its own or cannot be told."""
    first = next((file.path for file in job.files if file.source == source and file.size), None)
    if first is None:  # of a topic
        return ""
    try:
        seems = recognise(first).format
    except InputError:
        return ""
    return "" if seems == job.sources[source].format else seems


def _stray_lists(job: Job) -> list[str]:
    """Return which lists of a job no rule asks for, as a slip of the pen has it."""
    asked = {name for rule in job.rules for name in rule.lists} | set(ADDRESS_LISTS)
    said = []
    for name in sorted(job.lists.keys() - asked - shipped_lists().keys()):
        meant = suggest(name, asked)
        said.append(f"no rule uses the list {name!r}" + (f"; did you mean {meant}?" if meant else ""))
    return said


def run(job: Job, options: RunOptions | None = None) -> None:
    """Run a job to its end.

    Raises:
        AgentTrailError: the run failed; what it says is for the user.
    """
    options = options or RunOptions()
    if job.elasticsearch:
        from agenttrail.sinks.elasticsearch import ElasticsearchSettings
        from agenttrail.sinks.elasticsearch_upserts import check as check_elasticsearch

        check_elasticsearch(ElasticsearchSettings(**job.elasticsearch))
    refuse_stream(str(job.directory))
    with sink.claimed(str(job.directory)):
        bounded = options.start is not None or options.stop is not None
        _run(job, options, span_of(job, options) if bounded else None)


def span_of(job: Job, options: RunOptions) -> Span:
    """Return what a run over a part of time looks at.

    Raises:
        InputError: it cannot be told what earlier runs in the output directory covered.
        SinkError: they are another job's.
    """
    return replace(
        view_of(job),
        start=-EVER if options.start is None else options.start,
        stop=EVER if options.stop is None else options.stop,
        covered=covered(str(job.directory), job.name),
    )


def view_of(job: Job) -> Span:
    """Return what a run over any part of time looks at, without the bounds of one."""
    on = [one for one in job.correlations if not one.off]
    reach = lookbacks(on)
    grouped = {one.id: _pod_name(one) for one in on}
    return Span(
        # what lies within one workload is looked at as a whole with it, however long its windows are
        look_back=max((reach[one.id] for one in on if not within_a_workload(one)), default=0),
        tolerance=job.tolerance,
        names=tuple(sorted({name for name in grouped.values() if name} - {POD_NAMES[0]})),
        correlations={one.id: bool(grouped[one.id]) for one in on},
    )


def _pod_name(correlation: Correlation) -> str | None:
    """Return the column by which a correlation keeps pods apart; None where it looks at several at once."""
    if within_a_workload(correlation):
        return POD_NAMES[0]
    by = [set(names) for names in zip(*correlation.keys, strict=True)]
    return next((name for name in POD_NAMES if {name} in by), None)


def _run(job: Job, options: RunOptions, span: Span | None) -> None:
    sink.prepare(str(job.directory), events=job.write_events)
    flags = list(options.flags)
    if not any(flag == "--runner" or flag.startswith("--runner=") for flag in flags):
        # named, since the bare DirectRunner first tries to download another one
        flags.append("--runner=FnApiRunner")
    try:
        with watched(), _pipeline(flags) as pipeline:
            whole = options.range_bytes is None and reads_alone(pipeline.options)
            build(pipeline, job, replace(options, range_bytes=WHOLE_FILES) if whole else options, span)
    except Exception:
        # what stands in the output directory from an earlier run stays; an interrupted job may go on elsewhere
        with suppress(Exception):
            sink.clean_up(str(job.directory))
        raise


def reads_alone(options: PipelineOptions) -> bool:
    """Tell whether one process does all: to cut files for it gains nothing and costs a look at all lines."""
    in_process = options.view_as(StandardOptions).runner == "FnApiRunner"
    return bool(in_process and options.view_as(DirectOptions).direct_num_workers == 1)


def _pipeline(flags: list[str]) -> beam.Pipeline:
    try:
        return beam.Pipeline(options=PipelineOptions(flags))
    except ValueError as error:  # options that a runner needs and does not have
        raise DefinitionError([Problem("command line", 0, " ".join(str(error).split()))]) from error
