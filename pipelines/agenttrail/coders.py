"""How elements travel between Beam's stages: columns as Arrow IPC, and each with a size that costs nothing to tell.

Beam's counters ask for the size of elements, and by default learn it by encoding them, whole batches included: a
quarter of the time of a run, measured, for a number that nobody needs exactly.
"""

from __future__ import annotations

import pickle
from typing import ClassVar

import apache_beam as beam
import pyarrow as pa

from agenttrail.detect.signals import Signals
from agenttrail.parsing import Block

_PLAIN = pa.ipc.IpcWriteOptions()
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
"""A quarter of the bytes for 0.6 microseconds a row: grouping holds and copies them several times."""


def to_ipc(batch: pa.RecordBatch, options: pa.ipc.IpcWriteOptions = _PLAIN) -> bytes:
    """Return a batch as an Arrow IPC stream; a slice as what it holds, not as its parent."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_ipc(data: bytes) -> pa.RecordBatch:
    """Return the batch of an Arrow IPC stream."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()


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


class SignalsCoder(beam.coders.Coder):
    """Moves signals as two IPC streams."""

    _parts: ClassVar = beam.coders.TupleCoder(
        [beam.coders.BytesCoder(), beam.coders.BytesCoder(), beam.coders.VarIntCoder()]
    )

    def encode(self, value: Signals) -> bytes:
        """Return both streams and the source."""
        parts = to_ipc(value.rows, _COMPRESSED), to_ipc(value.holders, _COMPRESSED), value.source
        return self._parts.encode(parts)  # type: ignore[no-any-return]

    def decode(self, encoded: bytes) -> Signals:
        """Return the signals of an encoding."""
        rows, holders, source = self._parts.decode(encoded)
        return Signals(from_ipc(rows), from_ipc(holders), source)

    def estimate_size(self, value: Signals) -> int:
        """Return about how many bytes the signals hold."""
        return int(value.rows.get_total_buffer_size() + value.holders.get_total_buffer_size())

    def is_deterministic(self) -> bool:
        """Return False: one table has many encodings."""
        return False


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
beam.coders.registry.register_coder(Signals, SignalsCoder)
