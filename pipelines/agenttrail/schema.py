"""The record types, from ``schemas/*.yml``: Arrow schemas, index mappings, rule fields and their reference.

A batch in flight may leave out columns (an absent column is all null) but never changes a type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from agenttrail.resources import shipped

TIMESTAMP = pa.timestamp("us", tz="UTC")
"""Times: microseconds since 1970, UTC."""
ADDRESS = pa.binary(16)
"""Addresses: 16 bytes in network order; IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2)."""
ENUM = pa.dictionary(pa.int8(), pa.string())
"""Columns with few, fixed values."""
IDENTITY = (
    "gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name", "k8s.namespace.name", "k8s.pod.uid",
)  # fmt: skip
"""What a lease says of its holder: the identity ladder and the names beside it."""

_ARROW = {
    "keyword": pa.string(),
    "text": pa.string(),
    "ip": ADDRESS,
    "port": pa.int32(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": TIMESTAMP,
    "enum": ENUM,
}
_INDEX: dict[str, dict[str, object]] = {
    # A longer value is kept in the document but not indexed: Lucene refuses terms above 32,766 bytes.
    "keyword": {"type": "keyword", "ignore_above": 8191},
    "text": {"type": "text"},
    "ip": {"type": "ip", "ignore_malformed": True},
    "port": {"type": "integer"},
    "long": {"type": "long"},
    "integer": {"type": "integer"},
    "double": {"type": "double"},
    "boolean": {"type": "boolean"},
    "timestamp": {"type": "date"},
    "enum": {"type": "keyword", "ignore_above": 8191},
    "object": {"type": "object", "enabled": False},
}


@dataclass(frozen=True)
class Field:
    """One column, rule field and index field.

    Attributes:
        name: flat dotted name (ECS where ECS has one).
        type: type word of ``schemas/*.yml``.
        description: one sentence.
        list: whether the field holds several values.
        values: the values of an enum.
        required: whether a row without it is refused.
    """

    name: str
    type: str
    description: str
    list: bool = False
    values: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Record:
    """One record type: its fields in the order of its file."""

    name: str
    description: str
    fields: dict[str, Field]

    def arrow(self, names: list[str] | None = None) -> pa.Schema:
        """Return the Arrow schema of all fields, or of ``names`` in that order."""
        return pa.schema([(name, arrow_type(self.fields[name])) for name in names or self.fields])


# What evidence shows of an event, in this order; the rest can be read from the original line.
EVIDENCE = (
    "event.id", "event.dataset", "event.start", "event.end", "event.action", "event.outcome",
    "source.ip", "source.port", "source.nat.ip", "destination.ip", "destination.port", "destination.nat.ip",
    "destination.domain", "network.transport", "network.direction", "network.community_id", "network.application",
    "source.bytes", "destination.bytes", "rule.id", "rule.name", "rule.category", "observer.name",
    "gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.arguments",
    "metric.name", "metric.value", "gpu.id", "training.step",
    "event.original", "log.file.path", "log.offset",
)  # fmt: skip


@cache
def record(name: str) -> Record:
    """Read the record type ``name`` from ``schemas/<name>.yml``."""
    text = (shipped("schemas") / f"{name}.yml").read_text(encoding="utf-8")
    document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C where there is one
    fields = [Field(**{**entry, "values": tuple(entry.get("values", ()))}) for entry in document["fields"]]
    return Record(document["record"], document["description"], {field.name: field for field in fields})


@cache
def evidence_type() -> pa.DataType:
    """Return the Arrow type of one event inside ``finding.evidence``."""
    fields = record("event").fields
    plain = {name: arrow_type(fields[name]) for name in EVIDENCE}
    return pa.struct([(name, pa.string() if type_ == ENUM else type_) for name, type_ in plain.items()])


def arrow_type(field: Field) -> pa.DataType:
    """Return the Arrow type of ``field`` in flight."""
    type_ = evidence_type() if field.type == "object" else _ARROW[field.type]
    return pa.list_(type_) if field.list else type_


def conform(batch: pa.RecordBatch, to: Record) -> pa.RecordBatch:
    """Return ``batch`` with every column of ``to`` in order: absent ones null, types cast, others dropped."""
    schema = to.arrow()
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            columns.append(cast(batch.column(index), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return ``column`` as ``type_``; dictionaries are decoded or encoded as needed."""
    if column.type == type_:
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if type_ == ENUM:
        encoded = pc.dictionary_encode(column)
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int8()), encoded.dictionary)
    return column.cast(type_)


def index_mappings(of: Record) -> dict[str, object]:
    """Return the Elasticsearch mapping of ``of``: strict, so that a field unknown to the schema is refused."""
    return {"dynamic": "strict", "properties": {name: _INDEX[field.type] for name, field in of.fields.items()}}


def field_reference() -> str:
    """Return the reference of all record types as Markdown."""
    parts = ["# Field reference", "", "Made from `schemas/*.yml` by `make docs`; a test holds the two together.", ""]
    for name in ("event", "lease", "finding", "incident", "timeline"):
        type_ = record(name)
        parts += [f"## {type_.name}", "", type_.description, "", "| field | type | meaning |", "|---|---|---|"]
        for field in type_.fields.values():
            values = f": {', '.join(field.values)}" if field.values else ""
            many = " (several)" if field.list else ""
            parts.append(f"| `{field.name}` | {field.type}{values}{many} | {field.description} |")
        parts.append("")
    return "\n".join(parts)
