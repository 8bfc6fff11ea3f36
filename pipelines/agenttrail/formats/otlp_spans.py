"""Spans of agents and trainers, as OTLP JSON lines: tool calls, training steps, and trajectories (leases, too).

Source: the JSON encoding of OTLP and the GenAI conventions of OpenTelemetry; the spans of ROLL.  One line holds many
spans.  Three kinds are read, by what they say of themselves:

* ``gen_ai.operation.name`` = ``execute_tool``: a tool call;
* the name ``pipeline_step``: a step of training;
* the name ``trajectory``: one rollout of an agent.  It gives a lease as well, without an address.

All other spans, and lines of metrics, logs or profiles, are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.secrets import scrub
from agenttrail.columns.text import choose, constant
from agenttrail.metadata import lease_batch
from agenttrail.parsing import EARLIEST, LATEST, Block, Format, Lines, Parsed, dead_letters, sift
from agenttrail.schema import IDENTITY, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

DATASET = "otlp_spans"
TOOL, STEP, TRAJECTORY = "execute_tool", "pipeline_step", "trajectory"
"""The kinds of spans that are read, which become ``event.action``."""
_OUTCOMES = ("success", "failure")
_ERRORS = (2, "2", "STATUS_CODE_ERROR")
_ABSENT = msgspec.Raw(b"")
_TEXT = {
    "gen_ai.operation.name": "gen_ai.operation.name",
    "gen_ai.tool.name": "gen_ai.tool.name",
    "gen_ai.tool.call.id": "gen_ai.tool.call.id",
    "gen_ai.tool.call.arguments": "gen_ai.tool.call.arguments",
    "gen_ai.conversation.id": "gen_ai.conversation.id",
    "trajectory.id": "traj_id",
}
"""Event columns, and the attributes of the span that they are."""
_LARGEST = 1 << 63
_READ = {
    *_TEXT.values(), "global_step", "gen_ai.agent.id", "gen_ai.agent.name", "k8s.pod.name", "k8s.pod.uid",
    "k8s.namespace.name", "k8s.node.name", "host.name",
}  # fmt: skip
_COLUMNS = (*_TEXT, "trace.id", "span.id", *(name for name in IDENTITY if name not in ("trajectory.id", "job.id")))


_SCRUBBED = ("gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.conversation.id")
_LARGEST_SHARED = 4_096
"""Bytes of a resource that are repeated with each of its spans."""


class _RefusedError(ValueError):
    """A span, or more, cannot be used; the message says why."""


class _Value(msgspec.Struct, rename="camel", gc=False):
    string_value: str | None = None
    int_value: int | float | str | None = None
    double_value: float | str | None = None
    bool_value: bool | None = None
    array_value: msgspec.Raw = _ABSENT
    kvlist_value: msgspec.Raw = _ABSENT


class _Attribute(msgspec.Struct, gc=False):
    key: str
    value: _Value | None = None


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_Attribute] | None = None


class _Status(msgspec.Struct, gc=False):
    code: int | str | None = None


class _Span(msgspec.Struct, rename="camel", gc=False):
    name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    start_time_unix_nano: int | float | str | None = None
    end_time_unix_nano: int | float | str | None = None
    attributes: list[_Attribute] | None = None
    status: _Status | None = None


class _ScopeSpans(msgspec.Struct, gc=False):
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel", gc=False):
    resource: msgspec.Raw = _ABSENT
    scope_spans: list[_ScopeSpans] | None = None


class _Line(msgspec.Struct, rename="camel", gc=False):
    resource_spans: list[msgspec.Raw] | None = None
    resource_metrics: msgspec.Raw = _ABSENT
    resource_logs: msgspec.Raw = _ABSENT
    resource_profiles: msgspec.Raw = _ABSENT


_LINE, _RESOURCE_SPANS, _RESOURCE, _SPAN = (
    msgspec.json.Decoder(shape) for shape in (_Line, _ResourceSpans, _Resource, _Span)
)


@dataclass
class _Found:
    """What the lines of a block gave.

    Attributes:
        rows: line of each event.
        originals: the span of each event, with its resource.
        events: event columns and their values; times in microseconds.
        refused: spans that are refused beside others that are not: line, original, reason.
    """

    rows: list[int] = field(default_factory=list)
    originals: list[bytes] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    refused: list[tuple[int, bytes, str]] = field(default_factory=list)


class Parser:
    """Parses block after block of one source."""

    def __call__(self, block: Block) -> Parsed:
        """Turn a block of lines into events, one for each span that is read, and leases, one for each trajectory.

        ``event.original`` is the span as it was written, in an OTLP line of its own with its resource, of which only
        what is read is kept where it takes more than 4 KiB: the same line gives the same event again, and a span that
        was exported twice is the same event twice.

        A line is dead if none of its spans can be read.  Where some can, each of the others becomes a dead letter of
        its own, again a line with its resource, and ``lines`` counts it as one line more: so ``lines`` stays the sum
        of lines with events, skipped lines and dead letters.  Spans are looked at one by one, in Python.
        """
        lines = Lines(block.data)
        found = _Found()
        rows, kept = sift(lines, block.data)
        for row, raw in zip(rows.tolist(), kept.to_pylist(), strict=True):
            _read_line(lines, found, row, raw)
        offsets = block.places(lines.lines)
        dead = lines.dead_letters(block, DATASET)
        if found.refused:
            dead = _in_order(dead, _dead_spans(found, offsets, block.path))
        leases = lease_batch(
            [_lease(event) for event in found.events if event["event.action"] == TRAJECTORY], block.path
        )
        return Parsed(
            _event_batch(found, offsets, block.path), dead, len(lines) + len(found.refused), lines.skipped, leases
        )


def _read_line(lines: Lines, found: _Found, row: int, raw: bytes) -> None:
    """Add the spans of one line to ``found``, or say in ``lines`` what became of it."""
    try:
        records = list(_records(raw))
    except _RefusedError as error:
        lines.refuse(np.array([row]), str(error))
        return
    good = [(original, event) for original, event in records if isinstance(event, dict)]
    refused = [(row, original, reason) for original, reason in records if isinstance(reason, str)]
    if refused and len(refused) == len(records):
        lines.refuse(np.array([row]), refused[0][2])
        return
    found.refused += refused
    if not good:
        lines.skip(np.array([row]))
    found.rows += [row] * len(good)
    found.originals += [original for original, _ in good]
    found.events += [event for _, event in good]


def _records(raw: bytes) -> Iterator[tuple[bytes, dict[str, Any] | str | None]]:
    """Yield each span of a line, with its resource, and what it gives: an event, nothing, or why it is refused.

    Raises:
        _RefusedError: the line holds no spans.
    """
    line = _decoded(_LINE, raw)
    if line.resource_spans is None:
        if _ABSENT is line.resource_metrics is line.resource_logs is line.resource_profiles:
            msg = "not an OTLP line: it has no resourceSpans"
            raise _RefusedError(msg)
        return
    for entry in line.resource_spans:
        try:
            group = _decoded(_RESOURCE_SPANS, entry)
            resource = _attributes(_decoded(_RESOURCE, group.resource).attributes if _given(group.resource) else None)
        except _RefusedError as error:
            yield b'{"resourceSpans":[%b]}' % bytes(entry), str(error)
            continue
        shared = _shared(group.resource, resource)
        if len(shared) > _LARGEST_SHARED:
            yield b'{"resourceSpans":[%b]}' % bytes(entry), "what the resource is called takes more than 4 KiB"
            continue
        for scope in group.scope_spans or ():
            for span in scope.spans or ():
                original = b'{"resourceSpans":[{%b"scopeSpans":[{"spans":[%b]}]}]}' % (shared, bytes(span))
                try:
                    yield original, _event(_decoded(_SPAN, span), resource)
                except _RefusedError as error:
                    yield original, str(error)


def _shared(raw: msgspec.Raw, read: dict[str, str]) -> bytes:
    """Return the resource as its spans carry it: as it was written, of a large one only what is read of it."""
    if not _given(raw):
        return b""
    written = bytes(raw)
    if len(written) > _LARGEST_SHARED:
        kept = [{"key": key, "value": {"stringValue": value}} for key, value in sorted(read.items())]
        written = orjson.dumps({"attributes": kept})
    return b'"resource":%b,' % written


def _given(raw: msgspec.Raw) -> bool:
    return raw is not _ABSENT and bytes(raw) != b"null"


def _decoded(decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise _RefusedError(str(error)) from error
    except RecursionError as error:
        msg = "nested too deeply"
        raise _RefusedError(msg) from error


def _attributes(given: list[_Attribute] | None) -> dict[str, str]:
    """Return the attributes that are read, as text."""
    texts = {one.key: _text(one.value) for one in given or () if one.key in _READ}
    return {key: text for key, text in texts.items() if text is not None}


def _event(span: _Span, resource: dict[str, str]) -> dict[str, Any] | None:
    """Return what a span gives by event column, or None if it is of no kind that is read."""
    own = _attributes(span.attributes)
    tool = own.get("gen_ai.operation.name") == TOOL
    if not tool and span.name not in (STEP, TRAJECTORY):
        return None
    kind = TOOL if tool else span.name
    start = _time(span.start_time_unix_nano, "startTimeUnixNano")
    if start is None:
        msg = "the span has no startTimeUnixNano"
        raise _RefusedError(msg)
    end = _time(span.end_time_unix_nano, "endTimeUnixNano")
    if kind == TRAJECTORY and own.get("traj_id") is None:
        msg = "the trajectory has no traj_id"
        raise _RefusedError(msg)
    return {
        "event.start": start,
        "event.end": None if end is None else max(start, end),
        "event.action": kind,
        "event.outcome": int(span.status is not None and span.status.code in _ERRORS),
        "trace.id": span.trace_id or None,
        "span.id": span.span_id or None,
        "training.step": _step(own.get("global_step")) if kind == STEP else None,
        **{name: own.get(key) for name, key in _TEXT.items()},
        **_holder(own, resource),
    }


def _holder(own: dict[str, str], resource: dict[str, str]) -> dict[str, str | None]:
    """Return whose a span is: the resource knows places best, the span its agent."""
    places = own | resource
    agents = resource | own
    pod, host = places.get("k8s.pod.name"), places.get("host.name")
    return {
        "gen_ai.agent.id": agents.get("gen_ai.agent.id") or agents.get("gen_ai.agent.name"),
        "sandbox.id": pod,
        # inside a pod, what calls itself host is the pod
        "host.name": places.get("k8s.node.name") or (None if host == pod else host),
        "k8s.namespace.name": places.get("k8s.namespace.name"),
        "k8s.pod.uid": places.get("k8s.pod.uid"),
    }


def _text(value: _Value | None) -> str | None:
    """Return a value as text, JSON where it is a list or a map; None for the empty string."""
    if value is None:
        return None
    for plain in (value.string_value, value.int_value, value.double_value):
        if plain is not None:
            return str(plain) or None
    if value.bool_value is not None:
        return str(value.bool_value).lower()
    if _given(value.array_value):
        return _nested_text(b'{"arrayValue":%b}', value.array_value)
    return _nested_text(b'{"kvlistValue":%b}', value.kvlist_value) if _given(value.kvlist_value) else None


def _nested_text(shape: bytes, raw: msgspec.Raw) -> str:
    """Return a list or a map as the JSON that it stands for, or as it was written if it stands for none."""
    try:
        return orjson.dumps(_plain(orjson.loads(shape % bytes(raw)))).decode()
    except (orjson.JSONDecodeError, RecursionError, AttributeError, KeyError, TypeError):  # JSONEncodeError is the last
        return bytes(raw).decode()


def _plain(value: Any) -> Any:
    """Return what an OTLP value stands for."""
    if not value:
        return None
    kind, content = next(iter(value.items()))
    if kind == "arrayValue":
        return [_plain(one) for one in content.get("values") or ()]
    if kind == "kvlistValue":
        return {one["key"]: _plain(one.get("value") or {}) for one in content.get("values") or ()}
    if kind == "intValue" and isinstance(content, str) and _is_integer(content):
        return int(content)
    return content


def _is_integer(text: str) -> bool:
    """Tell whether text spells an integer of at most 64 bits."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 19 and abs(int(digits)) < _LARGEST  # noqa: PLR2004 - digits of 2^63


def _time(value: float | str | None, name: str) -> int | None:
    """Return the microseconds of a number of nanoseconds, None where there is none, or none yet."""
    if isinstance(value, str):
        if value and not _is_integer(value):
            msg = f"{name} is not a number of nanoseconds"
            raise _RefusedError(msg)
        value = int(value or 0)
    if not value:
        return None
    if not EARLIEST <= value // 1_000 < LATEST:
        msg = f"{name} lies outside of the years 2000 to 2100"
        raise _RefusedError(msg)
    return int(value // 1_000)


def _step(text: str | None) -> int | None:
    """Return the number of a step; a step without a number is still one."""
    if text is None:
        return None
    text = text.removesuffix(".0")
    if not _is_integer(text) or int(text) < 0:
        msg = "global_step is not a whole number from 0"
        raise _RefusedError(msg)
    return int(text)


def _lease(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lease that a trajectory is."""
    times = {"lease.start": event["event.start"], "lease.end": event["event.end"]}
    return times | {name: event[name] for name in IDENTITY if name in event}


def _event_batch(found: _Found, offsets: NDArray[np.int64], path: str) -> pa.RecordBatch:
    events, count = found.events, len(found.events)
    starts = pa.array([event["event.start"] for event in events], pa.int64())
    ends = pa.array([event["event.end"] for event in events], pa.int64())
    outcomes = np.array([event["event.outcome"] for event in events], dtype=np.int8)
    columns = {
        "event.dataset": constant(DATASET, count),
        "event.start": starts.cast(TIMESTAMP),
        "event.end": pc.coalesce(ends, starts).cast(TIMESTAMP),
        "event.action": pa.array([event["event.action"] for event in events], pa.string()),
        "event.outcome": choose(outcomes, _OUTCOMES),
        "training.step": pa.array([event["training.step"] for event in events], pa.int64()),
        **{name: _names([event[name] for event in events], name) for name in _COLUMNS},
        "event.original": pa.array(found.originals, pa.binary()),
        "log.file.path": constant(path, count),
        "log.offset": pa.array(offsets[np.array(found.rows, dtype=np.int64)]),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _names(values: list[str | None], name: str) -> pa.Array:
    """Return a column of text; what names nothing that is joined by is scrubbed here, as it is written everywhere."""
    column = pa.array(values, pa.string())
    return scrub(column) if name in _SCRUBBED else column


def _dead_spans(found: _Found, offsets: NDArray[np.int64], path: str) -> pa.RecordBatch:
    rows, originals, reasons = zip(*found.refused, strict=True)
    places = offsets[np.array(rows, dtype=np.int64)]
    return dead_letters(pa.array(originals, pa.binary()), path, places, DATASET, pa.array(reasons, pa.string()))


def _in_order(*parts: pa.RecordBatch) -> pa.RecordBatch:
    """Return dead letters in the order of their lines; those of one line keep theirs."""
    together = pa.Table.from_batches(parts).combine_chunks()
    order = np.argsort(together.column("log.offset").to_numpy(), kind="stable")
    return together.take(pa.array(order)).combine_chunks().to_batches()[0]


FORMAT = Format(name=DATASET, gives="both", parser=lambda _settings: Parser(), kind="agent spans", named=True)
