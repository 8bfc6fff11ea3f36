"""Spans of OTLP lines: each is an event of its own, whatever stands beside it, and none is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block, Parsed

_PARSE = FORMATS["otlp_spans"].parser({})
_START = 1_772_409_600
_ARGUMENTS = "gen_ai.tool.call.arguments"
_POD = {"k8s.pod.name": "rollout-1", "k8s.namespace.name": "rl", "k8s.pod.uid": "u-1", "k8s.node.name": "node-1"}


def _value(value: Any) -> dict[str, Any]:
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": _value(one)} for key, one in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {} if value is None else {kinds[type(value)]: value}


def _attributes(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _span(name: str, attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    nanos = str(_START * 1_000_000_000)
    return {"name": name, "startTimeUnixNano": nanos, "attributes": _attributes(attributes)} | more


def _tool(arguments: Any = "ls", **more: Any) -> dict[str, Any]:
    called = {"gen_ai.operation.name": "execute_tool", _ARGUMENTS: arguments}
    return _span("execute_tool bash", called, **more)


def _line(*spans: Any, resource: dict[str, Any] | None = None) -> bytes:
    held = {"attributes": _attributes(_POD if resource is None else resource)}
    return json.dumps({"resourceSpans": [{"resource": held, "scopeSpans": [{"spans": list(spans)}]}]}).encode() + b"\n"


def _parsed(data: bytes) -> Parsed:
    parsed: Parsed = _PARSE(Block(data, "spans", 0))
    assert parsed.lines == parsed.with_records + parsed.skipped + parsed.dead.num_rows
    return parsed


def _events(data: bytes) -> list[dict[str, Any]]:
    parsed = _parsed(data)
    assert parsed.dead.num_rows == 0
    rows: list[dict[str, Any]] = parsed.events.to_pylist()
    return rows


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('{"cmd": "ls"}', '{"cmd": "ls"}'),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        ({"cmd": "ls", "n": 1, "all": [True, None, {"x": 0.5}]}, '{"cmd":"ls","n":1,"all":[true,null,{"x":0.5}]}'),
        ([], "[]"),
        ("", None),
        (None, None),
    ],
)
def test_arguments_are_text_whatever_their_type(value: Any, text: str | None) -> None:
    (event,) = _events(_line(_tool(value)))
    assert event["gen_ai.tool.call.arguments"] == text


@pytest.mark.parametrize("nanos", [str(_START * 10**9 + 1_999), _START * 10**9 + 1_999])
def test_times_come_as_text_or_numbers(nanos: Any) -> None:
    (event,) = _events(_line(_tool(startTimeUnixNano=nanos, endTimeUnixNano="0")))
    assert event["event.start"].timestamp() == _START + 0.000001
    assert event["event.end"] == event["event.start"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (None, "success"),
        ({}, "success"),
        ({"code": 1}, "success"),
        ({"code": 2}, "failure"),
        ({"code": "STATUS_CODE_ERROR", "message": "x"}, "failure"),
    ],
)
def test_an_error_is_a_failure(status: Any, outcome: str) -> None:
    assert _events(_line(_tool(status=status)))[0]["event.outcome"] == outcome


@pytest.mark.parametrize(
    ("resource", "own", "expected"),
    [
        (_POD, {}, ("rollout-1", "node-1", None)),
        (_POD, {"k8s.pod.name": "claimed", "gen_ai.agent.name": "named"}, ("rollout-1", "node-1", "named")),
        ({"k8s.pod.name": "p", "host.name": "p"}, {"gen_ai.agent.id": "a"}, ("p", None, "a")),
        ({"host.name": "node-9", "gen_ai.agent.id": "r"}, {}, (None, "node-9", "r")),
        ({"gen_ai.agent.id": "r", "gen_ai.agent.name": "n"}, {"gen_ai.agent.id": "a"}, (None, None, "a")),
    ],
)
def test_the_resource_says_where_and_the_span_who(resource: Any, own: Any, expected: tuple[Any, ...]) -> None:
    (event,) = _events(_line(_span("pipeline_step", own), resource=resource))
    assert (event["sandbox.id"], event["host.name"], event["gen_ai.agent.id"]) == expected


def test_a_trajectory_is_an_event_and_a_lease_without_an_address() -> None:
    ends = str((_START + 60) * 10**9)
    finished = _span("trajectory", {"traj_id": "t-1", "env_id": 3}, endTimeUnixNano=ends)
    running = _span("trajectory", {"traj_id": 7})
    parsed = _parsed(_line(finished, _tool(), running))
    assert parsed.leases is not None
    assert parsed.events.column("event.action").to_pylist() == ["trajectory", "execute_tool", "trajectory"]
    assert parsed.events.column("trajectory.id").to_pylist() == ["t-1", None, "7"]
    one, other = parsed.leases.to_pylist()
    assert (one["trajectory.id"], one["sandbox.id"], one["k8s.pod.uid"]) == ("t-1", "rollout-1", "u-1")
    assert (one["lease.start"].timestamp(), one["lease.end"].timestamp()) == (_START, _START + 60)
    assert (other["trajectory.id"], other["lease.end"], other["lease.address"]) == ("7", None, None)
    assert one["log.file.path"] == "spans"


@pytest.mark.parametrize(("value", "step"), [(41, 41), ("42", 42), (43.0, 43), (None, None)])
def test_a_step_has_the_number_that_it_says(value: Any, step: int | None) -> None:
    (event,) = _events(_line(_span("pipeline_step", {"global_step": value})))
    assert (event["event.action"], event["training.step"]) == ("pipeline_step", step)


def test_other_spans_and_other_signals_are_skipped() -> None:
    chat = _span("chat", {"gen_ai.operation.name": "chat"}, startTimeUnixNano="never")
    parsed = _parsed(
        _line(chat, chat) + _line() + b'{"resourceLogs":[]}\n{"resourceSpans":[]}\n' + _line(chat, _tool())
    )
    assert (parsed.lines, parsed.skipped, parsed.dead.num_rows, parsed.events.num_rows) == (5, 4, 0, 1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (_tool(startTimeUnixNano=None), "the span has no startTimeUnixNano"),
        (_tool(startTimeUnixNano="soon"), "startTimeUnixNano is not a number of nanoseconds"),
        (_tool(startTimeUnixNano=_START), "startTimeUnixNano lies outside of the years 2000 to 2100"),
        (_tool(endTimeUnixNano="4291747200000000000"), "endTimeUnixNano lies outside of the years 2000 to 2100"),
        (_span("trajectory", {}), "the trajectory has no traj_id"),
        (_span("pipeline_step", {"global_step": "many"}), "global_step is not a whole number from 0"),
        (_span("pipeline_step", {"global_step": -1}), "global_step is not a whole number from 0"),
        (5, "Expected `object`, got `int`"),
        (_tool() | {"attributes": {"a": 1}}, "Expected `array | null`, got `object` - at `$.attributes`"),
    ],
)
def test_a_bad_span_costs_itself(bad: Any, reason: str) -> None:
    parsed = _parsed(_line(_tool("before"), bad, _tool("after")))
    assert parsed.events.column("gen_ai.tool.call.arguments").to_pylist() == ["before", "after"]
    assert (parsed.lines, parsed.with_records) == (2, 1)
    assert parsed.dead.column("error.message").to_pylist() == [reason]
    again = _parsed(parsed.dead.column("event.original")[0].as_py())
    assert again.dead.to_pylist() == parsed.dead.to_pylist()  # alone in its line, as which it can be replayed
    whole = _parsed(_line(bad, bad))
    assert (whole.lines, whole.events.num_rows, whole.dead.num_rows) == (1, 0, 1)
    assert whole.dead.column("event.original").to_pylist() == [_line(bad, bad).rstrip()]


def test_a_bad_resource_costs_its_spans() -> None:
    good = json.loads(_line(_tool()))["resourceSpans"][0]
    bad = {"resource": {"attributes": 7}, "scopeSpans": [{"spans": [_tool()]}]}
    parsed = _parsed(json.dumps({"resourceSpans": [bad, good]}).encode())
    assert (parsed.lines, parsed.events.num_rows, parsed.dead.num_rows) == (2, 1, 1)
    assert json.loads(parsed.dead.column("event.original")[0].as_py()) == {"resourceSpans": [bad]}


@pytest.mark.parametrize("deep", [b'{"a":' * 100_000, b'{"resourceSpans":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_what_is_nested_too_deeply_is_refused(deep: bytes) -> None:
    parsed = _parsed(deep + b"\n" + _line(_tool()))
    assert (parsed.events.num_rows, parsed.dead.num_rows) == (1, 1)


@pytest.mark.parametrize("depth", [1, 270])
def test_arguments_of_no_sound_shape_are_told_as_they_stand(depth: int) -> None:
    """Else who calls a tool could keep the call from being seen."""
    value: Any = {"arrayValue": 5}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    odd = _tool()
    odd["attributes"][1]["value"] = value
    (event, _) = _events(_line(odd, _tool()))
    assert json.loads(event["gen_ai.tool.call.arguments"]) == value["arrayValue"]


_SPANS = st.one_of(
    st.builds(_tool, st.text(max_size=5) | st.integers() | st.lists(st.booleans(), max_size=2)),
    st.builds(lambda step: _span("pipeline_step", {"global_step": step}), st.integers(-1, 9) | st.just("x")),
    st.builds(lambda id_: _span("trajectory", {"traj_id": id_}), st.sampled_from(["t", 1, None])),
    st.just(_span("chat", {})),
    st.sampled_from([5, None, {}, {"name": 5}]),
)
_RESOURCES = st.sampled_from([_POD, {}, {"host.name": "h"}])
_LINES = st.lists(
    st.builds(lambda spans, resource: _line(*spans, resource=resource), st.lists(_SPANS, max_size=4), _RESOURCES)
    | st.sampled_from([b"\n", b"{\n", b"\xff\n", b'{"resourceMetrics":[]}\n']),
    max_size=8,
)


@given(lines=_LINES, data=st.data())
def test_blocks_may_be_cut_at_any_line_end(lines: list[bytes], data: st.DataObject) -> None:
    together = _parsed(b"".join(lines))
    at, parts = 0, []
    while lines:
        count = data.draw(st.integers(1, len(lines)))
        parts.append(_PARSE(Block(b"".join(lines[:count]), "spans", at)))
        at += sum(map(len, lines[:count]))
        lines = lines[count:]
    for name in ("events", "dead", "leases"):
        rows = [row for part in parts for row in getattr(part, name).to_pylist()]
        assert rows == getattr(together, name).to_pylist()
    assert sum(part.lines for part in parts) == together.lines
    assert sum(part.skipped for part in parts) == together.skipped


@given(lines=_LINES)
def test_what_stands_in_an_event_is_a_line_that_gives_it_again(lines: list[bytes]) -> None:
    parsed = _parsed(b"".join(lines))
    for event in parsed.events.to_pylist():
        (again,) = _events(event["event.original"])
        assert again == event | {"log.offset": 0}


@given(lines=_LINES)
def test_every_span_is_an_event_a_skip_or_a_dead_letter(lines: list[bytes]) -> None:
    """By a plain reading of the lines; the parser's own account is checked on the way."""
    parsed = _parsed(b"".join(lines))
    events, refused = [], 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            refused += bool(line.strip())
            continue
        spans = [
            _judged(span) for span in record.get("resourceSpans", [{}])[0].get("scopeSpans", [{}])[0].get("spans", [])
        ]
        bad = spans.count("bad")
        refused += bad if bad < len(spans) else bool(spans)
        events += [kind for kind in spans if kind not in ("bad", "other")]
    assert parsed.events.column("event.action").to_pylist() == events
    assert parsed.dead.num_rows == refused


def _judged(span: Any) -> str:
    if not isinstance(span, dict) or not isinstance(span.get("name", ""), str):
        return "bad"
    own = {one["key"]: one["value"] for one in span.get("attributes", [])}
    if "gen_ai.operation.name" in own:
        return "execute_tool"
    if span.get("name") == "trajectory":
        return "trajectory" if own["traj_id"] else "bad"
    if span.get("name") == "pipeline_step":
        return "pipeline_step" if own["global_step"].get("intValue", -1) >= 0 else "bad"
    return "other"


@pytest.mark.parametrize(("key", "read"), [("padding", 300), ("k8s.pod.name", 0)])
def test_a_large_resource_is_not_repeated_with_each_span(key: str, read: int) -> None:
    """A line of a megabyte would else become hundreds of them; what the spans are about is read all the same."""
    span = {
        "name": "trajectory", "startTimeUnixNano": f"{_START}000000000",
        "attributes": [{"key": "traj_id", "value": {"stringValue": "t1"}}],
    }  # fmt: skip
    named = [
        {"key": key, "value": {"stringValue": "x" * 200_000}},
        {"key": "host.name", "value": {"stringValue": "n1"}},
    ]
    entry = {"resource": {"attributes": named}, "scopeSpans": [{"spans": [span] * 300}]}
    parsed = _PARSE(Block(json.dumps({"resourceSpans": [entry]}).encode() + b"\n", "a", 0))
    assert parsed.events.num_rows == read
    assert parsed.events.nbytes < 300_000
    assert parsed.dead.num_rows == (not read)
    assert set(parsed.events.column("host.name").to_pylist()) == ({"n1"} if read else set())


def test_names_that_hold_secrets_are_scrubbed() -> None:
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mysql --password=hunter2hunter2"}
    span = {"name": "x", "startTimeUnixNano": f"{_START}000000000", "attributes": _attributes(attributes)}
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode() + b"\n"
    assert _PARSE(Block(line, "a", 0)).events.column("gen_ai.tool.name").to_pylist() == ["mysql --password=[REDACTED]"]
