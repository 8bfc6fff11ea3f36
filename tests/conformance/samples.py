"""Which real samples are read, what their books are, and where we differ from what others made of them."""

from __future__ import annotations

import base64
import csv
import hashlib
import ipaddress
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conformance import derived
from tests.conformance.expected import documented_session, elastic_events, ocsf_activity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MANIFEST = "MANIFEST.tsv"
_BEATS = "elastic-beats/aws_vpcflow"
_OCSF = "ocsf/pairs/AWS/{}/VPC Flowlogs/samples/vpcflowlog.raw"
_KUBELET = "jobs/k8s-pods/internal/testutil/data/1_31/kubelet/pods"
_API_SERVER = "jobs/k8s-pods/internal/testutil/data/1_31/pods.yaml"
_FIREWALL = "alibaba-docs/cloudfirewall_access_log.docexample.json"


@dataclass(frozen=True)
class Sample:
    """One input and its books.

    Attributes:
        path: in the folder of samples.
        format: what it is read as.
        lines: lines of a log; of a document, its objects.
        with_events: those that give at least one record,
        skipped: none to give,
        dead: a dead letter.
        expected: reads what others made of it: a file and the events in it, in the order of the records.
        derive: makes the input of the file, where the file itself is no input.
        undetected: why ``formats detect`` cannot name the format.
    """

    path: str
    format: str
    lines: int
    with_events: int
    skipped: int = 0
    dead: int = 0
    expected: tuple[str, Callable[[bytes], list[dict[str, Any]]]] | None = None
    derive: Callable[[bytes], bytes] | None = None
    undetected: str = ""

    @property
    def name(self) -> str:
        """What the sample is called in tables and messages."""
        return f"{self.path}#{self.derive.__name__}" if self.derive else self.path

    def content(self, data: Path) -> bytes:
        """Return the input."""
        content = (data / self.path).read_bytes()
        return self.derive(content) if self.derive else content


def _beats(name: str, lines: int, **books: Any) -> Sample:
    path = f"{_BEATS}/{name}"
    return Sample(path, "aws_vpc_flow", lines, expected=(f"{path}-expected.json", elastic_events), **books)


def _ocsf(version: str) -> Sample:
    path = _OCSF.format(version)
    expected = path.removesuffix(".raw") + ".ocsf", ocsf_activity
    return Sample(path, "aws_vpc_flow", lines=2, with_events=1, skipped=1, expected=expected)


SAMPLES = (
    _beats("accept-reject-traffic.log", 5, with_events=4, skipped=1),
    _beats("ipv6.log", 1, with_events=1),
    _beats("bad.log", 1, with_events=0, dead=1, undetected="its one line is of no format, on purpose"),
    _ocsf("v1.0.0-rc.2"),
    _ocsf("v1.1.0"),
    _ocsf("v1.5.0"),
    Sample(
        _FIREWALL, "alibaba_cloud_firewall", lines=42, with_events=0, dead=42,
        undetected="one object printed over many lines, as documentation does, with letters for digits in addresses",
    ),
    Sample(
        _FIREWALL, "alibaba_cloud_firewall", lines=1, with_events=0, dead=1, derive=derived.one_line,
        undetected="letters for digits in addresses",
    ),
    Sample(
        _FIREWALL, "alibaba_cloud_firewall", lines=1, with_events=1, derive=derived.one_line_with_digits,
        expected=(_FIREWALL, documented_session),
    ),
    Sample(_KUBELET, "kubernetes_pods", lines=23, with_events=23),
    Sample(_API_SERVER, "kubernetes_pods", lines=24, with_events=23, skipped=1, derive=derived.yaml_as_json),
    Sample(_KUBELET, "address_leases", lines=24, with_events=23, skipped=1, derive=derived.leases_as_csv),
    Sample(_KUBELET, "address_leases", lines=23, with_events=23, derive=derived.leases_as_json_lines),
)  # fmt: skip
"""All samples of these formats.  Of `alibaba_vpc_flow` there is none; `address_leases` is our own, so its samples are
real pods in its shape."""
KUBELET, API_SERVER = SAMPLES[-4], SAMPLES[-3]

NO_SAMPLES = {
    "elastic-beats/aws_vpcflow/*-expected.json": "expected result of a sample",
    "ocsf/pairs/AWS/*/VPC Flowlogs/samples/*.ocsf": "expected result of a sample",
    "ocsf/pairs/AWS/*/Route53/samples/route53.raw": "DNS resolver query log in JSON, which says srcaddr, too",
    "ocsf/raw_zeek/dhcp.log": "Zeek's log of DHCP messages, not leases in the lease schema",
    "jobs/alibaba/*": "scheduler traces: names of jobs and machines, no addresses",
    "jobs/k8s-pods/src/kubelet/metric/testdata/*": "resource metrics by pod, no addresses",
    "panther/rules/aws_vpc_flow_rules/*.yml": "records as Panther normalised them, without times, to test its rules on",
    "panther/rules/*kubernetes_rules/*.yml": "audit records of the API server that quote pods, no addresses",
    "panther/rules/gcp_k8s_rules/*.yml": "audit records of the API server that quote pods, no addresses",
    "sigma/rules/cloud/aws/cloudtrail/*.yml": "a rule about the API call that deletes flow logs",
    "slips/*.binetflow": "Argus flows in CSV, whose header says SrcAddr, too",
}
"""Files that look as if they belonged to these formats but do not, by glob, and why."""

_IN_NAMES = ("vpcflow", "cloudfirewall", "alibaba", "k8spods", "podlist", "addresslease", "dhcp", "lease")
_IN_CONTENTS = (b"srcaddr", b"vswitch-id", b"cloudfirewall", b"podip")
_KINDS = (b'"kind":"pod"', b'"kind":"podlist"', b"kind:pod\n", b"kind:podlist\n")


def looks_like_ours(path: str, content: bytes) -> bool:
    """Tell whether name or content of a file suggests one of these formats."""
    name = path.lower().translate(str.maketrans("", "", " _-"))
    text = content.lower()
    return (
        any(mark in name for mark in _IN_NAMES)
        or any(mark in text for mark in _IN_CONTENTS)
        or any(kind in text.translate(None, b" ") for kind in _KINDS)
    )


def manifest(data: Path) -> list[dict[str, str]]:
    """Return the rows of the manifest."""
    with (data / MANIFEST).open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


@dataclass(frozen=True)
class Difference:
    """One value in which we differ from an expected result, rightly.

    Attributes:
        sample: name of the sample.
        record: place among its records, from 0.
        field: the field.
        why: the reason.
        holds: tells of our event, the expected and our value whether the reason is true of them.
    """

    sample: str
    record: int
    field: str
    why: str
    holds: Callable[[Mapping[str, Any], Any, Any], bool]


def _not_in_the_line(event: Mapping[str, Any], theirs: Any, ours: Any) -> bool:
    cells = event["event.original"].strip().split(",")
    return ours in cells and theirs not in cells


def _as_echo_reply(event: Mapping[str, Any], theirs: Any, ours: Any) -> bool:
    ends = [ipaddress.ip_address(event[name]).packed for name in ("source.ip", "destination.ip")]
    types = [_ECHO_REPLY, _ECHO_REQUEST] if ends[0] < ends[1] else [_ECHO_REQUEST, _ECHO_REPLY]
    flow = b"\0\0" + b"".join(sorted(ends)) + bytes([1, 0])
    return (theirs, ours) == (_community_id(flow + struct.pack(">HH", *types)), _community_id(flow))


def _community_id(flow: bytes) -> str:
    return "1:" + base64.b64encode(hashlib.sha1(flow, usedforsecurity=False).digest()).decode()


_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_NO_TYPE = (
    "these logs have no ICMP type: we name the pair of addresses, Elastic takes the missing type for an echo reply, so "
    "that the two directions of one exchange get two names"
)
_OTHER_INTERFACE = "the expected result has an interface id that its own raw line does not have"
DIFFERENCES = (
    Difference(SAMPLES[0].name, 2, "network.community_id", _NO_TYPE, _as_echo_reply),
    Difference(SAMPLES[0].name, 3, "network.community_id", _NO_TYPE, _as_echo_reply),
    Difference(_OCSF.format("v1.0.0-rc.2"), 0, "observer.name", _OTHER_INTERFACE, _not_in_the_line),
    Difference(_OCSF.format("v1.1.0"), 0, "observer.name", _OTHER_INTERFACE, _not_in_the_line),
)
"""Every difference; one that is not here fails, and so does one here that is none any more."""
