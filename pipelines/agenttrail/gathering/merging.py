"""The signals of one shard, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agenttrail import attribute as attribution
from agenttrail.accounting import Account
from agenttrail.columns.batches import joined, stacked
from agenttrail.columns.numbers import numbers
from agenttrail.detect.signals import DIGEST, HOLDER, Signals, first_of_each

if TYPE_CHECKING:
    from collections.abc import Iterable


def merged(signals: Iterable[Signals]) -> tuple[Signals, Account]:
    """Put the signals of one shard together, without exact duplicates, whatever the order in which they came."""
    parts = list(signals)
    shifts = np.cumsum([0] + [part.holders.num_rows for part in parts])
    rows = stacked(
        [
            attribution.with_columns(
                part.rows,
                {
                    HOLDER: pa.array(numbers(part.rows.column(HOLDER)) + shift),
                    "source": pa.array(np.full(part.rows.num_rows, part.source)),
                },
            )
            for part, shift in zip(parts, shifts, strict=False)
        ]
    )
    holders = joined([part.holders for part in parts])
    unique = first_of_each(rows.column(DIGEST), rows.column("log.file.path"), rows.column("log.offset"))
    account = Account()
    if not unique.all():
        dropped = numbers(rows.column("source"))[~unique]
        for source, count in zip(*np.unique(dropped, return_counts=True), strict=True):
            account.add(Account.of(int(source), duplicates=int(count), signals=-int(count)))
        rows = rows.filter(pa.array(unique))
    return Signals(rows, holders, -1), account
