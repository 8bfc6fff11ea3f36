"""Builds the clusters: nodes with their interfaces, and the pods that run all day."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate.fleet import CLOUDS, Cluster, Interface, Network, Node, Pod

if TYPE_CHECKING:
    from agenttrail.simulate.dice import Dice

AGENT_LABEL, EPISODE_LABEL = "sandbox.example.org/agent-id", "sandbox.example.org/episode-id"
JOB_LABEL, ROLE_LABEL = "training.kubeflow.org/job-name", "training.kubeflow.org/replica-type"

_DAY = 86_400
_FIRST_NODE, _FIRST_BLOCK = 10, 32
_AGENTS_PER_NODE, _AGENTS_PER_JOB, _GPUS_PER_WORKER = 4, 10, 2
_JOBS = ("shell-repair-grpo", "web-errands-ppo", "build-fixer-rloo", "notebook-tasks-grpo")
_NAMESPACES = {"dns": "kube-system", "daemon": "kube-system", "monitor": "monitoring"}
_DAEMONS = {"system": (2,), "sandbox": (2, 1, 0), "trainer": (1, 0, 2)}
"""Number of pods with hostNetwork on the nodes of each kind, in turn; the last sandbox node has none."""


class Slot(NamedTuple):
    """An address that sandboxes take turns on."""

    node: Node
    interface: Interface
    ipv4: str
    ipv6: str


def build_cluster(dice: Dice, cloud: str, agents: int, horizon: int) -> tuple[Cluster, list[Slot]]:
    """Return a cluster with its long-lived pods, and the addresses for its sandboxes.

    Both clouds give out addresses from the same range, and half of the sandboxes' addresses are the same in both.

    Args:
        dice: what decides.
        cloud: "alibaba" or "aws".
        agents: number of agents that train here.
        horizon: length of the simulated day in seconds.
    """
    network = _network(dice, cloud)
    machines = max(2, -(-agents // _AGENTS_PER_NODE))
    kinds = ["system"] + ["sandbox"] * (machines + 1) + ["trainer"] * (2 + agents // 8)
    nodes = [_node(dice, network, index, kind) for index, kind in enumerate(kinds)]
    nodes[machines + 1] = replace(nodes[machines + 1], opens=min(900, horizon // 8))  # joined the cluster today
    idle = _interface(dice, network, "10.20.9.9", "", "aws-default" if cloud == "aws" else cloud)
    gateway = _interface(dice, network, "10.20.0.40", "", "aws-full") if cloud == "aws" else None
    cluster = Cluster(network, nodes, gateway, idle)
    _add_services(dice, cluster)
    _add_trainers(dice, cluster, agents)
    _add_daemons(dice, cluster, horizon)
    _add_waiting(dice, cluster, horizon)
    shift = (machines + 1) // 2 if cloud == "aws" else 0
    places = -(-agents // machines) + 1
    return cluster, [
        _slot(dice, node, _FIRST_BLOCK + shift + block, place)
        for block, node in enumerate(cluster.of_kind("sandbox"))
        for place in range(places)
    ]


def jobs_of(cluster: Cluster, agents: int) -> list[str]:
    """Return the names of the training jobs that ``agents`` agents of a cluster belong to."""
    first = CLOUDS.index(cluster.network.cloud) * 2
    count = 1 + (agents > _AGENTS_PER_JOB)
    return [f"{name}-{cluster.network.vpc[-3:]}" for name in _JOBS[first : first + count]]


def _network(dice: Dice, cloud: str) -> Network:
    if cloud == "alibaba":
        return Network(
            cloud, f"vpc-bp1{dice.letters(17)}", f"1{dice.whole(10**14, 10**15 - 1)}", "cn-hangzhou", "rollout-hz",
            "10.20.0.5", ("100.100.100.200",), "203.0.113.201", f"2001:db8:a{dice.hexadecimal(2)}:20",
        )  # fmt: skip
    return Network(
        cloud, f"vpc-0{dice.hexadecimal(16)}", f"{dice.whole(10**11, 10**12 - 1)}", "eu-central-1", "rollout-fra",
        "10.20.0.5", ("169.254.169.254", "fd00:ec2::254"), "203.0.113.177", f"2001:db8:b{dice.hexadecimal(2)}:20",
    )  # fmt: skip


def _interface(dice: Dice, network: Network, address: str, instance: str, layout: str) -> Interface:
    if network.cloud == "alibaba":
        window = dice.pick((60, 300, 600))
        name, subnet, zone = f"eni-bp1{dice.letters(17)}", f"vsw-bp1{dice.letters(17)}", "cn-hangzhou-j"
    else:
        window = 60
        name, subnet, zone = (
            f"eni-0{dice.hexadecimal(16)}",
            f"subnet-0{dice.hexadecimal(16)}",
            f"euc1-az{dice.whole(1, 3)}",
        )
    return Interface(network, name, address, instance, subnet, zone, window, dice.whole(0, window - 1), layout)


def _node(dice: Dice, network: Network, index: int, kind: str) -> Node:
    address = f"10.20.1.{_FIRST_NODE + index}"
    addresses: tuple[str, ...] = (address,)
    public = f"203.0.113.{(202 if network.cloud == 'alibaba' else 178) + index}" if kind == "system" else ""
    if network.cloud == "alibaba":
        instance, layout, name = f"i-bp1{dice.letters(17)}", "alibaba", f"{network.region}.{address}"
    else:
        # the flow log of every other subnet is an old subscription in the default format
        instance, layout = f"i-0{dice.hexadecimal(16)}", "aws-default" if index % 2 == 0 and index else "aws-full"
        name = f"ip-{address.replace('.', '-')}.{network.region}.compute.internal"
        addresses = (address, f"{network.ipv6}:1::{index + 1:x}") if layout == "aws-full" else addresses
    return Node(name, kind, _interface(dice, network, address, instance, layout), addresses, public)


def _slot(dice: Dice, node: Node, block: int, place: int) -> Slot:
    address = f"10.20.{block}.{16 + place}"
    return Slot(node, _pod_interface(dice, node, address), address, f"{node.network.ipv6}:{block:x}::{place + 1:x}")


def _pod_interface(dice: Dice, node: Node, address: str) -> Interface:
    """Return the interface that a pod's address is on: mostly its node's."""
    interface = node.interface
    if interface.layout != "aws-default":
        return interface
    # AWS writes the primary address of the interface in place of a pod's; where the log lacks the packet's addresses, a
    # pod is told apart only if it has an interface of its own
    return _interface(dice, node.network, address, interface.instance, interface.layout)


def _long_lived(dice: Dice, node: Node, role: str, name: str, address: str) -> Pod:
    """Return a pod that started days ago and runs on."""
    start = -dice.whole(3_600, 9 * _DAY)
    namespace, interface = _NAMESPACES.get(role, "rollouts"), _pod_interface(dice, node, address)
    return Pod(
        name, namespace, dice.uuid(), role, node, interface, (address,),
        created=start - dice.whole(0, 4), start=start,
    )  # fmt: skip


def _add_services(dice: Dice, cluster: Cluster) -> None:
    """Add cluster DNS, monitoring and the inference servers that the agents' models run on."""
    (system,), trainers = cluster.of_kind("system"), cluster.of_kind("trainer")
    cluster.pods += [
        _long_lived(dice, system, "dns", f"cluster-dns-{dice.letters(5)}", f"10.20.16.{10 + number}")
        for number in range(2)
    ]
    cluster.pods.append(_long_lived(dice, system, "monitor", "metrics-store-0", "10.20.16.30"))
    for number, node in enumerate(trainers[:2]):
        server = _long_lived(dice, node, "inference", f"policy-server-{number}", f"10.20.18.{20 + number}")
        server.labels["app.kubernetes.io/name"] = "policy-server"
        cluster.pods.append(server)


def _add_trainers(dice: Dice, cluster: Cluster, agents: int) -> None:
    """Add the workers of the training jobs."""
    nodes, jobs = cluster.of_kind("trainer"), jobs_of(cluster, agents)
    for number, node in enumerate([*nodes, nodes[0]]):
        job = jobs[number % len(jobs)]
        worker = _long_lived(dice, node, "trainer", f"{job}-worker-{number}", f"10.20.19.{40 + number}")
        worker.job, worker.gpus = job, _GPUS_PER_WORKER
        worker.labels |= {JOB_LABEL: job, ROLE_LABEL: "worker"}
        cluster.pods.append(worker)


def _add_daemons(dice: Dice, cluster: Cluster, horizon: int) -> None:
    """Add the pods that share the address of their node, most of them for good, one for a while."""
    for kind, counts in _DAEMONS.items():
        nodes = cluster.of_kind(kind)
        for number, node in enumerate(nodes):
            last_sandbox_node = kind == "sandbox" and number == len(nodes) - 1
            for what in ("node-metrics", "volume-agent")[: 0 if last_sandbox_node else counts[number % len(counts)]]:
                cluster.pods.append(_daemon(dice, node, f"{what}-{dice.letters(5)}"))
    passing = _daemon(dice, cluster.of_kind("trainer")[1], f"driver-upgrade-{dice.letters(5)}")
    passing.start = dice.whole(horizon // 4, horizon // 2)
    passing.created = passing.start - 2
    passing.end = passing.start + dice.whole(240, 1_200)
    passing.end = passing.end if passing.end < horizon else None
    cluster.pods.append(passing)


def _daemon(dice: Dice, node: Node, name: str) -> Pod:
    pod = _long_lived(dice, node, "daemon", name, node.addresses[0])
    pod.addresses, pod.interface, pod.host_network = node.addresses, node.interface, True
    return pod


def _add_waiting(dice: Dice, cluster: Cluster, horizon: int) -> None:
    """Add pods that found no node yet, and so have no address."""
    for _ in range(dice.whole(1, 3)):
        name, created = f"eval-{dice.letters(8)}", horizon - dice.whole(5, 600)
        cluster.pods.append(
            Pod(name, "rollouts", dice.uuid(), "waiting", None, None, (), created=created, start=created)
        )
