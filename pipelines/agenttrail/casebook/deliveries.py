"""What one block of a stream brings to a casebook, as the bytes in which it travels and is kept as state."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZE = struct.Struct("<q")


@dataclass(frozen=True)
class Delivery:
    """What a block brings.

    Attributes:
        source: number of the job's source.
        part: name of the part of the source that the block is of, such as a partition.
        before: where the block begins: ``at``, which orders the blocks of a part, and whatever else its source keeps.
        after: where it ends.
        events: those that may matter, as they were parsed; None where there are none.
        leases: that it tells of; None where there are none.
        begins: whether its part is read from there on, and not from where the block before it ended: blocks may
            overtake each other.
        ends: whether nothing more will come of its part.
        settled: of what a desk puts by alone: nothing that ended before this is looked at any more, in microseconds.
        sums: of what a desk puts by alone: findings on rows that were let go of, with ``times`` and ``settled`` of its
            own, see ``Sums``.
        times: when these rows were, see ``SampleTimes.table``.
    """

    source: int
    part: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    events: pa.RecordBatch | None = None
    leases: pa.RecordBatch | None = None
    begins: bool = False
    ends: bool = False
    settled: int | None = None
    sums: pa.RecordBatch | None = None
    times: pa.RecordBatch | None = None

    def packed(self) -> bytes:
        """Return it as bytes."""
        batches = {"events": self.events, "leases": self.leases, "sums": self.sums, "times": self.times}
        there = {name: batch for name, batch in batches.items() if batch is not None}
        told = [self.source, self.part, self.before, self.after, list(there), self.begins, self.settled, self.ends]
        head = orjson.dumps(told)
        sink = pa.BufferOutputStream()
        sink.write(_SIZE.pack(len(head)) + head)
        for batch in there.values():
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
        return bytes(sink.getvalue())

    @classmethod
    def unpacked(cls, data: bytes) -> Delivery:
        """Return what :meth:`packed` was given."""
        (size,) = _SIZE.unpack_from(data)
        source, part, before, after, there, begins, settled, *ends = orjson.loads(data[_SIZE.size : _SIZE.size + size])
        rest = pa.BufferReader(pa.py_buffer(data).slice(_SIZE.size + size))
        batches = {}
        for name in there:
            (batches[name],) = pa.ipc.open_stream(rest)  # to its end, where the next begins
        # what an earlier version wrote down beside a safe point does not tell
        return cls(source, part, before, after, **batches, begins=begins, ends=any(ends), settled=settled)
