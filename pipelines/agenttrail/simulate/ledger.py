"""Who really held which address when - and what somebody who knows only that can tell of a record.

This is the simulator's own account of its world.  It is kept apart from the program's attribution on purpose: the one
is what the other is measured by.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate.fleet import Node, Pod

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenttrail.simulate.fleet import Cluster, Party

TOLERANCE = 2
"""Seconds by which clocks may be apart; the job file says the same."""

ATTRIBUTED, AMBIGUOUS, UNATTRIBUTED = "attributed", "ambiguous", "unattributed"
_FOREVER = 1 << 60


class Judgement(NamedTuple):
    """What can be told of a record.

    Attributes:
        status: whether one holder fits, several, or none.
        holder: whose record it really is; None where no workload held either address.
        candidates: all holders that fit, where there are several.
    """

    status: str
    holder: Party | None
    candidates: tuple[Party, ...]


class _Tenancy(NamedTuple):
    """One holder of one address from ``start`` up to but not including ``end``, in seconds."""

    start: int
    end: int
    holder: Party


class Ledger:
    """All tenancies by network and address."""

    def __init__(self, clusters: Iterable[Cluster]) -> None:
        """Enter the pods of all clusters, and each node for as long as pods were seen on it."""
        self._tenancies: dict[tuple[str, str], list[_Tenancy]] = {}
        self._lines: dict[tuple[str, str, int], tuple[list[int], list[tuple[Party, ...]]]] = {}
        for cluster in clusters:
            for holder, start, end in _tenures(cluster):
                for address in holder.addresses:
                    tenancy = _Tenancy(start, end, holder)
                    self._tenancies.setdefault((cluster.network.vpc, address), []).append(tenancy)
                    self._tenancies.setdefault(("", address), []).append(tenancy)

    def judge(
        self, scope: str, opener: tuple[str, Party | None], other: tuple[str, Party | None], at: int
    ) -> Judgement:
        """Say whose a record is.

        It belongs to the end that is held at its start; where both are, to the one that opened the connection.  Where
        neither is, the nearest tenancies within the tolerance count.

        Args:
            scope: the network that the record names, or "" if it names none.
            opener: address at which the connection was opened, and who really stood there.
            other: the other end.
            at: start of the record, in seconds.
        """
        for tolerance in (0, TOLERANCE):
            for address, really in (opener, other):
                held = self._held(scope, address, at, tolerance)
                if held:
                    return Judgement(ATTRIBUTED, really, ()) if len(held) == 1 else Judgement(AMBIGUOUS, really, held)
        return _NOBODY

    def _held(self, scope: str, address: str, at: int, tolerance: int) -> tuple[Party, ...]:
        if (scope, address) not in self._tenancies:
            return ()
        line = self._lines.get((scope, address, tolerance))
        if line is None:
            line = _time_line(self._tenancies[scope, address], tolerance)
            self._lines[scope, address, tolerance] = line
        bounds, holders = line
        return holders[bisect_right(bounds, at)]


_NOBODY = Judgement(UNATTRIBUTED, None, ())


def _tenures(cluster: Cluster) -> Iterable[tuple[Party, int, int]]:
    """Yield every holder of addresses, from when to when."""
    spans: dict[Node, tuple[int, int]] = {}
    for pod in cluster.pods:
        if pod.node is None:
            continue
        end = _FOREVER if pod.end is None else pod.end
        yield pod, pod.start, end
        start_so_far, end_so_far = spans.get(pod.node, (pod.start, end))
        spans[pod.node] = min(start_so_far, pod.start), max(end_so_far, end)
    for node, (start, end) in spans.items():
        yield node, start, end


def _time_line(tenancies: list[_Tenancy], tolerance: int) -> tuple[list[int], list[tuple[Party, ...]]]:
    """Return the instants at which an address changes hands, and who holds it before, between and after them."""
    wide = [(one.start - tolerance, min(one.end, _FOREVER - tolerance) + tolerance, one.holder) for one in tenancies]
    bounds = sorted({instant for start, end, _ in wide for instant in (start, end)})
    holders: list[tuple[Party, ...]] = [()]
    for bound in bounds:
        present = (holder for start, end, holder in wide if start <= bound < end)
        holders.append(tuple(sorted(present, key=holder_id)))
    return bounds, holders


def holder_id(holder: Party) -> str:
    """Return how truth names a holder: a pod by its uid, a node by its name."""
    return holder.uid if isinstance(holder, Pod) else holder.name
