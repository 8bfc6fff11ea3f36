"""GPU counters as DCGM's exporter gives them out and a scraper writes them down: Prometheus text with timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate.clock import millis
from agenttrail.simulate.gpu_work import gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Node, Pod
    from agenttrail.simulate.gpu_work import Phase

METRICS = (
    "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
)  # fmt: skip
HEADER = "\n".join(f"# TYPE {metric} gauge" for metric in METRICS)
BLANK = "9223372036854775794"
"""What DCGM gives out for a value that it does not know (DCGM_INT64_NOT_FOUND)."""
_BLANK = 1 / 1_500  # share of the values
_SETTINGS = (15.0, 30.0)  # seconds between two scrapes, at least and at most
_MODEL = "NVIDIA-H20"


class Scrape(NamedTuple):
    """All samples of one pod's GPUs of one moment: lines, and whether each holds a measurement."""

    at: float
    lines: list[tuple[str, bool]]


class Exporter(NamedTuple):
    """How the GPUs of a node are read.

    Attributes:
        every: seconds between two scrapes.
        pod: name of the exporter's own pod, under which the series stand; "" where they stand under the workload's.
    """

    every: float
    pod: str


def exporter_of(dice: Dice, place: int) -> Exporter:
    """Return the exporter of the how-manieth node; on every third the scraper's labels come first."""
    return Exporter(round(dice.uniform(*_SETTINGS)), f"dcgm-exporter-{dice.letters(5)}" if place % 3 == 1 else "")


def scrapes(dice: Dice, pod: Pod, exporter: Exporter, found: list[Phase]) -> Iterator[Scrape]:
    """Yield what is read of a pod's GPUs over some phases."""
    series = [_series(pod, exporter, number) for number in range(pod.gpus)]
    memory = dice.whole(24_000, 88_000)
    at = found[0].start + dice.uniform(0.2, exporter.every)
    for phase in found:
        while at < phase.end:
            stamp, lines = f" {millis(at)}", list[tuple[str, bool]]()
            for use, watts, held, tensor in series:
                seen = gauge(dice, phase.kind, memory)
                lines += (
                    (f"{use}{seen.use}{stamp}", True), (f"{watts}{seen.watts}{stamp}", True),
                    (f"{held}{seen.memory}{stamp}", True), (f"{tensor}{seen.tensor}{stamp}", True),
                )  # fmt: skip
            if dice.happens(_BLANK * len(lines)):
                place = dice.whole(0, len(lines) - 1)
                lines[place] = f"{series[place // len(METRICS)][place % len(METRICS)]}{BLANK}{stamp}", False
            yield Scrape(at, lines)
            at += exporter.every + dice.uniform(-0.2, 0.2)


def _series(pod: Pod, exporter: Exporter, number: int) -> tuple[str, ...]:
    """Return how the lines of one GPU begin, by metric."""
    gpu = f'gpu="{number}",UUID="{_uuid(pod, number)}",device="nvidia{number}",modelName="{_MODEL}"'
    whose = f'container="workspace",namespace="{pod.namespace}",pod="{pod.name}"'
    if exporter.pod:
        own = f'container="exporter",namespace="monitoring",pod="{exporter.pod}"'
        whose = ",".join(f"exported_{label}" for label in whose.split(",")) + f",{own}"
    host = pod.node.name if pod.node else ""
    return tuple(f'{metric}{{{gpu},Hostname="{host}",{whose}}} ' for metric in METRICS)


def _uuid(pod: Pod, number: int) -> str:
    """Return the id of a GPU: those of an address stay there and pass from pod to pod, as the address does."""
    node: Node | None = pod.node
    machine = node.network.vpc[-8:] if node else ""
    block, place = (int(part) for part in pod.addresses[0].split(".")[2:])
    return f"GPU-{machine}-{block:04x}-{place:04x}-{number:012x}"
