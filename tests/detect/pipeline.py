"""The pure functions from attributed events to findings, as the graph chains them, over any batches and shards."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from agenttrail.accounting import ACCOUNT, Account
from agenttrail.columns.addresses import format_addresses
from agenttrail.columns.batches import joined
from agenttrail.schema import ADDRESS, conform, record
from agenttrail.transforms.detecting import _Detect
from agenttrail.transforms.gathering import _Gather

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenttrail.detect.rules import Rule
    from agenttrail.transforms.parsing import Source


def found_in(
    batches: Sequence[tuple[int, pa.RecordBatch]],
    sources: Sequence[Source],
    rules: Sequence[Rule],
    lists: Mapping[str, tuple[str, ...]],
    shards: int = 1,
    bundle: int = 3,
) -> tuple[pa.RecordBatch, Account]:
    """Return the findings of all batches, in no order, and the account; ``bundle`` batches end a bundle."""
    account = Account()
    detect, gather = _Detect(sources, rules, lists, shards), _Gather(rules, (), lists)
    signals: dict[int, list[bytes]] = defaultdict(list)
    for first in range(0, len(batches), bundle):
        detect.start_bundle()
        outputs = [output for element in batches[first : first + bundle] for output in detect.process(element)]
        for shard, some in _told([*outputs, *detect.finish_bundle()], account):
            signals[shard].append(some)
    parts = [batch for element in signals.items() for _, batch in _told(gather.process(element), account)]
    return (joined(parts) if parts else conform(_nothing(), record("finding"))), account


def _told(outputs: Any, account: Account) -> list[Any]:
    """Return the elements of the main output; add up the accounts."""
    elements = []
    for output in outputs:
        tagged = isinstance(output, beam.pvalue.TaggedOutput)
        value = output.value if tagged else output
        value = value.value if isinstance(value, WindowedValue) else value  # as the end of a bundle gives them
        if not tagged:
            elements.append(value)
        elif output.tag == ACCOUNT:
            account.add(value)
    return elements


def _nothing() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], pa.string())], names=["finding.id"])


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return a batch as rows in which addresses are text."""
    columns = {name: _texts(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _texts(column: pa.Array) -> list[Any]:
    if column.type == ADDRESS:
        return list(format_addresses(column).to_pylist())
    if pa.types.is_list(column.type) and column.type.value_type == ADDRESS:
        return [
            None if one is None else format_addresses(pa.array(one, ADDRESS)).to_pylist() for one in column.to_pylist()
        ]
    if pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type):
        structs = column.flatten()
        inner = rows_of(pa.RecordBatch.from_arrays(structs.flatten(), names=[field.name for field in structs.type]))
        bounds = [0, *column.value_lengths().to_numpy().cumsum().tolist()]
        return [inner[first:last] for first, last in pairwise(bounds)]
    return list(column.to_pylist())
