"""Intervals and tests: known values, and how often an interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from degla.evaluation.statistics import (
    clustered_bootstrap,
    mcnemar,
    paired_bootstrap,
    proportion_interval,
    seed_difference,
    seed_spread,
)


def test_exact_binomial_known_values() -> None:
    interval = proportion_interval(8, 10)
    assert (interval.low, interval.high) == (pytest.approx(0.44390, abs=1e-5), pytest.approx(0.97479, abs=1e-5))
    assert proportion_interval(0, 20).low == 0
    assert proportion_interval(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert proportion_interval(20, 20).high == 1
    with pytest.raises(ValueError, match="no proportion"):
        proportion_interval(3, 2)


def test_exact_binomial_covers() -> None:
    generator = np.random.default_rng(0)
    for truth in (0.5, 0.9):
        held = [
            (interval := proportion_interval(int(hits), 60)).low <= truth <= interval.high
            for hits in generator.binomial(60, truth, 600)
        ]
        assert np.mean(held) >= 0.93


def test_t_interval_known_values_and_coverage() -> None:
    spread = seed_spread([0.70, 0.72, 0.74])
    assert spread.mean == pytest.approx(0.72)
    assert spread.deviation == pytest.approx(0.02)
    assert spread.half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-5)
    single = seed_spread([0.7])
    assert (single.deviation, single.half_width, single.interval) == (None, None, None)
    draws = np.random.default_rng(1).normal(0, 1, (2000, 3))
    held = [abs((one := seed_spread(list(row))).mean) <= (one.half_width or 0) for row in draws]
    assert 0.93 <= np.mean(held) <= 0.97


def test_clusters_widen_the_interval_and_restore_coverage() -> None:
    generator = np.random.default_rng(2)
    held_clustered, held_naive = [], []
    for _ in range(150):
        # 40 images of 6 questions that stand or fall together.
        levels = generator.beta(1, 1, 40)
        values = (generator.random((40, 6)) < levels[:, None]).astype(float).ravel()
        names = [str(number // 6) for number in range(240)]
        clustered = clustered_bootstrap(values, names, seed=1, draws=300)
        naive = proportion_interval(int(values.sum()), 240)
        assert clustered is not None
        held_clustered.append(clustered.low <= 0.5 <= clustered.high)
        held_naive.append(naive.low <= 0.5 <= naive.high)
    assert np.mean(held_clustered) >= 0.90
    assert np.mean(held_naive) < np.mean(held_clustered) - 0.05


def test_one_cluster_has_no_interval() -> None:
    assert clustered_bootstrap([1.0, 0.0], ["a", "a"]) is None


def test_pairing_by_seed_takes_the_shared_part_of_chance_out() -> None:
    first, second = {0: 0.70, 1: 0.80, 2: 0.90}, {2: 0.85, 1: 0.75, 0: 0.66}
    paired = seed_difference(first, second)
    assert paired.value == pytest.approx(0.14 / 3)
    assert paired.significant
    assert paired.interval is not None
    assert paired.interval.method.startswith("paired")
    apart = seed_difference(first, {7: 0.85, 8: 0.75, 9: 0.66})
    assert not apart.significant
    assert seed_difference({0: 0.7}, {0: 0.6}).interval is None
    fixed = seed_difference(first, {None: 0.1})
    assert fixed.value == pytest.approx(0.7)
    assert fixed.significant


def test_welch_known_value() -> None:
    from scipy.stats import ttest_ind

    one, other = [0.1, 0.2, 0.25], [0.5, 0.52, 0.7]
    got = seed_difference(dict(enumerate(one)), dict(enumerate(other, start=10)))
    expected = ttest_ind(one, other, equal_var=False).confidence_interval()
    assert got.interval is not None
    assert (got.interval.low, got.interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_mcnemar_known_values() -> None:
    from scipy.stats import binomtest

    first = [1.0] * 12 + [0.0] * 3 + [1.0] * 50
    second = [0.0] * 12 + [1.0] * 3 + [1.0] * 50
    assert mcnemar(first, second) == pytest.approx(binomtest(3, 15).pvalue)
    assert mcnemar(first, first) == 1.0


def test_paired_bootstrap_sees_what_unpaired_intervals_hide() -> None:
    generator = np.random.default_rng(3)
    hard = generator.random(400)
    second = (hard < 0.60).astype(float)
    first = (hard < 0.65).astype(float)
    difference = paired_bootstrap(list(first), list(second), [str(i) for i in range(400)])
    assert difference.value == pytest.approx(first.mean() - second.mean())
    assert difference.significant
    a, b = (proportion_interval(int(values.sum()), 400) for values in (first, second))
    assert a.low < b.high
