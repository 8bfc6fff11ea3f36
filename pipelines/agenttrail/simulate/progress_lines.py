"""Reports of progress as training loops write them: JSON lines with the names that the program knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from agenttrail.simulate.clock import instant, millis

if TYPE_CHECKING:
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.gpu_work import Report

_TOKENS = 60_000, 900_000  # of a step


def progress_lines(dice: Dice, found: list[Report], job: str, pod: str) -> list[tuple[float, str]]:
    """Return the lines of one stream, each with the second at which it was written.

    Args:
        dice: what decides.
        found: the reports.
        job: the job that reports, or "".
        pod: the pod that reports, or "".
    """
    spelled, tokens = dice.pick((instant, millis, _seconds)), dice.log_uniform(*_TOKENS)
    loss, lines = dice.uniform(1.5, 4.0), list[tuple[float, str]]()
    names = {"job_id": job} if job else {}
    names |= {"pod": pod} if pod else {}
    for report in found:
        fields: dict[str, object] = {"timestamp": spelled(report.at), **names, "step": report.step}
        if report.took:
            loss = round(max(0.05, loss * dice.uniform(0.985, 1.012)), 4)
            fields |= {"tokens_per_second": round(tokens / report.took, 1), "loss": loss}
        else:
            fields["event"] = "heartbeat"
        lines.append((report.at, orjson.dumps(fields).decode()))
    return lines


def _seconds(at: float) -> float:
    return millis(at) / 1_000
