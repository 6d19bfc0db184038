"""Paired tests between arms. Two sources of chance are kept apart, as in `evaluation.statistics`: seeds and questions.

Over seeds: a paired t-test of the differences seed by seed. Over questions: a paired bootstrap over images of the
verdicts averaged over the seeds that both have, its standard error taken for a normal test. A difference counts where
both are below 0.05 after Holm's correction over all tests of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from degla.evaluation.aggregate import drawn_values
from degla.evaluation.results import load_result
from degla.evaluation.statistics import Difference, percentile_interval, seed_difference
from degla.evaluation.terminal import named_scores
from degla.records import ItemVerdict, Result
from degla.shelf import BENCHMARKS

LEVEL = 0.05


@dataclass(frozen=True)
class Test:
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
    models: Mapping[str, Mapping[int | None, Path]], *, scores: Sequence[str], told: Callable[[str], None] | None = None
) -> list[Test]:
    """Every pair of models in every score, corrected.

    Args:
        models: label to training seed to the file of the result.
        scores: names, as `named_scores` has them.
        told: called with a label before its verdicts are read.
    """
    drawn: dict[str, dict[str, NDArray[np.float64]]] = {}
    values: dict[str, dict[int | None, dict[str, float]]] = {}
    common = set.intersection(*(set(paths) for paths in models.values())) if models else set()
    for label, paths in models.items():
        if told is not None:
            told(label)
        values[label] = {seed: named_scores(load_result(path)) for seed, path in paths.items()}
        if common:
            drawn[label] = _draws([paths[seed] for seed in sorted(common, key=str)], scores)
    tests = []
    for score in scores:
        for first, second in combinations(models, 2):
            seeds = seed_difference(
                {seed: row[score] for seed, row in values[first].items()},
                {seed: row[score] for seed, row in values[second].items()},
            )
            tests.append(
                Test(
                    first, second, score,
                    over_seeds=seeds,
                    over_questions=_over_questions(drawn, values, (first, second), score, seeds=common),
                    p_seeds=_p_of_interval(seeds),
                    p_questions=_p_of_draws(drawn, (first, second), score),
                )
            )  # fmt: skip
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


def _draws(paths: Sequence[Path], scores: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Each score in every bootstrap draw, of verdicts averaged over the files: `[draws]`."""
    results = [load_result(path, items=True) for path in paths]
    averaged = _averaged([result.items for result in results])
    found: dict[str, NDArray[np.float64]] = {}
    for benchmark in results[0].benchmarks:
        verdicts = [row for row in averaged if row.benchmark == benchmark.name]
        rows = drawn_values(BENCHMARKS.load(benchmark.name).BENCHMARK, verdicts)
        for score in scores:
            name = benchmark.headline.get(score, score)
            metric = _metric(results[0], benchmark.name, name)
            if score not in found and (name, metric) in rows:
                found[score] = rows[name, metric]
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
    drawn: Mapping[str, Mapping[str, NDArray[np.float64]]],
    values: Mapping[str, Mapping[int | None, Mapping[str, float]]],
    pair: tuple[str, str],
    score: str,
    *,
    seeds: set[int | None],
) -> Difference:
    first, second = pair
    shared = sorted(seeds, key=str)
    if not shared or score not in drawn[first] or score not in drawn[second]:
        return Difference(math.nan, None, 0)
    leads = [values[first][seed][score] - values[second][seed][score] for seed in shared]
    interval = percentile_interval(drawn[first][score] - drawn[second][score], method="paired bootstrap over images")
    return Difference(math.fsum(leads) / len(leads), interval, len(shared))


def _p_of_draws(
    drawn: Mapping[str, Mapping[str, NDArray[np.float64]]], pair: tuple[str, str], score: str
) -> float | None:
    if not all(score in drawn.get(label, {}) for label in pair):
        return None
    lead = drawn[pair[0]][score] - drawn[pair[1]][score]
    error = float(np.nanstd(lead, ddof=1))
    if error == 0:
        return 1.0 if float(np.nanmean(lead)) == 0 else 0.0
    from scipy.special import ndtr

    return min(1.0, 2 * float(ndtr(-abs(float(np.nanmean(lead))) / error)))


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
