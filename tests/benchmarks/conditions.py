"""The conditions of rules in other words: as SQL for DuckDB, and as Python for a dict per line.

Both are made from the same parsed rules, so that all contestants answer the same questions.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from agenttrail.detect.expressions import And, Expression, Match, Not, Op

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOLS = {"tcp": 6, "udp": 17}
_SQL = {
    "network.transport": "proto", "peer.port": "pport", "destination.port": "dport", "source.bytes": "bytes",
    "source.packets": "packets", "network.initiator": "initiator", "network.direction": "direction",
    "event.outcome": "outcome", "sandbox.id": "sandbox", "job.id": "job", "host.name": "host",
    "attribution.level": "level", "observer.name": "eni", "peer.ip": "peer",
}  # fmt: skip
_WORDS = {
    ("network.transport", "tcp"): "6", ("network.transport", "udp"): "17", ("network.initiator", "workload"): "1",
    ("network.initiator", "peer"): "0", ("network.direction", "egress"): "1", ("network.direction", "ingress"): "0",
    ("event.outcome", "failure"): "1", ("event.outcome", "success"): "0",
}  # fmt: skip
_NULLABLE = {"network.initiator", "network.direction", "sandbox.id", "job.id", "host.name"}


def sql(expression: Expression) -> str:
    """Return a condition over the columns of the table that ``duckdb_job`` makes; lists are boolean columns there."""
    if isinstance(expression, Not):
        return f"(NOT {sql(expression.part)})"
    if not isinstance(expression, Match):
        joint = " AND " if isinstance(expression, And) else " OR "
        return "(" + joint.join(sql(part) for part in expression.parts) + ")"
    return f"coalesce({_atom(expression)}, false)" if expression.field in _NULLABLE else _atom(expression)


def _atom(match: Match) -> str:
    column = _SQL[match.field]
    if match.op is Op.LIST:
        return f"in_{match.value}"
    if match.op is Op.NETWORK:
        return in_network(str(match.value))
    if match.op is Op.AT_LEAST:
        return f"{column} >= {match.value}"
    if match.op is Op.STARTS_WITH:
        return f"starts_with({column}, '{match.value}')"
    if match.op is Op.CONTAINS:
        return f"contains({column}, '{match.value}')"
    if match.op is not Op.EQUALS:
        raise NotImplementedError(match.op)
    if match.field == "peer.ip":
        return in_network(str(match.value))
    word = _WORDS.get((match.field, str(match.value)))
    return f"{column} = {word}" if word else f"{column} = {match.value!r}"


def in_network(network: str) -> str:
    """Return a condition on the number ``peer``."""
    parsed = ipaddress.IPv4Network(network)
    first, last = int(parsed.network_address), int(parsed.broadcast_address)
    return f"peer = {first}" if first == last else f"peer BETWEEN {first} AND {last}"


def python(expression: Expression) -> str:
    """Return a condition over ``e``, an event as a dict of flat names; ``listed(name, address)`` asks a list."""
    if isinstance(expression, Not):
        return f"(not {python(expression.part)})"
    if not isinstance(expression, Match):
        joint = " and " if isinstance(expression, And) else " or "
        return "(" + joint.join(python(part) for part in expression.parts) + ")"
    value = f"e.get({expression.field!r})"
    if expression.op is Op.LIST:
        return f"listed({expression.value!r}, {value})"
    if expression.op is Op.NETWORK:
        return f"inside({value}, {expression.value!r})"
    if expression.op is Op.AT_LEAST:
        return f"({value} or 0) >= {expression.value!r}"
    if expression.op is Op.STARTS_WITH:
        return f"({value} or '').startswith({expression.value!r})"
    if expression.op is Op.CONTAINS:
        return f"{expression.value!r} in ({value} or '')"
    if expression.op is not Op.EQUALS:
        raise NotImplementedError(expression.op)
    return f"{value} == {expression.value!r}"


def list_sql(lists: Mapping[str, tuple[str, ...]]) -> str:
    """Return one boolean column per list."""
    return ", ".join(
        f"({' OR '.join(in_network(entry) for entry in entries)}) AS in_{name}" for name, entries in lists.items()
    )
