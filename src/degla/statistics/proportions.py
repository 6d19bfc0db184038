"""Shares and differences of two shares with 95 % intervals that do not collapse to a point in small samples.

Where few images are answered otherwise than the rest, a bootstrap draws the same answer again and again, and its
interval is too narrow, or a point. There it is widened to the score interval: Wilson's for a share, Tango's for a
difference of two models on the same items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degla.results import Interval
from degla.statistics.bootstrap import FloatArray, drawn_means, percentile_interval

Z: Final = 1.959963984540054
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""
FEW: Final = 20
"""With fewer images than this that are answered otherwise than the rest, a bootstrap alone is not trusted."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of items.

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


@dataclass(frozen=True)
class Contributions:
    """What each image adds to a score that is a weighted sum over items.

    Attributes:
        totals: `[images]` sums of weight times worth, or times lead of one model over another.
        weights: `[images]` sums of weights, 1 in all.
        uneven: images with an answer otherwise than the rest: for a share, of the rarer kind, right or wrong; for a
            difference, those that the two models answer differently.
        plain: one item an image, equal weights, and answers of 0 and 1 alone (leads of -1, 0 and 1).
    """

    totals: FloatArray
    weights: FloatArray
    uneven: int
    plain: bool

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.totals)

    @property
    def independent(self) -> float:
        """Number of equally weighted images that tell as much (Kish): 1 / sum of squared weights."""
        return float(1 / (self.weights**2).sum())


def contributions(
    values: FloatArray, weights: FloatArray, clusters: NDArray[np.int64], *, paired: bool = False
) -> Contributions:
    """Sum items up by image.

    Args:
        values: `[N]` worth of each item, 0 to 1; or its lead, -1 to 1, with `paired`.
        weights: `[N]`, 1 in all.
        clusters: `[N]` numbers of images.
        paired: whether the values are leads.
    """
    _, numbers = np.unique(clusters, return_inverse=True)
    totals: FloatArray = np.bincount(numbers, weights=weights * values).astype(np.float64)
    shares: FloatArray = np.bincount(numbers, weights=weights).astype(np.float64)
    count = len(totals)
    if paired:
        uneven = len(np.unique(numbers[values != 0]))
    else:
        uneven = min(len(np.unique(numbers[values < 1])), len(np.unique(numbers[values > 0])))
    whole = bool(np.isin(values, (-1.0, 0.0, 1.0)).all())
    plain = whole and count == len(values) and bool(np.ptp(weights) < 1e-12)
    return Contributions(totals, shares, uneven, plain)


def proportion_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval of a proportion of independent items.

    Raises:
        ValueError: not 0 <= successes <= n, or n is 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is no proportion")
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(low=low, high=high, level=level, method="exact binomial")


def wilson(count: int, n: int) -> Proportion:
    """A share with Wilson's interval, which holds for small n and for shares near 0 and 1.

    Raises:
        ValueError: not 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no share")
    if n == 0:
        return Proportion(0, 0, math.nan, math.nan)
    return Proportion(count, n, *_wilson(count / n, n))


def _wilson(share: float, n: float) -> tuple[float, float]:
    middle = share + Z**2 / (2 * n)
    half = Z * math.sqrt(max(0.0, share * (1 - share)) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def paired_score_interval(first: float, second: float, n: float, *, level: float = 0.95) -> Interval:
    """Score interval of the difference of two proportions on the same independent items (Tango, Stat Med 17, 1998).

    Args:
        first: items that the first model alone has right.
        second: items that the second alone has right.
        n: all items.
        level: of the interval.

    Returns:
        Interval of (first - second) / n: where there is no such item, from -z² / (n + z²) to z² / (n + z²).
    """
    from scipy.special import ndtri

    z = float(ndtri(1 - (1 - level) / 2))

    def distance(gap: float) -> float:
        """Standard errors between the difference that was seen and `gap`, under `gap`."""
        middle = (2 * n - first + second) * gap - first - second
        root = math.sqrt(max(0.0, middle**2 + 8 * n * second * gap * (1 - gap)))
        variance = (root - middle) / (2 * n) + gap * (1 - gap)
        if variance <= 0:
            return math.copysign(math.inf, first - second - n * gap)
        return (first - second - n * gap) / math.sqrt(n * variance)

    seen = (first - second) / n
    low = _crossing(lambda gap: distance(gap) > z, -1.0, seen)
    high = _crossing(lambda gap: distance(gap) > -z, seen, 1.0)
    return Interval(low=low, high=high, level=level, method="paired score interval")


def _crossing(above: Callable[[float], bool], low: float, high: float) -> float:
    """Where a falling function stops being above something."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2


def share_interval(draws: FloatArray, parts: Contributions) -> Interval | None:
    """Interval of a score: exact for plain items, else a bootstrap, never narrower than Wilson's where few differ.

    Args:
        draws: the score in each bootstrap draw.
        parts: what each image adds to it.

    Returns:
        None for a single image, which says nothing of others.
    """
    if parts.plain:
        return proportion_interval(round(float(parts.totals.sum()) * parts.images), parts.images)
    if parts.images < 2:
        return None
    return _widened(draws, "bootstrap over images", parts, lambda n: _wilson(_unit(float(parts.totals.sum())), n))


def lead_interval(draws: FloatArray, parts: Contributions) -> Interval | None:
    """Interval of the first model's score minus the second's on the same items.

    Tango's score interval for plain items; else a paired bootstrap, never narrower than the score interval where few
    images are answered differently: gains and losses then count by what they add to the score.

    Args:
        draws: the difference in each bootstrap draw.
        parts: what each image adds to it.

    Returns:
        None for a single image.
    """
    if parts.images < 2:
        return None

    def score(n: float) -> tuple[float, float]:
        up, down = float(parts.totals.clip(min=0).sum()), float((-parts.totals).clip(min=0).sum())
        found = paired_score_interval(n * up, n * down, n)
        return found.low, found.high

    if parts.plain:
        low, high = score(parts.images)
        return Interval(low=low, high=high, method="paired score interval")
    return _widened(draws, "paired bootstrap over images", parts, score)


def _widened(
    draws: FloatArray, method: str, parts: Contributions, score: Callable[[float], tuple[float, float]]
) -> Interval | None:
    if not np.isfinite(draws).any():
        return None
    found = percentile_interval(draws, method=method)
    if parts.uneven >= FEW:
        return found
    low, high = score(parts.independent)
    return Interval(low=min(low, found.low), high=max(high, found.high), method=f"{method}, widened by score")


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))


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
    values, n = np.asarray(worth, dtype=np.float64), len(worth)
    _, numbers = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    parts = contributions(values, np.full(n, 1 / n), numbers)
    if parts.images < 2:
        return Proportion(float(values.sum()), n, 0.0, 1.0)
    drawn = drawn_means(values, numbers, seed=seed, draws=draws)
    found = _widened(drawn, "", parts, lambda size: _wilson(float(values.mean()), size))
    assert found is not None
    return Proportion(float(values.sum()), n, found.low, found.high)


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> tuple[float | None, float | None, float | None]:
    """Kappa of two readers' answers and its 95 % interval; three times None where it is undefined."""
    n = len(pairs)
    share = {(a, b): sum(pair == (a, b) for pair in pairs) / n for a in (False, True) for b in (False, True)}
    first = {a: share[a, False] + share[a, True] for a in (False, True)}
    second = {b: share[False, b] + share[True, b] for b in (False, True)}
    same = share[False, False] + share[True, True]
    chance = sum(first[a] * second[a] for a in (False, True))
    if chance == 1:
        return None, None, None
    kappa = (same - chance) / (1 - chance)
    diagonal = sum(share[a, a] * (1 - (first[a] + second[a]) * (1 - kappa)) ** 2 for a in (False, True))
    beside = (1 - kappa) ** 2 * sum(share[a, not a] * (second[a] + first[not a]) ** 2 for a in (False, True))
    variance = (diagonal + beside - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = Z * math.sqrt(max(0.0, variance))
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half)
