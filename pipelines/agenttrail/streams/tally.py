"""How far the stream of this process has come: what its steps tell as they go, for whoever looks at it meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from agenttrail.accounting import Account
from agenttrail.parsing import EARLIEST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrail.casebook.desk import Said


@dataclass
class Tally:
    """Sums of one stream; steps that run in other processes are not among them.

    Attributes:
        account: of all sources.
        rows: that are held.
        passed: event time that the stream has passed, in microseconds; None while that is not known.
        written: when something was written last, or found to be as it was, in microseconds; None before.
        findings: ids of those that hold.
        incidents: likewise.
        letters: dead letters by stage.
        retries: how often Elasticsearch was to be asked again, so far.
        read_up: numbers of the sources that have been read to their end at some time.
    """

    account: Account = field(default_factory=Account)
    rows: int = 0
    passed: int | None = None
    written: int | None = None
    findings: set[str] = field(default_factory=set)
    incidents: set[str] = field(default_factory=set)
    letters: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    read_up: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, findings: Iterable[str], incidents: Iterable[str]) -> None:
        """Forget what was; these findings and incidents hold."""
        with self._lock:
            self.account, self.rows, self.passed, self.written = Account(), 0, None, None
            self.findings, self.incidents = set(findings), set(incidents)
            self.letters, self.retries, self.read_up = Counter(), 0, set()

    def add(self, account: Account) -> None:
        """Add what a step counted."""
        with self._lock:
            self.account.add(account)

    def add_letters(self, stage: str, count: int) -> None:
        """Add dead letters."""
        with self._lock:
            self.letters[stage] += count

    def say(self, said: Said, now: int) -> pa.RecordBatch:
        """Take note of what was written ``now``; return the findings of it that did not hold before."""
        changes = said.changes
        self.rows, self.written = said.rows, now
        # the first step of a stream is one from the beginning of time, and says nothing yet
        self.passed = said.passed if said.passed is not None and said.passed >= EARLIEST else None
        known = [id_ in self.findings for id_ in changes.findings.column("finding.id").to_pylist()]
        for held, batch, kind, gone in (
            (self.findings, changes.findings, "finding", changes.gone_findings),
            (self.incidents, changes.incidents, "incident", changes.gone_incidents),
        ):
            held.update(batch.column(f"{kind}.id").to_pylist())
            held.difference_update(gone.to_pylist())
        return changes.findings.filter(pa.array([not one for one in known], pa.bool_()))

    def lines(self) -> tuple[int, int]:
        """Return how many lines were read, and how many events were in them."""
        counts = self.counted().counts
        lines, events = (sum(count for (_, name), count in counts.items() if name == what) for what in _SHOWN)
        return lines, events

    def counted(self) -> Account:
        """Return a copy of the account."""
        with self._lock:
            return Account().add(self.account)


_SHOWN = ("lines", "events")
TALLY = Tally()
"""Of this process, which runs one stream at a time."""
