"""Regularity of contact, peer by peer, in fractions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from statistics import median

from tests.oracles.derived import Conversation, by_peer, described

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


def beacons(conversations: list[Conversation], least: int) -> list[dict[str, object]]:
    """Return what beacon.derive() must state."""
    return [
        _one(ones, contacts, [one for one in conversations if one.entity == ones[0].entity])
        for ones in by_peer([one for one in conversations if one.outward])
        if len(contacts := _contacts(ones)) >= least
    ]


def _contacts(ones: list[Conversation]) -> list[Conversation]:
    """Put together what stays on one TCP port of the workload with holes of at most a quarter of an hour."""
    found: list[list[Conversation]] = []
    open_: dict[int, list[Conversation]] = {}
    for one in ones:
        port = one.source_port if one.protocol == 6 else None
        held = open_.get(port) if port is not None else None
        if held is not None and not one.opened and one.start <= max(member.end for member in held) + 900 * _SECOND:
            held.append(one)
            continue
        found.append([one])
        if port is not None:
            open_[port] = found[-1]
    return [replace(some[0], sent=sum(one.sent for one in some)) for some in found]


def _one(members: list[Conversation], ones: list[Conversation], every: list[Conversation]) -> dict[str, object]:
    seconds = [one.start // _SECOND for one in ones]
    gaps = [later - earlier for earlier, later in pairwise(seconds) if later > earlier]
    born, gone = _life(every)
    histogram, duration = Fraction(0), Fraction(0)
    if gone > born:
        slices = min(max(len(ones) // 4, 4), 24)
        counts = [0] * slices
        for one in ones:
            counts[min((one.start - born) * slices // (gone - born), slices - 1)] += 1
        histogram = max(_flat(counts), _two_levels(counts))
        duration = _lasting(counts, Fraction(ones[-1].start - ones[0].start, gone - born))
    timestamps = _regular(gaps, Fraction(1)) if len(gaps) >= 3 else Fraction(0)
    sizes = _regular([one.sent for one in ones], Fraction(0))
    return described(members) | {
        "beacon.score": float((timestamps + sizes + duration + histogram) / 4),
        "beacon.timestamp_score": float(timestamps),
        "beacon.size_score": float(sizes),
        "beacon.duration_score": float(duration),
        "beacon.histogram_score": float(histogram),
        "beacon.evenness": float(_dispersion(gaps, Fraction(1))) if len(gaps) >= 3 else 0.0,
        "beacon.count": len(ones),
        "beacon.period": float(_median(gaps)) if len(gaps) >= 3 else None,
    }


def _life(every: list[Conversation]) -> tuple[int, int]:
    seen, gone = min(one.start for one in every), max(one.end for one in every)
    starts, ends = [one.lease_start for one in every], [one.lease_end for one in every]
    if None in starts or None in ends:
        return seen, gone
    start, end = min(s for s in starts if s is not None), max(e for e in ends if e is not None)
    return (seen, gone) if end - start > _DAY else (min(seen, start), max(gone, end))


def _median(values: list[int] | list[Fraction]) -> Fraction:
    return Fraction(median([Fraction(value) for value in values]))


def _regular(values: list[int], without_median: Fraction) -> Fraction:
    ordered = sorted(values)
    half = len(ordered) // 2
    q1, q2, q3 = _median(ordered[:half]), _median(ordered), _median(ordered[len(ordered) - half :])
    skewness = Fraction(0)
    if q3 - q1 >= 10 and q2 not in (q1, q3):
        skewness = abs((q1 + q3 - 2 * q2) / (q3 - q1))
    return (1 - skewness + _dispersion(values, without_median)) / 2


def _dispersion(values: list[int], without_median: Fraction) -> Fraction:
    middle = _median(values)
    if middle < 1:
        return without_median
    return max(Fraction(0), (middle - _median([abs(value - middle) for value in values])) / middle)


def _lasting(counts: list[int], coverage: Fraction) -> Fraction:
    filled = sum(count > 0 for count in counts)
    if 4 * filled < len(counts) or filled < 2:
        return Fraction(0)
    runs = "".join("x" if count else " " for count in counts).split()
    return min(Fraction(1), max(coverage, Fraction(2 * max(map(len, runs)), len(counts))))


def _flat(counts: list[int]) -> Fraction:
    mean = sum(counts) / len(counts)
    deviation = math.sqrt(sum((count - mean) ** 2 for count in counts) / len(counts))
    return Fraction(max(0.0, 1 - deviation / mean))


def _two_levels(counts: list[int]) -> Fraction:
    filled = [count for count in counts if count]
    if len(filled) < 11:
        return Fraction(0)
    width = -(-max(filled) * 5 // 100)
    levels = Counter(count // width for count in filled)
    return min(Fraction(1), Fraction(sum(count for _, count in levels.most_common(2)), len(filled) - 1))
