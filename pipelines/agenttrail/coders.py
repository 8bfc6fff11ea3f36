"""How elements travel between Beam's stages: columns as Arrow IPC, and each with a size that costs nothing to tell.

Beam's counters ask for the size of elements, and by default learn it by encoding them, whole batches included: a
quarter of the time of a run, measured, for a number that nobody needs exactly.
"""

from __future__ import annotations

import pickle
import struct

import apache_beam as beam
import pyarrow as pa

from agenttrail.detect.signals import Signals
from agenttrail.parsing import Block

_HEAD = struct.Struct("<qq")
"""Number of the source, and bytes before compression."""
_CODEC = pa.Codec("zstd", compression_level=1)


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """Return a batch as an Arrow IPC stream; a slice as what it holds, not as its parent."""
    sink = pa.BufferOutputStream()
    _write(batch, sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _write(batch: pa.RecordBatch, sink: pa.BufferOutputStream) -> None:
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def from_ipc(data: bytes) -> pa.RecordBatch:
    """Return the batch of an Arrow IPC stream."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()


def packed(signals: Signals) -> bytes:
    """Return signals as the bytes in which they travel.

    They are packed once where they arise, not by a coder: Beam would decode and encode them again at each Flatten.
    Compressed as a whole, since a context of zstd for every buffer costs as much as the compression.
    """
    sink = pa.BufferOutputStream()
    _write(signals.rows, sink)
    _write(signals.holders, sink)
    plain = sink.getvalue()
    compressed: bytes = _CODEC.compress(plain, asbytes=True)
    return _HEAD.pack(signals.source, plain.size) + compressed


def unpacked(data: bytes) -> Signals:
    """Return the signals that :func:`packed` was given."""
    source, size = _HEAD.unpack_from(data)
    plain = pa.BufferReader(_CODEC.decompress(pa.py_buffer(data).slice(_HEAD.size), size))
    (rows,) = pa.ipc.open_stream(plain)
    (holders,) = pa.ipc.open_stream(plain)
    return Signals(rows, holders, source)


class RecordBatchCoder(beam.coders.Coder):
    """Moves batches as Arrow IPC: the default would pickle a slice with its whole parent."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """Return the IPC stream of a batch."""
        return to_ipc(value)

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """Return the batch of an IPC stream."""
        return from_ipc(encoded)

    def estimate_size(self, value: pa.RecordBatch) -> int:
        """Return about how many bytes a batch holds, for Beam's counters: without this they encode the whole of it."""
        return int(value.get_total_buffer_size())

    def is_deterministic(self) -> bool:
        """Return False: one table has many encodings."""
        return False

    def to_type_hint(self) -> type:
        """Return the type that this coder is for."""
        return pa.RecordBatch  # type: ignore[no-any-return]


class BlockCoder(beam.coders.Coder):
    """Moves blocks of lines."""

    def encode(self, value: Block) -> bytes:
        """Return a block as bytes."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Block:
        """Return the block that :meth:`encode` was given; what comes here was written by this pipeline."""
        return pickle.loads(encoded)  # type: ignore[no-any-return] # noqa: S301 - as Beam's own default coder

    def estimate_size(self, value: Block) -> int:
        """Return about how many bytes a block holds."""
        return len(value.data)

    def is_deterministic(self) -> bool:
        """Return False: a block is no key."""
        return False


beam.coders.registry.register_coder(Block, BlockCoder)
beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)
