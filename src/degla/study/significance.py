"""Paired tests between arms. Two sources of chance are kept apart, as in `evaluation.statistics`: seeds and questions.

Over seeds: a paired t-test of the differences seed by seed. Over questions: a paired bootstrap over images of the
verdicts averaged over the seeds that both have, its standard error taken for a normal test. A difference counts where
both are below 0.05 after Holm's correction over all tests of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from degla.evaluation.aggregate import drawn_values
from degla.evaluation.neutral import benchmark_of
from degla.evaluation.results import load_result
from degla.evaluation.statistics import Difference, percentile_interval, seed_difference
from degla.evaluation.terminal import named_scores
from degla.records import ItemVerdict, Result

LEVEL = 0.05
Weights = Mapping[str, float]
"""A score that is a weighted sum of scores: name to factor."""


@dataclass(frozen=True)
class PairedTest:
    """The first model minus the second in one score, 0 to 1."""

    first: str
    second: str
    score: str
    over_seeds: Difference
    """With its paired t-interval; none for one seed."""
    over_questions: Difference
    """With its bootstrap interval."""
    p_seeds: float | None
    p_questions: float | None
    corrected_seeds: float | None = None
    corrected_questions: float | None = None

    @property
    def significant(self) -> bool:
        """Below 0.05 after correction over seeds and over questions; with one seed, over questions alone."""
        known = [p for p in (self.corrected_seeds, self.corrected_questions) if p is not None]
        return bool(known) and all(p < LEVEL for p in known)


def compare_all(
    models: Mapping[str, Mapping[int | None, Path]], *, scores: Mapping[str, Weights], against: str | None = None
) -> list[PairedTest]:
    """Pairs of models in every score, corrected.

    Args:
        models: label to training seed to the file of the result.
        scores: what is tested, by name: a weighted sum of scores, named as `named_scores` has them.
        against: label of the model that every other is tested against; None: every pair.
    """
    common = sorted(set.intersection(*(set(paths) for paths in models.values())), key=str)
    contenders = [_contender(paths, common, scores) for paths in models.values()]
    by_label = dict(zip(models, contenders, strict=True))
    pairs = (
        list(combinations(models, 2)) if against is None else [(name, against) for name in models if name != against]
    )
    tests = []
    for score, (first, second) in product(scores, pairs):
        one, other = by_label[first], by_label[second]
        over_seeds = seed_difference(one.values[score], other.values[score])
        over_questions, p = _over_questions(one, other, score, common)
        tests.append(PairedTest(first, second, score, over_seeds, over_questions, _p_of_interval(over_seeds), p))
    by_seeds = holm([test.p_seeds for test in tests])
    by_questions = holm([test.p_questions for test in tests])
    return [
        replace(test, corrected_seeds=one, corrected_questions=other)
        for test, one, other in zip(tests, by_seeds, by_questions, strict=True)
    ]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of p-values; None stays None and does not count."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[place] = highest
    return corrected


@dataclass(frozen=True)
class _Contender:
    """One model's scores: by seed, and in every bootstrap draw of its verdicts averaged over the seeds in common."""

    values: Mapping[str, Mapping[int | None, float]]
    draws: Mapping[str, NDArray[np.float64]]


def _contender(
    paths: Mapping[int | None, Path], common: Sequence[int | None], scores: Mapping[str, Weights]
) -> _Contender:
    named = {seed: named_scores(load_result(path)) for seed, path in paths.items()}
    values = {
        score: {seed: math.fsum(factor * row[name] for name, factor in weights.items()) for seed, row in named.items()}
        for score, weights in scores.items()
    }
    single = _draws([paths[seed] for seed in common], {name for weights in scores.values() for name in weights})
    draws: dict[str, NDArray[np.float64]] = {}
    for score, weights in scores.items():
        if weights.keys() <= single.keys():
            draws[score] = np.sum([factor * single[name] for name, factor in weights.items()], axis=0)
    return _Contender(values, draws)


def _draws(paths: Sequence[Path], names: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Each score in every bootstrap draw, of verdicts averaged over the files: `[draws]`."""
    if not paths:
        return {}
    results = [load_result(path, items=True) for path in paths]
    averaged = _averaged([result.items for result in results])
    found: dict[str, NDArray[np.float64]] = {}
    for benchmark in results[0].benchmarks:
        verdicts = [row for row in averaged if row.benchmark == benchmark.name]
        rows = drawn_values(benchmark_of(benchmark), verdicts)
        for name in names:
            source = benchmark.headline.get(name, name)
            metric = _metric(results[0], benchmark.name, source)
            if name not in found and (source, metric) in rows:
                found[name] = rows[source, metric]
    return found


def _metric(result: Result, benchmark: str, name: str) -> str:
    own = next(entry for entry in result.benchmarks if entry.name == benchmark)
    first = [part.scores[0] for part in own.parts] + list(own.averages)
    return next((score.metric for score in first if score.name == name), "")


def _averaged(items: Sequence[Sequence[ItemVerdict]]) -> list[ItemVerdict]:
    """Verdicts whose worth is the mean over several models' on the same items in the same order."""
    averaged = []
    for rows in zip(*items, strict=True):
        if len({row.id for row in rows}) > 1:
            raise ValueError(f"results of one study hold other items in one place: {rows[0].id}, {rows[-1].id}")
        worth = {name: math.fsum(row.ok[name] for row in rows) / len(rows) for name in rows[0].ok}
        averaged.append(rows[0].model_copy(update={"ok": worth}))
    return averaged


def _over_questions(
    one: _Contender, other: _Contender, score: str, common: Sequence[int | None]
) -> tuple[Difference, float | None]:
    """The difference with its bootstrap interval, and the p-value of a normal test by the draws' spread."""
    if score not in one.draws or score not in other.draws:
        return Difference(math.nan, None, 0), None
    value = math.fsum(one.values[score][seed] - other.values[score][seed] for seed in common) / len(common)
    lead = one.draws[score] - other.draws[score]
    difference = Difference(value, percentile_interval(lead, method="paired bootstrap over images"), len(common))
    error = float(np.nanstd(lead, ddof=1))
    if error == 0:
        return difference, 1.0 if value == 0 else 0.0
    from scipy.special import ndtr

    return difference, min(1.0, 2 * float(ndtr(-abs(value) / error)))


def _p_of_interval(difference: Difference) -> float | None:
    """The p-value of a paired t-test, from the interval that it belongs to."""
    interval = difference.interval
    if interval is None or difference.n < 2 or not interval.method.startswith("paired"):
        return None
    from scipy.special import stdtr, stdtrit

    half = (interval.high - interval.low) / 2
    if half == 0:
        return 1.0 if difference.value == 0 else 0.0
    statistic = abs(difference.value) / half * float(stdtrit(difference.n - 1, 1 - (1 - interval.level) / 2))
    return min(1.0, 2 * float(stdtr(difference.n - 1, -statistic)))
