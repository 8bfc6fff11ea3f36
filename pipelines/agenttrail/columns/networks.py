"""Which of many lists of networks an address is in, for a whole column at once.

Every list is one bit.  The IPv4 space is cut at all network bounds into ranges of one bit set each; a table over its
65,536 upper halves answers most addresses with one look-up, and a page of 65,536 lower halves the rest.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agenttrail.columns import addresses
from agenttrail.columns.dictionaries import asked_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

MOST_LISTS = 64
_MOST_PAGES = 512  # of 128 KiB each; upper halves beyond that are searched
_HALF = 1 << 16

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """Return the network that ``text`` names: ``10.0.0.0/8``, ``fd00::/8``, or a single address.

    Raises:
        ValueError: it names none, or has bits set to the right of its prefix.
    """
    return ipaddress.ip_network(text.strip())


@dataclass(frozen=True)
class NetworkLists:
    """Up to 64 lists of networks, compiled for :meth:`tag`.

    Attributes:
        masks: distinct bit sets; everything below is an index into them.
        uppers: code of each upper half whose addresses agree.
        page_of: page of each upper half whose addresses differ, -1 for one code, -2 for a search.
        pages: codes of the lower halves, (pages, 65536).
        bounds4: first address of each IPv4 range, ascending, and ``codes4`` its code.
        bounds6: the same for IPv6, as ``S16``.
    """

    masks: NDArray[np.uint64]
    uppers: NDArray[np.uint16]
    page_of: NDArray[np.int32]
    pages: NDArray[np.uint16]
    bounds4: NDArray[np.uint32]
    codes4: NDArray[np.uint16]
    bounds6: NDArray[np.bytes_]
    codes6: NDArray[np.uint16]

    @classmethod
    def compile(cls, lists: Sequence[Iterable[Network]]) -> NetworkLists:
        """Compile ``lists``; the i-th becomes bit i."""
        if len(lists) > MOST_LISTS:
            msg = f"at most {MOST_LISTS} lists, not {len(lists)}"
            raise ValueError(msg)
        tagged = [(network, bit) for bit, networks in enumerate(lists) for network in networks]
        masks: dict[int, int] = {0: 0}
        starts4, codes4 = _ranges([pair for pair in tagged if pair[0].version == 4], masks)  # noqa: PLR2004
        starts6, codes6 = _ranges([pair for pair in tagged if pair[0].version == 6], masks)  # noqa: PLR2004
        bounds4 = np.array(starts4, dtype=np.uint32)
        ranges4 = np.array(codes4, dtype=np.uint16)
        uppers, page_of, pages = _paged(bounds4, ranges4)
        return cls(
            masks=np.array(list(masks), dtype=np.uint64),
            uppers=uppers, page_of=page_of, pages=pages, bounds4=bounds4, codes4=ranges4,
            bounds6=np.array([start.to_bytes(16, "big") for start in starts6], dtype="S16"),
            codes6=np.array(codes6, dtype=np.uint16),
        )  # fmt: skip

    def tag(self, column: pa.Array) -> NDArray[np.uint64]:
        """Return the bit set of every address of an address column; 0 for null."""
        return self.masks[self.codes(column)]

    def codes(self, column: pa.Array) -> NDArray[np.uint16]:
        """Return where in ``masks`` the bit set of every address stands; 0, the empty set, for null."""
        return asked_once(column, self._codes, 0)

    def _codes(self, column: pa.Array) -> NDArray[np.uint16]:
        values, is_ipv4 = addresses.ipv4(column)
        if is_ipv4.all():
            return self._codes4(values)
        codes = np.zeros(len(column), dtype=np.uint16)
        codes[is_ipv4] = self._codes4(values[is_ipv4])
        rest = np.flatnonzero(addresses.present(column) & ~is_ipv4)
        if len(rest):
            found = addresses.as_bytes(column)[rest]
            codes[rest] = self.codes6[np.searchsorted(self.bounds6, found, side="right") - 1]
        return codes

    def _codes4(self, values: NDArray[np.uint32]) -> NDArray[np.uint16]:
        upper = values >> 16
        codes: NDArray[np.uint16] = self.uppers[upper]
        if (self.page_of == -1).all():
            return codes
        page = self.page_of[upper]
        paged = np.flatnonzero(page >= 0)
        codes[paged] = self.pages[page[paged], values[paged] & (_HALF - 1)]
        searched = np.flatnonzero(page == -2)  # noqa: PLR2004 - the marker for a search
        if len(searched):
            codes[searched] = self.codes4[np.searchsorted(self.bounds4, values[searched], side="right") - 1]
        return codes


def _ranges(tagged: list[tuple[Network, int]], masks: dict[int, int]) -> tuple[list[int], list[int]]:
    """Cut the address space at all bounds; return the start of each range and the code of its bit set in ``masks``."""
    changes: dict[int, list[tuple[int, int]]] = {0: []}
    for network, bit in set(tagged):
        first, past = int(network.network_address), int(network.broadcast_address) + 1
        changes.setdefault(first, []).append((bit, 1))
        if past < 1 << network.max_prefixlen:
            changes.setdefault(past, []).append((bit, -1))
    open_networks = [0] * MOST_LISTS
    starts, codes, current = sorted(changes), [], 0
    for start in starts:
        for bit, step in changes[start]:
            open_networks[bit] += step
            current = current | 1 << bit if open_networks[bit] else current & ~(1 << bit)
        codes.append(masks.setdefault(current, len(masks)))
    return starts, codes


def _paged(
    bounds: NDArray[np.uint32], codes: NDArray[np.uint16]
) -> tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.uint16]]:
    """Spread sorted ranges over a table of upper halves and pages of lower halves."""
    firsts = np.arange(_HALF, dtype=np.uint64) << np.uint64(16)
    at_first = np.searchsorted(bounds, firsts.astype(np.uint32), side="right") - 1
    at_last = np.searchsorted(bounds, (firsts + np.uint64(_HALF - 1)).astype(np.uint32), side="right") - 1
    mixed = np.flatnonzero(at_first != at_last)
    page_of = np.full(_HALF, -1, dtype=np.int32)
    page_of[mixed[:_MOST_PAGES]] = np.arange(min(len(mixed), _MOST_PAGES))
    page_of[mixed[_MOST_PAGES:]] = -2
    pages = np.empty((min(len(mixed), _MOST_PAGES), _HALF), dtype=np.uint16)
    for page, upper in enumerate(mixed[:_MOST_PAGES]):
        lower = (np.uint32(upper) << np.uint32(16)) + np.arange(_HALF, dtype=np.uint32)
        pages[page] = codes[np.searchsorted(bounds, lower, side="right") - 1]
    return codes[at_first], page_of, pages
