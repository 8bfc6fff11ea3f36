"""Draws: all that the simulated world leaves to chance, from seeded streams of uniform numbers.

Every distribution is made here from uniform numbers of a PCG64, so that the same seed gives the same world on any
machine and with any version of NumPy.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")
_AT_ONCE = 4_096
_NORMAL = NormalDist()
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Dice:
    """One stream of draws; streams of different purpose do not disturb one another."""

    def __init__(self, seed: int, purpose: str) -> None:
        """Start the stream of ``purpose`` of the world ``seed``."""
        self._generator = np.random.Generator(np.random.PCG64([seed, *purpose.encode()]))
        self._drawn: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        if not self._drawn:
            self._drawn = self._generator.random(_AT_ONCE).tolist()
        return low + (high - low) * self._drawn.pop()

    def whole(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def happens(self, probability: float) -> bool:
        """Tell whether something of this ``probability`` comes about."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``, all equally likely."""
        return options[int(self.uniform() * len(options))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Return ``count`` of ``options``, each at most once, in random order; all where there are fewer."""
        left = list(options)
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(min(count, len(left)))]

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high) whose magnitude is evenly spread: what is known only by its range."""
        return round(float(low * (high / low) ** self.uniform()), 3)

    def log_normal(self, median: float, spread: float, low: float, high: float) -> float:
        """Return a number in [low, high] around ``median``; ``spread`` is the standard deviation of its logarithm."""
        while True:
            bend = _NORMAL.inv_cdf(max(self.uniform(), 1e-9))
            value = round(float(median * 2.718281828459045 ** (spread * bend)), 3)
            if low <= value <= high:
                return value

    def letters(self, count: int) -> str:
        """Return ``count`` lower-case letters and digits."""
        return "".join(_LETTERS[int(self.uniform() * len(_LETTERS))] for _ in range(count))

    def hexadecimal(self, count: int) -> str:
        """Return ``count`` hexadecimal digits."""
        return "".join("0123456789abcdef"[int(self.uniform() * 16)] for _ in range(count))

    def uuid(self) -> str:
        """Return a random UUID (version 4)."""
        digits = self.hexadecimal(30)
        return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{self.pick('89ab')}{digits[15:18]}-{digits[18:]}"

    def ticks(self, begin: float, end: float, every: float) -> Iterator[float]:
        """Yield instants in [begin, end) that are ``every`` seconds apart on average, none less than half of that."""
        at = begin + self.uniform(0, every)
        while at < end:
            yield round(at, 3)
            at += self.uniform(0.5, 1.5) * every
