"""simulate(): a training day of two clusters, as the logs, the metadata and the truth of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate.behaviours import behaviour_flows
from agenttrail.simulate.clock import HOUR, moment
from agenttrail.simulate.clusters import build_cluster
from agenttrail.simulate.culprits import choose_culprits
from agenttrail.simulate.dice import Dice
from agenttrail.simulate.fleet import CLOUDS
from agenttrail.simulate.job_file import write_job
from agenttrail.simulate.ledger import Ledger
from agenttrail.simulate.pod_list import write_pods
from agenttrail.simulate.rollouts import run_rollouts
from agenttrail.simulate.sandbox_traffic import sandbox_flows
from agenttrail.simulate.service_traffic import knocks, service_flows
from agenttrail.simulate.telemetry import write_telemetry
from agenttrail.simulate.truth import LineTable, Truth, tell_behaviours, tell_sandboxes
from agenttrail.simulate.watch import Watch, open_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.fleet import Cluster, Pod
    from agenttrail.simulate.flow import Flow

_LOGS = {
    "aws_vpc_flow": "*.log.gz",
    "alibaba_vpc_flow": "*.jsonl.gz",
    "alibaba_cloud_firewall": "*.jsonl",
    "otlp": "*.jsonl",
    "dcgm": "*.prom",
    "training": "*.jsonl",
    "k8s": "*.json",
}


def simulate(directory: Path, *, agents: int = 12, hours: float = 6.0, seed: int = 1) -> Truth:
    """Write a training day into ``directory``: raw logs, pod metadata, a job file, and what really happened.

    The same arguments give the same bytes.

    Args:
        directory: made if need be; the logs of an earlier simulation in it are replaced.
        agents: number of agents, half of which train on each cloud.
        hours: length of the day; it starts at midnight (UTC) of a fixed date.
        seed: what everything is drawn from.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: ``directory`` holds logs that are no simulation's.
    """
    if agents < 1 or not 0 < hours <= 24 * 28 or seed < 0:
        msg = "a day needs at least one agent, more than 0 and at most 672 hours, and a seed that is not negative"
        raise ValueError(msg)
    _make_room(directory)
    hours, horizon = float(hours), max(60, round(hours * HOUR))
    clusters = _populate(seed, agents, horizon)
    behaviours = choose_culprits(Dice(seed, "culprits"), clusters, horizon)
    firsts: dict[str, int] = {}
    feeds, table, ledger = open_feeds(), LineTable(), Ledger(clusters.values())
    for cloud, cluster in clusters.items():
        watch = Watch(Dice(seed, f"sensors {cloud}"), cluster, ledger, feeds, horizon, firsts)
        watch.observe(_flows(seed, cluster, behaviours, horizon))
        watch.note_gaps()
    for name, feed in feeds.items():
        feed.write(directory, Dice(seed, f"delivery {name}"), table)
    secrets: list[str] = []
    for behaviour in behaviours:
        behaviour.first = firsts.get(behaviour.id)
    for cluster in clusters.values():
        secrets += write_telemetry(directory, seed, cluster, behaviours, table, horizon)
        write_pods(
            directory / "k8s" / f"{cluster.network.cluster}.json", Dice(seed, f"pods {cluster.network.cloud}"), cluster
        )
    write_job(directory / "job.yml", clusters.values())
    span = str(moment(0)), str(moment(horizon))
    truth = Truth(seed, agents, hours, *span, secrets=secrets, records=table.counts())
    truth.sandboxes = tell_sandboxes(clusters.values(), behaviours)
    truth.behaviours = tell_behaviours(behaviours, table.behaviour_counts(), horizon)
    truth.write(directory / "truth.json")
    table.write(directory / "truth" / "records.parquet")
    return truth


def _make_room(directory: Path) -> None:
    """Remove the files of an earlier simulation, which may have been of more hours."""
    found = [path for folder, pattern in _LOGS.items() for path in (directory / folder).glob(pattern)]
    if found and not (directory / "truth.json").exists():
        msg = f"{directory} holds logs that are not a simulation's, such as {found[0].name}: choose another directory"
        raise FileExistsError(msg)
    for path in found:
        path.unlink()
    (directory / "truth").mkdir(parents=True, exist_ok=True)


def _populate(seed: int, agents: int, horizon: int) -> dict[str, Cluster]:
    """Return the clusters with all pods that they have on the day."""
    clusters = {}
    for place, cloud in enumerate(CLOUDS):
        dice = Dice(seed, f"cluster {cloud}")
        names = [f"agent-{number:02d}" for number in range(place + 1, agents + 1, len(CLOUDS))]
        cluster, slots = build_cluster(dice, cloud, len(names), horizon)
        run_rollouts(dice, cluster, slots, names, horizon)
        clusters[cloud] = cluster
    return clusters


def _flows(seed: int, cluster: Cluster, behaviours: list[Behaviour], horizon: int) -> Iterator[Flow]:
    """Yield every connection of a cluster."""
    cloud, heirs = cluster.network.cloud, _heirs(cluster)
    dice = Dice(seed, f"sandboxes {cloud}")
    for pod in cluster.of_role("sandbox"):
        yield from sandbox_flows(dice, cluster, pod, heirs[pod], horizon)
    yield from service_flows(Dice(seed, f"services {cloud}"), cluster, horizon)
    yield from knocks(Dice(seed, f"knocks {cloud}"), cluster, horizon)
    dice = Dice(seed, f"behaviours {cloud}")
    for behaviour in behaviours:
        if behaviour.pod.node in cluster.nodes:
            yield from behaviour_flows(dice, cluster, behaviour, horizon)


def _heirs(cluster: Cluster) -> dict[Pod, int | None]:
    """Return when the next pod got the address of each sandbox."""
    heirs: dict[Pod, int | None] = {}
    latest: dict[str, Pod] = {}
    for pod in sorted(cluster.of_role("sandbox"), key=lambda pod: pod.start):
        before = latest.get(pod.addresses[0])
        if before is not None:
            heirs[before] = pod.start
        heirs[pod], latest[pod.addresses[0]] = None, pod
    return heirs
