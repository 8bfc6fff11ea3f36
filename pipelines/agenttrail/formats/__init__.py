"""Log and metadata formats, one file each.

To add one: write the file after the pattern of a neighbour, list it here, and lay a golden sample and what it must give
beside the others in ``tests/data/formats/<format>/``.
"""

from __future__ import annotations

from agenttrail.formats import (
    address_leases,
    alibaba_cloud_firewall,
    alibaba_vpc_flow,
    aws_vpc_flow,
    dcgm_prometheus,
    kubernetes_pods,
    otlp_spans,
    training_progress,
)

FORMATS = {
    module.FORMAT.name: module.FORMAT
    for module in (
        address_leases,
        alibaba_cloud_firewall,
        alibaba_vpc_flow,
        aws_vpc_flow,
        dcgm_prometheus,
        kubernetes_pods,
        otlp_spans,
        training_progress,
    )
}
"""All formats by id."""
