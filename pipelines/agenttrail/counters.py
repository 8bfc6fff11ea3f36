"""What a run counts, as metrics of Beam, which every runner shows in its own way.

Counted is where accounts and dead letters pass, once a block or batch and never by row.  Names are ours, and of rules
the ids that the job's rules have: nothing that stands in a log becomes one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from agenttrail.accounting import Account

NAMESPACE = "agenttrail"


@cache
def _counter(name: str) -> Any:
    return Metrics.counter(NAMESPACE, name)


@cache
def _distribution(name: str) -> Any:
    return Metrics.distribution(NAMESPACE, name)


def count(account: Account) -> None:
    """Count what an account says."""
    for (_, what), some in account.counts.items():
        _counter(what).inc(some)
    for rule, some in account.hits.items():
        _counter(f"rule_hits.{rule}").inc(some)
    for whose, some in account.whose.items():
        _counter(".".join(["findings", *filter(None, whose)])).inc(some)
    for (kind, result), some in account.written.items():
        _counter(f"elasticsearch.{kind}.{result}").inc(some)
    for what, some in account.besides.items():
        _counter(what).inc(some)


def count_letters(letters: pa.RecordBatch) -> None:
    """Count dead letters, which are all of one stage."""
    if letters.num_rows:
        _counter(f"dead_letters.{letters.column('error.stage')[0].as_py()}").inc(letters.num_rows)


def observe(rows: int, lag: int | None) -> None:
    """Take note of how a stream stands.

    Args:
        rows: that are held.
        lag: microseconds from what its watermark has passed to now; None while that is not known.
    """
    Metrics.gauge(NAMESPACE, "rows_held").set(rows)
    if lag is not None:
        _distribution("watermark_lag_ms").update(lag // 1000)


class _Count(beam.DoFn):
    def process(self, account: Account) -> Iterator[Account]:
        count(account)
        yield account


class Count(beam.PTransform):
    """Accounts to the same, counted."""

    def expand(self, accounts: beam.PCollection[Account]) -> Any:
        """Return the accounts."""
        return accounts | beam.ParDo(_Count())
