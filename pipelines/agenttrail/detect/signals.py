"""detect(): the rows that matter - hit by a rule, blocked, or with an unlisted peer - made ready to leave their batch.

Most rows end here.  What goes on is slim: the columns that conversations and findings need, an id, the rules that
hit, and the original line, scrubbed.  Whom the rows are about travels beside them, once per holder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from agenttrail.columns.addresses import present
from agenttrail.columns.dictionaries import asked_once, places
from agenttrail.columns.groups import ordinals, rank_in_group
from agenttrail.columns.ids import content_digests
from agenttrail.columns.networks import NetworkLists, parse_network
from agenttrail.columns.numbers import numbers
from agenttrail.columns.ordering import order_by, repeated
from agenttrail.columns.secrets import scrub
from agenttrail.columns.text import trim_line_ends
from agenttrail.schema import EVIDENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agenttrail.detect.plan import Plan

DIGEST, HITS, HOLDER = "event.digest", "rule.hits", "holder"
"""Columns in flight only: ``event.id`` as 16 bytes, numbers of the rules that hit, place among the holders."""

LISTED = ("internal", "allowed")
"""Kinds of peers that nobody has to ask after."""
_ARGUMENTS = "gen_ai.tool.call.arguments"
_COMPUTED = ("event.id", "network.community_id", "event.original")
_KEPT = (
    *(name for name in EVIDENCE if name not in _COMPUTED), "network.iana_number", "network.initiator",
    "network.tcp_flags",
    "attribution.reason",
)  # fmt: skip
_INDEX = "event.index"
"""Column in flight only: place of an event within its line, where a line holds several."""
_TRAVELLING = (*_KEPT, "event.original", "attribution.scope", _INDEX)


@dataclass(frozen=True)
class Signals:
    """Rows that matter, and whom they are about.

    Attributes:
        rows: as ``detect`` gives them.
        holders: as ``name_holders`` gives them; ``rows`` points into them.
        source: number of the job's source.
    """

    rows: pa.RecordBatch
    holders: pa.RecordBatch
    source: int


@dataclass(frozen=True)
class Lists:
    """The lists that decide what is unlisted: neither inside nor allowed."""

    listed: NetworkLists
    allow_list_known: bool

    @classmethod
    def of(cls, lists: Mapping[str, tuple[str, ...]]) -> Lists:
        """Compile ``internal`` and ``egress_allow`` of a job's lists."""
        entries = [[parse_network(entry) for entry in lists.get(name, ())] for name in ("internal", "egress_allow")]
        return cls(NetworkLists.compile(entries), bool(lists.get("egress_allow")))

    def numbered(self, peers: pa.Array) -> NDArray[np.int8]:
        """Return which of ``LISTED`` each peer is on, the first of several; -1 for none, and for null."""
        inside, allowed = (self.listed.masks & np.uint64(bit) != 0 for bit in (1, 2))
        table = np.where(inside, 0, np.where(allowed, 1, -1)).astype(np.int8)
        return asked_once(peers, lambda plain: table.take(self.listed.codes(plain)), -1)

    def unlisted(self, events: pa.RecordBatch, listed: NDArray[np.int8] | None = None) -> NDArray[np.bool_]:
        """Return the rows with a peer on no list; none at all where no allow-list is known.

        Args:
            events: with ``peer.ip``.
            listed: what :meth:`numbered` says of these, where it has been asked already.
        """
        if not self.allow_list_known:
            return np.zeros(events.num_rows, dtype=bool)
        peers = events.column("peer.ip")
        unlisted: NDArray[np.bool_] = (self.numbered(peers) if listed is None else listed) < 0
        return unlisted & present(peers)


class Selected(NamedTuple):
    """What matters of a batch.

    Attributes:
        rows: that matter.
        hits: per rule of the plan the rows that it hits.
        listed: of every row of the batch the list that its peer is on, as :meth:`Lists.numbered` says.
    """

    rows: NDArray[np.int64]
    hits: list[NDArray[np.int64]]
    listed: NDArray[np.int8]


def select(events: pa.RecordBatch, plan: Plan, lists: Lists) -> Selected:
    """Return the rows of a batch of attributed events that matter, and why."""
    hits = plan.run(events)
    listed = lists.numbered(events.column("peer.ip"))
    matters = lists.unlisted(events, listed) | _is(events, "event.outcome", "failure")
    for rows in hits:
        matters[rows] = True
    return Selected(np.flatnonzero(matters), hits, listed)


def travelling(events: pa.RecordBatch, *others: str) -> pa.RecordBatch:
    """Return the columns that :func:`detect` looks at, and ``others``: rows of fewer are sooner taken."""
    wanted = {*_TRAVELLING, *others}
    return events.select([name for name in events.schema.names if name in wanted])


def detect(events: pa.RecordBatch, hits: pa.Array, holder: NDArray[np.int64]) -> tuple[pa.RecordBatch, int]:
    """Make the rows that matter ready to leave their batch.

    Args:
        events: those rows, attributed.
        hits: per row the numbers of the rules that hit it.
        holder: place of each row's holder.

    Returns:
        The rows without exact duplicates, and how many of those were dropped.
    """
    columns = _kept_columns(events)
    originals = scrub(trim_line_ends(events.column("event.original")).cast(pa.string()))
    scope = _optional(events, "attribution.scope")
    index = _optional(events, _INDEX).cast(pa.string()) if _INDEX in events.schema.names else "0"
    columns[DIGEST] = content_digests([columns["event.dataset"], scope, originals, index])
    columns[HITS] = hits
    columns[HOLDER] = pa.array(holder.astype(np.int32))
    unique = first_of_each(columns[DIGEST], columns["log.file.path"], columns["log.offset"])
    columns["event.original"] = originals
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return rows if unique.all() else rows.filter(pa.array(unique)), int(np.count_nonzero(~unique))


def rule_hits(hits: Sequence[NDArray[np.int64]], chosen: NDArray[np.int64], plan: Plan) -> pa.Array:
    """Return per ``chosen`` row the numbers of the rules of ``plan`` that hit it, as a list array."""
    rows = np.concatenate([np.searchsorted(chosen, found) for found in hits] or [np.empty(0, np.int64)])
    rules = np.repeat(np.arange(len(hits)), [len(found) for found in hits])
    order = order_by(rows, rules)
    offsets = np.searchsorted(rows[order], np.arange(len(chosen) + 1)).astype(np.int32)
    numbers_ = np.array(plan.numbers, dtype=np.int16)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers_[rules[order]]))


def _is(events: pa.RecordBatch, name: str, word: str) -> NDArray[np.bool_]:
    column = _optional(events, name)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    table = np.append(np.array([known == word for known in column.dictionary.to_pylist()], dtype=bool), False)
    return table.take(places(column))


def _optional(events: pa.RecordBatch, name: str) -> pa.Array:
    index = events.schema.get_field_index(name)
    return pa.nulls(events.num_rows, pa.string()) if index < 0 else events.column(index)


def _kept_columns(events: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the columns that go on, without those that hold nothing; dictionaries of few words stay dictionaries."""
    columns = {name: events.column(name) for name in _KEPT if name in events.schema.names}
    if _ARGUMENTS in columns:
        columns[_ARGUMENTS] = scrub(columns[_ARGUMENTS])
    return {name: column for name, column in columns.items() if column.null_count < len(column) or not len(column)}


def first_of_each(digests: pa.Array, paths: pa.Array, offsets: pa.Array) -> NDArray[np.bool_]:
    """Return a mask that keeps one of each set of exact duplicates: the one with the smallest place in the logs."""
    words = digest_words(digests)
    rows = repeated(words.view(np.int64)[::2])  # half of each as a number: these sort twenty times as quickly
    first = np.ones(len(words), dtype=bool)
    if len(rows):
        _, groups = np.unique(words[rows], return_inverse=True)
        path, offset = ordinals(paths.take(pa.array(rows))), numbers(offsets)[rows]
        first[rows] = rank_in_group(groups.ravel().astype(np.int64), path, offset) == 0
    return first


def digest_words(digests: pa.Array) -> NDArray[np.bytes_]:
    """Return 16-byte digests as NumPy ``S16``, which sorts like their hexadecimal text."""
    return np.frombuffer(digests.buffers()[1] or b"", dtype="S16")[digests.offset : digests.offset + len(digests)]


def as_digests(words: NDArray[np.bytes_]) -> pa.Array:
    """Return what :func:`digest_words` made of 16-byte digests as these again."""
    data = np.ascontiguousarray(words, dtype="S16").tobytes()
    return pa.Array.from_buffers(pa.binary(16), len(words), [None, pa.py_buffer(data)])
