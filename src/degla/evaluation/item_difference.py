"""Estimate from item verdicts how other questions would change a score, or a method's lead over another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from degla.errors import InputError
from degla.evaluation.aggregate import ItemScore, drawn_values
from degla.evaluation.neutral import benchmark_of, is_known
from degla.evaluation.results import items_file, load_result
from degla.remote import remembered
from degla.results import BenchmarkResult, ItemVerdict, Result
from degla.statistics.proportions import contributions
from degla.statistics.seeds import QuestionVariance, over_questions

ScoreName = tuple[str, str]
"""Name of a part or average, and metric."""
ItemIds = tuple[tuple[str, str], ...]
"""Id of each item, and the name of the image with which it is drawn: a difference is paired in both."""


def item_score(benchmark: str, key: ScoreName, paths: Sequence[Path]) -> tuple[ItemIds, ItemScore] | None:
    """Return the items, and the score with verdicts averaged over results of one method.

    Args:
        benchmark: its name.
        key: of the score.
        paths: result files, one per training seed, with their items files beside them.

    Returns:
        None if the items are missing or differ between the results.
    """
    if not paths:
        return None
    pairs = [_ids_and_scores(path).get(benchmark, ((), {})) for path in paths]
    ids = pairs[0][0]
    if not ids or any(other != ids or key not in scores for other, scores in pairs):
        return None
    scores = [own[key] for _, own in pairs]
    draws, worth = (np.mean([getattr(each, name) for each in scores], axis=0) for name in ("draws", "worth"))
    return ids, replace(scores[0], draws=draws, worth=worth)


def question_variance(score: ItemScore) -> QuestionVariance | None:
    """Return the variance of a score over questions."""
    return over_questions(score.draws, contributions(score.worth, score.weights, score.clusters))


def lead_variance(leads: Iterable[tuple[float, ItemScore, ItemScore]]) -> QuestionVariance | None:
    """Return the variance of a weighted sum of leads over questions.

    Args:
        leads: factor, score of the first model, the same score of the second on the same items.
    """
    # Scores with factor 0 must not add their images to the others.
    rows = [lead for lead in leads if lead[0]]
    if not rows:
        return None
    draws = np.sum([factor * (one.draws - other.draws) for factor, one, other in rows], axis=0)
    values = np.concatenate([np.sign(factor) * (one.worth - other.worth) for factor, one, other in rows])
    weights = np.concatenate([abs(factor) * one.weights for factor, one, _ in rows])
    total = float(weights.sum())
    # The intervals are made for weights of 1 in all; a sum of scores has as much as its factors.
    parts = contributions(values, weights / total, np.concatenate([one.clusters for _, one, _ in rows]), paired=True)
    variance = over_questions(draws / total, parts, paired=True)
    if variance is None or variance.interval is None:
        return variance
    interval = variance.interval.model_copy(
        update={"low": total * variance.interval.low, "high": total * variance.interval.high}
    )
    return replace(variance, error=total * variance.error, interval=interval)


def lead_over(
    scores: Iterable[tuple[str, ScoreName]], first: Sequence[Path], second: Sequence[Path]
) -> QuestionVariance | None:
    """Return the variance over questions of the first method's sum of scores minus the second's.

    Args:
        scores: the benchmark of each, and its key there.
        first: result files of a method, one per training seed; verdicts are averaged over them.
        second: likewise.

    Returns:
        None if their items differ or are missing.
    """
    leads = []
    for benchmark, key in scores:
        one, other = item_score(benchmark, key, first), item_score(benchmark, key, second)
        if one is None or other is None or one[0] != other[0]:
            return None
        leads.append((1.0, one[1], other[1]))
    return lead_variance(leads)


def averaged_scores(results: Sequence[Result], *, where: str) -> dict[str, dict[ScoreName, ItemScore]]:
    """Return the scores of one method's results by benchmark, with verdicts averaged over the results.

    Args:
        results: with their items.
        where: names the method in messages.

    Raises:
        InputError: they do not have the same items in the same order.
    """
    ids = _item_ids(results[0].items)
    for other in results[1:]:
        if _item_ids(other.items) != ids:
            raise InputError(
                f"{where}: the results of seeds {results[0].training_seed} and {other.training_seed} do not have the "
                "same items, so they cannot be averaged. Measure both on the same questions."
            )
    verdicts = [_averaged(rows) for rows in zip(*(result.items for result in results), strict=True)]
    return {
        benchmark.name: _scores(benchmark, [row for row in verdicts if row.benchmark == benchmark.name])
        for benchmark in results[0].benchmarks
    }


def _averaged(rows: Sequence[ItemVerdict]) -> ItemVerdict:
    """One item's mean verdicts; those that all have, since results of earlier versions lack newer ones."""
    names = [name for name in rows[0].ok if all(name in row.ok for row in rows)]
    return rows[0].model_copy(
        update={"ok": {name: math.fsum(row.ok[name] for row in rows) / len(rows) for name in names}}
    )


def _scores(benchmark: BenchmarkResult, verdicts: Sequence[ItemVerdict]) -> dict[ScoreName, ItemScore]:
    return drawn_values(benchmark_of(benchmark), verdicts)


def _item_ids(verdicts: Sequence[ItemVerdict]) -> ItemIds:
    return _shared(tuple((row.id, row.drawn_with) for row in verdicts))


@lru_cache(64)
def _shared(ids: ItemIds) -> ItemIds:
    """Return an equal value of an earlier call: the results of many models have the same items."""
    return ids


@remembered(4096)  # A report asks for each result once per score: with fewer than it has, each would be read anew.
def _ids_and_scores(path: Path) -> dict[str, tuple[ItemIds, dict[ScoreName, ItemScore]]]:
    """By benchmark, the items and scores of a result; empty if its items file does not exist."""
    if not items_file(path, load_result(path)).is_file():
        return {}
    result = load_result(path, items=True)
    by_benchmark = {}
    for entry in filter(is_known, result.benchmarks):
        verdicts = [row for row in result.items if row.benchmark == entry.name]
        ids = _item_ids(verdicts)
        if entry.declared is not None:  # Its averages may have other parts than those of an object of that name.
            ids = _shared((*ids, (repr(entry.declared), "")))
        by_benchmark[entry.name] = ids, _scores(entry, verdicts)
    return by_benchmark
