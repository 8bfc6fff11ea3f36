"""Inputs made of samples that are none themselves; nothing but their shape changes."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
import yaml
from tests.conformance.pods import pods_of


def one_line(content: bytes) -> bytes:
    """Put an object that is printed over many lines on one."""
    return orjson.dumps(orjson.loads(content)) + b"\n"


def one_line_with_digits(content: bytes) -> bytes:
    """Put digits where documentation hides those of an address."""
    return one_line(content.replace(b".XX", b".88"))


def yaml_as_json(content: bytes) -> bytes:
    """Turn what ``kubectl get pods -o yaml`` prints into what ``-o json`` does."""
    return orjson.dumps(yaml.load(content, Loader=_TextTimes))  # noqa: S506 - a safe loader


class _TextTimes(yaml.CSafeLoader):
    """Leaves times the text that they are in JSON."""


_TextTimes.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def leases_as_json_lines(content: bytes) -> bytes:
    """Write the addresses of pods as plain leases."""
    return b"".join(orjson.dumps(lease) + b"\n" for lease in _leases(content))


def leases_as_csv(content: bytes) -> bytes:
    """Write the addresses of pods as plain leases in CSV."""
    leases = _leases(content)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(leases[0]))
    writer.writeheader()
    writer.writerows(leases)
    return text.getvalue().encode()


def _leases(content: bytes) -> list[dict[str, Any]]:
    return [
        {
            "address": address,
            "start": pod.start.isoformat(),
            "end": pod.end and pod.end.isoformat(),
            "sandbox.id": pod.name,
            "host.name": pod.node,
            "k8s.namespace.name": pod.namespace,
            "k8s.pod.uid": pod.uid,
        }
        for pod in pods_of(orjson.loads(content))
        for address in pod.addresses
    ]
