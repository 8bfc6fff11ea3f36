"""One match of a rule as a predicate over columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import format_addresses, present
from agenttrail.columns.dictionaries import asked_once
from agenttrail.columns.networks import parse_network
from agenttrail.detect.expressions import COMPARISONS, Match, Op
from agenttrail.schema import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agenttrail.columns.networks import Network

NUMBERS = ("port", "long", "integer", "double")
_PORTS = 65_536

Mask = "NDArray[np.bool_]"


def networks_of(match: Match, lists: Mapping[str, tuple[str, ...]]) -> list[Network] | None:
    """Return the networks that a match of an address field asks for, None if it asks something else."""
    if not match.field or record("event").fields[match.field].type != "ip":
        return None
    if match.op in (Op.NETWORK, Op.EQUALS):
        return [parse_network(str(match.value))]
    if match.op is Op.LIST:
        return [parse_network(entry) for entry in lists[str(match.value)]]
    return None


def port_table(match: Match, lists: Mapping[str, tuple[str, ...]]) -> NDArray[np.bool_] | None:
    """Return the answer for each port, and for none at the end; None if this is no question about ports."""
    if not match.field or record("event").fields[match.field].type != "port":
        return None
    if match.op not in COMPARISONS | {Op.EQUALS, Op.LIST, Op.EXISTS}:
        return None
    ports = pa.array(np.append(np.arange(_PORTS), -1), mask=np.append(np.zeros(_PORTS, bool), True))
    return evaluate_column(match, ports, lists)


def evaluate(match: Match, batch: pa.RecordBatch, lists: Mapping[str, tuple[str, ...]]) -> NDArray[np.bool_]:
    """Return which rows of a batch match; a column that the batch lacks holds nothing."""
    name = match.field or "event.original"
    index = batch.schema.get_field_index(name)
    if index < 0:
        return np.full(batch.num_rows, match.op is Op.EXISTS and not match.value)
    column = batch.column(index)
    if match.op is Op.FIELD:
        other = batch.schema.get_field_index(str(match.value))
        return np.zeros(batch.num_rows, bool) if other < 0 else _evaluate_fields(match, column, batch.column(other))
    return asked_once(
        column, lambda plain: evaluate_column(match, plain, lists), match.op is Op.EXISTS and not match.value
    )


def evaluate_column(match: Match, column: pa.Array, lists: Mapping[str, tuple[str, ...]]) -> NDArray[np.bool_]:
    """Return which values of a plain column match."""
    if match.op is Op.EXISTS:
        known = present(column)
        return known if match.value else ~known
    if match.op is Op.LIST:
        return _in_list(column, lists[str(match.value)], cased=match.cased)
    if match.op in COMPARISONS or (match.op is Op.EQUALS and _is_numeric(column)):
        return _mask(_compare(match, column))
    return _mask(_match_text(match, as_text(column)))


def _is_numeric(column: pa.Array) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _mask(result: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(result, fill_value=False).to_numpy(zero_copy_only=False), dtype=bool)


def _compare(match: Match, column: pa.Array) -> pa.Array:
    value = float(match.value)
    bound = pa.scalar(int(value)) if value.is_integer() else pa.scalar(value)
    kernels = {
        Op.EQUALS: pc.equal,
        Op.LESS: pc.less,
        Op.AT_MOST: pc.less_equal,
        Op.MORE: pc.greater,
        Op.AT_LEAST: pc.greater_equal,
    }
    return kernels[match.op](column, bound)


def as_text(column: pa.Array) -> pa.Array:
    """Return a column as rules see it as text: addresses in canonical form, numbers in digits, times in ISO 8601."""
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_fixed_size_binary(column.type):
        return format_addresses(column)
    if pa.types.is_binary(column.type):
        return column.cast(pa.string())
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_list(column.type):
        return pc.binary_join(column, "\n")
    return column.cast(pa.string())


def _match_text(match: Match, text: pa.Array) -> pa.Array:
    value, fold = str(match.value), not match.cased
    if match.op is Op.REGEX:
        return pc.match_substring_regex(text, value)
    if match.op is Op.CONTAINS:
        return pc.match_substring(text, value, ignore_case=fold)
    if match.op is Op.STARTS_WITH:
        return pc.starts_with(text, value, ignore_case=fold)
    if match.op is Op.ENDS_WITH:
        return pc.ends_with(text, value, ignore_case=fold)
    return pc.equal(pc.utf8_lower(text), value.lower()) if fold else pc.equal(text, value)


def _in_list(column: pa.Array, entries: tuple[str, ...], *, cased: bool) -> NDArray[np.bool_]:
    text = as_text(column)
    if not cased:
        text, entries = pc.utf8_lower(text), tuple(entry.lower() for entry in entries)
    return _mask(pc.is_in(text, value_set=pa.array(entries, pa.string()), skip_nulls=True)) & present(column)


def _evaluate_fields(match: Match, column: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Return the rows whose two fields agree as asked."""
    left, right = (
        as_text(one.dictionary_decode() if pa.types.is_dictionary(one.type) else one) for one in (column, other)
    )
    if not match.cased:
        left, right = pc.utf8_lower(left), pc.utf8_lower(right)
    if match.how is Op.EQUALS:
        return _mask(pc.equal(left, right))
    # The start or end of each value, as long as the other field's value is; sliced length by length, of which there
    # are few.
    lengths = pc.binary_length(right)
    out = np.zeros(len(left), dtype=bool)
    for length in pc.unique(lengths.drop_null()).to_pylist():
        rows = np.flatnonzero(_mask(pc.equal(lengths, length)))
        mine, theirs = left.take(pa.array(rows)).cast(pa.binary()), right.take(pa.array(rows)).cast(pa.binary())
        part = (
            pc.binary_slice(mine, 0, length)
            if match.how is Op.STARTS_WITH
            else pc.binary_reverse(pc.binary_slice(pc.binary_reverse(mine), 0, length))
        )
        out[rows] = _mask(pc.equal(part, theirs))
    return out
