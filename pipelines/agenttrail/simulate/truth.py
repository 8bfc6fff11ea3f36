"""What really happened: the answer that comes with a simulated day."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from agenttrail.simulate.behaviours import TECHNIQUES
from agenttrail.simulate.clock import instant, moment
from agenttrail.simulate.fleet import Pod
from agenttrail.simulate.ledger import UNATTRIBUTED, holder_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agenttrail.simulate.behaviours import Behaviour
    from agenttrail.simulate.fleet import Cluster, Party
    from agenttrail.simulate.ledger import Judgement

KINDS = ("flow", "gap", "telemetry", "unmeasured", "broken", "blank", "header")
"""What a line of a log file is; "unmeasured" is a sample without a value."""
FLOW, GAP, TELEMETRY, UNMEASURED, BROKEN, BLANK, HEADER = KINDS

_IDENTITY = ("gen_ai.agent.id", "trajectory.id", "sandbox.id", "job.id", "host.name", "k8s.pod.uid")


@dataclass
class Truth:
    """The answer as ``truth.json`` holds it; times are RFC 3339 texts.

    Attributes:
        seed: what the day was drawn from, as ``agents`` and ``hours`` are.
        start: start of the day, and ``end`` its end.
        sandboxes: every sandbox with its names, interval, behaviour (None for a clean one), number of GPUs, and the
            telemetry that is missing of it.
        behaviours: every instance of a behaviour with its sandbox, interval, peers, ports, technique and parameters;
            the tool call that it began with (None without spans) and whether that tells; and its first activity, the
            start of its earliest record as the sensors write it.
        secrets: every secret that was planted in a tool call, as it stands in the spans.
        records: number of lines by dataset and kind, exact duplicates among them, and in all.
    """

    seed: int
    agents: int
    hours: float
    start: str
    end: str
    sandboxes: list[dict[str, Any]] = field(default_factory=list)
    behaviours: list[dict[str, Any]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    records: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


class Label(NamedTuple):
    """What truth says of a line: its kind, and for events whose it is and which behaviour it belongs to."""

    kind: str
    judgement: Judgement | None = None
    behaviour: str = ""


class LineTable:
    """One row for every line of every log file, in the order in which they were written."""

    def __init__(self) -> None:
        """Start without lines."""
        self._paths: dict[tuple[str, str], int] = {}
        self._labels: dict[Label, int] = {}
        self._latest: tuple[Label | None, int] = None, 0
        self._path, self._offset, self._label, self._duplicate = array("i"), array("q"), array("i"), array("b")

    def place(self, path: str, dataset: str) -> int:
        """Return the number of the uncompressed file ``path``."""
        return self._paths.setdefault((path, dataset), len(self._paths))

    def add(self, place: int, offset: int, label: Label, *, duplicate: bool) -> None:
        """Note the line at byte ``offset`` of the file of this number."""
        self._path.append(place)
        self._offset.append(offset)
        if label is not self._latest[0]:  # lines that arrive together mostly share one
            self._latest = label, self._labels.setdefault(label, len(self._labels))
        self._label.append(self._latest[1])
        self._duplicate.append(duplicate)

    def write(self, path: Path) -> None:
        """Write the table as Parquet."""
        files, labels = list(self._paths), list(self._labels)
        place, which = pa.array(self._path), pa.array(self._label)
        columns = {
            "log.file.path": pa.array([file for file, _ in files]).take(place),
            "log.offset": pa.array(self._offset),
            "event.dataset": pa.array([dataset for _, dataset in files]).take(place),
            "kind": pa.array([label.kind for label in labels]).take(which),
            "duplicate": pa.array(np.frombuffer(self._duplicate, dtype=np.int8).astype(bool)),
            **{name: column.take(which) for name, column in _label_columns(labels).items()},
        }
        pq.write_table(pa.table(columns), path, compression="zstd")

    def counts(self) -> dict[str, Any]:
        """Return the number of lines by dataset and kind, the duplicates among them, and in all."""
        files, labels = list(self._paths), list(self._labels)
        seen = Counter(zip(self._path, self._label, self._duplicate, strict=True))
        counts: dict[str, Any] = {dataset: dict.fromkeys((*KINDS, "duplicates"), 0) for _, dataset in files}
        for (place, which, duplicate), count in seen.items():
            of_dataset = counts[files[place][1]]
            of_dataset[labels[which].kind] += count
            of_dataset["duplicates"] += count * duplicate
        return {dataset: counts[dataset] for dataset in sorted(counts)} | {"lines": len(self._path)}

    def behaviour_counts(self) -> Counter[str]:
        """Return the number of records of each behaviour; exact duplicates count once."""
        labels = list(self._labels)
        firsts = Counter(which for which, duplicate in zip(self._label, self._duplicate, strict=True) if not duplicate)
        counts: Counter[str] = Counter()
        for which, count in firsts.items():
            counts[labels[which].behaviour] += count
        return counts


def _label_columns(labels: list[Label]) -> dict[str, pa.Array]:
    """Return what each label says, in columns."""
    nobody = dict.fromkeys(_IDENTITY)
    judged = [label.judgement for label in labels]
    names = [identity(one.holder) if one and one.holder and one.status != UNATTRIBUTED else nobody for one in judged]
    return {
        "attribution.status": pa.array([one.status if one else None for one in judged], pa.string()),
        **{name: pa.array([row[name] for row in names], pa.string()) for name in _IDENTITY},
        "candidates": pa.array(
            [[holder_id(who) for who in one.candidates] if one else [] for one in judged], pa.list_(pa.string())
        ),
        "behaviour": pa.array([label.behaviour or None for label in labels], pa.string()),
    }


def identity(holder: Party) -> dict[str, str | None]:
    """Return the names of a holder: for a node its own only."""
    if not isinstance(holder, Pod):
        return dict.fromkeys(_IDENTITY) | {"host.name": holder.name}
    return {
        "gen_ai.agent.id": holder.agent or None,
        "trajectory.id": holder.trajectory or None,
        "sandbox.id": holder.name,
        "job.id": holder.job or None,
        "host.name": holder.node.name if holder.node else None,
        "k8s.pod.uid": holder.uid,
    }


def tell_sandboxes(clusters: Iterable[Cluster], behaviours: list[Behaviour]) -> list[dict[str, Any]]:
    """Return what ``truth.json`` says of every sandbox, in the order of their start."""
    guilty = {behaviour.pod.uid: behaviour.id for behaviour in behaviours}
    pods = [(cluster.network.vpc, pod) for cluster in clusters for pod in cluster.of_role("sandbox")]
    pods.sort(key=lambda one: (one[1].start, one[1].uid))
    return [
        _who(pod, scope)
        | {"start": moment(pod.start), "end": moment(pod.end), "behaviour": guilty.get(pod.uid)}
        | {"gpus": pod.gpus, "missing": list(pod.missing)}
        for scope, pod in pods
    ]


def tell_behaviours(behaviours: list[Behaviour], records: Counter[str], horizon: int) -> list[dict[str, Any]]:
    """Return what ``truth.json`` says of every instance of a behaviour."""
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "technique": TECHNIQUES[one.kind],
            **_who(one.pod, one.pod.node.network.vpc if one.pod.node else ""),
            "start": moment(min(flow.start for flow in one.flows)),
            "end": moment(min(max(flow.end for flow in one.flows), horizon)),
            "peers": sorted({flow.server.address for flow in one.flows}),
            "ports": sorted({flow.server.port for flow in one.flows}),
            "records": records[one.id],
            "tells": one.tells,
            "tool_call": _call(one),
            "first_activity": moment(one.first),
            "missing": list(one.pod.missing),
            "parameters": _parameters(one),
        }
        for one in behaviours
        if one.flows
    ]


def _parameters(one: Behaviour) -> dict[str, Any]:
    lasted = max(flow.end for flow in one.flows) - min(flow.start for flow in one.flows)
    return {"duration_s": round(lasted, 3)} | one.parameters | ({"form": one.form} if one.form else {})


def _call(one: Behaviour) -> dict[str, Any] | None:
    """Return the tool call that a behaviour began with; None where there are no spans."""
    call = one.call
    return None if call is None else {"id": call.id, "name": call.errand.tool, "start": instant(call.start)}


def _who(pod: Pod, scope: str) -> dict[str, Any]:
    names = identity(pod)
    order = ("sandbox.id", "k8s.pod.uid", "trajectory.id", "gen_ai.agent.id", "job.id")
    return {name: names[name] for name in order} | {"scope": scope}
