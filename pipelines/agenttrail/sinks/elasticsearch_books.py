"""What a run says of the documents that it sent to Elasticsearch: how many of each fate, and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa

from agenttrail.accounting import ACCOUNT, DEAD, RETRIES, Account
from agenttrail.parsing import dead_letters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.sinks.elasticsearch import DeadDocument, Written

STAGE = "elasticsearch"


def told(kind: str, written: Written) -> Iterator[Any]:
    """Yield the account of what was written, and what was refused as dead letters."""
    counts = {name: getattr(written, name) for name in ("created", "updated", "unchanged", "deleted")}
    account = Account()
    account.written.update({(kind, name): count for name, count in counts.items() if count})
    account.besides[RETRIES] += written.retries
    if written.dead:
        account.written[kind, "refused"] += len(written.dead)
        yield beam.pvalue.TaggedOutput(DEAD, _dead_letters(kind, written.dead))
    yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def _dead_letters(kind: str, dead: list[DeadDocument]) -> pa.RecordBatch:
    """Return refused documents as dead letters; their place is their index and id."""
    originals = pa.array([one.document.encode() for one in dead], pa.binary())
    reasons = pa.array([f"{one.action} {one.index}/{one.id}: {one.reason}" for one in dead])
    nowhere = pa.nulls(len(dead), pa.int64())
    return dead_letters(originals, dead[0].index, nowhere, kind, reasons, STAGE)
