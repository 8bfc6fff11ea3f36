"""Kubernetes pods: which pod held which address from when to when.

Takes what ``kubectl get pods -o json`` prints (a PodList), a JSON list of pods, or one object a line: pods or watch
events.
Source: the Pod resource of the Kubernetes API, v1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from agenttrail.columns.addresses import address
from agenttrail.columns.intervals import OPEN
from agenttrail.errors import InputError
from agenttrail.metadata import dead_rows, lease_batch, parse_time
from agenttrail.parsing import Block, Format, Parsed
from agenttrail.paths import Step, look_up, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATASET = "kubernetes_pods"
IDENTITY = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name")
"""Rungs that a source's ``identity`` may map."""
_DEFAULTS = {
    "sandbox.id": ("metadata.name",),
    "job.id": (
        'metadata.labels["training.kubeflow.org/job-name"]',
        'metadata.labels["volcano.sh/job-name"]',
        'metadata.labels["ray.io/cluster"]',
    ),
    "host.name": ("spec.nodeName",),
}
_TERMINAL = ("Succeeded", "Failed")


class _NotAPodError(ValueError):
    """One object cannot be used; the message says why."""


def _as_text(item: object) -> bytes:
    """Return an item of a list as JSON again; orjson writes fewer levels than it reads."""
    try:
        return orjson.dumps(item)
    except TypeError:
        return repr(item).encode()


@dataclass(frozen=True)
class Parser:
    """Parses the files of one source.

    Attributes:
        identity: where each rung is found, in the order of preference.
        scope: a constant, or where it is found.
    """

    identity: Mapping[str, tuple[tuple[Step, ...], ...]]
    scope: str | tuple[Step, ...] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Parser:
        """Make the parser that a source's settings ask for.

        Raises:
            ValueError: a path in ``identity`` or ``scope`` is none.
        """
        mapped = {rung: (path,) for rung, path in (settings.get("identity") or {}).items()}
        paths = {rung: tuple(map(parse_path, found)) for rung, found in (_DEFAULTS | mapped).items()}
        scope = settings.get("scope")
        in_pod = isinstance(scope, str) and scope.startswith(("metadata.", "spec.", "status."))
        return cls(paths, parse_path(scope) if isinstance(scope, str) and in_pod else scope)

    def __call__(self, block: Block) -> Parsed:
        """Turn one whole file into leases; ``lines`` counts its objects.

        Raises:
            InputError: the file is broken as a whole.
        """
        rows: list[dict[str, Any]] = []
        dead: list[tuple[bytes, str]] = []
        count = skipped = 0
        for count, (place, raw, item) in enumerate(_objects(block), start=1):  # noqa: B007 - counts
            try:
                leases = self._leases(_pod(item))
            except (_NotAPodError, AttributeError, TypeError) as error:
                reason = str(error) if isinstance(error, _NotAPodError) else "the pod is not shaped as the API says"
                dead.append((raw or _as_text(item), f"{place}: {reason}"))
                continue
            skipped += not leases
            rows += leases
        return Parsed(lease_batch(rows, block.path), dead_rows(dead, block.path, DATASET), count, skipped)

    def _leases(self, pod: Mapping[str, Any]) -> list[dict[str, Any]]:
        status, spec = _part(pod, "status"), _part(pod, "spec")
        ips = _ips(status, "podIPs", "podIP")
        if not ips:
            return []
        start, end = _interval(pod, status)
        names = {
            rung: next(filter(None, (look_up(pod, path) for path in paths)), None)
            for rung, paths in self.identity.items()
        }
        scope = self.scope if isinstance(self.scope, str) or self.scope is None else look_up(pod, self.scope)
        common = {"lease.scope": scope, "lease.start": start, "lease.end": None if end == OPEN else end}
        kubernetes = {
            "k8s.namespace.name": look_up(pod, ("metadata", "namespace")),
            "k8s.pod.uid": look_up(pod, ("metadata", "uid")),
        }
        leases = [{**common, **names, **kubernetes, "lease.address": ip} for ip in ips]
        # The node itself held its address for at least as long: what is not a pod's on it is the node's.
        hosts = _ips(status, "hostIPs", "hostIP") if names.get("host.name") and spec.get("nodeName") else []
        return leases + [{**common, "lease.address": ip, "host.name": names["host.name"]} for ip in hosts]


def _objects(block: Block) -> Iterator[tuple[str, bytes, object]]:
    """Yield place, original (empty inside a larger document) and value of each object of the file."""
    try:
        document = orjson.loads(block.data)
    except orjson.JSONDecodeError as error:
        yield from _object_lines(block, error)
        return
    if isinstance(document, list):
        items = document
    elif isinstance(document, dict) and isinstance(document.get("items"), list):
        items = document["items"]
    elif isinstance(document, dict) and ("metadata" in document or "object" in document):
        items = [document]
    else:
        msg = f"{block.path}: neither a PodList, nor a list of pods, nor a pod"
        raise InputError(msg)
    for number, item in enumerate(items):
        yield f"item {number}", b"", item


def _object_lines(block: Block, whole: orjson.JSONDecodeError) -> Iterator[tuple[str, bytes, object]]:
    """Yield the objects of a file with one a line; what cannot be read comes out as None."""
    found: list[tuple[str, bytes, object]] = []
    for number, line in enumerate(block.data.splitlines(), start=1):
        text = line.strip()
        if text:
            try:
                found.append((f"line {number}", text, orjson.loads(text)))
            except orjson.JSONDecodeError:
                found.append((f"line {number}", text, None))
    objects = sum(isinstance(item, dict) and ("metadata" in item or "object" in item) for _, _, item in found)
    # most lines, not just one: pods in YAML quote the JSON that they were made of, on a line of its own
    if not objects or objects * 2 < len(found):
        msg = f"{block.path}:{whole.lineno}:{whole.colno}: not valid JSON: {whole.msg}"
        raise InputError(msg)
    yield from found


def _pod(item: object) -> Mapping[str, Any]:
    """Return the pod of a list item or watch event."""
    if item is None:
        msg = "not valid JSON"
        raise _NotAPodError(msg)
    if isinstance(item, dict) and isinstance(item.get("object"), dict):
        deleted = item.get("type") == "DELETED"
        item = {**item["object"], "deleted": deleted}
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        msg = "not a pod: it has no metadata"
        raise _NotAPodError(msg)
    if item.get("kind", "Pod") != "Pod":
        msg = "not a pod but another kind of object"
        raise _NotAPodError(msg)
    return item


def _part(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = pod.get(name) or {}
    if not isinstance(part, dict):
        msg = f"{name} is not an object"
        raise _NotAPodError(msg)
    return part


def _ips(status: Mapping[str, Any], several: str, single: str) -> list[bytes]:
    """Return the distinct addresses of a status in 16 bytes each."""
    listed = status.get(several) or []
    entries = [entry.get("ip") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else [listed]
    texts = dict.fromkeys([*entries, status.get(single)])
    try:
        return list(dict.fromkeys(address(str(text)) for text in texts if text))
    except ValueError as error:
        msg = f"{single} is not an IP address"
        raise _NotAPodError(msg) from error


def _interval(pod: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[int, int]:
    """Return when the pod's occupancy of its addresses starts and ends, in microseconds."""
    start = _time(status.get("startTime"), "status.startTime")
    if start is None:
        msg = "the pod has an address but no status.startTime"
        raise _NotAPodError(msg)
    end = _end(pod, status)
    return start, OPEN if end is None else max(start, end)


def _end(pod: Mapping[str, Any], status: Mapping[str, Any]) -> int | None:
    """Return the instant of the terminal phase: the address is free for others from then on, not from deletion on.

    The last container to finish tells; for an evicted pod without container states its conditions do; deletion is the
    last resort.
    """
    ended = status.get("phase") in _TERMINAL
    if not ended and not pod.get("deleted"):
        return None
    finished = [
        _time((state.get("terminated") or {}).get("finishedAt"), "finishedAt")
        for container in status.get("containerStatuses") or []
        if isinstance(container, dict) and isinstance(state := container.get("state") or {}, dict)
    ]
    if all(finished) and finished:
        return max(time for time in finished if time is not None)
    changed = [
        _time(condition.get("lastTransitionTime"), "lastTransitionTime")
        for condition in status.get("conditions") or []
        if isinstance(condition, dict)
        and condition.get("type") in ("Ready", "ContainersReady")
        and condition.get("status") == "False"
    ]
    known = [time for time in [*finished, *changed] if time is not None] if ended else []
    return max(known) if known else _time(look_up(pod, ("metadata", "deletionTimestamp")), "metadata.deletionTimestamp")


def _time(text: object, name: str) -> int | None:
    try:
        return None if text is None else parse_time(str(text), name)
    except ValueError as error:
        raise _NotAPodError(str(error)) from error


FORMAT = Format(name=DATASET, gives="leases", parser=Parser.of, settings=frozenset({"identity"}))
