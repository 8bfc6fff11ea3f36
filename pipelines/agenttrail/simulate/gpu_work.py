"""What GPUs are at all day: training with steps, evaluating, waiting, loading a checkpoint - or what they are not for.

Phases take as long as users of such clusters see them take; a report of progress comes with every step, and every
minute or so in between as a sign of life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice

TRAIN, EVALUATE, IDLE, RELOAD, DIVERTED = "train", "evaluate", "idle", "reload", "diverted"


class Phase(NamedTuple):
    """A stretch of one kind of work; seconds since the start of the day."""

    start: float
    end: float
    kind: str


class Report(NamedTuple):
    """One report of progress.

    Attributes:
        at: second of the day.
        took: seconds that its step took; 0 for a sign of life without one.
    """

    at: float
    step: int
    took: float


class Gauge(NamedTuple):
    """What the counters of one GPU show: per cent, watts, MiB, and the share of time that tensor cores are at work."""

    use: int
    watts: float
    memory: int
    tensor: float


_HEARTBEAT = 60.0  # seconds
_LENGTHS = {  # seconds
    "sandbox": {TRAIN: (300, 2_400), EVALUATE: (180, 1_200), IDLE: (120, 900)},
    "trainer": {TRAIN: (1_800, 7_200), EVALUATE: (180, 1_200), IDLE: (120, 900), RELOAD: (60, 300)},
}
_NEXT = {"sandbox": (EVALUATE, EVALUATE, IDLE), "trainer": (EVALUATE, EVALUATE, IDLE, RELOAD)}
_PACES = {"sandbox": (8, 60), "trainer": (20, 120)}
_LOST = 3, 40  # steps since the last checkpoint
_USES = {TRAIN: (80, 99), EVALUATE: (66, 98), IDLE: (0, 4), RELOAD: (0, 12), DIVERTED: (82, 100)}
_DIP = 0.05  # share of the samples of training that fall between two steps


def phases(dice: Dice, who: str, begin: float, finish: float, diverted: tuple[float, float] | None) -> list[Phase]:
    """Return what the GPUs of a "sandbox" or a "trainer" are at, without gaps.

    Args:
        dice: what decides.
        who: whose they are.
        begin: from when.
        finish: until when.
        diverted: from when to when they do somebody else's work, if they do.
    """
    found, at, kind = list[Phase](), begin, IDLE if who == "sandbox" else TRAIN
    length = dice.uniform(20, 150) if kind == IDLE else dice.log_uniform(*_LENGTHS[who][kind])
    while at < finish:
        end = round(min(at + length, finish), 3)
        found.append(Phase(at, end, kind))
        at, kind = end, dice.pick(_NEXT[who]) if kind == TRAIN else TRAIN
        length = dice.log_uniform(*_LENGTHS[who][kind])
    return found if diverted is None else list(_cut_out(found, *diverted))


def _cut_out(found: list[Phase], start: float, end: float) -> Iterator[Phase]:
    """Yield phases with another one put in their place from ``start`` to ``end``."""
    for phase in found:
        if phase.start < start:
            yield phase._replace(end=min(phase.end, start))
    yield Phase(start, end, DIVERTED)
    for phase in found:
        if phase.end > end:
            yield phase._replace(start=max(phase.start, end))


def reports(dice: Dice, who: str, found: list[Phase], first_step: int) -> list[Report]:
    """Return all reports of progress over some phases, in the order of their times.

    After a checkpoint is loaded the steps since then are made once more, under the numbers that they had.
    """
    pace, step = dice.log_uniform(*_PACES[who]), first_step
    made: list[Report] = []
    for phase in found:
        if phase.kind == RELOAD:
            step = max(first_step, step - dice.whole(*_LOST))
        at = phase.start
        while phase.kind == TRAIN:
            took = round(pace * dice.uniform(0.85, 1.2), 3)
            at = round(at + took, 3)
            if at >= phase.end:
                break
            step += 1
            made.append(Report(at, step, took))
    alive = dice.ticks(found[0].start, found[-1].end, _HEARTBEAT) if found else ()
    return _with_heartbeats(made, list(alive), first_step)


def _with_heartbeats(made: list[Report], alive: list[float], step: int) -> list[Report]:
    """Return steps and, among them, signs of life with the step that was made last."""
    every, place = list[Report](), 0
    for at in alive:
        while place < len(made) and made[place].at <= at:
            step = made[place].step
            every.append(made[place])
            place += 1
        every.append(Report(at, step, 0.0))
    return every + made[place:]


def gauge(dice: Dice, kind: str, memory: int) -> Gauge:
    """Return what one sample of a GPU shows in a phase of some kind, with a model of ``memory`` MiB on it."""
    low, high = _USES[kind]
    use = dice.whole(low, high)
    if kind == TRAIN and dice.happens(_DIP):
        use = dice.whole(15, 70)
    held = memory if kind != DIVERTED else memory // 4
    tensor = {TRAIN: 0.0045, EVALUATE: 0.0028}.get(kind, 0.0) * use
    return Gauge(use, round(62 + use * 5.4 + dice.uniform(-15, 15), 3), held + use, round(tensor, 4))
