"""Scores by name as sums over items: what other questions would do to them is told from these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from degla.evaluation.aggregate import ItemScore
from degla.evaluation.item_difference import averaged_scores
from degla.results import BenchmarkResult, Result, Score

Items = Mapping[str, ItemScore]
"""Scores by name, of verdicts averaged over seeds."""


def benchmark_of(result: Result, name: str) -> BenchmarkResult:
    """The benchmark that a score is of, as `named_scores` has it: the first that knows it."""
    return next(entry for entry in result.benchmarks if name in entry.headline or name in scores_of(entry))


def scores_of(entry: BenchmarkResult) -> dict[str, Score]:
    """Parts by their own first metric, and named averages, by name."""
    return {score.name: score for score in [*(part.scores[0] for part in entry.parts), *entry.averages]}


def score_of(result: Result, name: str) -> Score:
    """The score of that name."""
    entry = benchmark_of(result, name)
    rows = scores_of(entry)
    return rows[name if name in rows else entry.headline[name]]


def named_items(
    results: Sequence[Result], names: Iterable[str], *, where: str
) -> tuple[dict[str, ItemScore], dict[str, dict[tuple[str, str], ItemScore]]]:
    """Scores by name, and all of them by benchmark, name and metric.

    Args:
        results: of one model over seeds, with their items.
        names: headline columns, parts or named averages.
        where: names the model in messages.

    Raises:
        InputError: the results do not hold the same items.
    """
    scores = averaged_scores(results, where=where)
    found = {}
    for name in names:
        score = score_of(results[0], name)
        found[name] = scores[benchmark_of(results[0], name).name][score.name, score.metric]
    return found, scores
