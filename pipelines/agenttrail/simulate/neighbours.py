"""Who stands at an address of a cluster at a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenttrail.simulate.fleet import Cluster, Party, Pod

_MARGIN = 3.0  # seconds after its start and before its end in which nobody answers


def holder_at(cluster: Cluster, address: str, second: float) -> Party | None:
    """Return the node or pod that stands at an IPv4 address, if it can answer."""
    node = next((one for one in cluster.nodes if address == one.addresses[0]), None)
    if node is not None:
        return node
    held = (pod for pod in cluster.pods if address in pod.addresses and not pod.host_network)
    return next((pod for pod in held if _answers(pod, second, second + _MARGIN)), None)


def companions(cluster: Cluster, pod: Pod, begin: float, finish: float) -> list[tuple[Pod, float, float]]:
    """Return the other sandboxes that were there while ``pod`` was, and from when to when both could talk."""
    found = []
    for other in cluster.of_role("sandbox"):
        start = max(begin, other.start + _MARGIN)
        end = min(finish, finish if other.end is None else other.end - _MARGIN)
        if other is not pod and start < end:
            found.append((other, start, end))
    return found


def _answers(pod: Pod, begin: float, finish: float) -> bool:
    return pod.start + _MARGIN <= begin and (pod.end is None or finish <= pod.end - _MARGIN)
