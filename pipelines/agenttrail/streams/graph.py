"""From a job to a graph that does not end, and the run of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import msgspec
import orjson
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from agenttrail.accounting import ACCOUNT, DEAD
from agenttrail.casebook.desk import SafePoint, name_of
from agenttrail.casebook.ledger import Changes
from agenttrail.casebook.terms import Terms
from agenttrail.errors import SinkError, shortened
from agenttrail.formats import FORMATS
from agenttrail.jobs import KINDS, report, view_of
from agenttrail.sinks import files as sink
from agenttrail.sinks.saying import KeepAccounts, KeepDead, Say
from agenttrail.sinks.versions import SAFE_POINT, Versions
from agenttrail.sources.documents import RereadDocuments
from agenttrail.sources.positions import Position
from agenttrail.sources.stream import ARRIVALS, BlocksOf, Sizes
from agenttrail.sources.watermarks import MedianTime, Pace
from agenttrail.streams.runs import execute
from agenttrail.streams.tally import TALLY
from agenttrail.telling import tell
from agenttrail.transforms.casework import SAID, Casework, Opening, Pacing
from agenttrail.transforms.sifting import DELIVERIES, Sift

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrail.job_files import Job
    from agenttrail.sinks.versions import Stored
    from agenttrail.sources.stream import StreamSpec

_LOG = logging.getLogger(__name__)
_A_YEAR = 31_536_000
_RUNNER = "PrismRunner"
_PORTABLE = {
    "--environment_type": "LOOPBACK",  # all state is held by this process, which is where functions run
    "--job_server_timeout": str(_A_YEAR),  # also bounds how long state may be asked for: it is five minutes otherwise
}
_FLINK = {
    "--parallelism": "1",
    "--max_bundle_time_mills": "200",  # Beam's own spelling: what came is handed on so soon
    "--shutdown_sources_after_idle_ms": "0",  # otherwise a job outlives its sources
}


@dataclass(frozen=True)
class StreamOptions:
    """What one run adds to its job.

    Attributes:
        to_end: end with what is there at the beginning, instead of going on.
        lateness: how far behind what its part has reached a line may be, in microseconds, beyond the disorder.
        pace: of the watermarks; its disorder is how far behind a line may be without being late at all.
        pacing: how often is judged.
        sizes: of blocks.
        flags: options of Beam.
    """

    to_end: bool = False
    lateness: int = 600_000_000
    pace: Pace = field(default_factory=Pace)
    pacing: Pacing = field(default_factory=Pacing)
    sizes: Sizes = field(default_factory=Sizes)
    flags: tuple[str, ...] = ()


def build(
    pipeline: beam.Pipeline,
    job: Job,
    streams: Mapping[int, StreamSpec],
    options: StreamOptions,
    stored: Stored | None = None,
) -> None:
    """Build the graph of ``job`` on ``pipeline``.

    Args:
        pipeline: empty.
        job: what to run.
        streams: by number of the job's source, what it reads from.
        options: of the run.
        stored: what an earlier run left.
    """
    terms = terms_of(job)
    directory = str(job.directory)
    starts = {} if stored is None else _starts(directory, stored.safe_point)
    anew = frozenset(number for number, source in enumerate(job.sources) if FORMATS[source.format].gives != "events")
    deliveries, dead, accounts = [], [], []
    for number, spec in streams.items():
        source = job.sources[number]
        format_ = FORMATS[source.format]
        blocks = BlocksOf(
            number,
            source.format,
            spec,
            headers=format_.headers,
            newest=None if format_.gives == "leases" else MedianTime(source.format, source.settings),
            start=None if number in anew else starts.get(str(number)),
            to_end=options.to_end,
            pace=options.pace,
            sizes=options.sizes,
        )
        read = pipeline | f"Read{number}" >> blocks
        sift = Sift(job.sources, job.rules, job.lists, options.lateness + options.pace.disorder)
        sifted = read[ARRIVALS] | f"Sift{number}" >> sift
        deliveries.append(sifted[DELIVERIES])
        dead += [read[DEAD], sifted[DEAD]]
        accounts += [read[ACCOUNT], sifted[ACCOUNT]]
    together = deliveries[0] if len(deliveries) == 1 else deliveries | "All" >> beam.Flatten()
    opening = Opening(
        terms,
        None if stored is None else stored.safe_point,
        anew,
        None if stored is None else stored.findings,
        () if stored is None else stored.incidents,
        None if stored is None else _sums(directory, stored),
        frozenset(number for number, spec in streams.items() if isinstance(spec, RereadDocuments)),
    )
    keep = max(options.lateness, job.wait)
    cased = together | Casework(str(time.time_ns()), opening, keep, options.pacing)
    said = cased[SAID] | Say(directory, job.elasticsearch)
    for number, letters in enumerate([*dead, cased[DEAD], said[DEAD]]):
        _ = letters | f"KeepDead{number}" >> KeepDead(directory)
    for number, account in enumerate([*accounts, cased[ACCOUNT], said[ACCOUNT]]):
        _ = account | f"KeepAccounts{number}" >> KeepAccounts()


def terms_of(job: Job) -> Terms:
    """Return what a job asks of all that a stream brings."""
    datasets = [
        source.format if FORMATS[source.format].gives == "events" and not FORMATS[source.format].named else None
        for source in job.sources
    ]
    return Terms.of(job.rules, job.correlations, job.lists, KINDS, datasets, view_of(job))


def _starts(directory: str, safe_point: bytes) -> dict[str, dict[str, Position]]:
    """Return from where the parts of each source are read.

    Raises:
        SinkError: what an earlier run wrote down is damaged.
    """
    try:
        needed = SafePoint.from_json(safe_point).needed
        return {source: _positions(places) for source, places in needed.items()}
    except ValueError as error:
        raise _damaged(directory, SAFE_POINT, str(error)) from error


def _sums(directory: str, stored: Stored) -> bytes | None:
    """Return what the safe point of an earlier run names.

    Raises:
        SinkError: it is not there, or not as it was written.
    """
    name = SafePoint.from_json(stored.safe_point).sums
    if name is None:
        return None
    sums = stored.sums.get(name)
    if sums is None:
        raise _damaged(directory, name, "it is gone")
    if name_of(sums) != name:
        raise _damaged(directory, name, "it is not as it was written")
    return sums


def _damaged(directory: str, name: str, why: str) -> SinkError:
    return SinkError(
        f"{sink.join(directory, name)}: is damaged: {shortened(why)}; name another directory with --output to begin "
        "anew"
    )


def _positions(places: Mapping[str, Mapping[str, Any]]) -> dict[str, Position]:
    # where the earlier run was to end does not bind this one, and what it left is known
    return {part: replace(msgspec.convert(place, Position), stop=None, fresh=False) for part, place in places.items()}


def run(job: Job, streams: Mapping[int, StreamSpec], options: StreamOptions) -> dict[str, Any]:
    """Run a job as a stream; returns when its sources have ended, or it was told to end.

    Returns:
        What ``run.json`` says.

    Raises:
        AgentTrailError: the run failed; what it says is for the user.
    """
    directory = str(job.directory)
    if job.elasticsearch:
        from agenttrail.sinks.elasticsearch import ElasticsearchSettings
        from agenttrail.sinks.elasticsearch_upserts import check as check_elasticsearch

        check_elasticsearch(ElasticsearchSettings(**job.elasticsearch))
    with sink.claimed(directory):
        versions = Versions(directory)
        stored = versions.begin()
        _take_back(job, stored)
        TALLY.begin(stored.findings.column("finding.id").to_pylist(), stored.incidents)
        beam_options = PipelineOptions(flags_of(options))
        pipeline = beam.Pipeline(options=beam_options)
        build(pipeline, job, streams, options, stored)
        _tell_start(job, beam_options, stored)
        execute(pipeline)
        summary = _summary(job, versions.finish())
        versions.tell("run.json", orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return summary


def _tell_start(job: Job, beam_options: PipelineOptions, stored: Stored) -> None:
    runner = beam_options.view_as(StandardOptions).runner
    since = SafePoint.from_json(stored.safe_point)
    goes_on = bool(since.read)
    facts = {
        "job": job.name,
        "directory": str(job.directory),
        "elasticsearch": bool(job.elasticsearch),
        "sources": [source.format for source in job.sources],
        "runner": runner,
        "safe_point": str(Path(str(job.directory)) / SAFE_POINT) if goes_on else None,
        "findings": len(TALLY.findings),
        "incidents": len(TALLY.incidents),
    }
    how = "goes on from its safe point" if goes_on else "begins"
    tell(_LOG, "started", f"{job.name} {how} on {runner}: {len(job.sources)} sources to {job.directory}", **facts)


def _summary(job: Job, counted: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return what ``run.json`` says; whose events are changes as leases come, so that none are counted by that."""
    told = report(job, TALLY.account, counted) | {"streaming": True, "rows_held": TALLY.rows}
    for counts in (*told["sources"], told["total"]):
        for status in ("attributed", "ambiguous", "unattributed"):
            counts.pop(status)
    return told


def _take_back(job: Job, stored: Stored) -> None:
    """Take back in Elasticsearch what was taken back in the files: the one may have been written and not the other."""
    if not job.elasticsearch or not (stored.gone_findings or stored.gone_incidents):
        return
    from agenttrail.sinks.elasticsearch import ElasticsearchSettings
    from agenttrail.sinks.elasticsearch_changes import ChangesWriter

    gone = [pa.array(ids, pa.string()) for ids in (stored.gone_findings, stored.gone_incidents)]
    none = Changes.none()
    changes = Changes(none.findings, gone[0], none.incidents, gone[1], none.timeline, gone[1])
    ChangesWriter(ElasticsearchSettings(**job.elasticsearch)).write(changes)


def flags_of(options: StreamOptions) -> list[str]:
    """Return Beam's options: what a stream needs, and where no runner is named the one for one machine."""
    flags = [*options.flags, "--streaming"]
    named = {flag.partition("=")[0] for flag in flags}
    if "--runner" not in named:
        flags.append(f"--runner={_RUNNER}")
    defaults: dict[str, str] = {}
    if any(_RUNNER in flag for flag in flags):
        from agenttrail.prism import install

        if "--prism_location" not in named:
            flags.append(f"--prism_location={install()}")
        # one of its own, which ends with it; and bundles stay whole: it miscounts those with timers when it splits them
        flags += [f"--experiments={name}" for name in ("disable_prism_server_singleton", "prism_disable_sdf_split")]
        defaults = _PORTABLE
    elif any(name in flag for flag in flags for name in ("PortableRunner", "FlinkRunner")):
        defaults = _PORTABLE | _FLINK
    return flags + [f"{name}={value}" for name, value in defaults.items() if name not in named]
