"""Alibaba Cloud VPC flow logs, as JSON lines exported from Log Service.

Source: the field table of VPC flow logs in Log Service.  One record per direction and interface; windows of up to ten
minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agenttrail.columns.json_lines import Fields, JsonLinesReader
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import choose
from agenttrail.flows import LARGEST_PORT, SIDES, FlowColumns
from agenttrail.parsing import Block, Format, Lines, Parsed, event_batch, read_objects, sift

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DATASET = "alibaba_vpc_flow"
_TEXT = {
    "eni-id": "observer.name",
    "account-id": "cloud.account.id",
    "vpc-id": "cloud.vpc.id",
    "vswitch-id": "cloud.subnet.id",
    "vm-id": "cloud.instance.id",
    "region": "cloud.region",
}
_PATHS = ("traffic_path", "rafficPath")  # the second spelling is the documentation's and is seen in exports
_FIELDS = Fields(
    text=(*_TEXT, *_PATHS, "srcaddr", "dstaddr", "direction", "log-status", "action"),
    integers=("srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "tcp-flags"),
)
_SYN, _ACK = 2, 16


class Parser:
    """Parses block after block of one source."""

    def __init__(self) -> None:
        """Prepare the reader."""
        self._reader = JsonLinesReader(_FIELDS)

    def __call__(self, block: Block) -> Parsed:
        """Turn a block of JSON lines into events.

        Bytes and packets are those of one direction, times are whole seconds.  NODATA and SKIPDATA records become
        events without addresses whose ``event.action`` is ``nodata`` or ``skipdata``: they tell what was not seen.
        """
        lines = Lines(block.data)
        rows, kept = sift(lines, block.data)
        native = read_objects(self._reader, lines, rows, kept)
        events = event_batch(lines, block, DATASET, rows, _event_columns(lines, rows, native))
        return Parsed(events, lines.dead_letters(block, DATASET), len(lines), lines.skipped)


def _event_columns(lines: Lines, rows: NDArray[np.int64], native: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    flows = FlowColumns(lines, rows)
    flows.outcome(native["action"], "action", {"accept": "success", "reject": "failure"})
    gap = flows.log_status(native["log-status"])
    flows.interval(native["start"], native["end"], ("start", "end"))
    for side, short in (("source", "src"), ("destination", "dst")):
        flows.end(side, native[f"{short}addr"], names=(f"{short}addr", ""))
        flows.number(f"{side}.port", native[f"{short}port"], f"{short}port", LARGEST_PORT)
    flows.need_an_end(exempt=gap)
    flows.transport(native["protocol"], "protocol")
    for unit in ("bytes", "packets"):
        flows.number(f"source.{unit}", native[unit], unit)
        flows.columns[f"network.{unit}"] = flows.columns[f"source.{unit}"]
    flows.number("network.tcp_flags", native["tcp-flags"], "tcp-flags", 0xFFFF)
    flows.side("observer.side", native["direction"], {"out": "source", "in": "destination"})
    flows.columns["client.side"] = client_side(flows.columns["network.tcp_flags"])
    flows.columns["network.traffic_path"] = pc.coalesce(*(native[name] for name in _PATHS))
    flows.columns |= {name: native[key] for key, name in _TEXT.items()}
    return flows.columns


def client_side(flags: pa.Array) -> pa.Array:
    """Return who opened the connection: SYN without ACK is a client's record.

    The flags are OR-ed over all packets, so a record with both may be either side's.
    """
    values = numbers(flags)
    return choose(np.where((values & (_SYN | _ACK)) == _SYN, 0, -1), SIDES)


FORMAT = Format(
    name=DATASET,
    gives="events",
    parser=lambda _settings: Parser(),
    scopes={
        "vpc-id": "cloud.vpc.id",
        "vswitch-id": "cloud.subnet.id",
        "account-id": "cloud.account.id",
        "region": "cloud.region",
    },
)
