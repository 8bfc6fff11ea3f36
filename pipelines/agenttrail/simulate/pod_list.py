"""The pods of a cluster as the Kubernetes API lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.simulate.clock import moment

if TYPE_CHECKING:
    from pathlib import Path

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Pod

_CONTAINERS = {
    "sandbox": (
        ("workspace", "images.registry.example/rl/workspace:4.2"),
        ("tool-gate", "images.registry.example/rl/tool-gate:1.9"),
    ),
    "trainer": (("trainer", "images.registry.example/rl/trainer:11.0"),),
    "inference": (("policy", "images.registry.example/rl/policy-server:3.1"),),
}
_OTHERS = (("main", "images.registry.example/platform/agent:2.0"),)


def write_pods(path: Path, dice: Dice, cluster: Cluster) -> None:
    """Write what listing all pods of all namespaces prints at the end of the day."""
    items = [_pod(dice, pod) for pod in sorted(cluster.pods, key=lambda pod: (pod.namespace, pod.name))]
    document = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _pod(dice: Dice, pod: Pod) -> dict[str, Any]:
    containers = _CONTAINERS.get(pod.role, _OTHERS)
    metadata: dict[str, Any] = {
        "creationTimestamp": moment(pod.created),
        "labels": {"app": pod.role, **pod.labels},
        "name": pod.name,
        "namespace": pod.namespace,
        "resourceVersion": str(dice.whole(10**6, 10**8)),
        "uid": pod.uid,
    }
    if pod.deleted is not None:
        metadata |= {
            "deletionGracePeriodSeconds": 30,
            "deletionTimestamp": moment(pod.deleted),
            "finalizers": ["example.org/keep-logs"],
        }
    if pod.public:
        metadata["annotations"] = {"network.example.org/public-address": pod.public}
    spec: dict[str, Any] = {
        "containers": [_container(pod, place, name, image) for place, (name, image) in enumerate(containers)],
        "restartPolicy": "Never" if pod.role == "sandbox" else "Always",
    }
    if pod.node is not None:
        spec["nodeName"] = pod.node.name
    if pod.host_network:
        spec["hostNetwork"] = True
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": _status(dice, pod, containers),
    }


def _container(pod: Pod, place: int, name: str, image: str) -> dict[str, Any]:
    """Return what is asked for one container; the first has the GPUs."""
    given = {"resources": {"limits": {"nvidia.com/gpu": str(pod.gpus)}}} if pod.gpus and place == 0 else {}
    return {"image": image, "name": name, **given}


def _status(dice: Dice, pod: Pod, containers: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    if pod.node is None:
        reason = {"lastProbeTime": None, "lastTransitionTime": moment(pod.created), "reason": "Unschedulable"}
        return {
            "conditions": [{"status": "False", "type": "PodScheduled", **reason}],
            "phase": "Pending",
            "qosClass": "Burstable",
        }
    ready = "True" if pod.end is None else "False"
    return {
        "conditions": [
            {"lastTransitionTime": moment(pod.start), "status": "True", "type": "Initialized"},
            {
                "lastTransitionTime": moment(pod.start + 2 if pod.end is None else pod.end),
                "status": ready,
                "type": "Ready",
            },
            {"lastTransitionTime": moment(pod.created), "status": "True", "type": "PodScheduled"},
        ],
        "containerStatuses": _containers(dice, pod, containers),
        "hostIP": pod.node.addresses[0],
        "hostIPs": [{"ip": address} for address in pod.node.addresses],
        "phase": "Running" if pod.end is None else "Failed" if pod.failed else "Succeeded",
        "podIP": pod.addresses[0],
        "podIPs": [{"ip": address} for address in pod.addresses],
        "qosClass": "Burstable",
        "startTime": moment(pod.start),
    }


def _containers(dice: Dice, pod: Pod, containers: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    """Return the states of all containers; the first is the last to finish."""
    statuses = []
    for place, (name, image) in enumerate(containers):
        started = pod.start + dice.whole(0, 2)
        running = {"running": {"startedAt": moment(started)}}
        state = running if pod.end is None else {"terminated": _terminated(dice, pod, started, first=place == 0)}
        identity = {"containerID": f"containerd://{dice.hexadecimal(64)}", "image": image, "name": name}
        statuses.append(
            {**identity, "ready": pod.end is None, "restartCount": 0, "started": pod.end is None, "state": state}
        )
    return statuses


def _terminated(dice: Dice, pod: Pod, started: int, *, first: bool) -> dict[str, Any]:
    end = pod.end or 0
    finished = end if first else max(started, end - dice.whole(0, 20))
    code, reason = dice.pick(((1, "Error"), (137, "OOMKilled"))) if pod.failed and first else (0, "Completed")
    return {"exitCode": code, "finishedAt": moment(finished), "reason": reason, "startedAt": moment(started)}
