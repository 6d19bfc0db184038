"""A result's scores by what they are of, and those of the floors that answered the same questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from degla.results import BenchmarkResult, Result, Score

ScoreKey = tuple[str, str, str, str, str]
"""Kind ("part" or "average"), name, metric, family, tie rule; family and tie rule are "" for an average."""


def keyed_scores(benchmark: BenchmarkResult) -> list[tuple[ScoreKey, Score]]:
    """Every score of a benchmark, parts before averages."""
    rows: list[tuple[ScoreKey, Score]] = [
        (("part", part.name, score.metric, part.family, part.tie), score)
        for part in benchmark.parts
        for score in part.scores
    ]
    return rows + [(("average", score.name, score.metric, "", ""), score) for score in benchmark.averages]


def floor_values(
    floors: Mapping[str, Sequence[Result]], name: str, *, questions: Collection[str]
) -> dict[ScoreKey, dict[str, float]]:
    """Mean score of each floor, 0 to 1, over its seeds.

    Args:
        floors: label to results.
        name: of the benchmark.
        questions: `items_sha256` of what the methods were asked; results on other questions are passed over.
    """
    found: dict[ScoreKey, dict[str, list[float]]] = {}
    for label, results in floors.items():
        for entry in (entry for result in results for entry in result.benchmarks):
            if entry.name == name and entry.items_sha256 in questions:
                for key, score in keyed_scores(entry):
                    found.setdefault(key, {}).setdefault(label, []).append(score.value)
    return {key: {label: fmean(values) for label, values in by_label.items()} for key, by_label in found.items()}
