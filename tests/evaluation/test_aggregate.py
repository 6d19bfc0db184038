"""Averages and their intervals from verdicts that are made up, against a loop over the drawn images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Average, BenchmarkPart, Metric
from degla.evaluation.verdicts import Judged
from degla.results import ItemVerdict
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import cluster_draws

BENCHMARK = replace(
    BENCHMARKS.load("own").BENCHMARK,
    parts=(
        BenchmarkPart("many", "own"),
        BenchmarkPart("few", "own"),
        BenchmarkPart("pairs", "own", metrics=(Metric(group="pair", whole=True),)),
    ),
    averages=(Average("macro", of=("many", "few")), Average("micro", of=("many", "few"), how="micro")),
)


def judged(part: str, image: int, right: float, *, tied: bool = False, pair: int = 0) -> Judged:
    verdict = ItemVerdict(id=f"{part}/{image}/{pair}", benchmark="own", part=part, image=f"{image}.png",
                          ok={"text_ok": right}, ties={"text_ok": int(tied)}, margin=None,
                          group={"pair": str(pair)})  # fmt: skip
    return Judged(verdict, {"text_ok": 0.5})


@pytest.mark.parametrize("seed", [0, 7])
def test_an_average_is_drawn_over_the_images_of_all_its_parts(seed: int) -> None:
    right = np.random.default_rng(1).integers(0, 2, 90).astype(float)
    # Sixty images with a question of the one part; every second of them has one of the other part, too.
    rows = [judged("many", number, right[number]) for number in range(60)]
    rows += [judged("few", 2 * number, right[60 + number]) for number in range(30)]
    scores = aggregate(BENCHMARK, rows, seed=seed)
    means: dict[str, list[float]] = {"macro": [], "micro": []}
    for counts in np.concatenate(list(cluster_draws(60, seed=seed))):
        many, few = counts @ right[:60], counts[::2] @ right[60:]
        means["macro"].append((many / counts.sum() + few / counts[::2].sum()) / 2)
        means["micro"].append((60 * many / counts.sum() + 30 * few / counts[::2].sum()) / 90)
    assert [average.name for average in scores.averages] == list(means)
    for average in scores.averages:
        assert average.interval is not None and average.interval.method == "bootstrap over images"
        wanted = np.percentile(means[average.name], [2.5, 97.5])
        assert (average.interval.low, average.interval.high) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))
        assert (average.n, average.chance) == (90, pytest.approx(0.5))


def test_a_group_that_must_be_right_as_a_whole_ties_with_any_of_its_items() -> None:
    rows = [judged("pairs", number, 1.0, tied=number == 3, pair=number // 2) for number in range(6)]
    (score,) = aggregate(BENCHMARK, rows).parts["pairs"]
    assert (score.value, score.n, score.ties, score.chance) == (1.0, 3, 1, 0.25)
