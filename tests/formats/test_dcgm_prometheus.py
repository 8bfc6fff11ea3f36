"""GPU samples read by columns are those that a reader of one character after the other finds, however lines are cut."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.oracles.prometheus_text import RefusedError, sample

from agenttrail.formats import FORMATS
from agenttrail.formats.dcgm_prometheus import METRICS
from agenttrail.parsing import Block, Parsed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARSE = FORMATS["dcgm_prometheus"].parser({})
_NAMES = (
    "gpu", "UUID", "GPU_I_ID", "Hostname", "hostname", "hpc_job", "pod", "namespace", "container", "pod_uid",
    "exported_pod", "exported_namespace", "exported_container", "exported_pod_uid", "modelName", "pod1",
)  # fmt: skip
_PIECES = ["a", "b", ",", "=", "{", "}", " ", "#", "é", "\t", "\r", "\\\\", '\\"', "\\n"]
_VALUES = st.one_of(
    st.sampled_from(["", "gpu-1", "GPU-0f2a", "nvidia-dcgm-exporter-x", "trainer-0", "pod=", 'x,pod=\\"y\\"']),
    st.lists(st.sampled_from(_PIECES), max_size=6).map("".join),
)
_SPACE = st.sampled_from(["", "", "", " ", "\t ", "  "])
_NUMBERS = st.sampled_from(
    (
        *("97", "0", "412.875") * 20,
        "97", "0", "-1", "+5", ".5", "5.", "8.5e-01", "1E2", "NaN", "+Inf", "-inf", "1e999", "9223372036854775794",
        "140737488355328", "140737488355327", "high", "0x10", "1_0", "1e", "", "--1", "٣",
    )
)  # fmt: skip
_TIMES = st.sampled_from(
    (
        *("1772409600000", "1772409615000") * 20,
        "1772409600000", "1772409600001", "1772409600", "4291747200000", "-5", "1772409600.5", "", "1e12",
        "99999999999999999999",
    )
)  # fmt: skip


@st.composite
def _label(draw: st.DrawFn) -> str:
    name, value = draw(st.sampled_from(_NAMES)), draw(_VALUES)
    return f'{draw(_SPACE)}{name}{draw(_SPACE)}={draw(_SPACE)}"{value}"{draw(_SPACE)}'


@st.composite
def _line(draw: st.DrawFn) -> str:
    metric = draw(st.sampled_from([*METRICS * 4, "DCGM_FI_DEV_GPU_TEMP", "up", "# TYPE x gauge", "9x", ""]))
    labels = draw(st.lists(_label(), max_size=5, unique_by=lambda text: text.partition("=")[0].strip()))
    if draw(st.integers(0, 3)):
        labels = [
            'gpu="0",UUID="GPU-0"',
            *(one for one in labels if one.partition("=")[0].strip() not in ("gpu", "UUID")),
        ]
    braces = "{" + ",".join(labels) + draw(st.sampled_from(["", "", ","])) * bool(labels) + "}"
    braces = draw(st.sampled_from([braces] * 10 + ["", "{}"]))
    blank = draw(st.sampled_from([" ", "  ", "\t"])) if not braces else draw(_SPACE)
    line = f"{draw(_SPACE)}{metric}{blank}{braces}{draw(_SPACE)}{draw(_NUMBERS)} {draw(_TIMES)}{draw(_SPACE)}"
    if draw(st.integers(0, 5)) == 0:  # a letter lost or another one in its place
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.sampled_from(["", '"', "\\", "{", "}", ",", " ", "=", "x"])) + line[at + 1 :]
    return line


def _found(parsed: Parsed) -> list[tuple[int, dict[str, Any]]]:
    rows = parsed.events.drop_columns(["event.original", "event.dataset", "event.action", "log.file.path"]).to_pylist()
    found = []
    for row in rows:
        assert row.pop("event.end") == row["event.start"]
        row["event.start"] = round((row["event.start"] - _EPOCH) / timedelta(microseconds=1))
        found.append((row.pop("log.offset"), {name: value for name, value in row.items() if value is not None}))
    return found


@settings(max_examples=600)
@given(lines=st.lists(_line(), min_size=1, max_size=8))
@example(lines=['DCGM_FI_DEV_GPU_UTIL{UUID="\\\\"} 1 1772409600000', 'DCGM_FI_DEV_GPU_UTIL{"a="1"} 1 1772409600000'])
def test_every_line_is_what_the_oracle_says(lines: list[str]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    parsed = _PARSE(Block(data, "x", 7))
    events, dead, skipped, at = [], [], 0, 7
    for line in lines:
        try:
            event = sample(line)
        except RefusedError:
            dead.append(at)
        else:
            skipped += event is None
            events += [] if event is None else [(at, event)]
        at += len(line.encode()) + 1
    assert _found(parsed) == events
    assert parsed.dead.column("log.offset").to_pylist() == dead
    assert (parsed.lines, parsed.skipped) == (len(lines), skipped)


@settings(max_examples=100)
@given(lines=st.lists(_line(), min_size=1, max_size=12), data=st.data())
def test_blocks_may_be_cut_at_any_line_end(lines: list[str], data: st.DataObject) -> None:
    whole = [line.encode() + b"\n" for line in lines]
    together = _PARSE(Block(b"".join(whole), "x", 0))
    at, parts = 0, []
    while whole:
        count = data.draw(st.integers(1, len(whole)))
        parts.append(_PARSE(Block(b"".join(whole[:count]), "x", at)))
        at += sum(map(len, whole[:count]))
        whole = whole[count:]
    assert [row for part in parts for row in part.events.to_pylist()] == together.events.to_pylist()
    assert [row for part in parts for row in part.dead.to_pylist()] == together.dead.to_pylist()
    assert sum(part.skipped for part in parts) == together.skipped


@pytest.mark.parametrize(
    ("labels", "sandbox", "namespace", "uid"),
    [
        ('pod="a",namespace="n",pod_uid="u"', "a", "n", "u"),
        ('pod="dcgm-exporter-1",namespace="mon",exported_pod="a",pod_uid="u"', "a", None, "u"),
        ('pod="dcgm-exporter-1",namespace="mon",pod_uid="u"', None, None, None),
        ('pod="gpu-metrics-1",container="nvidia-dcgm-exporter",namespace="mon"', None, None, None),
        ('pod="",namespace=""', None, None, None),
    ],
)
def test_a_sample_belongs_to_the_pod_that_works_on_the_gpu(
    labels: str, sandbox: str | None, namespace: str | None, uid: str | None
) -> None:
    line = f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-0",Hostname="node-1",{labels}}} 97 1772409600000\n'
    (event,) = _PARSE(Block(line.encode(), "x", 0)).events.to_pylist()
    assert (event["sandbox.id"], event["k8s.namespace.name"], event["k8s.pod.uid"]) == (sandbox, namespace, uid)
    assert (event["host.name"], event["gpu.id"]) == ("node-1", "GPU-0")
