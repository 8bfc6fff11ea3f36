"""How far the stream of this process has come: what its steps tell as they go, for whoever looks at it meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.accounting import Account

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
        findings: ids of those that hold.
        incidents: likewise.
    """

    account: Account = field(default_factory=Account)
    rows: int = 0
    passed: int | None = None
    findings: set[str] = field(default_factory=set)
    incidents: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, findings: Iterable[str], incidents: Iterable[str]) -> None:
        """Forget what was; these findings and incidents hold."""
        with self._lock:
            self.account, self.rows, self.passed = Account(), 0, None
            self.findings, self.incidents = set(findings), set(incidents)

    def add(self, account: Account) -> None:
        """Add what a step counted."""
        with self._lock:
            self.account.add(account)

    def say(self, said: Said) -> None:
        """Take note of what was written."""
        changes = said.changes
        self.rows, self.passed = said.rows, said.passed
        for held, batch, kind, gone in (
            (self.findings, changes.findings, "finding", changes.gone_findings),
            (self.incidents, changes.incidents, "incident", changes.gone_incidents),
        ):
            held.update(batch.column(f"{kind}.id").to_pylist())
            held.difference_update(gone.to_pylist())

    def lines(self) -> tuple[int, int]:
        """Return how many lines were read, and how many events were in them."""
        with self._lock:
            counts = list(self.account.counts.items())
        lines, events = (sum(count for (_, name), count in counts if name == what) for what in ("lines", "events"))
        return lines, events


TALLY = Tally()
"""Of this process, which runs one stream at a time."""
