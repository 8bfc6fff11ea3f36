"""Desk: a casebook, and how far each part of its sources has been taken in.

State is a cache of the log.  From a safe point everything that may still be needed is read again: it is where the
oldest block begins of which a row is held, and for a part of which none is held where it has been read to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa

from agenttrail.attribute import with_columns
from agenttrail.casebook.book import Casebook
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.sums import SampleTimes, Sums
from agenttrail.columns.numbers import numbers
from agenttrail.parsing import LATEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.casebook.ledger import Changes
    from agenttrail.casebook.terms import Terms

Place = dict[str, Any]
"""Where something stands in a part: ``at``, and whatever else its source keeps."""
ORIGIN = "origin"
"""Column of held rows only: number of the block that a row came with."""

_PLACE = "log.offset"


_Number = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,6}$")]
_At = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class _Place(msgspec.Struct):
    at: _At


class _Written(msgspec.Struct):
    """What a safe point is when it is written down."""

    needed: dict[_Number, dict[str, _Place]]
    read: dict[_Number, dict[str, _Place]]
    start: Annotated[int, msgspec.Meta(ge=-LATEST, le=LATEST)] | None
    ahead: dict[_Number, dict[str, list[tuple[_At, _At]]]] = {}
    sums: Annotated[str, msgspec.Meta(pattern=r"^sums-[0-9a-f]{32}\.bin$")] | None = None
    lacks: Annotated[int, msgspec.Meta(ge=-LATEST, le=LATEST)] | None = None


_WRITTEN = msgspec.json.Decoder(_Written)


@dataclass(frozen=True)
class SafePoint:
    """From where to read again.

    Attributes:
        needed: by source and part: from here on blocks may be needed.
        read: by source and part: up to here everything has been taken in and said.
        start: rows that begin before this, in microseconds, are not looked at, unless they are of an occupancy that
            lasts; None where nothing was let go of yet.
        ahead: by source and part: from where to where blocks have been taken in beyond ``read``, since they overtook
            others.
        sums: name of what is not read again, see :meth:`Desk.sums` and :func:`name_of`; None where nothing is.
        lacks: findings up to this time, in microseconds, stand: some of what they rest on was gone when it was to be
            read again; None where nothing was.
    """

    needed: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    read: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    start: int | None = None
    ahead: Mapping[str, Mapping[str, Sequence[Sequence[int]]]] = field(default_factory=dict)
    sums: str | None = None
    lacks: int | None = None

    def to_json(self) -> bytes:
        """Return it as JSON."""
        told = {
            "needed": self.needed, "read": self.read, "start": self.start, "ahead": self.ahead, "sums": self.sums,
            "lacks": self.lacks,
        }  # fmt: skip
        return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)

    def begins(self, source: int, part: str) -> int:
        """Return where a part is read from."""
        return int(self.needed.get(str(source), {}).get(part, {"at": 0})["at"])

    @classmethod
    def from_json(cls, data: bytes) -> SafePoint:
        """Return what :meth:`to_json` was given.

        Raises:
            ValueError: it is damaged.
        """
        try:
            told = orjson.loads(data)
            _WRITTEN.decode(data)
        except ValueError as error:
            msg = f"not a safe point: {error}"
            raise ValueError(msg) from error
        return cls(
            told["needed"], told["read"], told["start"], told.get("ahead", {}), told.get("sums"), told.get("lacks")
        )


def name_of(sums: bytes | None) -> str | None:
    """Return the name of what :meth:`Desk.sums` gave: another one for anything else."""
    return None if sums is None else f"sums-{blake2b(sums, digest_size=16).hexdigest()}.bin"


@dataclass(frozen=True)
class Said:
    """What is to be said otherwise, and from where to read again once it is written.

    Attributes:
        changes: of findings and incidents.
        safe_point: as JSON.
        rows: that are held.
        passed: event time that the stream has passed, in microseconds; None while that is not known.
        run: what tells the run from others in a process.
        number: how much was said in it before: a runner may hand on what was said later first.
        sums: what the safe point names, see :meth:`Desk.sums`.
    """

    changes: Changes
    safe_point: bytes
    rows: int
    passed: int | None = None
    run: str = ""
    number: int = 0
    sums: bytes | None = None


@dataclass
class _Part:
    """How far one part has been taken in.

    Attributes:
        read: everything before this came; None before its beginning did.
        waiting: blocks that came ahead of others, by where they begin: where they end.
    """

    read: Place | None = None
    waiting: dict[int, Place] = field(default_factory=dict)

    def take(self, before: Mapping[str, Any], after: Mapping[str, Any], *, begins: bool) -> None:
        """Take note of a block."""
        if begins:
            self.read = dict(after)
        elif self.read is None or before["at"] > self.read["at"]:
            known = self.waiting.get(before["at"])
            if known is None or known["at"] < after["at"]:  # rows alone, out of a bag, come as if it had no length
                self.waiting[before["at"]] = dict(after)
        elif after["at"] > self.read["at"]:
            self.read = dict(after)
        while self.read is not None and self.read["at"] in self.waiting:
            self.read = self.waiting.pop(self.read["at"])


class Desk:
    """Takes deliveries, judges, and tells from where a restart would have to read."""

    def __init__(
        self,
        terms: Terms,
        since: SafePoint | None = None,
        anew: frozenset[int] = frozenset(),
        documents: frozenset[int] = frozenset(),
    ) -> None:
        """Begin on the ``terms`` of a job.

        Args:
            terms: of the job.
            since: what an earlier run wrote down.
            anew: sources that are read from the top, whatever that says.
            documents: sources that may not tell again what they told: a list of pods lists those that run.
        """
        self._terms, self._since, self._anew = terms, since or SafePoint(), anew
        self._book = Casebook(terms, self._since.start)
        self._parts: dict[tuple[int, str], _Part] = {
            (int(source), part): _Part(place)
            for source, parts in self._since.needed.items()
            for part, place in parts.items()
            if int(source) not in anew
        }
        self._origins: dict[int, tuple[int, str, Place]] = {}
        self._ended: dict[tuple[int, str], int] = {}
        self._next = 0
        self._start = self._since.start
        self._packed: tuple[Sums, pa.RecordBatch | None, bytes | None] | None = None
        self._documents = documents
        self._listed: list[pa.RecordBatch] = []  # leases that documents told
        self._kept: pa.RecordBatch | None = None  # the same, each once, when everything was judged last
        self._again = {
            (int(source), part): int(place["at"])
            for source, parts in self._since.read.items()
            for part, place in parts.items()
        }
        self._ahead = {
            (int(source), part): [tuple(one) for one in told]
            for source, parts in self._since.ahead.items()
            for part, told in parts.items()
        }
        self._lacking = False  # some of what had come before a restart is gone
        self._lacks = self._since.lacks
        self._remembered: list[pa.Array] = []  # workloads that findings from before it are on
        ends = {part: max(end for _, end in told) for part, told in self._ahead.items() if told}
        come = {part: max(self._again.get(part, 0), ends.get(part, 0)) for part in self._again | ends}
        self._expected = {
            (source, part): at
            for (source, part), at in come.items()
            # of a source that the job does not name any more nothing comes
            if part and source < len(terms.datasets) and (source in anew or at > self._since.begins(source, part))
        }

    @property
    def rows(self) -> int:
        """Rows that are held."""
        return self._book.rows

    @property
    def behind(self) -> bool:
        """Whether some of what had been taken in before a restart has not come again yet: it is too soon to judge."""
        return any(not self._has_come(part, at) for part, at in self._expected.items())

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery in."""
        if delivery.sums is not None and delivery.times is not None and delivery.settled is not None:
            self._book.recall(Sums(delivery.sums, SampleTimes.from_table(delivery.times), delivery.settled))
            self._observe(delivery.leases, listed=True)
            self._kept = delivery.leases
            return
        if delivery.settled is not None:
            self._start = delivery.settled if self._start is None else max(delivery.settled, self._start)
            self._book.settle(self._start)
            return
        part = (delivery.source, delivery.part)
        if delivery.begins and part in self._expected:
            self._lacking |= self._begins_elsewhere(*part, int(delivery.before["at"]))
        if delivery.part:
            self._parts.setdefault(part, _Part()).take(delivery.before, delivery.after, begins=delivery.begins)
        if delivery.before == delivery.after:
            self._expect_no_more(*part)
        if delivery.ends:
            self._ended[part] = int(delivery.after["at"])
        elif int(delivery.after["at"]) > self._ended.get(part, LATEST):  # it came back
            del self._ended[part]
        self._observe(delivery.leases, listed=delivery.source in self._documents)
        events = delivery.events
        if events is None or not events.num_rows:
            return
        number, self._next = self._next, self._next + 1
        self._origins[number] = (*part, dict(delivery.before))
        numbered = with_columns(events, {ORIGIN: pa.array(np.full(events.num_rows, number))})
        known = self._came_before(part, events, int(delivery.before["at"]))
        kinds = np.unique(known).tolist()
        for one in kinds:
            rows = numbered if len(kinds) == 1 else numbered.filter(pa.array(known == one))
            self._book.take(delivery.source, self._terms.datasets[delivery.source], rows, known=one)

    def _observe(self, leases: pa.RecordBatch | None, *, listed: bool) -> None:
        if leases is None:
            return
        self._book.observe(leases)
        if listed:
            self._listed.append(leases)

    def _keep_listed(self, *, pruned: bool) -> None:
        """Make what documents told one, each lease once, without those that nothing needs any more."""
        if not self._listed or (len(self._listed) == 1 and self._listed[0] is self._kept and not pruned):
            return
        whole = self._book.still_needed(self._listed)
        if self._kept is None or not whole.equals(self._kept):
            self._kept = whole
        self._listed = [self._kept]

    def _forget_ended(self) -> None:
        """Forget parts of which nothing more comes once no row of theirs is held: there is no end to removed files."""
        held = {(source, name) for source, name, _ in self._origins.values()}
        for part in [part for part, end in self._ended.items() if part not in held and self._has_come(part, end)]:
            for known in (self._parts, self._again, self._ahead, self._ended):
                known.pop(part, None)

    def _begins_elsewhere(self, source: int, part: str, at: int) -> bool:
        """Tell whether a part that is read again begins behind what is needed of it, or is another than it was."""
        needed = self._since.begins(source, part)
        return at > needed or (at < needed and source not in self._anew)

    def _came_before(self, part: tuple[int, str], events: pa.RecordBatch, begin: int) -> NDArray[np.bool_]:
        """Tell which events of a block that begins there had come before a restart, whose blocks were others."""
        at = numbers(events.column(_PLACE), begin) if _PLACE in events.schema.names else np.full(len(events), begin)
        known: NDArray[np.bool_] = at < self._again.get(part, 0)
        for first, end in self._ahead.get(part, ()):
            known |= (at >= first) & (at < end)
        return known

    def _expect_no_more(self, source: int, name: str) -> None:
        """Take note that a part has been read to its end, or without a name all parts of a source: more may be gone."""
        over = {part: at for part, at in self._expected.items() if part[0] == source and name in ("", part[1])}
        self._lacking |= any(not self._has_come(part, at) for part, at in over.items())
        self._expected = {part: at for part, at in self._expected.items() if part not in over}

    def _has_come(self, part: tuple[int, str], at: int) -> bool:
        one = self._parts.get(part)
        return one is not None and one.read is not None and bool(one.read["at"] >= at)

    def _come_again(self) -> None:
        """Let what had been said before a restart be judged; it stands if some of what it rests on is there no more."""
        if not self._remembered:
            return
        if self._lacking:
            self._lacks = max(self._book.latest(), self._lacks or -LATEST)
        else:
            self._book.doubt(self._remembered)
        if self._lacks is not None:
            self._book.stand(self._lacks)
        self._remembered = []

    def judge(self, *, urgent: bool = False) -> Changes:
        """Say what is to be said otherwise than the last time, see :meth:`Casebook.judge`.

        The first time after a restart everything is judged, whatever is asked for: by half of it correlations would
        take back what they had said.
        """
        urgent = urgent and not self._remembered
        self._come_again()
        changes = self._book.judge(urgent=urgent)
        if not urgent:
            self._keep_listed(pruned=False)
        return changes

    def remember(self, findings: pa.RecordBatch, incidents: Sequence[str]) -> None:
        """Take in what had been said before a restart, see :meth:`Casebook.remember`."""
        self._remembered = [self._book.remember(findings, incidents)]

    @property
    def due(self) -> bool:
        """Whether anything came that was not judged yet."""
        return self._book.due

    def evict(self, start: int) -> Changes:
        """Judge everything, and let go of what is not looked at from ``start`` on, see :meth:`Casebook.evict`."""
        self._come_again()
        self._start = start if self._start is None else max(start, self._start)
        changes = self._book.evict(start)
        self._keep_listed(pruned=True)
        return changes

    def packed(self) -> Iterator[bytes]:
        """Yield all that is held as deliveries, from which a desk like this one can be made."""
        if self._start is not None:
            yield Delivery(0, "", {"at": 0}, {"at": 0}, settled=self._start).packed()
        if (sums := self.sums()) is not None:
            yield sums
        for (number, name), one in self._parts.items():
            if one.read is not None:
                # a desk that is made of this lacks nothing that this one did not
                needed = {"at": self._since.begins(number, name)}
                yield Delivery(number, name, one.read if self._lacking else needed, one.read, begins=True).packed()
            for begin, after in one.waiting.items():
                yield Delivery(number, name, {"at": begin}, after).packed()
            if (end := self._ended.get((number, name))) is not None:
                yield Delivery(number, name, {"at": end}, {"at": end}, ends=True).packed()
        for source, rows, leases in self._book.contents():
            if leases is not None:
                yield Delivery(source, "", {"at": 0}, {"at": 0}, None, leases).packed()
            if rows is not None:
                yield from self._packed_rows(source, rows)

    def _packed_rows(self, source: int, rows: pa.RecordBatch) -> Iterator[bytes]:
        """Yield rows by part, as if all had come with the earliest of their blocks."""
        origin = numbers(rows.column(ORIGIN))
        parts: dict[str, list[int]] = {}
        for number in np.unique(origin).tolist():
            parts.setdefault(self._origins[number][1], []).append(number)
        for name, some in parts.items():
            first = min((self._origins[number][2] for number in some), key=lambda place: int(place["at"]))
            mine = rows.filter(pa.array(np.isin(origin, some))).drop_columns([ORIGIN])
            yield Delivery(source, name, first, first, mine).packed()

    def sums(self) -> bytes | None:
        """Return what no source tells again as a delivery: what was found on rows that were let go of, and leases.

        It stands beside the safe point, which names it.  Leases are those that documents had told when everything was
        judged last.  None where there is nothing of either.
        """
        sums, kept = self._book.sums, self._kept
        if self._packed is None or self._packed[0] is not sums or self._packed[1] is not kept:
            told = Delivery(
                0, "", {"at": 0}, {"at": 0}, None, kept,
                settled=sums.settled, sums=sums.findings, times=sums.gone.table(),
            )  # fmt: skip
            self._packed = sums, kept, told.packed() if sums or kept is not None else None
        return self._packed[2]

    def late(self) -> list[tuple[int, pa.RecordBatch]]:
        """Return the events that came too late to be looked at, by source, since this was asked last."""
        return self._book.late()

    def safe_point(self) -> SafePoint:
        """Tell from where a restart would have to read, if all that was said is written."""
        held = set(self._book.distinct(ORIGIN).tolist())
        self._origins = {number: origin for number, origin in self._origins.items() if number in held}
        self._forget_ended()
        needed: dict[str, dict[str, Place]] = {}
        read: dict[str, dict[str, Place]] = {}
        for (source, name), part in self._parts.items():
            if part.read is not None:
                read.setdefault(str(source), {})[name] = part.read
                needed.setdefault(str(source), {})[name] = part.read
        for source, name, place in self._origins.values():
            if name and name not in read.get(str(source), {}):
                continue  # its beginning was overtaken, and is to come: it is all needed
            first = needed.setdefault(str(source), {}).setdefault(name, place)
            if place["at"] < first["at"]:
                needed[str(source)][name] = place
        for source_, parts in self._since.needed.items():  # of parts that nothing came of since the restart
            for name, place in parts.items():
                needed.setdefault(source_, {}).setdefault(name, place)
                read.setdefault(source_, {}).setdefault(name, self._since.read.get(source_, {}).get(name, place))
        return SafePoint(needed, read, self._start, self._taken_ahead(), name_of(self.sums()), self._lacks)

    def _taken_ahead(self) -> dict[str, dict[str, list[list[int]]]]:
        """Return from where to where blocks have been taken in that overtook others, in this run or before."""
        ahead: dict[str, dict[str, list[list[int]]]] = {}
        for (source, name), part in self._parts.items():
            read = 0 if part.read is None else int(part.read["at"])
            before = [list(one) for one in self._ahead.get((source, name), ()) if one[1] > read]
            spans = sorted([*before, *([begin, int(after["at"])] for begin, after in part.waiting.items())])
            if spans:
                ahead.setdefault(str(source), {})[name] = spans
        return ahead
