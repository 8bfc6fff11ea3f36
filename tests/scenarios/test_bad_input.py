"""Hostile input end to end: what is broken becomes a dead letter with its place, and everything else goes on."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import zlib
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.compute as pc
import pytest
import zstandard
from tests.scenarios import hostile
from tests.scenarios.days import events_of, lines_of
from tests.scenarios.hostile import DEAD, EITHER, EVENT, SKIPPED, HostileFile

from agenttrail.formats import FORMATS
from agenttrail.parsing import Block

if TYPE_CHECKING:
    from pathlib import Path

_MOST_MEMORY = 1_500  # MB at the peak: of a line of 100 MB a handful of copies, of all the rest next to nothing
_TORN = (
    "torn.gz", "torn.zst", "junk-inside.gz", "junk-inside.zst", "bad-sum.gz", "junk-behind.gz", "only-magic.gz",
    "only-magic.zst",
)  # fmt: skip
_JOB = """\
name: hostile
events:
{events}leases:
  - {{format: address_leases, path: leases.csv}}
lists: {{egress_allow: [192.0.2.0/24]}}
output: {{directory: out, events: true}}
"""


@dataclass(frozen=True)
class Ran:
    """What a run over all hostile files left behind.

    Attributes:
        files: hostile files by their path in the job's folder.
        events: offsets of the events of each file.
        dead: dead letters of each file by offset.
        peak: most memory that the run held, in MB.
    """

    folder: Path
    files: dict[str, HostileFile]
    events: dict[str, set[int]]
    dead: dict[str, dict[int, dict[str, Any]]]
    summary: dict[str, Any]
    peak: float


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "agenttrail.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run one job over all hostile files of all formats, in a process of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    files: dict[str, HostileFile] = {}
    for name in hostile.FORMATS:
        files |= {f"{name}/{file}": content for file, content in hostile.write(folder / name, name).items()}
    _write_job(folder, [f'{{format: {name}, path: "{name}/*"}}' for name in hostile.FORMATS])
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(_command("run", folder / "job.yml"), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (folder / "stderr").read_text()
    process.returncode = 0
    out = folder / "out"
    events: dict[str, set[int]] = defaultdict(set)
    places = events_of(out).select(["log.file.path", "log.offset"])
    assert places.num_rows == len(places.group_by(["log.file.path", "log.offset"]).aggregate([]))
    for path, offset in zip(*(column.to_pylist() for column in places.columns), strict=True):
        events[path].add(offset)
    dead: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for letter in lines_of(out / "dead_letters.ndjson"):
        assert letter["log.offset"] not in dead[letter["log.file.path"]], letter["error.message"]
        dead[letter["log.file.path"]][letter["log.offset"]] = letter
    return Ran(folder, files, events, dead, orjson.loads((out / "run.json").read_bytes()), used.ru_maxrss / 1_024)


def _write_job(folder: Path, sources: list[str]) -> None:
    (folder / "leases.csv").write_text("address,start\n10.9.0.1,2026-01-01T00:00:00Z\n")
    (folder / "job.yml").write_text(_JOB.format(events="".join(f"  - {source}\n" for source in sources)))


def _original(letter: dict[str, Any]) -> bytes:
    if letter.get("event.original_encoding") == "base64":
        return base64.b64decode(letter["event.original"])
    return str(letter["event.original"]).encode()


pytestmark = pytest.mark.xdist_group("hostile")


@pytest.mark.parametrize("format_", hostile.FORMATS)
def test_every_line_meets_its_fate(ran: Ran, format_: str) -> None:
    """Events and dead letters stand at the very offsets of their lines, and a dead letter holds its line."""
    for path, file in ran.files.items():
        if path.startswith(format_) and file.name not in _TORN:
            events, dead = ran.events[path], ran.dead[path]
            fates = {offset: fate for offset, _, fate in file.fates}
            assert not events & dead.keys()
            assert events | dead.keys() == {offset for offset, fate in fates.items() if fate != SKIPPED}, path
            assert {offset for offset in events if fates[offset] != EITHER} == _places(file, EVENT), path
            assert {offset for offset in dead if fates[offset] != EITHER} == _places(file, DEAD), path
            for offset, line, _ in file.fates:
                if offset in dead:
                    letter = dead[offset]
                    assert _original(letter) == line.removesuffix(b"\r"), (path, offset)
                    assert letter["event.dataset"] == format_
                    assert letter["error.stage"] == "parse"
                    assert letter["error.message"]


def _places(file: HostileFile, fate: str) -> set[int]:
    return {offset for offset, _, said in file.fates if said == fate}


@pytest.mark.parametrize("format_", hostile.FORMATS)
@pytest.mark.parametrize("name", _TORN)
def test_a_damaged_file_gives_all_that_can_be_read(ran: Ran, format_: str, name: str) -> None:
    """Whole lines before the damage are read, and the torn one is a dead letter at its place."""
    path = f"{format_}/{name}"
    readable = _readable(ran.folder / path)
    whole = readable.rfind(b"\n") + 1
    intact = {
        offset
        for offset, line, fate in ran.files[path].fates
        if fate == EVENT and offset < whole and readable[offset:].startswith(line + b"\n")
    }
    assert intact or name.startswith("only-magic")
    assert intact <= ran.events[path]
    (torn,) = (letter for letter in ran.dead[path].values() if letter["error.stage"] == "read")
    assert torn["log.offset"] == whole
    assert readable[whole:].startswith(_original(torn))
    assert len(readable) - whole - len(_original(torn)) <= 1  # of what was cut off a decompressor may hold back a byte
    assert ("cut off" if name.startswith("torn") else "damaged") in torn["error.message"]
    # what damage makes of the rest is still lines, each of them accounted for
    lines, offset = {}, 0
    for line in readable[:whole].splitlines(keepends=True):
        lines[offset], offset = line, offset + len(line)
    assert ran.events[path] | ran.dead[path].keys() - {whole} == {
        offset for offset, line in lines.items() if line.strip() and line.strip() != hostile.HEADER
    }


def _readable(path: Path) -> bytes:
    """Return what can be decompressed of a damaged file, which is found byte by byte."""
    fresh: Any = zlib.decompressobj if path.suffix == ".gz" else zstandard.ZstdDecompressor().decompressobj
    settings = (31,) if path.suffix == ".gz" else ()
    data, decoder = b"", fresh(*settings)
    with suppress(zlib.error, zstandard.ZstdError):
        for byte in path.read_bytes():
            data += decoder.decompress(bytes([byte]))
            decoder = fresh(*settings) if decoder.eof else decoder
    return data


def test_the_sums_hold(ran: Ran) -> None:
    """Lines are those with events, those skipped and those that are dead, per source and in all."""
    for source in [*ran.summary["sources"], ran.summary["total"]]:
        assert source["lines"] == source["with_events"] + source["skipped"] + source["dead"]
        assert source["events"] == source["attributed"] + source["ambiguous"] + source["unattributed"]
    for format_, source in zip(hostile.FORMATS, ran.summary["sources"], strict=False):
        paths = [path for path in ran.files if path.startswith(format_)]
        assert source["format"] == format_
        assert source["files"] == len(paths)
        assert source["dead"] == sum(len(ran.dead[path]) for path in paths)
        assert source["with_events"] == source["events"] == sum(len(ran.events[path]) for path in paths)
        whole = [ran.files[path] for path in paths if ran.files[path].name not in _TORN]
        skipped = sum(fate == SKIPPED for file in whole for _, _, fate in file.fates)
        torn = [_readable(ran.folder / path) for path in paths if ran.files[path].name in _TORN]
        assert source["skipped"] == skipped + sum(data.startswith(hostile.HEADER) for data in torn)
    assert ran.summary["total"]["attributed"] > 0


def test_dead_letters_are_for_the_eyes_of_their_owner(ran: Ran) -> None:
    assert stat.S_IMODE((ran.folder / "out" / "dead_letters.ndjson").stat().st_mode) == 0o600


def test_memory_stays_bounded(ran: Ran) -> None:
    """Lines of 100 MB in three files, one after the other, are never all in memory."""
    assert ran.peak < _MOST_MEMORY


def test_memory_does_not_grow_with_the_dead(tmp_path: Path) -> None:
    """A log of another format, every line of which is dead: five times as much takes no more memory."""
    line = b'{"time":"2026-03-02T00:00:00Z","message":"not a flow log at all","number":%d}\n'
    chunk = b"".join(line % number for number in range(50_000))
    peaks = []
    for times in (1, 5):
        folder = tmp_path / str(times)
        folder.mkdir()
        (folder / "other.log").write_bytes(chunk * 2 * times)
        _write_job(folder, ["{format: aws_vpc_flow, path: other.log}"])
        with (folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(_command("run", folder / "job.yml"), stdout=subprocess.DEVNULL, stderr=errors)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(used.ru_maxrss / 1_024)
    assert peaks[1] < peaks[0] + 60, peaks


@pytest.mark.parametrize("format_", hostile.FORMATS)
def test_a_line_meets_the_same_fate_alone_and_in_any_company(format_: str) -> None:
    """Among clean lines a block is read another way than among broken ones; the line must not notice."""
    header = hostile.HEADER if format_ == "aws_vpc_flow" else None
    company = b"".join(hostile.MAKERS[format_](number) + b"\n" for number in range(600))
    for line, fate in hostile.lines(format_):
        alone = _fate(format_, line + b"\n", header, 0)
        assert alone[0] == fate or fate == EITHER, (line[:80], alone)
        for before in (company, b"{broken\n", company + b"{broken\n"):
            assert _fate(format_, before + line + b"\n" + company, header, len(before)) == alone, line[:80]


def _fate(format_: str, data: bytes, header: bytes | None, offset: int) -> tuple[str, object]:
    """Return what becomes of the line at ``offset``; of two things wrong with a line either may be told."""
    parsed = FORMATS[format_].parser({})(Block(data, "log", 0, header))
    events, dead = (
        batch.filter(pc.equal(batch.column("log.offset"), offset)).to_pylist() for batch in (parsed.events, parsed.dead)
    )
    assert len(events) + len(dead) <= 1
    if events:
        return EVENT, {key: value for key, value in events[0].items() if value is not None and key != "log.offset"}
    return (DEAD, dead[0]["event.original"]) if dead else (SKIPPED, None)


@pytest.mark.parametrize(
    ("format_", "content", "said"),
    [
        ("kubernetes_pods", b'{"items": [\n{"metadata": }', "broken.json:2:14: not valid JSON"),
        ("kubernetes_pods", b"", "broken.json: the file is empty"),
        ("kubernetes_pods", b'{"apiVersion": "v1"}', "broken.json: neither a PodList"),
        pytest.param("kubernetes_pods", b"[" * 100_000, "broken.json:1:", id="deep"),
        ("address_leases", b"address,begin\n10.0.0.1,2026-01-01\n", "broken.json:1: not a header of address leases"),
        ("address_leases", b"address,start\n10.0.0.1,\xff\n", "broken.json: not valid UTF-8 at byte 23"),
    ],
)
def test_metadata_broken_as_a_whole_fails_the_run(tmp_path: Path, format_: str, content: bytes, said: str) -> None:
    """With path and position, exit 1, and nothing written."""
    (tmp_path / "broken.json").write_bytes(content)
    (tmp_path / "flows.log").write_bytes(hostile.HEADER + b"\n" + hostile.aws(0) + b"\n")
    (tmp_path / "job.yml").write_text(
        "name: broken\nevents:\n  - {format: aws_vpc_flow, path: flows.log}\n"
        f"leases:\n  - {{format: {format_}, path: broken.json}}\n"
        "lists: {egress_allow: [192.0.2.0/24]}\noutput: {directory: out}\n"
    )
    done = subprocess.run(_command("run", tmp_path / "job.yml"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_glob_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    """Every such glob, with its place; exit 2."""
    (tmp_path / "job.yml").write_text(
        'name: nothing\nevents:\n  - {format: aws_vpc_flow, path: "logs/*.gz"}\n  - format: alibaba_vpc_flow\n'
        "    path: more/*.jsonl\nleases:\n  - {format: kubernetes_pods, path: pods.json}\n"
    )
    done = subprocess.run(_command("run", tmp_path / "job.yml"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for line, pattern in ((3, "logs/*.gz"), (5, "more/*.jsonl"), (7, "pods.json")):
        assert f"job.yml:{line}: no file matches '{pattern}'" in done.stderr
    assert not (tmp_path / "out").exists()
