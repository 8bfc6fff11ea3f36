"""GPU samples in Prometheus text, character by character: an event, a reason to skip a line, or to refuse it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

_METRICS = {
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "DCGM_FI_DEV_FB_USED",
}
_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DIGITS = set("0123456789")
_BLANKS = " \t"


class RefusedError(ValueError):
    """The line is no sample that can be used."""


class _Text:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        self.at += 1
        return self.text[self.at - 1 : self.at]

    def blanks(self) -> None:
        while self.peek() and self.peek() in _BLANKS:
            self.take()

    def word(self, also: str = "") -> str:
        start = self.at
        while self.peek() and (
            self.peek() in _LETTERS or self.peek() in also or (self.at > start and self.peek() in _DIGITS)
        ):
            self.take()
        if self.at == start:
            raise RefusedError
        return self.text[start : self.at]

    def quoted(self) -> str:
        if self.take() != '"':
            raise RefusedError
        out = ""
        while (char := self.take()) != '"':
            if not char:
                raise RefusedError
            if char == "\\":
                escape = self.take()
                if escape not in ("\\", '"', "n"):
                    raise RefusedError
                char = "\n" if escape == "n" else escape
            out += char
        return out


def _labels(text: _Text) -> dict[str, str]:
    labels: dict[str, str] = {}
    text.blanks()
    while text.peek() != "}":
        name = text.word()
        text.blanks()
        if text.take() != "=" or name in labels:
            raise RefusedError
        text.blanks()
        labels[name] = text.quoted()
        text.blanks()
        if text.peek() == ",":
            text.take()
            text.blanks()
        elif text.peek() != "}":
            raise RefusedError
    text.take()
    return labels


def sample(line: str) -> dict[str, Any] | None:
    """Return the event of one line without its line end, None for a line to skip.

    Raises:
        RefusedError: the line is a dead letter.
    """
    text = _Text(line)
    text.blanks()
    if text.peek() in ("", "#"):
        return None
    metric = text.word(also=":")
    if text.peek() not in ("{", " ", "\t"):
        raise RefusedError
    if metric not in _METRICS:
        return None
    text.blanks()
    labels = {}
    if text.peek() == "{":
        text.take()
        labels = _labels(text)
    rest = text.text[text.at :].replace("\t", " ").split(" ")
    value, time = _numbers([word for word in rest if word])
    event = {"event.start": time * 1000, "metric.name": metric, "metric.value": value} | _holder(
        {name: value for name, value in labels.items() if value}
    )
    return event if math.isfinite(value) and value < 2**47 else None


def _numbers(words: list[str]) -> tuple[float, int]:
    if len(words) != 2:
        raise RefusedError
    value, time = words
    if not time.removeprefix("-").isdecimal() or "_" in value or not value.isascii():
        raise RefusedError
    try:
        number = float(value)
    except ValueError as error:
        raise RefusedError from error
    if not 946_684_800_000 <= int(time) < 4_102_444_800_000:
        raise RefusedError
    if math.isfinite(number):
        assert Fraction(value) == 0 or number != 0 or abs(Fraction(value)) < Fraction(1, 10**300)
    return number, int(time)


def _holder(labels: dict[str, str]) -> dict[str, str]:
    host = labels.get("Hostname") or labels.get("hostname")
    gpu = labels.get("UUID") or (f"{host}/{labels['gpu']}" if host and "gpu" in labels else None)
    if gpu is None:
        raise RefusedError
    if "GPU_I_ID" in labels:
        gpu += "/" + labels["GPU_I_ID"]
    of = {"gpu.id": gpu, "host.name": host, "job.id": labels.get("hpc_job")}
    exporters = any("dcgm-exporter" in labels.get(name, "") for name in ("pod", "container"))
    if "exported_pod" in labels or not exporters:
        prefix = "exported_" if "exported_pod" in labels else ""
        of["sandbox.id"] = labels.get(f"{prefix}pod")
        of["k8s.namespace.name"] = labels.get(f"{prefix}namespace")
        of["container.id"] = labels.get(f"{prefix}container")
        of["k8s.pod.uid"] = labels.get("exported_pod_uid") or labels.get("pod_uid")
    return {name: value for name, value in of.items() if value is not None}
