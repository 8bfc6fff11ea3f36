"""Spans as an OpenTelemetry collector writes them to a file: OTLP JSON lines, each of what one sender sent at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from agenttrail.simulate.clock import millis

if TYPE_CHECKING:
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Pod
    from agenttrail.simulate.gpu_work import Report
    from agenttrail.simulate.tool_calls import ToolCall

_FLUSHED = 15.0  # seconds after which a sender sends what it has
_MOST = 16  # spans that it sends at once
_BEFORE, _AFTER = (0.05, 1.5), (0.05, 1.5)  # seconds by which a trajectory is longer than its sandbox, at either end
_GROUP = 8  # trajectories that start from one task
_CHAT = 0.25  # share of the calls that a span of the model stands before
_STRUCTURED, _PLAIN = 0.12, 0.08  # share of the calls whose arguments are a map, or a text that is no JSON
_ERROR = {"code": 2, "message": "exit status 1"}


class Sent(NamedTuple):
    """One line, and the second of the day at which it was sent."""

    at: float
    text: str


def sandbox_spans(dice: Dice, pod: Pod, calls: list[ToolCall], horizon: int) -> list[Sent]:
    """Return the lines of one sandbox: its trajectory, and its tool calls.

    A trajectory that goes on at the end of the day has no end yet.
    """
    trace, conversation = dice.hexadecimal(32), dice.uuid()
    resource, spans = _sandbox_resource(dice, pod), _Spans(trace, dice.hexadecimal(8))
    names: dict[str, object] = {"gen_ai.agent.id": pod.agent, "gen_ai.conversation.id": conversation}
    sent: list[Sent] = []
    batch: list[dict[str, Any]] = []
    opened = 0.0
    for call in calls:
        if batch and (call.end - opened > _FLUSHED or len(batch) >= _MOST):
            sent.append(_line(opened + _FLUSHED, resource, batch))
            batch = []
        if not batch:
            opened = call.end
        if dice.happens(_CHAT):
            batch.append(
                spans.make("chat policy", call.start - 0.7, call.start - 0.01, _attributes(_CHAT_SAID | names))
            )
        batch.append(
            spans.make(
                f"execute_tool {call.errand.tool}", call.start, call.end, _call(dice, call, names), failed=call.failed
            )
        )
    if batch:
        sent.append(_line(opened + _FLUSHED, resource, batch))
    start = pod.start - dice.uniform(*_BEFORE)
    end = None if pod.end is None else pod.end + dice.uniform(*_AFTER)
    name = {"traj_id": pod.trajectory, "gen_ai.agent.id": pod.agent, **_task(pod)}
    sent.append(
        _line(horizon if end is None else end, resource, [spans.make("trajectory", start, end, _attributes(name))])
    )
    return sent


def step_spans(dice: Dice, pod: Pod, found: list[Report]) -> list[Sent]:
    """Return the lines of one trainer: a span for each step."""
    spans, said = (
        _Spans(dice.hexadecimal(32), dice.hexadecimal(8)),
        {"service.name": "trainer", "k8s.pod.name": pod.name},
    )
    if pod.node is not None:
        said |= {"k8s.namespace.name": pod.namespace, "host.name": pod.node.name}
    resource = {"attributes": _attributes(said)}
    return [
        _line(
            one.at,
            resource,
            [spans.make("pipeline_step", one.at - one.took, one.at, _attributes({"global_step": one.step}))],
        )
        for one in found
        if one.took
    ]


_CHAT_SAID = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "policy"}


class _Spans:
    """Makes the spans of one trace."""

    def __init__(self, trace: str, prefix: str) -> None:
        self._trace, self._prefix, self._count = trace, prefix, 0

    def make(
        self, name: str, start: float, end: float | None, attributes: list[dict[str, Any]], *, failed: bool = False
    ) -> dict[str, Any]:
        """Return one span."""
        self._count += 1
        span = {
            "traceId": self._trace, "spanId": f"{self._prefix}{self._count:08x}", "name": name, "kind": 1,
            "startTimeUnixNano": _nanos(start), "endTimeUnixNano": "0" if end is None else _nanos(end),
            "attributes": attributes,
        }  # fmt: skip
        return span | {"status": _ERROR} if failed else span


def _call(dice: Dice, call: ToolCall, names: dict[str, object]) -> list[dict[str, Any]]:
    """Return the attributes of a tool call; arguments are mostly JSON in text, as most senders have it."""
    given, draw = call.errand.arguments, dice.uniform()
    said = _attributes({
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": call.errand.tool, "gen_ai.tool.call.id": call.id,
        **names,
    })  # fmt: skip
    if draw < _STRUCTURED:
        value = {"kvlistValue": {"values": _attributes(given)}}
    elif draw < _STRUCTURED + _PLAIN and "command" in given:
        value = _value(given["command"])
    else:
        value = _value(orjson.dumps(given).decode())
    said.append({"key": "gen_ai.tool.call.arguments", "value": value})
    return said


def _sandbox_resource(dice: Dice, pod: Pod) -> dict[str, Any]:
    host = pod.node.name if pod.node and dice.happens(0.5) else pod.name  # inside a pod its name is the host's
    said: dict[str, object] = {
        "service.name": "tool-gate", "k8s.pod.name": pod.name, "k8s.namespace.name": pod.namespace, "host.name": host,
    }  # fmt: skip
    if dice.happens(0.5):
        said["k8s.pod.uid"] = pod.uid
    return {"attributes": _attributes(said)}


def _task(pod: Pod) -> dict[str, object]:
    """Return what a trajectory says of its task: several start from one."""
    episode = int(pod.trajectory.rpartition("ep")[2])
    return {"env_id": f"{pod.agent}/{episode % _GROUP}", "group_id": episode // _GROUP, "episode_id": episode}


def _line(at: float, resource: dict[str, Any], spans: list[dict[str, Any]]) -> Sent:
    scope = {"scope": {"name": "rollout.example"}, "spans": spans}
    return Sent(at, orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).decode())


def _attributes(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in said.items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": value}


def _nanos(second: float) -> str:
    return f"{millis(second)}000000"
