"""gather(): from the rows that rules hit to findings, one per rule, entity and peer, each with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.community import community_ids
from agenttrail.columns.groups import (
    agreed,
    distinct_lists,
    group_rows,
    latest_by,
    lists_by,
    max_by,
    min_by,
    ordinals,
    rank_in_group,
    smallest_by,
    sum_by,
)
from agenttrail.columns.ids import content_ids, hexadecimal
from agenttrail.columns.numbers import numbers
from agenttrail.columns.ordering import order_by
from agenttrail.detect.signals import DIGEST, HITS, HOLDER, digest_words
from agenttrail.schema import TIMESTAMP, conform, evidence_type, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.rules import Rule

NOTHING = np.iinfo(np.int64).max
"""Place of the derived event of what rests on none."""
MOST_EVIDENCE = 20
"""Events that a finding shows."""
_LONG_AGO = -(1 << 61)
MOST_LISTED = 100
"""Distinct values of a field that a finding lists, the smallest ones."""
KEY = ("entity.type", "entity.id", "job.id", "entity.anchor")
"""What sets the entity of a finding apart from every other."""
NAMES = (
    "gen_ai.agent.id", "trajectory.id", "sandbox.id", "host.name", "k8s.namespace.name", "k8s.pod.uid",
)  # fmt: skip
"""What it is called, where all agree."""
STATE = ("attribution.status", "attribution.level", "attribution.lease_start")
"""How well it is known, and since when; the least of several."""
LEASE_END = "attribution.lease_end"
_SEVERAL_OF_HOLDER = ("attribution.scope", "attribution.lease_id")
_SEVERAL_OF_ROW = ("network.transport", "network.direction", "event.dataset", "event.outcome", "attribution.reason")


@dataclass(frozen=True)
class Hits:
    """Which rules hit which rows.

    Attributes:
        rows: a row.
        rules: and the number of a rule that hit it, or something that it is part of.
        peerless: whether it was hit as part of something that has no one peer; None where none was.
        units: what the row was hit as part of, where findings are to be kept apart by it; None where they are not.
        fired: place of the derived event that the rule fired on, of those that fired the first first; ``NOTHING`` where
            it fired on the row itself; None where all did.
    """

    rows: NDArray[np.int64]
    rules: NDArray[np.int64]
    peerless: NDArray[np.bool_] | None = None
    units: NDArray[np.int64] | None = None
    fired: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, signals: pa.RecordBatch) -> Hits:
        """Return the hits that travelled with the rows."""
        hits = signals.column(HITS)
        return cls(hits.value_parent_indices().to_numpy().astype(np.int64), numbers(hits.flatten()))


@dataclass(frozen=True)
class Found:
    """Findings, and where they come from.

    Attributes:
        findings: in the shape of the finding record.
        first: the first row that belongs to each.
        unit: the unit of each, 0 where there were none.
        fired: place of the derived event that each first fired on; ``NOTHING`` for those on rows.
    """

    findings: pa.RecordBatch
    first: NDArray[np.int64]
    unit: NDArray[np.int64]
    fired: NDArray[np.int64]


def gather(
    rows: pa.RecordBatch,
    holders: pa.RecordBatch,
    conversations: pa.RecordBatch,
    conversation: NDArray[np.int64],
    rules: Sequence[Rule],
    hits: Hits,
) -> Found:
    """Return the findings on the rows of some entities.

    Args:
        rows: all distinct rows that matter, of these entities, from the whole input.
        holders: whom they are about.
        conversations: what the rows make up together.
        conversation: the conversation of each row, -1 for none.
        rules: all rules of the job.
        hits: which rows to take, and why.

    Returns:
        The findings, sorted by ``finding.id``, and those of one id (there are such with units only) by unit.
    """
    row, rule = hits.rows, hits.rules
    holder = numbers(rows.column(HOLDER))[row]
    peer = peers(rows)
    entity, _ = group_rows([holders.column(name) for name in KEY])
    units = [] if hits.units is None else [pa.array(hits.units)]
    towards = peer["peer.ip"].take(pa.array(row))
    spread = np.empty(0, np.int64) if hits.peerless is None else np.flatnonzero(hits.peerless)
    ends = towards.take(pa.array(spread))
    if hits.peerless is not None:
        towards = pc.if_else(pa.array(hits.peerless), pa.scalar(None, towards.type), towards)
    finding, first = group_rows([pa.array(rule), pa.array(entity[holder]), towards, *units])
    count = len(first)
    columns = _rule_columns(rules, rule[first]) | holder_columns(holders, holder, finding, count)
    columns |= _row_columns(rows, peer["peer.port"], row, finding, count) | {"peer.ip": towards.take(pa.array(first))}
    columns["destination.ip"] = distinct_lists(finding[spread], count, ends, MOST_LISTED)
    columns |= _conversation_columns(conversations, conversation[row], finding, count)
    columns["finding.evidence"], earliest = _evidence(rows, row, finding, count)
    columns["finding.id"] = ids_of(columns)
    columns["incident.id"] = content_ids(["incident", *(columns[name] for name in KEY)])
    found = conform(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)), record("finding"))
    unit = np.zeros(count, np.int64) if hits.units is None else hits.units[first]
    order = order_by(ordinals(found.column("finding.id")), unit)
    fired = np.full(count, NOTHING) if hits.fired is None else min_by(finding, count, hits.fired)
    return Found(found.take(pa.array(order)), earliest[order], unit[order], fired[order])


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _column(rows: pa.RecordBatch, name: str, type_: pa.DataType | None = None) -> pa.Array:
    index = rows.schema.get_field_index(name)
    return pa.nulls(rows.num_rows, type_ or pa.string()) if index < 0 else _plain(rows.column(index))


def peers(rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the end that is not the workload's, which travels as the other end of the row's direction."""
    ingress = pc.fill_null(pc.equal(_column(rows, "network.direction"), "ingress"), fill_value=False)
    return {
        f"peer.{field}": pc.if_else(
            ingress, _column(rows, f"source.{field}", type_), _column(rows, f"destination.{field}", type_)
        )
        for field, type_ in (("ip", pa.binary(16)), ("port", pa.int32()))
    }


def _rule_columns(rules: Sequence[Rule], which: NDArray[np.int64]) -> dict[str, pa.Array]:
    several = pa.list_(pa.string())
    table = {
        "rule.id": pa.array([rule.id for rule in rules], pa.string()),
        "rule.name": pa.array([rule.name for rule in rules], pa.string()),
        "finding.title": pa.array([rule.title for rule in rules], pa.string()),
        "finding.severity": pa.array([rule.severity for rule in rules], pa.string()),
        "rule.reference": pa.array([sorted(rule.references) for rule in rules], several),
        "threat.technique.id": pa.array([list(rule.techniques) for rule in rules], several),
        "threat.tactic.name": pa.array([list(rule.tactics) for rule in rules], several),
        "recommendation": pa.array([list(rule.recommendation) for rule in rules], several),
        "falsepositives": pa.array([list(rule.falsepositives) for rule in rules], several),
    }
    return {name: column.take(pa.array(which)) for name, column in table.items()}


def holder_columns(
    holders: pa.RecordBatch, holder: NDArray[np.int64], finding: NDArray[np.int64], count: int
) -> dict[str, pa.Array]:
    """Return who it is: what all holders of a finding are called.

    They are one entity, but a host or an address may have had several holders on its day.
    """
    _, first = group_rows([pa.array(finding), pa.array(holder)])
    of_finding, of_holder = finding[first], holder[first]
    index = pa.array(of_holder)
    columns = {name: smallest_by(of_finding, count, holders.column(name).take(index)) for name in (*KEY, *STATE)}
    columns[LEASE_END] = latest_by(of_finding, count, holders.column(LEASE_END).take(index))
    for name in NAMES:
        columns[name] = agreed(of_finding, count, holders.column(name).take(index), null_agrees=False)
    for name in _SEVERAL_OF_HOLDER:
        columns[name] = distinct_lists(of_finding, count, holders.column(name).take(index), MOST_LISTED)
    candidates = holders.column("attribution.candidates").take(index)
    owner = of_finding[candidates.value_parent_indices().to_numpy()]
    columns["attribution.candidates"] = distinct_lists(owner, count, candidates.flatten(), MOST_LISTED)
    return columns


def _row_columns(
    rows: pa.RecordBatch,
    ports: pa.Array,
    row: NDArray[np.int64],
    finding: NDArray[np.int64],
    count: int,
) -> dict[str, pa.Array]:
    index = pa.array(row)
    starts = numbers(rows.column("event.start").cast(pa.int64()))[row]
    columns = {
        "peer.port": distinct_lists(finding, count, ports.take(index), MOST_LISTED),
        "event.count": pa.array(np.bincount(finding, minlength=count)),
        "finding.first_seen": pa.array(min_by(finding, count, starts)).view(TIMESTAMP),
        "finding.last_seen": pa.array(max_by(finding, count, starts)).view(TIMESTAMP),
        "event.end": pa.array(max_by(finding, count, np.maximum(starts, _ends(rows)[row]))).view(TIMESTAMP),
    }
    columns["@timestamp"] = columns["finding.first_seen"]
    for name in _SEVERAL_OF_ROW:
        several = rows.column(name) if name in rows.schema.names else _column(rows, name)
        columns[name] = distinct_lists(finding, count, several.take(index), MOST_LISTED)
    return columns


def _ends(rows: pa.RecordBatch) -> NDArray[np.int64]:
    """Return when each row ended, in microseconds; long ago where it does not tell."""
    return numbers(_column(rows, "event.end", TIMESTAMP).cast(pa.int64()), _LONG_AGO)


def _conversation_columns(
    conversations: pa.RecordBatch, conversation: NDArray[np.int64], finding: NDArray[np.int64], count: int
) -> dict[str, pa.Array]:
    """Return what the conversations that a finding's events belong to add up to."""
    known = np.flatnonzero(conversation >= 0)
    _, first = group_rows([pa.array(finding[known]), pa.array(conversation[known])])
    of_finding, which = finding[known][first], conversation[known][first]
    columns = {"network.conversations": pa.array(np.bincount(of_finding, minlength=count))}
    for name in ("source.bytes", "destination.bytes"):
        columns[name] = pa.array(sum_by(of_finding, count, numbers(conversations.column(name))[which]))
    return columns


def _evidence(
    rows: pa.RecordBatch, row: NDArray[np.int64], finding: NDArray[np.int64], count: int
) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the first events of each finding by (start, id), and the row of the very first."""
    starts = numbers(rows.column("event.start").cast(pa.int64()))[row]
    place = rank_in_group(finding, starts, digest_words(rows.column(DIGEST))[row])
    shown = np.flatnonzero(place < MOST_EVIDENCE)
    shown = shown[order_by(finding[shown], place[shown])]
    names = {"network.iana_number", DIGEST, *(field.name for field in evidence_type())}
    taken = rows.select([name for name in rows.schema.names if name in names]).take(pa.array(row[shown]))
    protocol = _column(taken, "network.iana_number", pa.int32())
    ips = [_column(taken, f"{side}.ip", pa.binary(16)) for side in ("source", "destination")]
    ports = [_column(taken, f"{side}.port", pa.int32()) for side in ("source", "destination")]
    computed = {
        "event.id": hexadecimal(taken.column(DIGEST)),
        "network.community_id": community_ids(ips[0], ports[0], ips[1], ports[1], protocol),
    }
    type_ = evidence_type()
    columns = [
        computed[field.name] if field.name in computed else _column(taken, field.name, field.type) for field in type_
    ]
    struct = pa.StructArray.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, type_, strict=True)], fields=list(type_)
    )
    return lists_by(finding[shown], count, struct), row[shown[place[shown] == 0]]


def ids_of(columns: dict[str, pa.Array]) -> pa.Array:
    """A finding is named by its rule, its entity's occupancy and its peer."""
    peer = columns["peer.ip"].cast(pa.binary())
    return content_ids(["finding", columns["rule.id"], *(columns[name] for name in KEY), peer])
