"""p-values against known ones, Holm's correction, what keeps a difference from being called one, and its sources."""

from __future__ import annotations

import numpy as np
import pytest

from degla.results import Interval
from degla.statistics.seeds import (
    Difference,
    QuestionVariance,
    deviation_factors,
    doubt_of,
    holm,
    over_sources,
    p_over_questions,
    p_over_seeds,
)


def test_p_values_are_known_ones() -> None:
    from scipy.stats import ttest_1samp

    gaps = [0.02, 0.05, 0.01, 0.04]
    assert p_over_seeds(gaps) == pytest.approx(ttest_1samp(gaps, 0).pvalue)
    assert p_over_seeds([0.1]) is None and p_over_seeds([0.1, 0.1]) == 0.0 and p_over_seeds([0.0, 0.0]) == 1.0
    # Two-sided: 1.96 standard errors are 0.05, either way, and no difference is 1.
    questions = QuestionVariance(0.01, 500, 100, None)
    assert p_over_questions(0.0195996, questions) == pytest.approx(0.05, abs=1e-5)
    assert p_over_questions(-0.0195996, questions) == pytest.approx(0.05, abs=1e-5)
    assert p_over_questions(0.0, questions) == 1.0 and p_over_questions(0.1, None) is None


def test_holm() -> None:
    corrected = holm([0.01, None, 0.04, 0.03, 0.005])
    assert corrected[1] is None
    assert [corrected[place] for place in (4, 0, 3, 2)] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_what_keeps_a_difference_from_being_called_one() -> None:
    interval = Interval(low=0.1, high=0.2, method="")
    enough = QuestionVariance(0.01, 25, 6, interval)
    assert doubt_of(enough) == ""
    assert doubt_of(QuestionVariance(0.01, 24, 20, interval)) == "fewer than 25 images"
    assert doubt_of(QuestionVariance(0.01, 300, 5, interval)) == "fewer than 6 images are answered differently"
    assert "trained on" in doubt_of(enough, leaked=True) and "missing" in doubt_of(enough, missing=True)
    assert "not the same items" in doubt_of(None)


def test_an_interval_that_ends_at_zero_does_not_exclude_it() -> None:
    for low, high, significant in ((0.0, 0.2, False), (-0.2, 0.0, False), (0.01, 0.2, True), (-0.2, -0.01, True)):
        assert Difference(0.1, Interval(low=low, high=high, method="")).significant is significant


def test_deviations_by_source_by_hand() -> None:
    from scipy.stats import t

    # Training seeds 1, 2, 3; negatives add 0, 4, 8 to seeds 0 and 1; a world adds -3.
    values: dict[tuple[int | None, str], float] = {(seed, ""): float(seed + 1) for seed in range(3)}
    for title, shift in (("n1", 4), ("n2", 8)):
        values |= {(seed, title): seed + 1 + shift for seed in range(2)}
    values |= {(seed, "w"): seed + 1 - 3 for seed in range(3)}
    difference = over_sources(
        values, {"negatives": ["n1", "n2"], "world": ["w"], "none": ["x"]}, QuestionVariance(0.5, 900, 9, None)
    )
    assert difference is not None
    seeds, negatives, world = difference.sources
    assert (seeds.n, negatives.n, world.n) == (3, 3, 2)
    assert (seeds.deviation, negatives.deviation) == (pytest.approx(1.0), pytest.approx(4.0))
    assert world.deviation == pytest.approx(3 / 2**0.5) and world.shift == pytest.approx(-1.5)
    assert difference.value == pytest.approx(2 + 4 - 1.5)
    # From any table: chi-square of two degrees of freedom is below 7.378 and above 0.0506 in 97.5 %.
    assert (seeds.low, seeds.high) == (pytest.approx((2 / 7.378) ** 0.5, rel=1e-3), pytest.approx(39.5**0.5, rel=1e-2))
    # The variances of the three means and of the questions, each with its degrees of freedom (Welch, Satterthwaite).
    parts = [(1 / 3, 2), (16 / 3, 2), (4.5 / 2, 1), (0.25, 899)]
    freedom = sum(part for part, _ in parts) ** 2 / sum(part**2 / own for part, own in parts)
    wide = t.ppf(0.975, freedom) * sum(part for part, _ in parts) ** 0.5
    assert difference.half_width == pytest.approx(max(wide, t.ppf(0.975, 1) * 1.5, t.ppf(0.975, 2) * (16 / 3) ** 0.5))
    assert over_sources({(0, ""): 1.0, (1, ""): 2.0}, {"negatives": ["n1"]}, None) is None


def test_the_interval_of_a_deviation_is_the_chi_square_one() -> None:
    # n = 5: 0.599 and 2.874 times the deviation, as in any table.
    assert deviation_factors(5) == (pytest.approx(0.5991, abs=1e-4), pytest.approx(2.8736, abs=1e-4))


def test_the_interval_over_all_sources_holds_the_truth() -> None:
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        seeds, negatives, worlds = (generator.normal(0, size, 4) for size in (1.0, 2.0, 3.0))
        values: dict[tuple[int | None, str], float] = {
            (seed, title): 10 + seeds[seed] + negatives[negative] + worlds[world]
            for title, negative, world in [
                ("", 0, 0), *((f"n{n}", n, 0) for n in (1, 2, 3)), *((f"w{n}", 0, n) for n in (1, 2, 3))
            ]
            for seed in range(4)
        }  # fmt: skip
        difference = over_sources(values, {"negatives": ["n1", "n2", "n3"], "worlds": ["w1", "w2", "w3"]}, None)
        assert difference is not None
        inside.append(abs(difference.value - 10) <= difference.half_width)
    assert 0.93 <= np.mean(inside) <= 0.985
