"""Shares and differences of two shares with 95 % intervals that do not collapse to a point in small samples.

Items that share an image are not independent, so the bootstrap draws whole images. If only few images are answered
differently from the rest, it draws the same answer again and again, and its interval is too narrow, or a point. It is
then widened to the score interval: Wilson's for a share, Tango's for a difference of two models on the same items. The
sample size of that interval passes from the number of images to what the bootstrap's variance implies (`_score_size`).
Cohen's kappa measures the agreement of two readers beyond chance.
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
"""Standard deviations on each side of the mean that contain 95 % of a normal distribution."""
FEW: Final = 20
"""With fewer images than this (by weight) answered differently from the rest, the bootstrap is widened."""
DRAWS = 1000
"""Bootstrap draws: enough to know the ends of a 95 % interval to about a twentieth of its width."""
TAIL = (1 - 0.95) / 2
"""Probability beyond each end of a 95 % interval."""
_BLOCK = 2**15
"""Number of counts drawn at once, so that they fit in the CPU cache."""


def cluster_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct names from 0 in the order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def cluster_draws(clusters: int, *, seed: int, draws: int = DRAWS) -> Iterator[FloatArray]:
    """Draw the clusters with replacement, `draws` times; yield blocks `[some, clusters]` of draw counts."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(1, clusters))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        indices = generator.integers(0, clusters, (rows, clusters)) + np.arange(rows)[:, None] * clusters
        yield np.bincount(indices.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def drawn_means(values: FloatArray, clusters: NDArray[np.int64], *, seed: int = 0, draws: int = DRAWS) -> FloatArray:
    """Return the mean of the values in each draw.

    Args:
        values: `[N]`.
        clusters: `[N]` numbers from 0, without gaps.
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
        groups: `[N]` numbers from 0, without gaps; None for a plain mean.
        weights: `[N]` weights of the values in the mean; default: equal ones in a group, and equal groups.
        count: number of all clusters; default: those of the values.
    """

    def __init__(
        self,
        values: FloatArray,
        clusters: NDArray[np.int64],
        groups: NDArray[np.int64] | None = None,
        *,
        weights: FloatArray | None = None,
        count: int | None = None,
    ) -> None:
        from scipy.sparse import csr_array  # Not needed for a report's help.

        self.clusters = int(clusters.max(initial=-1)) + 1 if count is None else count
        columns = np.zeros_like(clusters) if groups is None else groups
        shape, places = (self.clusters, int(columns.max(initial=0)) + 1), (clusters, columns)
        own = np.ones(len(values)) if weights is None else weights
        self._shares = np.ones(shape[1]) if weights is None else np.bincount(columns, weights)
        tables = [csr_array((each, places), shape=shape) for each in (own * values, own)]
        # With one group the table is dense: a plain product is three times as fast.
        self._sums, self._sizes = tables if groups is not None else [table.toarray() for table in tables]

    def __call__(self, counts: FloatArray) -> FloatArray:
        """Return `[draws]` means, NaN for empty draws. `counts`: `[draws, clusters]`."""
        sums, sizes = counts @ self._sums, counts @ self._sizes
        there = sizes > 0
        means = np.divide(sums, sizes, out=np.zeros_like(sums), where=there) @ self._shares
        remaining = there @ self._shares
        return np.asarray(np.divide(means, remaining, out=np.full(len(counts), np.nan), where=remaining > 0))


def pooled_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups anew, with all groups of one or two items as one.

    A bootstrap cannot show how uncertain the mean of one or two items is. In the pool it can, and takes the groups'
    differences for chance too.
    """
    sizes = np.bincount(groups)
    return np.unique(np.where(sizes[groups] <= 2, -1, groups), return_inverse=True)[1]


def grouped_mean(values: FloatArray, groups: NDArray[np.int64] | None) -> float:
    """Return the mean of the values, or of the groups' means; NaN if there are none."""
    means = values if groups is None else np.bincount(groups, values) / np.bincount(groups)
    return float(means.mean()) if len(means) else math.nan


def shares_of_items(groups: NDArray[np.int64] | None, n: int) -> FloatArray:
    """Return `[n]` weights that sum to 1 and make `grouped_mean` a weighted sum."""
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
        """Return JSON values; None without items."""
        values = {"share": self.share, "count": self.count, "n": self.n, "low": self.low, "high": self.high}
        return {name: None if math.isnan(value) else value for name, value in values.items()}


@dataclass(frozen=True)
class Contributions:
    """What each image contributes to a score that is a weighted sum over items.

    Attributes:
        totals: `[images]` sums of weight times worth, or times lead of one model over another.
        weights: `[images]` sums of weights, which sum to 1.
        uneven: number of images answered differently from the rest: for a share, those of the rarer kind, right or
            wrong; for a difference, those that the two models answer differently (discordant).
        effective_uneven: effective number of equally weighted items among those answered differently, at most `uneven`:
            near 0 if all are in parts with little weight in an average next to a small part.
        simple_sample: whether there is one item per image, with equal weights and values of only 0 and 1 (leads -1, 0
            and 1).
    """

    totals: FloatArray
    weights: FloatArray
    uneven: int
    effective_uneven: float
    simple_sample: bool

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.totals)

    @property
    def effective_images(self) -> float:
        """Effective number of equally weighted images (Kish): 1 / sum of squared weights."""
        return float(1 / (self.weights**2).sum())


def contributions(
    values: FloatArray, weights: FloatArray, clusters: NDArray[np.int64], *, paired: bool = False
) -> Contributions:
    """Sum the items of each image.

    Args:
        values: `[N]` worth of each item, 0 to 1; or its lead, -1 to 1, with `paired`.
        weights: `[N]`, which sum to 1.
        clusters: `[N]` image numbers.
        paired: whether the values are leads.
    """
    _, numbers = np.unique(clusters, return_inverse=True)
    totals: FloatArray = np.bincount(numbers, weights=weights * values).astype(np.float64)
    shares: FloatArray = np.bincount(numbers, weights=weights).astype(np.float64)
    count = len(totals)
    kinds = [values != 0] if paired else [values < 1, values > 0]
    uneven = min(len(np.unique(numbers[kind])) for kind in kinds)
    # By items: the bootstrap itself accounts for images with the weight of many items.
    squares = weights**2
    effective = min(uneven, min(float(squares[kind].sum()) for kind in kinds) / float(squares.sum()) ** 2)
    whole = bool(np.isin(values, (-1.0, 0.0, 1.0)).all())
    simple = whole and count == len(values) and bool(np.ptp(weights) < 1e-12)
    return Contributions(totals, shares, uneven, effective, simple)


def proportion_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Return the exact (Clopper-Pearson) interval of a proportion of independent items.

    Raises:
        ValueError: not 0 <= successes <= n, or n is 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a proportion")
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(low=low, high=high, level=level, method="exact binomial")


def wilson(count: int, n: int) -> Proportion:
    """Return a share with Wilson's interval, which is valid for small n and for shares near 0 and 1.

    Raises:
        ValueError: not 0 <= count <= n.
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is not a share")
    if n == 0:
        return Proportion(0, 0, math.nan, math.nan)
    interval = _wilson(count / n, n)
    return Proportion(count, n, interval.low, interval.high)


def _wilson(share: float, n: float) -> Interval:
    middle = share + Z**2 / (2 * n)
    half = Z * math.sqrt(max(0.0, share * (1 - share)) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return Interval(low=max(0.0, (middle - half) / scale), high=min(1.0, (middle + half) / scale), method="Wilson")


def paired_score_interval(first: float, second: float, n: float, *, level: float = 0.95) -> Interval:
    """Return the score interval of a difference of proportions on the same independent items (Tango, Stat Med 1998).

    Args:
        first: number of items that only the first model has right.
        second: number of items that only the second model has right.
        n: number of all items.
        level: of the interval.

    Returns:
        Interval of (first - second) / n; if both are 0, from -z² / (n + z²) to z² / (n + z²).
    """
    from scipy.special import ndtri

    z = float(ndtri(1 - (1 - level) / 2))

    def distance(gap: float) -> float:
        """Standard errors between the observed difference and `gap`, under `gap`."""
        middle = (2 * n - first + second) * gap - first - second
        root = math.sqrt(max(0.0, middle**2 + 8 * n * second * gap * (1 - gap)))
        variance = (root - middle) / (2 * n) + gap * (1 - gap)
        if variance <= 0:
            return math.copysign(math.inf, first - second - n * gap)
        return (first - second - n * gap) / math.sqrt(n * variance)

    difference = (first - second) / n
    low = _crossing(lambda gap: distance(gap) > z, -1.0, difference)
    high = _crossing(lambda gap: distance(gap) > -z, difference, 1.0)
    return Interval(low=low, high=high, level=level, method="paired score interval")


def _crossing(above: Callable[[float], bool], low: float, high: float) -> float:
    """Find where a falling function crosses a threshold."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2


def share_interval(draws: FloatArray, by_image: Contributions) -> Interval | None:
    """Return a score's interval: exact for a simple sample, else a bootstrap, widened to Wilson's if few differ.

    Args:
        draws: the score in each bootstrap draw.
        by_image: what each image contributes to it.

    Returns:
        None for a single image, which says nothing about others.
    """
    if by_image.images < 2:
        return None
    if by_image.simple_sample:
        return proportion_interval(round(float(by_image.totals.sum()) * by_image.images), by_image.images)
    share = clipped_share(float(by_image.totals.sum()))
    return _widened(draws, "bootstrap over images", by_image, lambda n: _wilson(share, n))


def lead_interval(draws: FloatArray, by_image: Contributions) -> Interval | None:
    """Return the interval of the first model's score minus the second's on the same items.

    Tango's score interval for a simple sample; else a paired bootstrap, at least as wide as the score interval if few
    images are answered differently, with gains and losses weighted by their contribution to the score.

    Args:
        draws: the difference in each bootstrap draw.
        by_image: what each image contributes to it.

    Returns:
        None for a single image.
    """
    if by_image.images < 2:
        return None

    def score_interval(n: float) -> Interval:
        up, down = float(by_image.totals.clip(min=0).sum()), float((-by_image.totals).clip(min=0).sum())
        return paired_score_interval(n * up, n * down, n)

    if by_image.simple_sample:
        return score_interval(by_image.images)
    return _widened(draws, "paired bootstrap over images", by_image, score_interval)


def _widened(
    draws: FloatArray, method: str, by_image: Contributions, score_interval: Callable[[float], Interval]
) -> Interval | None:
    """The bootstrap's interval; if few images differ, widened to `score_interval`, a function of the sample size."""
    if not np.isfinite(draws).any():
        return None
    # Draws without a value (NaN) are left out.
    first, last = (float(end) for end in np.nanpercentile(draws, [100 * TAIL, 100 - 100 * TAIL]))
    if by_image.effective_uneven >= FEW:
        return Interval(low=first, high=last, method=method)
    own = score_interval(_score_size(draws, by_image))
    return Interval(low=min(own.low, first), high=max(own.high, last), method=f"{method}, widened by score")


def _score_size(draws: FloatArray, by_image: Contributions) -> float:
    """Return the sample size of a score interval: a mean, by variance, of two sizes.

    One is the number of independent images, as if all questions about an image were answered alike. The other is the
    size at which independent items have the bootstrap's variance, corrected for the number of images as a t-interval
    is. Its weight is the effective number of uneven images; that of the first falls to 0 at `FEW`.
    """
    from scipy.special import stdtrit

    images, independent, effective = by_image.images, by_image.effective_images, by_image.effective_uneven
    variance = float(np.abs(by_image.totals).sum() - by_image.totals.sum() ** 2)
    if variance <= 0 or effective <= 0:
        return independent
    correction = (float(stdtrit(images - 1, 1 - TAIL)) / Z) ** 2 * images / (images - 1)
    # Variance of the bootstrap over that of as many independent items.
    design_effect = correction * float(np.nanvar(draws)) * independent / variance
    weight = (FEW - effective) / 2
    return independent * (effective + weight) / (effective * design_effect + weight)


def clipped_share(value: float) -> float:
    """Clip a mean of values from 0 to 1 that rounding moved slightly outside."""
    return min(1.0, max(0.0, value))


def clustered(worth: NDArray[Any], clusters: Sequence[str], *, seed: int = 0) -> Proportion:
    """Return a share of items that are not independent, with a bootstrap over whole clusters.

    Args:
        worth: [N] 1 if an item has the property, 0 if not, 1/2 for a tie.
        clusters: N names, for example of images.
        seed: of the bootstrap.
    """
    if not len(worth):
        return Proportion(0, 0, math.nan, math.nan)
    values, n = np.asarray(worth, dtype=np.float64), len(worth)
    _, numbers = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    by_image = contributions(values, np.full(n, 1 / n), numbers)
    if by_image.images < 2:
        return Proportion(float(values.sum()), n, 0.0, 1.0)
    means = drawn_means(values, numbers, seed=seed, draws=2_000)
    interval = _widened(means, "", by_image, lambda size: _wilson(float(values.mean()), size))
    assert interval is not None
    return Proportion(float(values.sum()), n, interval.low, interval.high)


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> tuple[float | None, float | None, float | None]:
    """Return Cohen's kappa of two readers' answers and its 95 % interval; three times None if undefined.

    It is undefined without answers, and if both readers always give the same one. The large-sample interval is a point
    if all answers agree. It then ends where Wilson's of the agreement does.
    """
    if not pairs:
        return None, None, None
    n = len(pairs)
    share = {(a, b): sum(pair == (a, b) for pair in pairs) / n for a in (False, True) for b in (False, True)}
    first = {a: share[a, False] + share[a, True] for a in (False, True)}
    second = {b: share[False, b] + share[True, b] for b in (False, True)}
    same = share[False, False] + share[True, True]
    chance = sum(first[a] * second[a] for a in (False, True))
    if chance == 1:
        return None, None, None
    kappa = (same - chance) / (1 - chance)
    if all(a == b for a, b in pairs):
        return 1.0, max(-1.0, (wilson(n, n).low - chance) / (1 - chance)), 1.0
    diagonal = sum(share[a, a] * (1 - (first[a] + second[a]) * (1 - kappa)) ** 2 for a in (False, True))
    beside = (1 - kappa) ** 2 * sum(share[a, not a] * (second[a] + first[not a]) ** 2 for a in (False, True))
    variance = (diagonal + beside - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = Z * math.sqrt(max(0.0, variance))
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half)
