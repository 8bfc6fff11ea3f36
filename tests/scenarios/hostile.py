"""Log files as they should not be: what stands in them line by line, and what is to become of each line.

Every line is known by its fate: ``event``, ``dead`` or ``skipped``; ``either`` may be an event or a dead letter, but
must be one of them.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson
import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START = 1_772_409_600
EVENT, DEAD, SKIPPED, EITHER = "event", "dead", "skipped", "either"
HUGE = 100_000_000
_1975, _2106 = 157_766_400, 4_294_944_000
_BOM = b"\xef\xbb\xbf"
HEADER = (
    b"version vpc-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
_SHORT_HEADER = b"dstaddr srcaddr dstport srcport protocol bytes start action"

NOT_TEXT = (
    b"\x00" * 40, b"a\x00b", b"\xff\xfe{\x00}\x00", b"\xc0\xaf", b"\xed\xa0\x80", b"\x80 cut", b"\xf4\x90\x80\x80",
)  # fmt: skip
"""Lines that no encoding makes text of: NULs, UTF-16, overlong, surrogates, beyond Unicode."""

Line = tuple[bytes, str]


@dataclass
class HostileFile:
    """One file: its lines with their fates, in order.

    Attributes:
        name: file name.
        content: bytes before compression.
        fates: offset, original and fate of every line.
        stored: bytes as stored; None where they are the content.
    """

    name: str
    content: bytes = b""
    fates: list[tuple[int, bytes, str]] = field(default_factory=list)
    stored: bytes | None = None

    def add(self, lines: list[Line], *, end: bytes = b"\n") -> HostileFile:
        """Add lines, each with its ``end``."""
        parts, at = [self.content], len(self.content)
        for line, fate in lines:
            self.fates.append((at, line, fate))
            parts.append(line + end)
            at += len(line) + len(end)
        self.content = b"".join(parts)
        return self


def aws(number: int, **changes: object) -> bytes:
    """Return a line of ``HEADER`` with ``changes``; each ``number`` gives another."""
    cells = {
        "version": 5, "vpc_id": "vpc-1", "interface_id": "eni-1", "srcaddr": "10.9.0.1", "dstaddr": "203.0.113.9",
        "srcport": 40_000 + number % 20_000, "dstport": 443, "protocol": 6, "packets": 3, "bytes": 100 + number,
        "start": START + number, "end": START + number + 1, "action": "ACCEPT", "log_status": "OK",
    }  # fmt: skip
    return " ".join(str(cell) for cell in (cells | changes).values()).encode()


def alibaba(number: int, **changes: object) -> bytes:
    """Return a flow record of Alibaba Cloud with ``changes`` (``_`` in names stands for ``-``)."""
    record = {
        "version": "1", "vpc-id": "vpc-1", "eni-id": "eni-1", "srcaddr": "10.9.0.1", "dstaddr": "203.0.113.9",
        "srcport": 40_000 + number % 20_000, "dstport": 443, "protocol": 6, "direction": "out", "packets": 3,
        "bytes": 100 + number, "start": START + number, "end": START + number + 1, "tcp-flags": 2, "action": "ACCEPT",
        "log-status": "OK",
    }  # fmt: skip
    return orjson.dumps(record | {name.replace("_", "-"): value for name, value in changes.items()})


def firewall(number: int, **changes: object) -> bytes:
    """Return a session of Cloud Firewall with ``changes``."""
    record = {
        "__time__": START + number + 2, "__topic__": "cloudfirewall_access_log", "log_type": "internet_log",
        "src_ip": "10.9.0.1", "dst_ip": "203.0.113.9", "src_port": 40_000 + number % 20_000, "dst_port": 443,
        "ip_protocol": "TCP", "direction": "out", "start_time": START + number, "end_time": START + number + 1,
        "in_packet_bytes": 10, "out_packet_bytes": 100 + number, "app_name": "HTTPS", "rule_result": "pass",
        "src_vpc_id": "vpc-1",
    }  # fmt: skip
    return orjson.dumps(record | changes)


def _of_delimited() -> Iterator[Line]:
    good = aws(0)
    for raw in NOT_TEXT:
        yield raw, DEAD
    for raw in (
        good[:30], good + b" more", b'"', good.replace(b" ", b"\t"), b"# a comment", b"1 " * 300_000,
        good.replace(b" ", b"\r", 1), b"\x1b[2J\x1b[31mred", b"{{7*7}} ${env:HOME} %s %n", _BOM + good + b" x",
        good.replace(b"10.9.0.1", b"10.9.0.1\xff"),
    ):  # fmt: skip
        yield raw, DEAD
    for changes in (
        {"start": _1975, "end": _1975}, {"start": _2106, "end": _2106}, {"end": _1975}, {"start": "-", "end": "-"},
        {"start": "2026-03-02"}, {"start": -START}, {"start": 1e300},
        {"srcport": 65_536}, {"dstport": 70_000}, {"srcport": -1}, {"dstport": "https"}, {"dstport": 443.5},
        {"bytes": -5}, {"packets": -1}, {"bytes": 1 << 62}, {"bytes": 10**40}, {"bytes": "many"}, {"protocol": 256},
        {"protocol": -6}, {"protocol": "tcp"}, {"srcaddr": "10.9.0.256"}, {"dstaddr": "host.example"},
        {"dstaddr": "203.0.113.0/24"}, {"srcaddr": "1" * 100_000}, {"srcaddr": "-", "dstaddr": "-"},
        {"action": "MAYBE"}, {"action": "A" * 100_000},
    ):  # fmt: skip
        yield aws(0, **changes), DEAD
    for raw in (b"", b"   ", b"\t", HEADER, HEADER):
        yield raw, SKIPPED
    for number, changes in enumerate(
        (
            {"srcaddr": "2001:db8::7"},
            {"dstaddr": "::ffff:203.0.113.9"},
            {"srcport": "-"},
            {"action": "-"},
            {"start": "-"},
        )
    ):
        yield aws(number, **changes), EVENT
    yield aws(0, interface_id="éni-日本"), EVENT
    yield aws(0, interface_id="=cmd|'/C'!A0"), EVENT
    yield b'"' + good, EVENT  # nothing is quoted in these logs: the quote is part of the first cell, which nobody reads


def _of_objects(good: bytes) -> Iterator[Line]:
    """Yield what no JSON lines may hold, whatever the format."""
    for raw in NOT_TEXT:
        yield raw, DEAD
    for raw in (
        good[:-1], good[: len(good) // 2], good[1:], good + b",", good + good, good + b" x", b"{", b"}", b"[]", b"7",
        b'"text"', b"null", b"{}", b'{"a":}', b"[" + good + b"]", b"#" + good, b"'" + good + b"'",
        b"[" * 200_000, b'{"a":' * 200_000, good[:-1] + b',"x":"\n"'[:6] + b"}", b"\xef\xbb\xbf{", b"<xml/>",
        good.replace(b"10.9.0.1", b"10.9.0.1\xff"), good.replace(b":", b"="),
    ):  # fmt: skip
        yield raw, DEAD
    yield good[:-1] + b',"deep":' + b"[" * 500 + b"]" * 500 + b"}", EITHER
    yield good[:-1] + b',"deep":' + b"[" * 200_000 + b"]" * 200_000 + b"}", EITHER
    yield good[:-1] + b',"x":NaN}', EITHER
    yield good[:-1] + b',"x":"\\ud800"}', EITHER
    yield good[:-1] + b',"x":1e999}', EITHER
    number = b'"dstport":443' if b"dstport" in good else b'"dst_port":443'
    for value in (
        b"1.0", b"443.0", b"1e2", b"-0", b"true", b'"1e2"', b'" 443 "', b'"+443"', b'"0x1bb"', b'"443\\u0000"',
        b'"\xef\xbc\x94"', b"[" * 200_000 + b"]" * 200_000, b'{"a":443}', b'443,"port":443',
        b"443," + number, b"18446744073709551616",
    ):  # fmt: skip
        yield good.replace(number, number[:-3] + value), EITHER
    yield good[:-1] + b"," + good[1:], EITHER
    for raw in (b"", b"   ", b"\t", b" \t "):
        yield raw, SKIPPED
    yield b" " + good + b" ", EVENT
    yield good[:-1] + b',"unknown":{"a":[1,{"b":null}]},"\\u0000":"\\u0000"}', EVENT


def _of_alibaba() -> Iterator[Line]:
    yield from _of_objects(alibaba(0))
    changes: Mapping[str, object]
    for changes in (
        {"start": _1975, "end": _1975}, {"start": _2106, "end": _2106}, {"start": "-", "end": "-"},
        {"start": None, "end": None}, {"start": "yesterday"}, {"start": {"value": 1}}, {"start": -START},
        {"srcport": 65_536}, {"dstport": "70000"}, {"srcport": -1}, {"dstport": 443.5}, {"dstport": [443]},
        {"bytes": -5}, {"bytes": "-5"}, {"bytes": 1 << 62}, {"bytes": "many"}, {"packets": {}},
        {"protocol": 256}, {"protocol": "tcp"}, {"srcaddr": "10.9.0.256"}, {"srcaddr": 7}, {"dstaddr": ["203.0.113.9"]},
        {"srcaddr": "-", "dstaddr": "-"}, {"srcaddr": None, "dstaddr": ""}, {"action": "MAYBE"}, {"action": {"a": 1}},
    ):  # fmt: skip
        yield alibaba(0, **changes), DEAD
    big = b'"bytes":' + b"9" * 400
    yield alibaba(0).replace(b'"bytes":100', big), DEAD
    for number, changes in enumerate(
        (
            {"srcport": "40000", "bytes": "9"},
            {"eni_id": "=cmd|'/C calc'!A0"},
            {"srcport": "-"},
            {"srcaddr": "2001:db8::7"},
        )
    ):
        yield alibaba(number, **changes), EVENT
    yield alibaba(0, eni_id="\x00\x1b[2J\u202e<script>alert(1)</script>\u2028"), EVENT


def _of_firewall() -> Iterator[Line]:
    yield from _of_objects(firewall(0))
    for changes in (
        {"start_time": _1975}, {"end_time": _2106}, {"start_time": "soon"}, {"start_time": {"value": 1}},
        {"start_time": None, "end_time": None, "__time__": None},
        {"src_port": 65_536}, {"dst_port": "70000"}, {"src_port": -1}, {"dst_port": [443]}, {"out_packet_bytes": -5},
        {"in_packet_bytes": "many"}, {"out_packet_bytes": 1 << 62}, {"src_ip": "10.9.0.256"}, {"dst_ip": 7},
        {"src_ip": "", "dst_ip": None}, {"rule_result": "MAYBE"}, {"rule_result": ["pass"]},
    ):  # fmt: skip
        yield firewall(0, **changes), DEAD
    for number, changes in enumerate(
        (
            {"src_port": "40000"},
            {"rule_result": ""},
            {"domain": "\x00\x1b[2J\u202e"},
            {"ip_protocol": "WEIRD"},
            {"vul_level": "3"},
        )
    ):
        yield firewall(number, **changes), EVENT


MAKERS = {"aws_vpc_flow": aws, "alibaba_vpc_flow": alibaba, "alibaba_cloud_firewall": firewall}
_HOSTILE = {"aws_vpc_flow": _of_delimited, "alibaba_vpc_flow": _of_alibaba, "alibaba_cloud_firewall": _of_firewall}
FORMATS = tuple(MAKERS)


def lines(format_: str) -> list[Line]:
    """Return the hostile lines of a format, each with its fate."""
    return list(_HOSTILE[format_]())


def _huge(format_: str) -> bytes:
    return b"1 " * (HUGE // 2) if format_ == "aws_vpc_flow" else b'{"a":"' + b"x" * HUGE + b'"'


def files(format_: str) -> Iterator[HostileFile]:
    """Yield the hostile files of a format."""
    delimited = format_ == "aws_vpc_flow"
    make = MAKERS[format_]
    top: list[Line] = [(HEADER, SKIPPED)] if delimited else []
    hostile = lines(format_)
    mixed = list(top)
    for number, line in enumerate(hostile):  # each among good neighbours
        mixed += [line, (make(number), EVENT)]
    good: list[Line] = [(make(number), EVENT) for number in range(1_000)]

    yield HostileFile("plain.log").add(mixed)
    yield _packed(HostileFile("mixed.gz").add(mixed), gzip.compress)
    yield _packed(HostileFile("mixed.zst").add(mixed), zstandard.compress)
    yield HostileFile("only-bad.log").add([*top, *hostile])
    yield HostileFile("windows.log").add(mixed, end=b"\r\n")
    yield HostileFile("no-last-end.log").add([*top, *good[:50]]).add([good[50]], end=b"")
    yield HostileFile("empty.log")
    yield HostileFile("empty.gz", stored=gzip.compress(b""))
    yield HostileFile("nothing.gz", stored=b"")
    yield HostileFile("no-compression.gz").add([*top, *good[:50]])
    yield HostileFile("nuls.log").add([(b"\0" * 1_000_000, DEAD)], end=b"")
    yield from _torn(top + good)
    yield _with_mark([*top, *good[:50]])
    middle: list[Line] = [*top, *good[:100], (_huge(format_), DEAD), *good[100:200]]
    pack = {"aws_vpc_flow": None, "alibaba_vpc_flow": gzip_fast, "alibaba_cloud_firewall": zstandard.compress}[format_]
    huge = HostileFile("huge-line").add(middle)
    yield huge if pack is None else _packed(huge, pack)
    if delimited:
        yield from _headers(good)


def gzip_fast(data: bytes) -> bytes:
    """Compress little, but at once."""
    return gzip.compress(data, 1)


def _packed(file: HostileFile, pack: object) -> HostileFile:
    file.stored = pack(file.content)  # type: ignore[operator]
    return file


def _torn(lines: list[Line]) -> Iterator[HostileFile]:
    """Yield compressed files that end too early, hold junk, or are followed by it.

    What of them can still be read is not foretold here: the fates name the lines of the whole file.
    """
    whole = HostileFile("").add(lines)
    half = len(whole.content) // 2
    for name, stored in (
        ("torn.gz", gzip.compress(whole.content)[:-2_000]),
        ("torn.zst", zstandard.compress(whole.content[:half]) + zstandard.compress(whole.content[half:])[:-100]),
        ("junk-inside.gz", _with_junk(gzip.compress(whole.content))),
        ("junk-inside.zst", _with_junk(_frames(whole.content[:half], whole.content[half:]))),
        ("bad-sum.gz", gzip.compress(whole.content)[:-8] + b"\0" * 8),
        ("junk-behind.gz", gzip.compress(whole.content) + b"junk behind the last member"),
        ("only-magic.gz", b"\x1f\x8b\x08\x00" + b"\xff" * 200),
        ("only-magic.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 200),
    ):
        yield HostileFile(name, whole.content, list(whole.fates), stored)


def _frames(*contents: bytes) -> bytes:
    """Return zstd frames that can tell whether they were damaged."""
    return b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(content) for content in contents)


def _with_junk(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + b"\xff" * 64 + data[at + 64 :]


def _with_mark(lines: list[Line]) -> HostileFile:
    """Return a file that begins with a byte order mark, which is no part of its first line."""
    file = HostileFile("mark.log").add(lines)
    file.stored = _BOM + file.content
    file.fates = [(at + len(_BOM), line, fate) for at, line, fate in file.fates]
    return file


def _headers(good: list[Line]) -> Iterator[HostileFile]:
    """Yield files without a header, with another one half-way, and with a repeated one."""
    yield HostileFile("no-header.log").add(good[:50])  # by the default layout, which has as many columns
    short: list[Line] = [
        (b"203.0.113.9 10.9.0.1 443 %d 6 77 %d ACCEPT" % (40_000 + n, START + n), EVENT) for n in range(50)
    ]
    yield HostileFile("two-headers.log").add(
        [(HEADER, SKIPPED), *good[:50], (_SHORT_HEADER, SKIPPED), *short, good_for_none()]
    )
    yield HostileFile("headers-again.log").add([line for one in good[:50] for line in ((HEADER, SKIPPED), one)])


def good_for_none() -> Line:
    """Return a line of the other header, which under the short one is none."""
    return aws(0), DEAD


def write(folder: Path, format_: str) -> dict[str, HostileFile]:
    """Write the hostile files of a format to ``folder``; return them by file name."""
    folder.mkdir(parents=True)
    written = {}
    for file in files(format_):
        (folder / file.name).write_bytes(file.content if file.stored is None else file.stored)
        written[file.name] = file
    return written
