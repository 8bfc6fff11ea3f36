"""What a stream has counted, as Prometheus reads it.

It is what this process knows: of steps that run in others nothing is seen here, and the metrics of Beam tell
(:mod:`agenttrail.counters`).  Labels are words of ours, numbers and formats of the job's sources, and ids and names of
its rules; what stands in a log is never one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from agenttrail import __version__
from agenttrail.accounting import EVICTED
from agenttrail.errors import AgentTrailError
from agenttrail.streams.halting import HALT
from agenttrail.streams.tally import TALLY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from agenttrail.accounting import Account
    from agenttrail.job_files import Job

OF_SOURCES = {
    "bytes": ("read_bytes", "Bytes of lines that were read."),
    "lines": ("lines", "Lines that were read, those that a restart read again among them."),
    "skipped": ("skipped_lines", "Lines that hold no record: headers, comments, blanks."),
    "dead": ("dead_lines", "Lines that could not be read."),
    "events": ("events", "Events that were in the lines."),
    "leases": ("leases", "Leases that metadata told of."),
    "may_matter": ("kept_events", "Events that may matter to what is said, and entered state."),
    "late": ("late_events", "Events that came too late to be looked at."),
}
"""Counts by source: what an account calls them, their metric without what all names begin with, what it tells."""
STAGES = ("read", "parse", "late", "elasticsearch")


class EndpointError(AgentTrailError):
    """Metrics cannot be served at an address; says why."""


@contextmanager
def served(job: Job, address: str, port: int) -> Iterator[tuple[str, int]]:
    """Serve the metrics of this process over HTTP until the context ends.

    Args:
        job: that runs.
        address: of this machine.
        port: 0 for any that is free.

    Yields:
        Address and port.

    Raises:
        EndpointError: it cannot be listened at.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Exposition(job))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        msg = (
            f"metrics cannot be served at {address} port {port}: {error.strerror or error}; "
            "name another --metrics-port, or 0 for any that is free"
        )
        raise EndpointError(msg) from error
    try:
        yield str(server.server_address[0]), server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Exposition(Collector):
    """Reads the tally whenever it is asked."""

    def __init__(self, job: Job) -> None:
        """Tell of a stream of ``job``."""
        self._name = job.name
        self._formats = [source.format for source in job.sources]
        self._rules = {rule.id: rule.name for rule in job.rules if not rule.off}
        self._rules |= {one.id: one.name for one in job.correlations if not one.off}

    def collect(self) -> Iterator[Metric]:
        """Yield all families as they are now."""
        account = TALLY.counted()
        yield InfoMetricFamily("agenttrail_run", "What runs.", value={"job": self._name, "version": __version__})
        yield from self._of_sources(account)
        yield self._rule_hits(account)
        yield from _counters(account)
        yield from _gauges(len(self._formats))

    def _of_sources(self, account: Account) -> Iterator[Metric]:
        for what, (name, told) in OF_SOURCES.items():
            family = CounterMetricFamily(f"agenttrail_{name}", told, labels=["source", "format"])
            for number, format_ in enumerate(self._formats):
                family.add_metric([str(number), format_], account.counts[number, what])
            yield family

    def _rule_hits(self, account: Account) -> Metric:
        told = "Findings by their rule, each once however often it is told."
        family = CounterMetricFamily("agenttrail_rule_hits", told, labels=["rule", "name"])
        for id_, name in self._rules.items():
            family.add_metric([id_, name], account.hits[id_])
        return family


def _counters(account: Account) -> Iterator[Metric]:
    """Yield what only grows and is no source's."""
    told = "The same findings by their attribution."
    yield _counter("attributions", told, ("status", "level"), account.whose.items())
    letters = [((stage,), TALLY.letters[stage]) for stage in STAGES]
    yield _counter("dead_letters", "Dead letters by the stage that they come from.", ("stage",), letters)
    told = "Documents sent to Elasticsearch, by what became of them."
    yield _counter("elasticsearch_documents", told, ("kind", "result"), account.written.items())
    told = "Requests to Elasticsearch that failed and were to be sent again."
    yield _counter("elasticsearch_retries", told, (), [((), TALLY.retries)])
    told = "Rows that were let go of, since nothing that comes can need them."
    yield _counter("evicted_rows", told, (), [((), account.besides[EVICTED])])
    seconds = [((step,), spent) for step, spent in account.seconds.items()]
    yield _counter("busy_seconds", "Seconds for which steps were busy.", ("step",), seconds)


def _gauges(sources: int) -> Iterator[Metric]:
    """Yield how the stream stands."""
    now = time.time()
    yield _gauge("rows_held", "Rows that are held, since what comes may need them.", TALLY.rows)
    yield _gauge("findings", "Findings that hold.", len(TALLY.findings))
    yield _gauge("incidents", "Incidents that hold.", len(TALLY.incidents))
    lag = None if TALLY.passed is None else now - TALLY.passed / 1e6
    told = "From the event time that the stream has passed to now; from its first step of a minute on."
    yield _gauge("watermark_lag_seconds", told, lag)
    written = None if TALLY.written is None else TALLY.written / 1e6
    yield _gauge("last_written_timestamp_seconds", "When something was judged and written last.", written)
    told = "Whether every source has been read to its end since the start."
    yield _gauge("caught_up", told, float(len(TALLY.read_up) >= sources))
    yield _gauge("draining", "Whether the stream has been told to end.", float(HALT.asked))


def _counter(name: str, told: str, labels: Iterable[str], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = CounterMetricFamily(f"agenttrail_{name}", told, labels=list(labels))
    for words, value in sorted(values):
        family.add_metric(list(words), value)
    return family


def _gauge(name: str, told: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(f"agenttrail_{name}", told)
    if value is not None:
        family.add_metric([], value)
    return family
