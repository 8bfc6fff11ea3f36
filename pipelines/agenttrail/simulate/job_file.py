"""The job file of a simulated day: where everything lies and what its names mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttrail.simulate.clusters import AGENT_LABEL, EPISODE_LABEL, JOB_LABEL
from agenttrail.simulate.ledger import TOLERANCE
from agenttrail.simulate.outside import ALLOWED_NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agenttrail.simulate.fleet import Cluster

_LEASES = """\
  - format: kubernetes_pods
    path: k8s/{cluster}.json
    scope: {vpc}
    identity:
      gen_ai.agent.id: 'metadata.labels["{agent}"]'
      trajectory.id: 'metadata.labels["{episode}"]'
      job.id: 'metadata.labels["{job}"]'
"""
_TELEMETRY = """\
  - {{format: otlp_spans, path: "otlp/{cluster}-*.jsonl", scope: {vpc}}}
  - {{format: dcgm_prometheus, path: "dcgm/{cluster}-*.prom", scope: {vpc}}}
  - {{format: training_progress, path: "training/{cluster}-*.jsonl", scope: {vpc}}}
"""
_JOB = """\
name: simulated-day
events:
  - {{format: alibaba_vpc_flow, path: "alibaba_vpc_flow/*.jsonl.gz", scope: vpc-id}}
  - {{format: aws_vpc_flow, path: "aws_vpc_flow/full-*.log.gz", scope: vpc-id}}
  - {{format: aws_vpc_flow, path: "aws_vpc_flow/default-*.log.gz", scope: {aws}}}    # these lines name no VPC
  - {{format: alibaba_cloud_firewall, path: "alibaba_cloud_firewall/*.jsonl", scope: src_vpc_id}}
{telemetry}leases:
{leases}lists:
  egress_allow: [{allowed}]
attribution: {{tolerance: {tolerance}s}}
output: {{directory: out}}
"""


def write_job(path: Path, clusters: Iterable[Cluster]) -> None:
    """Write the job file for the logs and metadata of ``clusters``."""
    labels = {"agent": AGENT_LABEL, "episode": EPISODE_LABEL, "job": JOB_LABEL}
    networks = {cluster.network.cloud: cluster.network for cluster in clusters}
    leases = "".join(_LEASES.format(cluster=one.cluster, vpc=one.vpc, **labels) for one in networks.values())
    telemetry = "".join(_TELEMETRY.format(cluster=one.cluster, vpc=one.vpc) for one in networks.values())
    allowed = ", ".join(f'"{network}"' for network in ALLOWED_NETWORKS)
    names = {"aws": networks["aws"].vpc, "telemetry": telemetry, "leases": leases, "allowed": allowed}
    path.write_text(_JOB.format(**names, tolerance=TOLERANCE), encoding="utf-8")
