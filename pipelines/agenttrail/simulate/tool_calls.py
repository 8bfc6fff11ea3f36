"""The tool calls of a sandbox: one after another, with thought between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenttrail.simulate.tool_text import errand, opaque, telling, with_secret

if TYPE_CHECKING:
    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Pod
    from agenttrail.simulate.tool_text import Errand

_THOUGHT = 9.0, 0.8, 0.8, 120.0
_WORK = 2.5, 1.4, 0.05, 300.0
"""Seconds of thought before a call and of the call itself: median, spread, shortest and longest."""
_FAILURE, _SECRET, _SECRET_OF_CULPRITS = 0.12, 0.008, 0.35
_SETTLING = 0.05  # seconds after the first packet in which no other call starts


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call; times are seconds since the start of the day."""

    id: str
    start: float
    end: float
    errand: Errand
    failed: bool


def tool_calls(dice: Dice, pod: Pod, begin: float, finish: float, behaviour: Behaviour | None) -> list[ToolCall]:
    """Return the calls of a sandbox from ``begin`` to ``finish``, and note in ``behaviour`` the one that it began with.

    That call starts when the behaviour says, and no other between it and the first packet; what it started goes on in
    the background.
    """
    calls: list[ToolCall] = []
    prefix = dice.letters(10)
    at = round(begin + dice.log_normal(*_THOUGHT), 3)
    pending = behaviour
    while at < finish or pending is not None:
        if pending is not None and at >= pending.called:
            call = pending.call = _first_of(dice, pending, finish, f"call_{prefix}{len(calls):04d}")
            at, pending = max(call.end, pending.at + _SETTLING), None
        else:
            latest = finish if pending is None else pending.called
            call = _innocent(dice, pod, (at, latest), f"call_{prefix}{len(calls):04d}")
            at = call.end
        calls.append(call)
        at = round(at + dice.log_normal(*_THOUGHT), 3)
    return calls


def _innocent(dice: Dice, pod: Pod, room: tuple[float, float], name: str) -> ToolCall:
    """Return a call that starts with the ``room`` and is over by its end."""
    at, latest = room
    given = errand(dice, gpus=pod.gpus > 0)
    if dice.happens(_SECRET):
        given = with_secret(dice, given)
    end = round(min(at + dice.log_normal(*_WORK), latest), 3)
    return ToolCall(name, at, end, given, dice.happens(_FAILURE))


def _first_of(dice: Dice, behaviour: Behaviour, finish: float, name: str) -> ToolCall:
    """Return the call that a behaviour began with: its words where it tells, else an opaque command."""
    given = telling(dice, behaviour.telling) if behaviour.tells else opaque(dice)
    if dice.happens(_SECRET_OF_CULPRITS):
        given = with_secret(dice, given)
    end = round(min(behaviour.called + dice.log_uniform(0.05, 30.0), finish), 3)
    return ToolCall(name, behaviour.called, end, given, failed=False)
