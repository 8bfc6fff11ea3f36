"""Blocks of lines to events and leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa

from agenttrail import attribute as attribution
from agenttrail.accounting import ACCOUNT, DEAD, EVENTS, Account
from agenttrail.columns.text import constant
from agenttrail.formats import FORMATS
from agenttrail.transforms.timed import LEASES, Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agenttrail.parsing import Block, Parsed


@dataclass(frozen=True)
class Source:
    """What the graph needs to know of one source of a job.

    Attributes:
        name: for messages.
        format: format id.
        settings: what its parser is made of.
        scope: constant scope, or None.
        scope_column: event column that holds the scope, or None.
    """

    name: str
    format: str
    settings: Mapping[str, Any]
    scope: str | None = None
    scope_column: str | None = None


class _Parse(Timed):
    stage = "parse"

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._parsers: dict[int, Callable[[Block], Parsed]] = {}

    def process(self, block: Block) -> Iterator[Any]:
        started = self._started()
        source = self._sources[block.source]
        parser = self._parsers.get(block.source)
        if parser is None:
            parser = self._parsers[block.source] = FORMATS[source.format].parser(source.settings)
        parsed = parser(block)
        events = with_scope(parsed.events, source)
        account = parsed_account(block, parsed, FORMATS[source.format].gives)
        account.seconds.update(self._seconds(started))
        if events.num_rows:
            yield (block.source, events)
        if parsed.leases is not None and parsed.leases.num_rows:
            leases = parsed.leases
            if source.scope is not None:
                leases = attribution.with_columns(leases, {"lease.scope": constant(source.scope, leases.num_rows)})
            yield beam.pvalue.TaggedOutput(LEASES, (block.source, leases))
        if parsed.dead.num_rows:
            yield beam.pvalue.TaggedOutput(DEAD, parsed.dead)
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)


def parsed_account(block: Block, parsed: Parsed, gives: str) -> Account:
    """Return the books of a block of a format that ``gives`` events or leases."""
    counts = {"lines": parsed.lines, "skipped": parsed.skipped, "dead": parsed.dead.num_rows, "bytes": len(block.data)}
    given = {"with_events": parsed.with_records, "leases" if gives == "leases" else "events": parsed.events.num_rows}
    if parsed.leases is not None:
        given["leases"] = parsed.leases.num_rows
    return Account.of(block.source, **counts, **given, without_zone=parsed.without_zone)


def with_scope(events: pa.RecordBatch, source: Source) -> pa.RecordBatch:
    """Add ``attribution.scope``: the source's constant, or a copy of the column that it names."""
    if source.scope_column is not None and source.scope_column in events.schema.names:
        return attribution.with_columns(events, {"attribution.scope": events.column(source.scope_column)})
    if source.scope is not None:
        return attribution.with_columns(events, {"attribution.scope": constant(source.scope, events.num_rows)})
    return events


class Parse(beam.PTransform):
    """Blocks to (source, events) or (source, leases); dead letters, accounts, and leases beside events next to them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Parse blocks of ``sources``."""
        super().__init__()
        self._sources = sources

    def expand(self, blocks: beam.PCollection[Block]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(_Parse(self._sources)).with_output_types(tuple[int, pa.RecordBatch])
        return blocks | outputs.with_outputs(DEAD, ACCOUNT, LEASES, main=EVENTS)
