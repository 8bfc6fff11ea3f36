"""An act that fits several workloads: an incident on what they have in common, with all of them as candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from tests.scenarios import hostile
from tests.scenarios.days import lines_of

from agenttrail.job_files import load_job
from agenttrail.jobs import run
from agenttrail.report.same_act import same_acts

if TYPE_CHECKING:
    from pathlib import Path

_ADDRESS = "10.9.0.1"
_JOB = """\
name: ambiguity
events: [{format: alibaba_cloud_firewall, path: firewall.jsonl, scope: src_vpc_id}]
leases:
  - {format: address_leases, path: leases.csv}
lists: {egress_allow: [192.0.2.0/24]}
"""


def _incidents(
    folder: Path, morning: tuple[str, str], evening: tuple[str, str], lines: list[bytes], more: str = ""
) -> list[Any]:
    """Return incidents of a day on which one address has two holders in the morning and two in the evening."""
    rows = ["address,scope,start,end,gen_ai.agent.id,sandbox.id"]
    for hours, agents in (("01", "02"), morning), (("03", "04"), evening):
        for scope, agent in zip(("vpc-1", "vpc-2"), agents, strict=True):
            times = (f"2026-03-02T{hour}:00:00Z" for hour in hours)
            rows.append(",".join([_ADDRESS, scope, *times, agent, f"{agent}-{scope}-{hours[0]}"]))
    (folder / "leases.csv").write_text("\n".join(rows) + "\n")
    (folder / "firewall.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "job.yml").write_text(_JOB + more)
    run(load_job(folder / "job.yml"))
    return lines_of(folder / "out" / "incidents.ndjson")


def _line(hour: int, **changes: object) -> bytes:
    """Return a session that names no network."""
    return hostile.firewall(hour * 3_600, **({"src_vpc_id": "", "dst_ip": "198.51.100.7"} | changes))


@pytest.mark.parametrize(
    ("morning", "evening", "agent"),
    [
        (("ann", "ann"), ("bob", "eve"), None),
        (("ann", "ann"), ("ann", "ann"), "ann"),
        (("bob", "eve"), ("ann", "ann"), None),
        (("ann", "ann"), ("bob", "bob"), None),
    ],
)
@pytest.mark.parametrize("verdicts", ["both", "evening"])
def test_nobody_is_named_whom_not_all_candidates_are(
    tmp_path: Path, morning: tuple[str, str], evening: tuple[str, str], agent: str | None, verdicts: str
) -> None:
    """What fits one agent in the morning says nothing of whom it fits in the evening, on the same address and peer."""
    mining = {"attack_type_name_en": "Mining Behavior"}
    lines = [_line(1, **(mining if verdicts == "both" else {})), _line(3, **mining)]
    (incident,) = _incidents(tmp_path, morning, evening, lines)
    if verdicts == "evening":  # the morning is context then, which says nothing of who it was
        agent = evening[0] if evening[0] == evening[1] else None
    assert (incident["entity.type"], incident["entity.id"]) == ("address", _ADDRESS)
    assert incident["attribution.status"] == "ambiguous"
    assert incident.get("gen_ai.agent.id") == agent
    assert "sandbox.id" not in incident
    assert len(incident["attribution.candidates"]) == (4 if verdicts == "both" else 2)
    assert ("agent ann" in incident["incident.summary"]) == (agent == "ann")


def test_the_same_act_seen_with_its_network_is_attributed(tmp_path: Path) -> None:
    """The gateway's line names the network: it has an incident of its own, on the sandbox."""
    mining = {"attack_type_name_en": "Mining Behavior"}
    lines = [_line(3, **mining), _line(3, **mining, src_vpc_id="vpc-2", log_type="nat_firewall_log")]
    incidents = _incidents(tmp_path, ("ann", "ann"), ("bob", "eve"), lines)
    found = {one["attribution.status"]: one for one in incidents}
    assert found["attributed"]["sandbox.id"] == "eve-vpc-2-03"
    assert found["attributed"]["gen_ai.agent.id"] == "eve"
    assert found["ambiguous"]["entity.type"] == "address"
    assert found["attributed"]["attribution.lease_id"][0] in found["ambiguous"]["attribution.candidates"]
    assert orjson.loads((tmp_path / "out" / "run.json").read_bytes())["total"]["ambiguous"] == 1


_AGAIN = """\
title: Bursts again and again
id: 33333333-3333-4333-8333-333333333333
status: test
level: medium
description: Two within ten minutes.
correlation:
  type: event_count
  rules: [policy/burst-of-blocked-connections-without-tool-call]
  group-by: [entity.id]
  timespan: 10m
  condition: {gte: 2}
falsepositives: [none]
recommendation: [Look.]
tests:
  - name: two
    match: true
    events: [{rule: RULE, at: 0s, entity.id: a}, {rule: RULE, at: 60s, entity.id: a}]
  - name: one
    match: false
    events: [{rule: RULE, at: 0s, entity.id: a}]
"""


def test_a_burst_of_refusals_seen_with_its_network_leads_to_the_one_seen_without(tmp_path: Path) -> None:
    """What ties them is whom it tried; what puts bursts together has the peers of all."""
    (tmp_path / "again.yml").write_text(_AGAIN.replace("RULE", "policy/burst-of-blocked-connections-without-tool-call"))
    told = {"rule_result": "drop", "dst_port": 22, "in_packet_bytes": 0}
    bursts = [
        hostile.firewall(3 * 3_600 + 90 * burst + number, **told, dst_ip=f"198.51.{burst}.{number}", **network)
        for network in ({"src_vpc_id": ""}, {"src_vpc_id": "vpc-2", "log_type": "nat_firewall_log"})
        for burst in range(2)
        for number in range(12)
    ]
    incidents = _incidents(tmp_path, ("ann", "ann"), ("bob", "eve"), bursts, "rules: [builtin, again.yml]\n")
    found = {one["attribution.status"]: one["incident.id"] for one in incidents}
    tried = [[f"198.51.{burst}.{number}" for number in range(12)] for burst in range(2)]
    assert [one["destination.ip"] for one in incidents] == [[*tried[0], *tried[1]]] * 2
    twins = {id_: [one.id for one in ones] for id_, ones in same_acts(incidents).items()}
    assert twins == {found["ambiguous"]: [found["attributed"]], found["attributed"]: [found["ambiguous"]]}
    findings = lines_of(tmp_path / "out" / "findings.ndjson")
    of_many = {one["rule.id"][:8]: one["destination.ip"] for one in findings if "peer.ip" not in one}
    assert of_many == {"9d0c2be4": [*tried[0], *tried[1]], "33333333": [*tried[0], *tried[1]]}
