"""Blocks of a stream to what may matter of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa

from agenttrail.accounting import ACCOUNT, DEAD, Account
from agenttrail.attribute import with_columns
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.matter import Sieve
from agenttrail.columns.dictionaries import addresses_decoded
from agenttrail.columns.numbers import numbers
from agenttrail.columns.text import constant, trim_line_ends
from agenttrail.detect.signals import Lists
from agenttrail.formats import FORMATS
from agenttrail.gathering.named import may_matter_named
from agenttrail.parsing import DEAD_LETTER
from agenttrail.transforms.parsing import parsed_account, with_scope
from agenttrail.transforms.timed import Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.rules import Rule
    from agenttrail.parsing import Block, Parsed
    from agenttrail.transforms.parsing import Source

DELIVERIES = "deliveries"
_RUN = 32
_LONG_AGO = -(1 << 61)
LATE = "too late: newer lines had come, and what lay before them is settled"


class Place(Protocol):
    """Where a block begins or ends in its part, as its source tells it; ``newest``: event time reached before it."""

    at: int
    newest: int | None


class Arrival(Protocol):
    """A block, and where in its source it stands."""

    block: Block
    part: str
    before: Place
    after: Place
    begins: bool
    ends: bool


class _Sift(Timed):
    stage = "parse"

    def __init__(
        self, sources: Sequence[Source], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]], lateness: int
    ) -> None:
        self._sources, self._rules, self._lists, self._lateness = sources, rules, lists, lateness
        self._made: dict[int, tuple[Callable[[Block], Parsed], Sieve | None]] = {}

    def process(self, arrival: Arrival) -> Iterator[Any]:
        started = self._started()
        block, source = arrival.block, self._sources[arrival.block.source]
        before, after = (msgspec.to_builtins(place) for place in (arrival.before, arrival.after))
        if not block.data:
            begins, ends = arrival.begins, arrival.ends
            yield 0, Delivery(block.source, arrival.part, before, after, begins=begins, ends=ends).packed()
            return
        format_ = FORMATS[source.format]
        parse, sieve = self._tools(block.source)
        parsed = parse(block)
        account = parsed_account(block, parsed, format_.gives)
        if parsed.dead.num_rows:
            yield beam.pvalue.TaggedOutput(DEAD, parsed.dead)
        told = with_scope(parsed.events, source)
        leases = told if format_.gives == "leases" else parsed.leases
        if leases is not None and source.scope is not None and format_.gives != "leases":
            leases = with_columns(leases, {"lease.scope": constant(source.scope, leases.num_rows)})
        events = None if format_.gives == "leases" else told
        if events is not None and events.num_rows:
            events, late = self._in_time(events, arrival.before.newest)
            if late is not None:
                account.add(Account.of(block.source, late=late.num_rows))
                yield beam.pvalue.TaggedOutput(DEAD, late_letters(late, LATE))
            events = events.take(pa.array(may_matter_named(events) if sieve is None else sieve.may_matter(events)))
            events = addresses_decoded(events)
            account.add(Account.of(block.source, may_matter=events.num_rows))
        account.seconds.update(self._seconds(started))
        events, leases = (batch if batch is not None and batch.num_rows else None for batch in (events, leases))
        yield 0, Delivery(block.source, arrival.part, before, after, events, leases, arrival.begins).packed()
        yield beam.pvalue.TaggedOutput(ACCOUNT, account)

    def _tools(self, number: int) -> tuple[Callable[[Block], Parsed], Sieve | None]:
        if number not in self._made:
            source = self._sources[number]
            format_ = FORMATS[source.format]
            flows = format_.gives == "events" and not format_.named
            sieve = Sieve.of(self._rules, source.format, self._lists, Lists.of(self._lists)) if flows else None
            self._made[number] = format_.parser(source.settings), sieve
        return self._made[number]

    def _in_time(self, events: pa.RecordBatch, newest: int | None) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        """Return the events that end no longer before what their part had reached than is allowed, and the others."""
        starts = numbers(events.column("event.start").cast(pa.int64()))
        ends = starts
        if "event.end" in events.schema.names:  # what lasted is told when it has ended
            ends = np.maximum(starts, numbers(events.column("event.end").cast(pa.int64()), _LONG_AGO))
        # whoever writes times that have not come yet makes nothing late that is told now
        late = ends < np.minimum(reached(starts, newest), time.time_ns() // 1000) - self._lateness
        if not late.any():
            return events, None
        return events.filter(pa.array(~late)), events.filter(pa.array(late))


def reached(starts: NDArray[np.int64], newest: int | None) -> NDArray[np.int64]:
    """Return the time that a part had reached before each of its events, in microseconds; long ago where none is known.

    That is the latest median of the runs of 32 events before it: of a few lines from the future, which whoever writes
    logs may write, it is none.

    Args:
        starts: of consecutive events.
        newest: what the part had reached before them.
    """
    whole = len(starts) // _RUN
    medians = np.partition(starts[: whole * _RUN].reshape(-1, _RUN), _RUN // 2, axis=1)[:, _RUN // 2]
    first = np.array([_LONG_AGO if newest is None else newest])
    steps = np.maximum.accumulate(np.concatenate([first, medians]))
    return np.repeat(steps, _RUN)[: len(starts)]


def late_letters(events: pa.RecordBatch, why: str) -> pa.RecordBatch:
    """Return events as dead letters with the reason ``why``."""
    count = events.num_rows
    named = {name: _plain(events.column(name)) for name in ("log.file.path", "log.offset", "event.dataset")}
    columns = [
        trim_line_ends(events.column("event.original")).cast(pa.binary()),
        named["log.file.path"].cast(pa.string()),
        pa.array(numbers(named["log.offset"]), mask=np.asarray(named["log.offset"].is_null())),
        named["event.dataset"].cast(pa.string()),
        pa.array(["late"] * count),
        pa.array([why] * count),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DEAD_LETTER)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


class Sift(beam.PTransform):
    """Arrivals to (0, packed deliveries): events that may matter, and leases; dead letters and accounts beside them.

    All have one key: what one machine holds is judged as a whole, since whose a row is may only be known later.
    """

    def __init__(
        self, sources: Sequence[Source], rules: Sequence[Rule], lists: Mapping[str, tuple[str, ...]], lateness: int
    ) -> None:
        """Sift by the ``rules`` and ``lists`` of a job; ``lateness`` in microseconds behind what a part had reached."""
        super().__init__()
        self._fn = _Sift(sources, rules, lists, lateness)

    def expand(self, arrivals: beam.PCollection[Arrival]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn).with_output_types(tuple[int, bytes])
        return arrivals | outputs.with_outputs(DEAD, ACCOUNT, main=DELIVERIES)
