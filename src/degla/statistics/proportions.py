"""Shares and differences of two shares with 95 % intervals that do not collapse to a point in small samples.

Items that share an image are not independent: a bootstrap draws whole images. Where few images are answered otherwise
than the rest, it draws the same answer again and again, and its interval is too narrow, or a point. There it is widened
to the score interval: Wilson's for a share, Tango's for a difference of two models on the same items. How far two
readers agree beyond chance is told by Cohen's kappa.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degla.results import Interval

FloatArray = NDArray[np.float64]
Z: Final = 1.959963984540054
"""Standard deviations on each side of the mean that hold 95 % of a normal distribution."""
FEW: Final = 20
"""With fewer images than this, by weight, answered otherwise than the rest, a bootstrap alone is not trusted."""
DRAWS = 1000
"""Bootstrap draws: the ends of a 95 % interval are then known to about a twentieth of its width."""
TAIL = (1 - 0.95) / 2
"""Probability beyond each end of a 95 % interval."""
_BLOCK = 2**15
"""Counts that are drawn at once: they stay in a processor's cache."""


def cluster_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct names from 0 in the order of their first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def cluster_draws(clusters: int, *, seed: int, draws: int = DRAWS) -> Iterator[FloatArray]:
    """Draw the clusters with replacement, `draws` times: blocks `[some, clusters]` of how often each was drawn."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(1, clusters))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        drawn = generator.integers(0, clusters, (rows, clusters)) + np.arange(rows)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def drawn_means(values: FloatArray, clusters: NDArray[np.int64], *, seed: int = 0, draws: int = DRAWS) -> FloatArray:
    """Mean of the values in each draw.

    Args:
        values: `[N]`.
        clusters: `[N]` numbers from 0, each of them used.
        seed: of the draws.
        draws: number of draws.
    """
    means = DrawnMeans(values, clusters)
    return np.concatenate([means(counts) for counts in cluster_draws(means.clusters, seed=seed, draws=draws)])


class DrawnMeans:
    """The mean of values, or the mean of their groups' means, in draws of their clusters.

    Args:
        values: `[N]`.
        clusters: `[N]` numbers from 0.
        groups: `[N]` numbers from 0, each of them used; none for a plain mean.
        count: number of all clusters; by default those that the values are of.
    """

    def __init__(
        self,
        values: FloatArray,
        clusters: NDArray[np.int64],
        groups: NDArray[np.int64] | None = None,
        *,
        count: int | None = None,
    ) -> None:
        from scipy.sparse import csr_array  # A report's help needs no such package.

        self.clusters = int(clusters.max(initial=-1)) + 1 if count is None else count
        columns = np.zeros_like(clusters) if groups is None else groups
        shape, places = (self.clusters, int(columns.max(initial=0)) + 1), (clusters, columns)
        tables = [csr_array((each, places), shape=shape) for each in (values, np.ones(len(values)))]
        # Of one group the table is whole: a plain product is three times as fast.
        self._sums, self._sizes = tables if groups is not None else [table.toarray() for table in tables]

    def __call__(self, counts: FloatArray) -> FloatArray:
        """`[draws]` means; NaN where nothing is left. `counts`: `[draws, clusters]`."""
        sums, sizes = counts @ self._sums, counts @ self._sizes
        there = sizes > 0
        means = np.divide(sums, sizes, out=np.zeros_like(sums), where=there).sum(axis=1)
        left = there.sum(axis=1)
        return np.asarray(np.divide(means, left, out=np.full(len(counts), np.nan), where=left > 0))


def grouped_mean(values: FloatArray, groups: NDArray[np.int64] | None) -> float:
    """Mean of values, or mean of the groups' means; NaN where there are none."""
    means = values if groups is None else np.bincount(groups, values) / np.bincount(groups)
    return float(means.mean()) if len(means) else math.nan


def shares_of_items(groups: NDArray[np.int64] | None, n: int) -> FloatArray:
    """`[n]` weights that add up to 1 and make `grouped_mean` a weighted sum."""
    if groups is None:
        return np.full(n, 1 / n)
    sizes = np.bincount(groups)
    return np.asarray(1 / sizes[groups] / np.count_nonzero(sizes), dtype=np.float64)


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
        telling: as many equally weighted items as tell as much as those that are answered otherwise, `uneven` at most:
            near 0 where all lie in parts that hardly count in an average beside a small one.
        plain: one item an image, equal weights, and answers of 0 and 1 alone (leads of -1, 0 and 1).
    """

    totals: FloatArray
    weights: FloatArray
    uneven: int
    telling: float
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
    kinds = [values != 0] if paired else [values < 1, values > 0]
    uneven = min(len(np.unique(numbers[kind])) for kind in kinds)
    # By items: how much of an image's weight is that of many items, the bootstrap sees by itself.
    squares = weights**2
    telling = min(uneven, min(float(squares[kind].sum()) for kind in kinds) / float(squares.sum()) ** 2)
    whole = bool(np.isin(values, (-1.0, 0.0, 1.0)).all())
    plain = whole and count == len(values) and bool(np.ptp(weights) < 1e-12)
    return Contributions(totals, shares, uneven, telling, plain)


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
    if parts.images < 2:
        return None
    if parts.plain:
        return proportion_interval(round(float(parts.totals.sum()) * parts.images), parts.images)
    share = clipped_share(float(parts.totals.sum()))
    return _widened(draws, "bootstrap over images", parts, lambda n: _wilson(share, n))


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
    # Draws without a value (NaN) are left out.
    first, last = (float(end) for end in np.nanpercentile(draws, [100 * TAIL, 100 - 100 * TAIL]))
    if parts.telling >= FEW:
        return Interval(low=first, high=last, method=method)
    low, high = score(parts.independent)
    return Interval(low=min(low, first), high=max(high, last), method=f"{method}, widened by score")


def clipped_share(value: float) -> float:
    """A mean of values from 0 to 1 whose rounding went over an end by a bit, cut there."""
    return min(1.0, max(0.0, value))


def clustered(worth: NDArray[Any], clusters: Sequence[str], *, seed: int = 0) -> Proportion:
    """A share of items that are not independent, with a bootstrap over whole clusters.

    Args:
        worth: [N] 1 where an item has the property, 0 where not, 1/2 for a tie.
        clusters: N names, for example of images.
        seed: of the bootstrap.
    """
    if not len(worth):
        return Proportion(0, 0, math.nan, math.nan)
    values, n = np.asarray(worth, dtype=np.float64), len(worth)
    _, numbers = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    parts = contributions(values, np.full(n, 1 / n), numbers)
    if parts.images < 2:
        return Proportion(float(values.sum()), n, 0.0, 1.0)
    drawn = drawn_means(values, numbers, seed=seed, draws=2_000)
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
