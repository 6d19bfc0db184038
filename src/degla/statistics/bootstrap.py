"""Bootstrap over whole clusters (images): items that share one are not independent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from degla.results import Interval

FloatArray = NDArray[np.float64]
DRAWS = 1000
"""Bootstrap draws: the ends of a 95 % interval are then known to about a twentieth of its width."""


def cluster_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Number the distinct names from 0 in the order of their first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def cluster_draws(clusters: int, *, seed: int, draws: int = DRAWS) -> Iterator[NDArray[np.int64]]:
    """Yield, `draws` times, how often each of the clusters was drawn with replacement: `[clusters]` counts."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def drawn_means(values: FloatArray, clusters: NDArray[np.int64], *, seed: int = 0, draws: int = DRAWS) -> FloatArray:
    """Mean of the values in each draw.

    Args:
        values: `[N]`.
        clusters: `[N]` numbers from 0, each of them used.
        seed: of the draws.
        draws: number of draws.
    """
    sums, sizes = np.bincount(clusters, weights=values), np.bincount(clusters)
    means = [(drawn @ sums) / (drawn @ sizes) for drawn in cluster_draws(len(sums), seed=seed, draws=draws)]
    return np.array(means)


def percentile_interval(values: NDArray[Any], *, level: float = 0.95, method: str) -> Interval:
    """Interval between the percentiles of bootstrap values; draws without a value (NaN) are left out."""
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high), level=level, method=method)


def grouped_mean(values: FloatArray, groups: NDArray[np.int64] | None, weights: NDArray[Any] | None = None) -> float:
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


def shares_of_items(groups: NDArray[np.int64] | None, n: int) -> FloatArray:
    """`[n]` weights that add up to 1 and make `grouped_mean` a weighted sum."""
    if groups is None:
        return np.full(n, 1 / n)
    sizes = np.bincount(groups)
    return np.asarray(1 / sizes[groups] / np.count_nonzero(sizes), dtype=np.float64)
