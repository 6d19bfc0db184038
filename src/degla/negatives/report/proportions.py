"""Shares with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Z: Final = 1.959963984540054
"""95 % of a normal distribution lie within so many standard deviations."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of independent items.

    Attributes:
        count: items with the property.
        n: items.
        low: lower end of the 95 % interval, 0 to 1; NaN without items.
        high: upper end.
    """

    count: float
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """`count` of `n`, 0 to 1; NaN without items."""
        return self.count / self.n if self.n else math.nan

    def plain(self) -> dict[str, float | int | None]:
        """JSON values; None where there is no item."""
        known = self.n > 0
        return {
            "share": self.share if known else None,
            "count": self.count,
            "n": self.n,
            "low": self.low if known else None,
            "high": self.high if known else None,
        }


def wilson(count: int, n: int) -> Proportion:
    """A share with Wilson's interval, which holds for small n and for shares near 0 and 1.

    Raises:
        ValueError: not 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no share")
    if n == 0:
        return Proportion(0, 0, math.nan, math.nan)
    share = count / n
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    return Proportion(count, n, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def clustered(worth: NDArray[Any], clusters: Sequence[str], *, seed: int = 0, draws: int = 2_000) -> Proportion:
    """A share of items that are not independent, with a bootstrap over whole clusters.

    Args:
        worth: [N] 1 where an item has the property, 0 where not, 1/2 for a tie.
        clusters: N names, for example of images.
        seed: of the draws.
        draws: bootstrap draws.
    """
    if not len(worth):
        return Proportion(0, 0, math.nan, math.nan)
    total = float(worth.sum())
    _, numbers = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums, sizes = np.bincount(numbers, weights=worth), np.bincount(numbers)
    if len(sums) < 2:
        return Proportion(total, len(worth), 0.0, 1.0)
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        drawn = np.bincount(generator.integers(0, len(sums), len(sums)), minlength=len(sums))
        means[draw] = (drawn @ sums) / (drawn @ sizes)
    low, high = np.percentile(means, [2.5, 97.5])
    # A bootstrap of items that all agree has no width; Wilson's interval over clusters has.
    if low == high:
        edge = wilson(round(total / len(worth) * len(sums)), len(sums))
        low, high = edge.low, edge.high
    return Proportion(total, len(worth), float(low), float(high))
