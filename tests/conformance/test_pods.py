"""Leases of real pods: what the kubelet and the API server of one cluster say of them is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from tests.conformance.pods import Pod, pods_of
from tests.conformance.samples import API_SERVER, KUBELET, SAMPLES, Sample

from agenttrail.columns.addresses import format_addresses
from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conformance.runs import Ran

_METADATA = [sample for sample in SAMPLES if FORMATS[sample.format].gives == "leases"]
_VIEWS = (KUBELET, API_SERVER)
Lease = tuple[Any, ...]


def _leases(sample: Sample, data: Path) -> list[Lease]:
    """Return namespace, name, uid, node, address, start and end of each lease, sorted."""
    parsed = FORMATS[sample.format].parser({})(Block(sample.content(data), sample.path, 0))
    batch = parsed.events
    columns = [
        batch.column(name).to_pylist()
        for name in ("k8s.namespace.name", "sandbox.id", "k8s.pod.uid", "host.name", "lease.start", "lease.end")
    ]
    addresses = format_addresses(batch.column("lease.address")).to_pylist()
    return [tuple(row) for row in zip(*columns[:4], addresses, *columns[4:], strict=True)]


def _of_pods(leases: list[Lease]) -> list[Lease]:
    return sorted(lease for lease in leases if lease[1] is not None)


def _told(pods: list[Pod], *, uid: str = "uid") -> list[Lease]:
    return sorted(
        (pod.namespace, pod.name, getattr(pod, uid), pod.node, address, pod.start, pod.end)
        for pod in pods
        for address in pod.addresses
    )


def _pods(sample: Sample, data: Path) -> list[Pod]:
    return pods_of(orjson.loads(sample.content(data)))


@pytest.mark.parametrize("sample", _METADATA, ids=lambda sample: sample.name)
def test_leases_are_those_of_the_pods(sample: Sample, data: Path) -> None:
    view = sample if sample in _VIEWS else KUBELET
    leases = _of_pods(_leases(sample, data))
    assert leases == _told(_pods(view, data))
    assert len(leases) == 23
    assert sum(lease[-1] is not None for lease in leases) == 5


def test_what_the_kubelet_says_the_api_server_says_too(data: Path) -> None:
    """But for static pods: the API server knows mirrors of them, under uids of their own."""
    assert _of_pods(_leases(KUBELET, data)) == _told(_pods(API_SERVER, data), uid="origin")
    assert sum(pod.uid != pod.origin for pod in _pods(API_SERVER, data)) == 4


@pytest.mark.parametrize("sample", _VIEWS, ids=lambda sample: sample.name)
def test_nodes_hold_their_own_addresses(sample: Sample, data: Path) -> None:
    nodes = [lease for lease in _leases(sample, data) if lease[1] is None]
    items = [item for item in orjson.loads(sample.content(data))["items"] if item["status"].get("podIPs")]
    assert sorted((lease[3], lease[4]) for lease in nodes) == sorted(
        (item["spec"]["nodeName"], entry["ip"]) for item in items for entry in item["status"]["hostIPs"]
    )


@pytest.mark.parametrize("sample", _METADATA, ids=lambda sample: sample.name)
def test_flows_at_pods_are_attributed_to_them(sample: Sample, ran: Ran) -> None:
    """From the first instant to the last, and not after it; pods on the network of their node stay ambiguous."""
    flows = ran.attributed[sample.name]
    for flow, event in flows:
        said = event["attribution.status"], event["sandbox.id"], event["host.name"]
        assert said == (flow.status, flow.sandbox, flow.host), flow.line
    statuses = [flow.status for flow, _ in flows]
    assert {one: statuses.count(one) for one in set(statuses)} == {"attributed": 15, "ambiguous": 8, "unattributed": 5}
