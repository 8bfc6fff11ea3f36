"""Where each address of a column stands in a sorted set of addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns import addresses
from agenttrail.columns.dictionaries import asked_once

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

ABSENT = -1
_HALF = 1 << 16
_MOST_PAGES = 256  # of 256 KiB each


@dataclass(frozen=True)
class AddressSet:
    """A set of addresses, numbered from 0 in the order of their bytes: IPv4 first by value, then IPv6.

    Attributes:
        values: the IPv4 addresses, ascending.
        others: the IPv6 addresses as ``S16``, ascending.
        page_of: page of each upper half of the IPv4 space; page 0 is empty.
        pages: number of each address by lower half, (pages, 65536); empty if the set is too scattered for pages.
    """

    values: NDArray[np.uint32]
    others: NDArray[np.bytes_]
    page_of: NDArray[np.int32]
    pages: NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.Array) -> AddressSet:
        """Number the distinct addresses of a column; nulls are left out."""
        found, is_ipv4 = addresses.ipv4(column)
        values = np.unique(found[is_ipv4])
        others = np.unique(addresses.as_bytes(column)[addresses.present(column) & ~is_ipv4])
        uppers = np.unique(values >> 16)
        page_of = np.zeros(_HALF, dtype=np.int32)
        if len(uppers) > _MOST_PAGES:
            return cls(values, others, page_of, np.empty((0, _HALF), dtype=np.int32))
        page_of[uppers] = np.arange(1, len(uppers) + 1)
        pages = np.full((len(uppers) + 1, _HALF), ABSENT, dtype=np.int32)
        pages[page_of[values >> 16], values & (_HALF - 1)] = np.arange(len(values))
        return cls(values, others, page_of, pages)

    def __len__(self) -> int:
        """Return how many addresses the set holds."""
        return len(self.values) + len(self.others)

    def find(self, column: pa.Array) -> NDArray[np.int32]:
        """Return the number of each address of a column, ABSENT for those that are not in the set and for null."""
        return asked_once(column, self._find, ABSENT)

    def _find(self, column: pa.Array) -> NDArray[np.int32]:
        found, is_ipv4 = addresses.ipv4(column)
        if is_ipv4.all():
            return self._find4(found)
        out = np.full(len(column), ABSENT, dtype=np.int32)
        out[is_ipv4] = self._find4(found[is_ipv4])
        rest = np.flatnonzero(addresses.present(column) & ~is_ipv4)
        if len(rest) and len(self.others):
            out[rest] = _find_sorted(self.others, addresses.as_bytes(column)[rest], len(self.values))
        return out

    def _find4(self, values: NDArray[np.uint32]) -> NDArray[np.int32]:
        if len(self.pages):
            within = values & np.uint32(_HALF - 1)
            return self.pages.ravel().take(self.page_of.take(values >> np.uint32(16)) * np.int64(_HALF) + within)
        return _find_sorted(self.values, values, 0)


def _find_sorted(known: NDArray[np.generic], wanted: NDArray[np.generic], first: int) -> NDArray[np.int32]:
    if not len(known):
        return np.full(len(wanted), ABSENT, dtype=np.int32)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place + first, ABSENT).astype(np.int32)
