"""GPU counters of NVIDIA's DCGM exporter, as Prometheus text with timestamps: one sample a line.

Five counters are read: use of the GPU, power, tensor cores, memory bandwidth and memory held.  Samples of other metrics
are skipped, and so are comments.
Source: the labels and counters of dcgm-exporter; the exposition formats of Prometheus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.addresses import present
from agenttrail.columns.numbers import numbers
from agenttrail.columns.prometheus_text import NAME, Samples, read_samples
from agenttrail.columns.text import constant
from agenttrail.parsing import EARLIEST, LATEST, Block, Format, Lines, Parsed, event_batch, sift
from agenttrail.schema import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DATASET = "dcgm_prometheus"
METRICS = (
    "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_DEV_FB_USED",
)  # fmt: skip
"""The counters that become events."""
_BLANK = 140_737_488_355_328.0  # DCGM_FP64_BLANK; it and all above, such as 9223372036854775794, say "not known"
_EXPORTER = "dcgm-exporter"
_LABELS = (
    "gpu", "UUID", "GPU_I_ID", "Hostname", "hostname", "hpc_job",
    *(f"{exported}{name}" for exported in ("", "exported_") for name in ("pod", "namespace", "container", "pod_uid")),
)  # fmt: skip
_COMMENT = r"^[ \t]*#"
_METRIC = rf"^[ \t]*{NAME}[ \t{{]"
_READ = rf"^[ \t]*(?:{'|'.join(METRICS)})[ \t{{]"


class Parser:
    """Parses block after block of one source."""

    def __call__(self, block: Block) -> Parsed:
        """Turn a block of samples into events of the action ``gpu_sample``.

        A sample has the time that stands behind its value: without one it is refused, for when it was read tells
        nothing. A value that DCGM calls blank is no measurement, and neither is NaN or an infinity: those lines are
        skipped.

        A sample belongs to ``exported_pod`` if that is there: then ``pod`` is the exporter's own, added by the
        scraper. Where ``pod`` alone is there and names an exporter, the sample belongs to no pod.
        """
        lines = Lines(block.data)
        rows, kept = sift(lines, block.data)
        rows, kept = _samples_only(lines, rows, kept)
        samples = read_samples(kept, _LABELS)
        columns = _event_columns(lines, rows, samples)
        events = event_batch(lines, block, DATASET, rows, columns)
        return Parsed(events, lines.dead_letters(block, DATASET), len(lines), lines.skipped)


def _samples_only(lines: Lines, rows: NDArray[np.int64], kept: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Skip comments and other metrics; return the rows left and their lines."""
    read = _matches(kept, _READ)
    if read.all():
        return rows, kept
    others, other_lines = rows[~read], kept.filter(pa.array(~read))
    metric = _matches(other_lines, _METRIC)
    lines.skip(others[metric | _matches(other_lines, _COMMENT)])
    lines.refuse(others, "not a sample of a metric")
    return rows[read], kept.filter(pa.array(read))


def _matches(lines: pa.Array, pattern: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.match_substring_regex(lines, pattern).to_numpy(zero_copy_only=False).astype(bool)
    return found


def _event_columns(lines: Lines, rows: NDArray[np.int64], samples: Samples) -> dict[str, pa.Array]:
    for reason, bad in samples.malformed.items():
        lines.refuse(rows[bad], reason)
    series = pa.array(samples.series)
    columns = {name: column.take(series) for name, column in _of_each_series(samples.labels).items()}
    lines.refuse(rows[~present(columns["gpu.id"])], "the sample names no GPU: neither UUID nor host and number")
    times = _times(lines, rows, samples.times)
    measured = pc.fill_null(pc.less(samples.values, _BLANK), fill_value=False)
    lines.skip(rows[~measured.to_numpy(zero_copy_only=False) & lines.good()[rows]])
    return {
        "event.start": times,
        "event.end": times,
        "event.action": constant("gpu_sample", len(rows)),
        "metric.name": samples.names.dictionary_encode(),
        "metric.value": samples.values,
        **columns,
    }


def _times(lines: Lines, rows: NDArray[np.int64], times: pa.Array) -> pa.Array:
    """Return milliseconds as times; refuse rows without one, and those outside of the years 2000 to 2100."""
    lines.refuse(rows[~present(times)], "the sample has no time behind its value")
    millis = numbers(times)
    wrong = (millis < EARLIEST // 1_000) | (millis >= LATEST // 1_000)
    lines.refuse(rows[wrong], "the time lies outside of the years 2000 to 2100")
    return pa.array(np.where(wrong, 0, millis) * 1_000).view(TIMESTAMP)


def _of_each_series(labels: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Return what the labels of each series say: whose it is, and which GPU."""
    nothing = pa.scalar(None, pa.string())
    exported = pc.is_valid(labels["exported_pod"])
    by_name = [pc.match_substring(labels[name], _EXPORTER) for name in ("pod", "container")]
    own = pc.or_(*(pc.fill_null(found, fill_value=False) for found in by_name))
    nobodys = pc.and_not(own, exported)

    def of_pod(name: str) -> pa.Array:
        return pc.if_else(nobodys, nothing, pc.if_else(exported, labels[f"exported_{name}"], labels[name]))

    host = pc.coalesce(labels["Hostname"], labels["hostname"])
    # a scraper adds no pod_uid of its own, so that one is the workload's even where pod is not
    uid = pc.coalesce(labels["exported_pod_uid"], labels["pod_uid"])
    return {
        "gpu.id": _gpu(labels, host),
        "host.name": host,
        "job.id": labels["hpc_job"],
        "sandbox.id": of_pod("pod"),
        "k8s.namespace.name": of_pod("namespace"),
        "k8s.pod.uid": pc.if_else(nobodys, nothing, uid),
        "container.id": of_pod("container"),
    }


def _gpu(labels: Mapping[str, pa.Array], host: pa.Array) -> pa.Array:
    """Return the id of the GPU, with the number of its instance where it is divided into some (MIG)."""
    whole = pc.coalesce(labels["UUID"], pc.binary_join_element_wise(host, labels["gpu"], "/"))
    return pc.coalesce(pc.binary_join_element_wise(whole, labels["GPU_I_ID"], "/"), whole)


FORMAT = Format(name=DATASET, gives="events", parser=lambda _settings: Parser(), kind="GPU counters", named=True)
