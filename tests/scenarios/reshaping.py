"""The same log lines in other files: shuffled, cut up, joined, stored in other ways."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, NamedTuple

import zstandard

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_HEADER = b"version "


class _Log(NamedTuple):
    """The files of one source: by which glob the job file finds them, and whether they are read without a header."""

    folder: str
    pattern: str
    default_layout: bool = False


_LOGS = (
    _Log("alibaba_vpc_flow", "*.jsonl.gz"),
    _Log("aws_vpc_flow", "full-*.log.gz"),
    _Log("aws_vpc_flow", "default-*.log.gz", default_layout=True),
    _Log("alibaba_cloud_firewall", "*.jsonl"),
    *(
        _Log(folder, f"{cluster}-*.{kind}")
        for folder, kind in (("otlp", "jsonl"), ("dcgm", "prom"), ("training", "jsonl"))
        for cluster in ("rollout-hz", "rollout-fra")
    ),
)


def reshape(day: Path, target: Path, dice: Random) -> None:
    """Write the simulated ``day`` to ``target`` with the same lines in other files, and a job file that finds them."""
    (target / "k8s").mkdir(parents=True)
    for path in (day / "k8s").iterdir():
        (target / "k8s" / path.name).write_bytes(path.read_bytes())
    job = (day / "job.yml").read_text()
    for log in _LOGS:
        stem = log.pattern.partition("*")[0]
        job = job.replace(f'"{log.folder}/{log.pattern}"', f'"{log.folder}/{stem}*"')
        (target / log.folder).mkdir(exist_ok=True)
        for number, lines in enumerate(_files(day, log, dice)):
            data = b"\n".join(lines) + (b"" if dice.random() < 0.3 else b"\n")
            name, stored = _stored(data, dice)
            (target / log.folder / f"{stem}{number:03d}{name}").write_bytes(stored)
    (target / "job.yml").write_text(job)


def _files(day: Path, log: _Log, dice: Random) -> list[list[bytes]]:
    """Return the lines of each file that the log is to have now."""
    header, lines = b"", list[bytes]()
    for path in sorted((day / log.folder).glob(log.pattern)):
        data = path.read_bytes()
        found = (gzip.decompress(data) if path.suffix == ".gz" else data).removesuffix(b"\n").split(b"\n")
        header = found[0] if found[0].startswith(_HEADER) else header
        lines += [line for line in found if line != header]
    dice.shuffle(lines)
    cuts = sorted(dice.randrange(len(lines) + 1) for _ in range(dice.randrange(8)))
    files = [lines[first:last] for first, last in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    if not header:
        return files
    for file in files:
        for _ in range(dice.choice((0, 0, 1, 5))):
            file.insert(dice.randrange(len(file) + 1), header)
        if not log.default_layout or dice.random() < 0.5:
            file.insert(0, header)
    return files


def _stored(data: bytes, dice: Random) -> tuple[str, bytes]:
    """Return how a file's name ends, and its bytes; what it says of compression may be wrong."""
    kind = dice.randrange(5)
    if kind == 0:
        return ".log", data
    if kind == 1:
        return ".gz", gzip.compress(data, 1)
    if kind == 2:  # two members, cut anywhere
        at = dice.randrange(len(data) + 1)
        return ".log.gz", gzip.compress(data[:at], 1) + gzip.compress(data[at:], 6)
    if kind == 3:
        return ".zst", zstandard.compress(data)
    return ".txt", zstandard.compress(data, 1)
