"""What an incident says of itself in a line and in a sentence.  Values from logs are shown, never interpreted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agenttrail.columns.addresses import format_addresses
from agenttrail.columns.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

_LONGEST = 120  # characters of one value in a sentence
_SHOWN = 3  # peers and rules in a sentence
_ROUNDING = timedelta(microseconds=2)  # a gap is a float of seconds


def summaries(columns: Mapping[str, pa.Array], rules: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return title and summary of each incident.

    Args:
        columns: the incidents' other columns.
        rules: titles of the rules of medium or above that fired, per incident; its title says the first.
    """
    peers = [_texts(peers) for peers in _lists(columns["destination.ip"])]
    ports = columns["destination.port"].to_pylist()
    rows = zip(
        *(
            columns[name].to_pylist()
            for name in ("entity.type", "entity.id", "gen_ai.agent.id", "trajectory.id", "sandbox.id", "host.name")
        ),
        *(
            columns[name].to_pylist()
            for name in ("incident.first_seen", "event.end", "event.count", "attribution.status")
        ),
        _calls(columns),
        strict=True,
    )
    titles, texts = [], []
    for index, row in enumerate(rows):
        titles.append(_title(rules[index], row[0], row[1]))
        texts.append(_summary(row, rules[index], peers[index], ports[index]))
    return titles, texts


def _calls(columns: Mapping[str, pa.Array]) -> list[str]:
    """Return of each incident which tool call came last before it and when, "" where none is known."""
    names = ("gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.call.start", "gen_ai.tool.call.gap")
    rows = zip(*(columns[name].to_pylist() for name in (*names, "incident.first_seen")), strict=True)
    return [_call(*row) for row in rows]


def _call(tool: str | None, call: str | None, start: datetime | None, gap: float | None, first: datetime) -> str:
    if start is None or gap is None:
        return ""
    named = " ".join(shown(value) for value in (tool, call) if value)
    # what was found first may have had no call before it
    part = "part of it " if first - start < timedelta(seconds=gap) - _ROUNDING else ""
    if not gap:
        return f", {part}at {' '.join(filter(None, ('tool call', named)))}"
    # order in time, no cause
    return f", the last tool call before {part or 'it '}{gap:,.1f} s earlier" + (f": {named}" if named else "")


def _lists(column: pa.Array) -> list[pa.Array]:
    return [scalar.values for scalar in column]


def _texts(addresses: pa.Array) -> list[str]:
    return list(format_addresses(addresses).to_pylist()) if addresses is not None and len(addresses) else []


def shown(value: object) -> str:
    """Return a value from a log as it may stand in a line for people: nothing hidden, nothing longer than a line."""
    text = printable(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _enumerated(values: Sequence[object]) -> str:
    texts = [shown(value) for value in values[:_SHOWN]]
    more = len(values) - len(texts)
    return ", ".join(texts) + (f" and {more:,} more" if more > 0 else "")


def _title(rules: Sequence[str], kind: str, entity: str) -> str:
    more = len(rules) - 1
    further = f", and {more} more finding{'' if more == 1 else 's'}" if more else ""
    return f"{rules[0]}{further}{_by(kind, entity)}"


def _by(kind: str, entity: str) -> str:
    return f" by {kind} {shown(entity)}"


def headline(incident: Mapping[str, Any]) -> str:
    """Return the title of an incident that is a document, without who it was: that stands beside it."""
    title, kind = str(incident["incident.title"]), str(incident["entity.type"])
    what = title.removesuffix(_by(kind, str(incident["entity.id"])))
    return what if what != title else title.partition(f" by {kind} ")[0]


def _summary(row: Sequence[Any], rules: Sequence[str], peers: Sequence[str], ports: Sequence[int]) -> str:
    kind, entity, agent, trajectory, sandbox, host, first, last, events, status, call = row
    names = [
        f"{label} {shown(value)}"
        for label, value in (("agent", agent), ("trajectory", trajectory), ("sandbox", sandbox))
        if value
    ]
    who = ", ".join(names) or f"{kind} {shown(entity)}"
    where = f" on {shown(host)}" if host and kind != "host" else ""
    towards = f" towards {_enumerated(peers)}" if peers else ""
    at = f" (port {_enumerated(ports)})" if ports else ""
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    span = f"from {first:%Y-%m-%d %H:%M:%S} to {until} UTC" if first != last else f"at {first:%Y-%m-%d %H:%M:%S} UTC"
    counted = f"{events:,} events in all" if events != 1 else "one event"
    doubt = "" if status == "attributed" else f"  Who it was is {status}."
    return f"{_enumerated(rules)}: {who}{where}{towards}{at} {span}{call}; {counted}.{doubt}"
