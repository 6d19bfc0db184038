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


def percentile_interval(values: NDArray[Any], *, method: str) -> Interval:
    """95 % interval between the percentiles of bootstrap values; draws without a value (NaN) are left out."""
    low, high = np.nanpercentile(values, [100 * TAIL, 100 - 100 * TAIL])
    return Interval(low=float(low), high=float(high), method=method)


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
