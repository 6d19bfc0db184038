"""Aggregate item verdicts to scores of parts and named averages, with intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from degla.errors import DeglaError
from degla.evaluation.benchmark import Average, Benchmark, Metric
from degla.evaluation.verdicts import Judged
from degla.results import ItemVerdict, Score
from degla.statistics.proportions import (
    DRAWS,
    DrawnMeans,
    FloatArray,
    clipped_share,
    cluster_draws,
    cluster_numbers,
    contributions,
    grouped_mean,
    pooled_groups,
    share_interval,
    shares_of_items,
)


@dataclass(frozen=True)
class _Column:
    """The values of one metric of one part: `worth`, `chance`, `clusters`, `groups`, `tied` are `[n]`."""

    part: str
    metric: Metric
    worth: FloatArray
    chance: FloatArray
    clusters: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    tied: NDArray[np.bool_]


@dataclass(frozen=True)
class ItemScore:
    """A score as a weighted sum over items, and its value in every bootstrap draw.

    Attributes:
        draws: `[draws]`.
        weights: `[n]` weights of the items, which sum to 1.
        worth: `[n]` value of each item.
        clusters: `[n]` numbers of their images; from `drawn_values`, an image has the same number in all benchmarks.
    """

    draws: FloatArray
    weights: FloatArray
    worth: FloatArray
    clusters: NDArray[np.int64]


@dataclass(frozen=True)
class _Drawn:
    """A score and its items."""

    score: Score
    items: ItemScore


@dataclass(frozen=True)
class Scores:
    """Scores of one benchmark.

    Attributes:
        parts: a part's name to its scores, its main metric first; parts without a scored item are absent.
        averages: the named averages whose parts are all present, in order.
    """

    parts: dict[str, tuple[Score, ...]]
    averages: tuple[Score, ...]


def aggregate(benchmark: Benchmark, judged: Sequence[Judged], *, seed: int = 0, draws: int = DRAWS) -> Scores:
    """Average verdicts to scores.

    Args:
        benchmark: defines the metrics and averages.
        judged: verdicts of its items.
        seed: of the bootstrap.
        draws: of the bootstrap; 1 if no interval is needed.

    The interval of a plain mean over items that share no image is exact binomial; all others are bootstraps over
    images, with all parts of the benchmark in the same draw, since parts share images. If only few images are answered
    differently from the rest, it is widened to Wilson's (`statistics.proportions`).

    Raises:
        DeglaError: a metric's verdict is missing, an error in the benchmark's file.
    """
    drawn = _draw_all(benchmark, judged, seed, draws)
    parts: dict[str, tuple[Score, ...]] = {}
    for entry in drawn:
        parts[entry.score.name] = (*parts.get(entry.score.name, ()), entry.score)
    return Scores(parts, tuple(average.score for average in _averages(benchmark, drawn)))


def drawn_values(benchmark: Benchmark, verdicts: Sequence[ItemVerdict]) -> dict[tuple[str, str], ItemScore]:
    """Return every score with its items and its value in each bootstrap draw, by (part or average, metric).

    Metrics that the verdicts of an earlier version lack are left out, except a part's main one.

    Two models' verdicts on the same items in the same order use the same draws: the difference of their
    values is a paired bootstrap. So is a sum of scores of two benchmarks with the same images in the same
    order; draws of other benchmarks are independent.
    """
    drawn = _draw_all(benchmark, [Judged(verdict, {}) for verdict in verdicts], 0, DRAWS, may_lack=True)
    # Each benchmark numbers its images from 0 and draws these numbers the same way, whatever the images are. A
    # permutation per list of images keeps draws paired for all scores, models and benchmarks with this list only.
    names = dict.fromkeys(verdict.drawn_with for verdict in verdicts)
    images = np.array([_number_of(name) for name in names])
    order = np.random.default_rng(_number_of("\n".join(names))).permutation(DRAWS)
    return {
        (row.score.name, row.score.metric): replace(
            row.items, draws=row.items.draws[order], clusters=images[row.items.clusters]
        )
        for row in [*drawn, *_averages(benchmark, drawn)]
    }


def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def _draw_all(
    benchmark: Benchmark, judged: Sequence[Judged], seed: int, draws: int, *, may_lack: bool = False
) -> list[_Drawn]:
    """Every metric of every part, all in the same draws; `may_lack`: metrics after a part's first may be missing."""
    clusters = cluster_numbers([row.verdict.drawn_with for row in judged])
    members: dict[str, list[int]] = {}
    for index, row in enumerate(judged):
        members.setdefault(row.verdict.part, []).append(index)
    columns = [
        column
        for name, indices in members.items()
        for place, metric in enumerate(benchmark.part(name).metrics)
        if not place or not may_lack or any(metric.verdict in judged[index].verdict.ok for index in indices)
        if (column := _column(name, metric, indices, judged, clusters)) is not None
    ]
    if not columns:  # No group is large enough for any metric, or there are no verdicts.
        return []
    count = int(clusters.max()) + 1
    means = [_drawn_means(column, count) for column in columns]
    blocks = [np.array([each(counts) for each in means]) for counts in cluster_draws(count, seed=seed, draws=draws)]
    return [_scored(column, values) for column, values in zip(columns, np.concatenate(blocks, axis=1), strict=True)]


def _drawn_means(column: _Column, count: int) -> DrawnMeans:
    if column.groups is None:
        return DrawnMeans(column.worth, column.clusters, count=count)
    weights = shares_of_items(column.groups, len(column.worth))
    return DrawnMeans(column.worth, column.clusters, pooled_groups(column.groups), weights=weights, count=count)


def _column(
    name: str, metric: Metric, indices: Sequence[int], judged: Sequence[Judged], clusters: NDArray[np.int64]
) -> _Column | None:
    chosen = [index for index in indices if metric.verdict in judged[index].verdict.ok]
    if not chosen:
        raise DeglaError(
            f"part {name!r}: metric {metric.name!r} averages {metric.verdict!r}, which no item has. "
            "If the result was made by an earlier version, evaluate again."
        )
    names = [judged[index].verdict.group.get(metric.group, "") for index in chosen] if metric.group else []
    if names:
        groups = metric.counted_groups(names)
        remaining = [row for row, value in enumerate(names) if value in groups]
        chosen, names = [chosen[row] for row in remaining], [names[row] for row in remaining]
        if not chosen:
            return None
    rows = [judged[index] for index in chosen]
    column = _Column(
        part=name,
        metric=metric,
        worth=np.array([row.verdict.ok[metric.verdict] for row in rows], dtype=np.float64),
        chance=np.array([row.chance.get(metric.verdict, math.nan) for row in rows], dtype=np.float64),
        clusters=clusters[chosen],
        groups=cluster_numbers(names) if names else None,
        tied=np.array([row.verdict.ties[metric.verdict] > 0 for row in rows], dtype=bool),
    )
    return _whole_groups(column, cluster_numbers(names)) if metric.whole else column


def _whole_groups(column: _Column, groups: NDArray[np.int64]) -> _Column:
    """One row per group: the product of its items, at the position of its first."""
    members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    first = [each[0] for each in members]
    return replace(
        column,
        worth=np.array([column.worth[each].prod() for each in members]),
        chance=np.array([column.chance[each].prod() for each in members]),
        clusters=column.clusters[first],
        groups=None,
        tied=np.array([column.tied[each].any() for each in members]),
    )


def _scored(column: _Column, draws: FloatArray) -> _Drawn:
    chance: float | None = column.metric.chance
    if chance is None:
        mean = grouped_mean(column.chance, column.groups)
        chance = None if math.isnan(mean) else mean
    weights = shares_of_items(column.groups, len(column.worth))
    items = ItemScore(draws, weights, column.worth, column.clusters)
    score = Score(
        name=column.part,
        metric=column.metric.name,
        value=clipped_share(grouped_mean(column.worth, column.groups)),
        n=len(column.worth),
        ties=int(column.tied.sum()),
        chance=chance,
        interval=share_interval(draws, contributions(column.worth, weights, column.clusters)),
        lower=column.metric.lower,
    )
    return _Drawn(score, items)


def _averages(benchmark: Benchmark, drawn: Sequence[_Drawn]) -> list[_Drawn]:
    averages: dict[str, _Drawn] = {}
    for average in benchmark.averages:
        members = _members(benchmark, average, drawn, averages)
        if not members:
            continue
        values = np.array([member.score.value for member in members])
        sizes = np.array([member.score.n for member in members], dtype=np.float64)
        weights = sizes / sizes.sum() if average.how == "micro" else np.full(len(members), 1 / len(members))
        chances = [member.score.chance for member in members]
        present = [chance for chance in chances if chance is not None]
        items = weighted_sum([member.items for member in members], weights)
        score = Score(
            name=average.name,
            metric=average.how,
            value=clipped_share(float(weights @ values)),
            n=int(sizes.sum()),
            ties=sum(member.score.ties for member in members),
            chance=clipped_share(float(weights @ np.array(present))) if len(present) == len(chances) else None,
            interval=share_interval(items.draws, contributions(items.worth, items.weights, items.clusters)),
            lower=all(member.score.lower for member in members),
        )
        averages[average.name] = _Drawn(score, items)
    return list(averages.values())


def weighted_sum(items: Sequence[ItemScore], weights: FloatArray) -> ItemScore:
    """A weighted sum of scores."""
    return ItemScore(
        draws=weights @ np.stack([each.draws for each in items]),
        weights=np.concatenate([weight * each.weights for weight, each in zip(weights, items, strict=True)]),
        worth=np.concatenate([each.worth for each in items]),
        clusters=np.concatenate([each.clusters for each in items]),
    )


def _members(
    benchmark: Benchmark, average: Average, drawn: Sequence[_Drawn], earlier: dict[str, _Drawn]
) -> list[_Drawn]:
    """Members of the average; empty if a named part has no value of the metric, since a partial average misleads."""
    first: dict[str, _Drawn] = {}
    for entry in drawn:
        # A part may have other metrics than its main one, if none of its groups is large enough.
        if entry.score.metric == (average.metric or benchmark.part(entry.score.name).metrics[0].name):
            first[entry.score.name] = entry
    members: dict[str, _Drawn] = {}
    for pattern, names in zip(average.of, average.members(first, earlier), strict=True):
        if not names:
            return []
        source = earlier if pattern in earlier else first
        members |= {name: source[name] for name in names}
    return list(members.values())
