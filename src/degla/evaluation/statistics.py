"""Intervals and tests: what differences between numbers mean, over items and over training seeds.

Two sources of chance are kept apart. Items: another draw of questions from the same source; several questions about
one image are not independent, so images are drawn, not questions. Seeds: another run of the same training. An
interval over seeds says nothing about other questions, and the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from degla.records import Interval

Values = NDArray[np.float64]
DRAWS = 1000
"""Bootstrap draws: the ends of a 95 % interval are then known to about a twentieth of its width."""


@dataclass(frozen=True)
class Spread:
    """A mean over training seeds.

    Attributes:
        mean: of the values.
        deviation: sample standard deviation (n - 1); None for one value.
        half_width: of the 95 % t-interval of the mean; None for one value.
        n: number of values.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    n: int

    @property
    def interval(self) -> Interval | None:
        """The t-interval of the mean; None for one value."""
        if self.half_width is None:
            return None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return Interval(low=low, high=high, method=f"t over {self.n} seeds")


@dataclass(frozen=True)
class Difference:
    """The first minus the second.

    Attributes:
        value: the difference.
        interval: 95 %; None where there is nothing to make one from.
        n: seeds or items behind it.
    """

    value: float
    interval: Interval | None
    n: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high


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


def cluster_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct names from 0 in the order of their first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def cluster_draws(clusters: int, *, seed: int, draws: int = DRAWS) -> Iterator[NDArray[np.int64]]:
    """Yield, `draws` times, how often each of the clusters was drawn with replacement: `[clusters]` counts."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def percentile_interval(values: NDArray[Any], *, level: float = 0.95, method: str) -> Interval:
    """Interval between the percentiles of bootstrap values; draws without a value (NaN) are left out."""
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high), level=level, method=method)


def clustered_bootstrap(
    values: Sequence[float] | Values,
    clusters: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Interval | None:
    """Bootstrap interval of the mean where items that share a cluster (an image) are not independent.

    Args:
        values: `[N]` worth of each item.
        clusters: N names; clusters are drawn whole.
        seed: of the draws.
        draws: number of draws.
        level: of the interval.

    Returns:
        The percentile interval; None where there is only one cluster, which says nothing of others.
    """
    numbers = cluster_numbers(clusters)
    count = int(numbers.max()) + 1
    if count < 2:
        return None
    sums = np.bincount(numbers, weights=np.asarray(values, dtype=np.float64))
    sizes = np.bincount(numbers)
    means = [(drawn @ sums) / (drawn @ sizes) for drawn in cluster_draws(count, seed=seed, draws=draws)]
    return percentile_interval(np.array(means), level=level, method="bootstrap over images")


def seed_spread(values: Sequence[float], *, level: float = 0.95) -> Spread:
    """Mean, standard deviation and t-interval over training seeds; one value has no spread.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value to take a mean of")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Spread(mean, None, None, 1)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half_width = float(stdtrit(n - 1, 1 - (1 - level) / 2)) * deviation / math.sqrt(n)
    return Spread(mean, deviation, half_width, n)


def seed_difference(first: Mapping[int | None, float], second: Mapping[int | None, float]) -> Difference:
    """Difference of two methods over training seeds, seed by seed where both have it.

    Args:
        first: seed to value. A single value counts as one fixed model, whatever its seed is called.
        second: likewise, for example the untrained model.

    Returns:
        The mean difference. With two or more seeds in common: over the pairs, whose shared part of chance (order of
        the data) cancels. With one fixed model: over the seeds of the other. Without a seed in common: Welch's
        interval. One value on both sides: no interval.
    """
    common = sorted(set(first) & set(second), key=str)
    if len(common) >= 2:
        spread = seed_spread([first[seed] - second[seed] for seed in common])
        method = f"paired t over {spread.n} seeds"
    elif len(first) == 1 or len(second) == 1:
        one, other = seed_spread(list(first.values())), seed_spread(list(second.values()))
        wide = one if one.n > 1 else other
        spread = Spread(one.mean - other.mean, wide.deviation, wide.half_width, wide.n)
        method = f"t over {wide.n} seeds"
    else:
        return _welch(list(first.values()), list(second.values()))
    interval = spread.interval
    if interval is not None:
        interval = interval.model_copy(update={"method": method})
    return Difference(spread.mean, interval, spread.n)


def _welch(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Difference:
    from scipy.special import stdtrit

    one, other = seed_spread(first), seed_spread(second)
    parts = [(spread.deviation or 0.0) ** 2 / spread.n for spread in (one, other)]
    error = math.sqrt(sum(parts))
    value, n = one.mean - other.mean, min(one.n, other.n)
    if error == 0:
        return Difference(value, Interval(low=value, high=value, method="Welch over seeds"), n)
    freedom = error**4 / (parts[0] ** 2 / (one.n - 1) + parts[1] ** 2 / (other.n - 1))
    half = float(stdtrit(freedom, 1 - (1 - level) / 2)) * error
    return Difference(value, Interval(low=value - half, high=value + half, method="Welch over seeds"), n)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], *, seed: int = 0, draws: int = DRAWS
) -> Difference:
    """Difference of two models on the same items, with a bootstrap over images.

    Args:
        first: `[N]` worth of each item for the first model.
        second: `[N]` for the second, in the same order.
        clusters: N names of images.
        seed: of the draws.
        draws: number of draws.
    """
    lead = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    interval = clustered_bootstrap(lead, clusters, seed=seed, draws=draws)
    return Difference(float(lead.mean()), interval, len(lead))


def mcnemar(first: Sequence[float], second: Sequence[float]) -> float:
    """Exact two-sided p-value that two models are right equally often, from the items where just one is.

    Args:
        first: `[N]` of 0 and 1 (halves count as wrong).
        second: `[N]`, same items in the same order. The items must be independent; else use `paired_bootstrap`.
    """
    one, other = np.asarray(first) >= 1, np.asarray(second) >= 1
    gained, lost = int((one & ~other).sum()), int((~one & other).sum())
    if gained + lost == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def grouped_mean(values: Values, groups: NDArray[np.int64] | None, weights: NDArray[Any] | None = None) -> float:
    """Mean of values, or mean of the groups' means; with weights, of a bootstrap draw. NaN where nothing is left."""
    if weights is None:
        weights = np.ones(len(values), dtype=np.int64)
    if groups is None:
        total = weights.sum()
        return float(weights @ values / total) if total else math.nan
    sums = np.bincount(groups, weights=weights * values)
    sizes = np.bincount(groups, weights=weights)
    there = sizes > 0
    return float((sums[there] / sizes[there]).mean()) if there.any() else math.nan
