"""Pods read plainly, one after the other: what the leases of a pod list must say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

AFTERWARDS = timedelta(minutes=1)
"""Long after the end of a lease for the tolerance of clocks."""


@dataclass(frozen=True)
class Pod:
    """A pod that has addresses.

    Attributes:
        start: when the kubelet took it on.
        end: when its last container finished; None as long as its phase is not terminal.
        origin: uid that the kubelet calls a static pod by; its own for others.
    """

    namespace: str
    name: str
    uid: str
    origin: str
    node: str
    addresses: tuple[str, ...]
    start: datetime
    end: datetime | None

    def held(self, address: str, moment: datetime) -> bool:
        """Tell whether ``address`` was this pod's at ``moment``."""
        return address in self.addresses and self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True)
class Flow:
    """A flow record at a pod's address, and who it must be attributed to."""

    line: str
    status: str
    sandbox: str | None
    host: str | None


def pods_of(document: dict[str, Any]) -> list[Pod]:
    """Return the pods of a PodList that have an address.

    Source: PodStatus of the Kubernetes API.
    """
    return [_pod(item) for item in document["items"] if item["status"].get("podIPs")]


def _pod(item: dict[str, Any]) -> Pod:
    metadata, status = item["metadata"], item["status"]
    ended = status["phase"] in ("Succeeded", "Failed")
    finished = [one["state"]["terminated"]["finishedAt"] for one in status["containerStatuses"]] if ended else []
    return Pod(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        metadata.get("annotations", {}).get("kubernetes.io/config.mirror", metadata["uid"]),
        item["spec"]["nodeName"],
        tuple(entry["ip"] for entry in status["podIPs"]),
        datetime.fromisoformat(status["startTime"]),
        max(map(datetime.fromisoformat, finished)) if finished else None,
    )


def flows_at(pods: list[Pod]) -> list[Flow]:
    """Return flow records at every address: in the first instant of each pod, and after its end."""
    return [
        _flow(pods, address, moment)
        for pod in pods
        for address in pod.addresses
        for moment in (pod.start, *((pod.end + AFTERWARDS,) if pod.end else ()))
    ]


def _flow(pods: list[Pod], address: str, moment: datetime) -> Flow:
    holders = [pod for pod in pods if pod.held(address, moment)]
    second = int(moment.timestamp())
    line = f"2 1 eni-1 {address} 203.0.113.9 40000 443 6 1 100 {second} {second} ACCEPT OK"
    if not holders:
        return Flow(line, "unattributed", None, None)
    host = holders[0].node  # one node in all; pods on its network share its address
    return Flow(line, "attributed", holders[0].name, host) if len(holders) == 1 else Flow(line, "ambiguous", None, host)
