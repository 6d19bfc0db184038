"""What stands beside the scores of methods: floors on the same questions, and the best that ignores word order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean

from degla.errors import DeglaError
from degla.results import BenchmarkResult, Result, Score
from degla.shelf import BENCHMARKS

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


def ceilings_of(name: str, rules: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Name of a part or average to its order-blind ceiling, 0 to 1; one whose ceiling is not known is left out.

    Args:
        name: of a benchmark; one that is not on the shelf has no ceilings.
        rules: name of each part to the tie rules that it was scored under. A ceiling holds under the benchmark's own
            rule alone.
    """
    if name not in BENCHMARKS.names():
        return {}
    benchmark = BENCHMARKS.load(name).BENCHMARK
    known: dict[str, float] = {}
    for part, used in rules.items():
        try:
            declared = benchmark.part(part)
        except DeglaError:  # the result was written by another version of the benchmark
            continue
        if declared.ceiling is not None and set(used) == {declared.tie}:
            known[part] = declared.ceiling
    names = set(rules)
    for average in benchmark.averages:
        members = {name for name in names if any(fnmatchcase(name, pattern) for pattern in average.of)}
        # The mean over items is known without their numbers only where all ceilings are one.
        ceilings = [known[member] for member in members if member in known]
        sure = bool(members) and len(ceilings) == len(members) and not average.metric
        if sure and (average.how == "macro" or len(set(ceilings)) == 1):
            known[average.name] = sum(ceilings) / len(ceilings)
        names.add(average.name)
    return known
