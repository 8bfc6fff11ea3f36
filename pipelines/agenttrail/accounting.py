"""The books of a run: every line read is an event, a skip or a dead letter, and every event has a status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenttrail.errors import AccountingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

COUNTS = (
    "files", "bytes", "lines", "with_events", "skipped", "dead", "events", "gaps", "attributed", "ambiguous",
    "unattributed", "in_range", "context", "signals", "duplicates", "leases", "without_zone", "may_matter",
    "late",
)  # fmt: skip
"""What is counted per source, in the order of ``run.json``."""
DEAD, ACCOUNT, EVENTS = "dead", "account", "events"
"""Tags of the outputs of a step: dead letters, accounts, and the main one."""
EVICTED, RETRIES = "evicted", "retries"
"""What else happened: rows that a stream let go of, and bulk requests that were sent again."""
_MOST_NAMED = 20
_MOST_KEPT = 10_000  # scopes; who writes logs can write any number of them


@dataclass
class Account:
    """Counts by source, seconds by stage, and what a run should mention.

    Attributes:
        counts: by (source, what).
        seconds: CPU seconds by stage.
        unknown_scopes: rows by scope that no lease is in.
        written: documents by (kind, what became of them) in Elasticsearch.
        coverage: workloads by what was seen, or could not be seen, of them.
        hits: findings by id of their rule, each once however often it is told.
        whose: the same findings by (status, level) of their attribution.
        besides: what else happened, by name.
    """

    counts: Counter[tuple[int, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    unknown_scopes: Counter[str] = field(default_factory=Counter)
    written: Counter[tuple[str, str]] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    whose: Counter[tuple[str, str]] = field(default_factory=Counter)
    besides: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls,
        source: int,
        *,
        seconds: Mapping[str, float] | None = None,
        scopes: Mapping[str, int] | None = None,
        **counts: int,
    ) -> Account:
        """Return an account of one source."""
        named = Counter({(source, what): count for what, count in counts.items() if count})
        return cls(named, Counter(seconds or {}), Counter(scopes or {}))

    def found(self, findings: pa.RecordBatch) -> Account:
        """Count findings, which are few, and return this account."""
        names = ("rule.id", "attribution.status", "attribution.level")
        counted = Counter(zip(*(findings.column(name).to_pylist() for name in names), strict=True))
        for (rule, status, level), count in counted.items():
            self.hits[rule] += count
            self.whose[status or "", level or ""] += count
        return self

    def add(self, other: Account) -> Account:
        """Add another account to this one, and return it."""
        self.counts.update(other.counts)
        self.seconds.update(other.seconds)
        self.unknown_scopes.update(other.unknown_scopes)
        self.written.update(other.written)
        self.coverage.update(other.coverage)
        self.hits.update(other.hits)
        self.whose.update(other.whose)
        self.besides.update(other.besides)
        if len(self.unknown_scopes) > _MOST_KEPT:
            self.unknown_scopes = Counter(dict(self.unknown_scopes.most_common(_MOST_KEPT)))
        return self

    def most_unknown(self) -> list[tuple[str, int]]:
        """Return the scopes without leases that a run should mention, those with most rows first."""
        return sorted(self.unknown_scopes.items(), key=lambda one: (-one[1], one[0]))[:_MOST_NAMED]

    def of_source(self, source: int) -> dict[str, int]:
        """Return the counts of one source."""
        return {what: self.counts[source, what] for what in COUNTS if self.counts[source, what] or what in _ALWAYS}

    def total(self, sources: int) -> dict[str, int]:
        """Return the sums over ``sources`` sources."""
        return {
            what: total
            for what in COUNTS
            if (total := sum(self.counts[source, what] for source in range(sources))) or what in _ALWAYS
        }


_ALWAYS = ("lines", "with_events", "skipped", "dead", "events", "attributed", "ambiguous", "unattributed")


def total(accounts: Iterable[Account]) -> Account:
    """Return the sum of accounts."""
    summed = Account()
    for account in accounts:
        summed.add(account)
    return summed


def check(account: Account, names: Sequence[str]) -> None:
    """Check the sums of every source.

    Args:
        account: of the whole run.
        names: of the sources, for the message.

    Raises:
        AccountingError: they do not balance; nothing of the output can be trusted then.
    """
    wrong = []
    for source, name in enumerate(names):
        counts = {what: account.counts[source, what] for what in COUNTS}
        if counts["lines"] != counts["with_events"] + counts["skipped"] + counts["dead"]:
            wrong.append(
                f"{name}: {counts['lines']} lines, but {counts['with_events']} with events "
                f"+ {counts['skipped']} skipped + {counts['dead']} dead"
            )
        if counts["events"] != counts["attributed"] + counts["ambiguous"] + counts["unattributed"]:
            wrong.append(
                f"{name}: {counts['events']} events, but {counts['attributed']} attributed "
                f"+ {counts['ambiguous']} ambiguous + {counts['unattributed']} unattributed"
            )
    if wrong:
        msg = "the books of this run do not balance (a defect of agenttrail): " + "; ".join(wrong)
        raise AccountingError(msg)
