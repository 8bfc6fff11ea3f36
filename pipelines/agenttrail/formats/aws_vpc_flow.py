"""AWS VPC flow logs in text: any columns in any order, as the header line says; no header means version 2.

Source: the field table of the VPC user guide (versions 2 to 8); the same names with underscores and commas come from
exports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.batches import joined
from agenttrail.columns.delimited import Layout, read_delimited
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import buffer_of, choose, line_offsets
from agenttrail.flows import LARGEST_PORT, SIDES, FlowColumns
from agenttrail.parsing import Block, Format, Headers, Lines, Parsed, event_batch, sift

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

DATASET = "aws_vpc_flow"
_VERSION_2 = (
    "version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes",
    "start", "end", "action", "log-status",
)  # fmt: skip
"""Columns of the default format, for files without a header."""

_INTEGERS = ("srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "tcp-flags")
_WORDS = ("action", "log-status", "flow-direction")
_TEXT = {
    "interface-id": "observer.name",
    "account-id": "cloud.account.id",
    "vpc-id": "cloud.vpc.id",
    "subnet-id": "cloud.subnet.id",
    "instance-id": "cloud.instance.id",
    "region": "cloud.region",
    "az-id": "cloud.availability_zone",
    "traffic-path": "network.traffic_path",
    "reject-reason": "event.reason",
    "ecs-cluster-name": "orchestrator.cluster.name",
    "ecs-task-id": "orchestrator.resource.id",
    "ecs-container-id": "container.id",
    "ecs-service-name": "service.name",
}
_ADDRESSES = ("srcaddr", "dstaddr", "pkt-srcaddr", "pkt-dstaddr")
_WORD = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    **dict.fromkeys(_ADDRESSES, _WORD),  # each that a block holds is parsed once: a twentieth of its rows
    **dict.fromkeys(_INTEGERS, pa.int64()),
    **dict.fromkeys(_WORDS, _WORD),
    **dict.fromkeys(_TEXT, _WORD),  # few words in many rows: to encode them here costs nothing, and much further on
    "reject-reason": pa.string(),
}
_KNOWN = frozenset(_TYPES) | frozenset(_VERSION_2) | {
    "type", "sublocation-type", "sublocation-id", "pkt-src-aws-service", "pkt-dst-aws-service", "ecs-cluster-arn",
    "ecs-container-instance-arn", "ecs-container-instance-id", "ecs-second-container-id", "ecs-task-arn",
    "ecs-task-definition-arn",
}  # fmt: skip
_MARK = b"srcaddr"  # no data line holds this word, and a header without it names no address
_LETTER = b"r"
"""A letter of the mark that few logs hold: to look for it alone takes a sixteenth of the time."""
_NAMES_OF_ENDS = frozenset(_ADDRESSES)
_SYN, _ACK = 2, 16


def layout(header: bytes) -> Layout:
    """Return the layout that a header line gives; the default format for an empty one."""
    if not header:
        return Layout(_VERSION_2)
    text = header.decode("utf-8", "replace").strip().lstrip("# ")
    delimiter = "," if "," in text else " "
    names = (name.strip().strip("${}").lower().replace("_", "-") for name in text.split(delimiter))
    seen: dict[str, int] = {}
    unique = []
    for name in names:  # a column named twice counts the first time
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return Layout(tuple(unique), delimiter)


def is_header(line: bytes) -> bool:
    """Tell whether ``line`` names columns: an address, or a known one to begin with, and most of the others are known.

    A column of somebody's own, or of a later version, may stand anywhere.
    """
    if line[:1].isdigit() or line[:1] == b"-":
        return False
    names = layout(line).names
    known = [name in _KNOWN for name in names]
    return (known[0] or not _NAMES_OF_ENDS.isdisjoint(names)) and len(names) > 1 and sum(known) * 2 > len(names)


def headers(data: bytes, *, top: bool) -> list[tuple[int, bytes]]:
    """Return offset and text of the header lines in ``data``: whole lines, at the top of a file or not."""
    top = top and is_header(data[: data.find(b"\n") + 1] or data)
    if not top and not _marked(data):
        return []
    lines = Lines(data)
    offsets = line_offsets(lines.lines)
    return [(int(offsets[row]), lines.line(row)) for row in _header_rows(lines, data, top=top)]


def _marked(data: bytes) -> bool:
    """Tell whether a header may stand in ``data``."""
    return _LETTER in data and _MARK in data


def parse(block: Block) -> Parsed:
    """Turn a block of flow log lines into events.

    Bytes and packets are those of one direction, times are whole seconds.  NODATA and SKIPDATA records become events
    without addresses whose ``event.action`` is ``nodata`` or ``skipdata``: they tell what was not seen.
    """
    lines = Lines(block.data)
    rows, kept = sift(lines, block.data, delimited=True)
    named = _headers_in_force(lines, block)
    batches = []
    for chosen, header in _by_header(rows, named):
        below = kept[chosen] if isinstance(chosen, slice) else kept.take(pa.array(chosen))
        batches.append(_parse_lines(lines, block, rows[chosen], below, layout(header)))
    return Parsed(_joined(batches), lines.dead_letters(block, DATASET), len(lines), lines.skipped)


def _headers_in_force(lines: Lines, block: Block) -> list[tuple[int, bytes]]:
    """Return the header in force at the top of a block, and each one in it with its row; they become skips.

    One that is damaged is a dead letter, and yet the rows below it are read by what it names.
    """
    if block.bare:
        return [(-1, block.header or b"")]
    top = block.header is None and len(lines) > 0 and is_header(lines.line(0))
    found = np.array(_header_rows(lines, block.data, top=top), dtype=np.int64)
    lines.skip(found[lines.good()[found]])
    return [(-1, block.header or b""), *((row, lines.line(row)) for row in found.tolist())]


def _by_header(
    rows: NDArray[np.int64], named: list[tuple[int, bytes]]
) -> Iterator[tuple[slice | NDArray[np.int64], bytes]]:
    """Yield which of ``rows`` stand below each of the distinct headers; most blocks have one, at the top."""
    if len(named) == 1 or (len(named) == 2 and len(rows) and rows[0] >= named[1][0]):  # noqa: PLR2004 - one, at the top
        first = int(len(named) > 1 and rows[0] == named[-1][0])
        if first < len(rows):
            yield slice(first, len(rows)), named[-1][1]
        return
    at = np.array([row for row, _ in named])
    texts = {text: code for code, text in enumerate(dict.fromkeys(text for _, text in named))}
    below = np.array([texts[text] for _, text in named])[np.searchsorted(at, rows, side="right") - 1]
    below[np.isin(rows, at)] = -1
    for text, code in texts.items():
        chosen = np.flatnonzero(below == code)
        if len(chosen):
            yield chosen, text


def _header_rows(lines: Lines, data: bytes, *, top: bool) -> list[int]:
    """Return the rows of header lines: the first where ``top`` says so, and any that names a source address."""
    if not len(lines):
        return []
    found = {0} if top else set()
    if _marked(data):
        initials = np.frombuffer(data, dtype=np.uint8)[line_offsets(lines.lines)[:-1]]
        worded = np.flatnonzero((initials - np.uint8(ord("0")) > 9) & (initials != ord("-")))  # noqa: PLR2004 - digits
        marked = pc.match_substring(lines.lines.take(pa.array(worded)), _MARK.decode())
        candidates = worded[np.asarray(marked.to_numpy(zero_copy_only=False), dtype=bool)].tolist()
        found |= {row for row in candidates if is_header(lines.line(row))}
    return sorted(found)


def _parse_lines(lines: Lines, block: Block, rows: NDArray[np.int64], kept: pa.Array, made: Layout) -> pa.RecordBatch:
    """Turn lines of one layout into events."""
    cells = read_delimited(buffer_of(kept), made, _TYPES)
    for row, count in cells.misfits:
        lines.refuse(rows[[row]], f"{count} cells where the header has {len(made.names)}")
    rows = rows[cells.rows] if cells.misfits else rows
    for name, bad in cells.malformed.items():
        lines.refuse(rows[bad], f"{name} is not an integer")
    return event_batch(lines, block, DATASET, rows, _event_columns(lines, rows, cells.columns))


def _event_columns(lines: Lines, rows: NDArray[np.int64], native: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    flows = FlowColumns(lines, rows)
    flows.outcome(native.get("action"), "action", {"accept": "success", "reject": "failure"})
    gap = flows.log_status(native.get("log-status"), native.get("reject-reason"))
    flows.interval(native.get("start"), native.get("end"), ("start", "end"))
    for side, short in (("source", "src"), ("destination", "dst")):
        names = (f"{short}addr", f"pkt-{short}addr")
        flows.end(side, native.get(names[0]), native.get(names[1]), names)
        flows.number(f"{side}.port", native.get(f"{short}port"), f"{short}port", LARGEST_PORT)
    flows.need_an_end(exempt=gap)
    flows.transport(native.get("protocol"), "protocol")
    for unit in ("bytes", "packets"):
        flows.number(f"source.{unit}", native.get(unit), unit)
        if unit in native:
            flows.columns[f"network.{unit}"] = flows.columns[f"source.{unit}"]
    flows.number("network.tcp_flags", native.get("tcp-flags"), "tcp-flags", 0xFFFF)
    flows.side("observer.side", native.get("flow-direction"), {"egress": "source", "ingress": "destination"})
    if "tcp-flags" in native:
        flows.columns["client.side"] = client_side(flows.columns["network.tcp_flags"])
    texts = {name: native[key] for key, name in _TEXT.items() if key in native}
    return flows.columns | {name: column for name, column in texts.items() if name not in flows.columns}


def client_side(flags: pa.Array) -> pa.Array:
    """Return who opened the connection by its TCP flags: SYN alone comes from the client, SYN-ACK from the server.

    These logs note ACK only together with SYN, so 3 (SYN, FIN) is a client's record and 19 a server's.
    """
    values = numbers(flags)
    opened = (values & _SYN) != 0
    answered = opened & ((values & _ACK) != 0)
    return choose(np.where(answered, 1, np.where(opened, 0, -1)), SIDES)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Put the events below all headers together, in the order of their lines; columns that some lack are null there."""
    filled = [batch for batch in batches if batch.num_rows]
    if len(filled) == 1:
        return filled[0]
    if not filled:
        return batches[0] if batches else event_batch(Lines(b""), Block(b"", "", 0), DATASET, np.arange(0), {})
    together = joined(filled)
    return together.take(pc.sort_indices(together.column("log.offset")))


FORMAT = Format(
    name=DATASET,
    gives="events",
    parser=lambda _settings: parse,
    scopes={
        "vpc-id": "cloud.vpc.id",
        "subnet-id": "cloud.subnet.id",
        "account-id": "cloud.account.id",
        "region": "cloud.region",
    },
    headers=Headers(headers, _LETTER),
)
