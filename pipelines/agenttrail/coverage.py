"""What a run could not see: whole kinds of telemetry, and of which workloads something is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.detect.analytics.gpu_progress import GAPS, NO_PROGRESS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SANDBOXES, SILENT_AGENTS, WITH_GPUS = "sandboxes", "sandboxes without a tool call", "sandboxes with GPU samples"
"""What coverage counts, beside the gaps of ``gpu_progress``; of sandboxes of which any row matters."""
UNMET = "trajectory spans without a lease"
"""Spans of trajectories that name no pod, or one of which no lease is known."""
_SPANS, _GPUS, _PROGRESS = "agent spans", "GPU counters", "training progress"
_WITHOUT = {
    _SPANS: "no source tells of tool calls: findings name none, and what rules ask of tool calls is not seen",
    _GPUS: "no source tells of GPUs: their use is not seen",
    _PROGRESS: "no source tells of training progress: GPUs that are busy without a step are not seen",
}


def unseen(kinds: Collection[str], coverage: Mapping[str, int]) -> list[str]:
    """Return what could not be seen, as sentences.

    Args:
        kinds: kinds of the sources that a job has, as their formats call them.
        coverage: workloads by what was seen, or could not be seen, of them.
    """
    said = [told for kind, told in _WITHOUT.items() if kind not in kinds]
    if _SPANS in kinds and coverage.get(SILENT_AGENTS):
        said.append(f"{coverage[SILENT_AGENTS]} of {coverage[SANDBOXES]} sandboxes have no tool call in the spans")
    if coverage.get(UNMET):
        said.append(
            f"{coverage[UNMET]} trajectory spans name no pod with a lease: whose work it was is not known there"
        )
    gaps = [what for what in GAPS if coverage.get(what) and (what != NO_PROGRESS or _PROGRESS in kinds)]
    return said + [f"{coverage[what]} workloads with GPU samples have a gap: {what}" for what in gaps]
