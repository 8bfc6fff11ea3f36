"""What tells of the workloads themselves: spans of agents and trainers, GPU counters, reports of training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate.behaviours import DIVERSION
from agenttrail.simulate.damage import REPORTS, SAMPLES, SPANS
from agenttrail.simulate.delivery import Feed
from agenttrail.simulate.dice import Dice
from agenttrail.simulate.gpu_lines import HEADER, exporter_of, scrapes
from agenttrail.simulate.gpu_work import phases, reports
from agenttrail.simulate.ledger import ATTRIBUTED, Judgement
from agenttrail.simulate.progress_lines import progress_lines
from agenttrail.simulate.scene import scene_of
from agenttrail.simulate.span_lines import sandbox_spans, step_spans
from agenttrail.simulate.tool_calls import tool_calls
from agenttrail.simulate.truth import TELEMETRY, UNMEASURED, Label

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.fleet import Cluster, Pod
    from agenttrail.simulate.gpu_work import Phase, Report
    from agenttrail.simulate.truth import LineTable

_LOGIN = 2.0, 8.0  # seconds from a miner's login until the GPUs are hot
_FIRST_STEPS = 100, 6_000  # of the jobs that were started on an earlier day
_LEAST = 60.0  # seconds at work below which a sandbox shows nothing of its GPUs


class _Work(NamedTuple):
    """What the GPUs of a pod are at, and what is reported of it."""

    pod: Pod
    phases: list[Phase]
    reports: list[Report]


def write_telemetry(
    directory: Path, seed: int, cluster: Cluster, behaviours: Iterable[Behaviour], table: LineTable, horizon: int
) -> list[str]:
    """Write the telemetry of a cluster below ``directory``; note every line in ``table``.

    What is missing of a sandbox is not written.  The tool calls that the behaviours began with are noted in them.

    Returns:
        The secrets that were planted in tool calls.
    """
    cloud, name = cluster.network.cloud, cluster.network.cluster
    guilty = {one.pod: one for one in behaviours}
    sandboxes = cluster.of_role("sandbox")
    dice = Dice(seed, f"gpu work {cloud}")
    work = [_sandbox_work(dice, cluster, pod, guilty.get(pod), horizon) for pod in sandboxes if pod.gpus]
    trainers = _trainer_work(dice, cluster, horizon)

    feed = Feed("otlp_spans", f"otlp/{name}-{{hour}}.jsonl", slowest=20, ways=SPANS, mishaps=8)
    secrets = _send_spans(Dice(seed, f"spans {cloud}"), cluster, guilty, trainers, feed, horizon)
    feed.write(directory, Dice(seed, f"delivery spans {cloud}"), table)

    feed = Feed("dcgm_prometheus", f"dcgm/{name}-{{hour}}.prom", slowest=40, header=HEADER, ways=SAMPLES)
    _send_samples(Dice(seed, f"samples {cloud}"), cluster, [*work, *trainers], feed, horizon)
    feed.write(directory, Dice(seed, f"delivery samples {cloud}"), table)

    feed = Feed("training_progress", f"training/{name}-{{hour}}.jsonl", slowest=15, ways=REPORTS, mishaps=8)
    _send_reports(Dice(seed, f"reports {cloud}"), work, trainers, feed)
    feed.write(directory, Dice(seed, f"delivery reports {cloud}"), table)
    return secrets


def _sandbox_work(dice: Dice, cluster: Cluster, pod: Pod, behaviour: Behaviour | None, horizon: int) -> _Work:
    scene = scene_of(dice, cluster, pod, horizon)
    diverted = None
    if behaviour is not None and behaviour.kind == DIVERSION and behaviour.flows:
        login, end = behaviour.flows[0].start, max(flow.end for flow in behaviour.flows)
        diverted = round(login + dice.uniform(*_LOGIN), 3), end
    found = phases(dice, "sandbox", scene.begin, scene.finish, diverted) if scene.length > _LEAST else []
    return _Work(pod, found, reports(dice, "sandbox", found, 0))


def _trainer_work(dice: Dice, cluster: Cluster, horizon: int) -> list[_Work]:
    """Return the work of all trainers: those of one job are at the same, and the first of them reports."""
    of_job: dict[str, list[Pod]] = {}
    for pod in cluster.of_role("trainer"):
        of_job.setdefault(pod.job, []).append(pod)
    work = []
    for pods in of_job.values():
        found = phases(dice, "trainer", 0.0, horizon - 0.01, None)
        told = reports(dice, "trainer", found, dice.whole(*_FIRST_STEPS))
        work += [_Work(pod, found, told if place == 0 else []) for place, pod in enumerate(pods)]
    return work


def _send_spans(
    dice: Dice, cluster: Cluster, guilty: dict[Pod, Behaviour], trainers: list[_Work], feed: Feed, horizon: int
) -> list[str]:
    secrets: list[str] = []
    for pod in cluster.of_role("sandbox"):
        scene = scene_of(dice, cluster, pod, horizon)
        if "spans" in pod.missing or (pod.end is not None and pod.end <= 0):
            continue
        calls = tool_calls(dice, pod, scene.begin, scene.finish, guilty.get(pod))
        calls = [call for call in calls if call.start >= 0]  # what came before lies in the files of the day before
        secrets += [secret for call in calls for secret in call.errand.secrets]
        label = _of(pod)
        for sent in sandbox_spans(dice, pod, calls, horizon):
            feed.send(dice, sent.at, sent.text, label)
    for trainer in trainers:
        label = _of(trainer.pod)
        for sent in step_spans(dice, trainer.pod, trainer.reports):
            feed.send(dice, sent.at, sent.text, label)
    return secrets


def _send_samples(dice: Dice, cluster: Cluster, work: list[_Work], feed: Feed, horizon: int) -> None:
    exporters = {node: exporter_of(dice, place) for place, node in enumerate(cluster.nodes)}
    nothing = Label(UNMEASURED)
    for one in work:
        if "gpu" in one.pod.missing or not one.phases or one.pod.node is None:
            continue
        label = _of(one.pod)
        for scrape in scrapes(dice, one.pod, exporters[one.pod.node], one.phases):
            if 0 <= scrape.at < horizon:
                feed.send_together(dice, scrape.at, [(text, label if told else nothing) for text, told in scrape.lines])


def _send_reports(dice: Dice, work: list[_Work], trainers: list[_Work], feed: Feed) -> None:
    """Send the streams of sandboxes under their own name, and those of the jobs under that of a trainer, or of none."""
    streams = [(one, "", one.pod.name) for one in work if "steps" not in one.pod.missing]
    streams += [(one, one.pod.job, one.pod.name if dice.happens(0.5) else "") for one in trainers if one.reports]
    for one, job, name in streams:
        label = _of(one.pod) if name else Label(TELEMETRY)
        for at, text in progress_lines(dice, one.reports, job, name):
            if at >= 0:
                feed.send(dice, at, text, label)


def _of(pod: Pod) -> Label:
    return Label(TELEMETRY, Judgement(ATTRIBUTED, pod, ()))
