"""Casework: what may matter to what is to be said, said as soon as it is known and again whenever it changes.

The state is one desk a key.  A runner may call timers and elements of one key at once, as Prism does, so a desk is held
by one caller at a time, downstream steps included.  It is kept twice: as Beam's state, a bag of what was delivered, to
which is only added until something is let go of; and made ready in this process.  The bag is read where the other is
not there, or behind: after a runner has moved the key.  One that is ahead of the bag, since its bundle is not committed
yet or is done again, will do: what comes twice counts once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from agenttrail.accounting import ACCOUNT, DEAD, EVICTED, Account
from agenttrail.casebook.deliveries import Delivery
from agenttrail.casebook.desk import Desk, SafePoint, Said
from agenttrail.parsing import LATEST
from agenttrail.streams.halting import HALT
from agenttrail.transforms.sifting import late_letters
from agenttrail.transforms.timed import at_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from agenttrail.casebook.ledger import Changes
    from agenttrail.casebook.terms import Terms

SAID = "said"
_LATE = "too late: it came when what lay before it was settled, from a part that had been left out"
_STEP = 60_000_000
"""How far the watermark moves, in microseconds, until it is looked at what can be let go of."""
_COSTLIEST = 15.0
"""Seconds of writing beyond which it makes judging everything no rarer: what is written to may be away."""
_SPARE = 16 << 20
"""Bytes by which the bag may be more than twice what is held: most of it is leases that were told again, or nothing."""
_DESKS: dict[tuple[str, int], _Ready] = {}
"""Desks of this process by run and key: a runner may call another copy of the function each time."""

_LOCK = threading.RLock()


@dataclass(frozen=True)
class Pacing:
    """How often is judged.

    Attributes:
        urgent: seconds between two times that what is urgent is judged.
        all: seconds between two times that everything is.
        share: judging everything, and writing what it says, takes at most this part of the time.
        evict: seconds between two times that rows are let go of, which is then done where everything is judged.
    """

    urgent: float = 1.0
    all: float = 5.0
    share: float = 0.25
    evict: float = 10.0


@dataclass
class _Ready:
    """A desk that is made ready.

    Attributes:
        desk: with all deliveries of the bag.
        deliveries: how many that are.
        urgent: when what is urgent was judged last, by a clock that only goes on.
        all: when everything was.
        evicted: when rows were let go of last.
        cost: seconds that it took last to judge everything and to write what that says.
        passed: what the watermark has passed, in microseconds; None while that is not known.
        kept: rows in the bag,
        size: and bytes;
        least: and bytes when only what is held was in there last.
        said: how much was said.
        over: whether the watermark has come to its end.
        stepping: whether it is told when the watermark has moved on.
    """

    desk: Desk
    deliveries: int = 0
    urgent: float = field(default_factory=time.monotonic)
    all: float = field(default_factory=time.monotonic)
    evicted: float = field(default_factory=time.monotonic)
    cost: float = 0.0
    passed: int | None = None
    kept: int = 0
    size: int = 0
    least: int = 0
    stepping: bool = False
    said: int = 0
    over: bool = False


class _Casework(beam.DoFn):
    BAG = BagStateSpec("deliveries", BytesCoder())
    COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())
    TICK = TimerSpec("tick", TimeDomain.REAL_TIME)
    STEP = TimerSpec("step", TimeDomain.WATERMARK)
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(self, run: str, opened: Callable[[], Desk], keep: int, pacing: Pacing) -> None:
        self._run, self._opened, self._keep, self._pacing = run, opened, keep, pacing
        self._behind_the_end: set[int] = set()

    def start_bundle(self) -> None:
        """Begin with no deliveries."""
        self._behind_the_end = set()

    def finish_bundle(self) -> Iterator[Any]:
        """Judge what came behind the end, all at once: a runner may call that timer before hundreds of deliveries."""
        for key in self._behind_the_end:
            with _LOCK:
                yield from map(at_the_end, self._last_word(_DESKS[self._run, key]))

    def process(
        self,
        element: tuple[int, bytes],
        bag: Any = beam.DoFn.StateParam(BAG),  # noqa: B008 - how Beam asks for it
        count: Any = beam.DoFn.StateParam(COUNT),  # noqa: B008
        tick: Any = beam.DoFn.TimerParam(TICK),  # noqa: B008
        step: Any = beam.DoFn.TimerParam(STEP),  # noqa: B008
        end: Any = beam.DoFn.TimerParam(END),  # noqa: B008
        at: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        key, data = element
        with _LOCK:
            yield from self._delivered(key, data, bag, count, (tick, step, end), at)

    def _delivered(
        self, key: int, data: bytes, bag: Any, count: Any, timers: tuple[Any, Any, Any], at: Any
    ) -> Iterator[Any]:
        tick, step, end = timers
        ready = self._ready(key, bag, count)
        bag.add(data)
        ready.deliveries += 1
        ready.size += len(data)
        count.write(ready.deliveries)
        delivery = Delivery.unpacked(data)
        ready.desk.deliver(delivery)
        ready.kept += 0 if delivery.events is None else delivery.events.num_rows
        if not ready.over:
            tick.set(Timestamp.now() + self._pacing.urgent)
        if ready.deliveries == 1:
            end.set(GlobalWindow().max_timestamp())
        # only where something came: a chain of timers would go on to the end of time where the watermark is there; and
        # from a time that was told: before its source has one it is that of 1970, and of documents the end of time
        told = max(at.micros if at.micros < LATEST else 0, ready.passed or 0)
        if not ready.stepping and told > 0:
            step.set(Timestamp(micros=told + _STEP))
            ready.stepping = True
        if ready.over:
            self._behind_the_end.add(key)
        else:
            yield from self._turn(ready)
            self._keep_less(ready, bag, count)

    @on_timer(TICK)  # type: ignore[untyped-decorator]
    def on_tick(
        self,
        key: Any = beam.DoFn.KeyParam,
        bag: Any = beam.DoFn.StateParam(BAG),  # noqa: B008
        count: Any = beam.DoFn.StateParam(COUNT),  # noqa: B008
        tick: Any = beam.DoFn.TimerParam(TICK),  # noqa: B008
    ) -> Iterator[Any]:
        """Judge what came, also where nothing more comes."""
        with _LOCK:
            ready = self._ready(key, bag, count)
            yield from self._turn(ready)
            if ready.desk.due and not ready.over:
                tick.set(Timestamp.now() + self._pacing.urgent)

    @on_timer(STEP)  # type: ignore[untyped-decorator]
    def on_step(
        self,
        key: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        bag: Any = beam.DoFn.StateParam(BAG),  # noqa: B008
        count: Any = beam.DoFn.StateParam(COUNT),  # noqa: B008
    ) -> Iterator[Any]:
        """Take note of what the watermark has passed."""
        with _LOCK:
            ready = self._ready(key, bag, count)
            ready.stepping = False
            if HALT.asked:
                return  # the sources have let go of time: it has come no further
            ready.passed = at.micros
            yield from self._turn(ready)

    @on_timer(END)  # type: ignore[untyped-decorator]
    def on_end(
        self,
        key: Any = beam.DoFn.KeyParam,
        bag: Any = beam.DoFn.StateParam(BAG),  # noqa: B008
        count: Any = beam.DoFn.StateParam(COUNT),  # noqa: B008
        tick: Any = beam.DoFn.TimerParam(TICK),  # noqa: B008
    ) -> Iterator[Any]:
        """Judge everything: nothing more comes."""
        with _LOCK:
            ready = self._ready(key, bag, count)
            tick.clear()  # Flink waits for what is set without letting it come, once its sources are through
            ready.over = True  # what came last may yet wait for this, or come to the desk behind it
            yield from self._last_word(ready)

    def _last_word(self, ready: _Ready) -> Iterator[Any]:
        """Judge everything; a stream that is told to end before it has caught up leaves everything as it is."""
        if not ready.desk.behind:
            yield from self._judged(ready, lambda desk: desk.judge(), whole=True)

    def _ready(self, key: int, bag: Any, count: Any) -> _Ready:
        """Return the desk with all that was delivered; made of the bag where this process has none, or another."""
        known = count.read() or 0
        ready = _DESKS.get((self._run, key))
        if ready is None or ready.deliveries < known:
            ready = _Ready(self._opened(), known, said=0 if ready is None else ready.said)
            if known:
                for data in bag.read():
                    ready.desk.deliver(Delivery.unpacked(data))
                    ready.size += len(data)
                ready.kept = ready.desk.rows
            _DESKS[self._run, key] = ready
        return ready

    def _turn(self, ready: _Ready) -> Iterator[Any]:
        """Do what it is time for."""
        now, pacing = time.monotonic(), self._pacing
        if now - ready.urgent < pacing.urgent or ready.desk.behind:
            return
        if now - ready.all < max(pacing.all, ready.cost / pacing.share):
            yield from self._judged(ready, lambda desk: desk.judge(urgent=True), whole=False)
        elif ready.passed is not None and now - ready.evicted >= pacing.evict:
            start = ready.passed - self._keep
            ready.evicted = now
            yield from self._judged(ready, lambda desk: desk.evict(start), whole=True)
        else:
            yield from self._judged(ready, lambda desk: desk.judge(), whole=True)

    def _keep_less(self, ready: _Ready, bag: Any, count: Any) -> None:
        """Put into the bag what is held alone, once that is less than half of what is in there, by rows or bytes."""
        if ready.desk.rows * 2 >= ready.kept and ready.size <= 2 * ready.least + _SPARE:
            return
        bag.clear()
        ready.kept, ready.size = ready.desk.rows, 0
        for data in ready.desk.packed():
            bag.add(data)
            ready.deliveries += 1
            ready.size += len(data)
        ready.least = ready.size
        count.write(ready.deliveries)

    def _judged(self, ready: _Ready, judge: Callable[[Desk], Changes], *, whole: bool) -> Iterator[Any]:
        began, held = time.monotonic(), ready.desk.rows
        changes = judge(ready.desk)
        every_late = ready.desk.late()
        evicted = held - ready.desk.rows - sum(late.num_rows for _, late in every_late)
        for source, late in every_late:
            yield beam.pvalue.TaggedOutput(DEAD, late_letters(late, _LATE))
            yield beam.pvalue.TaggedOutput(ACCOUNT, Account.of(source, late=late.num_rows))
        ready.urgent = time.monotonic()
        spent = ready.urgent - began
        safe_point, rows = ready.desk.safe_point().to_json(), ready.desk.rows
        yield Said(changes, safe_point, rows, ready.passed, self._run, ready.said, ready.desk.sums())
        ready.said += 1
        if whole:  # steps behind this one have had it by now: what it takes to write is part of what judging costs
            ready.all = time.monotonic()
            ready.cost = spent + min(ready.all - began - spent, _COSTLIEST)
        books = Account(seconds=Counter({"judge": spent}), besides=Counter({EVICTED: evicted}))
        yield beam.pvalue.TaggedOutput(ACCOUNT, books)


class Casework(beam.PTransform):
    """(key, packed deliveries) to what is to be said; dead letters and accounts beside it."""

    def __init__(self, run: str, opened: Callable[[], Desk], keep: int, pacing: Pacing | None = None) -> None:
        """Judge what comes.

        Args:
            run: what tells this run from all others in a process.
            opened: makes a desk as it is at the start of the run.
            keep: how far behind the watermark rows are still looked at, in microseconds.
            pacing: how often.
        """
        super().__init__()
        self._fn = _Casework(run, opened, keep, pacing or Pacing())

    def expand(self, deliveries: beam.PCollection[tuple[int, bytes]]) -> Any:
        """Return the outputs by tag."""
        outputs = beam.ParDo(self._fn).with_output_types(Said)
        return deliveries | outputs.with_outputs(DEAD, ACCOUNT, main=SAID)


@dataclass(frozen=True)
class Opening:
    """Makes a desk for a job: a value that travels to the worker.

    Attributes:
        terms: of the job.
        since: the safe point of an earlier run, as JSON; None where there is none.
        anew: sources that are read from the top, whatever that says.
        findings: what had been said then, without evidence.
        incidents: ids of those that stood then.
        sums: what the safe point names; None where it names nothing.
        documents: sources that may not tell again what they told.
    """

    terms: Terms
    since: bytes | None = None
    anew: frozenset[int] = frozenset()
    findings: pa.RecordBatch | None = None
    incidents: tuple[str, ...] = ()
    sums: bytes | None = None
    documents: frozenset[int] = frozenset()

    def __call__(self) -> Desk:
        """Return a desk."""
        since = None if self.since is None else SafePoint.from_json(self.since)
        desk = Desk(self.terms, since, self.anew, self.documents)
        if self.findings is not None:
            desk.remember(self.findings, self.incidents)
        if self.sums is not None:
            desk.deliver(Delivery.unpacked(self.sums))
        return desk
