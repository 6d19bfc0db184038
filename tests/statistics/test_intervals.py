"""Intervals: known values from publications, how often they hold the truth, and none that is a point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from degla.statistics.proportions import (
    Contributions,
    DrawnMeans,
    FloatArray,
    cluster_draws,
    cluster_numbers,
    clustered,
    contributions,
    drawn_means,
    lead_interval,
    paired_score_interval,
    proportion_interval,
    share_interval,
    wilson,
)
from degla.statistics.seeds import QuestionVariance, Variance, half_width, over_questions, seed_difference, seed_spread


def _parts(values: FloatArray, names: list[str], *, paired: bool = False) -> tuple[FloatArray, Contributions]:
    """Bootstrap draws of the mean, and what each image adds to it."""
    numbers = cluster_numbers(names)
    weights = np.full(len(values), 1 / len(values))
    return drawn_means(values, numbers, seed=1, draws=300), contributions(values, weights, numbers, paired=paired)


def test_exact_binomial_known_values() -> None:
    interval = proportion_interval(8, 10)
    assert (interval.low, interval.high) == (pytest.approx(0.44390, abs=1e-5), pytest.approx(0.97479, abs=1e-5))
    assert proportion_interval(0, 20).low == 0
    assert proportion_interval(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert proportion_interval(20, 20).high == 1
    with pytest.raises(ValueError, match="not a proportion"):
        proportion_interval(3, 2)


def test_wilson_known_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip  # noqa: E501
        interval = wilson(count, n)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("first", "second", "n", "level", "low", "high"),
    [
        # Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014) 2850, Tango's interval of their table II.
        (1, 7, 21, 0.95, -0.517, -0.026),
        # PropCIs::scoreci.mp(25, 28, 618) in R.
        (28, 25, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_paired_score_interval_known_values(
    first: int, second: int, n: int, level: float, low: float, high: float
) -> None:
    interval = paired_score_interval(first, second, n, level=level)
    digits = 5e-4 if level == 0.95 else 5e-5
    assert (interval.low, interval.high) == (pytest.approx(low, abs=digits), pytest.approx(high, abs=digits))
    other = paired_score_interval(second, first, n, level=level)
    assert (other.low, other.high) == (pytest.approx(-interval.high), pytest.approx(-interval.low))


def test_paired_score_interval_inverts_the_score_test() -> None:
    """Its ends are where a likelihood that is maximised by brute force gives a score of ±1.96."""
    first, second, n = 9, 2, 40
    interval = paired_score_interval(first, second, n)
    for gap, wanted in ((interval.low, 1.959964), (interval.high, -1.959964)):
        lost = np.linspace(max(0.0, -gap) + 1e-9, min(1.0, (1 - gap) / 2) - 1e-9, 400_001)
        likelihood = first * np.log(lost + gap) + second * np.log(lost)
        likelihood += (n - first - second) * np.log(1 - 2 * lost - gap)
        best = lost[np.argmax(likelihood)]
        score = (first - second - n * gap) / math.sqrt(n * (2 * best + gap - gap**2))
        assert score == pytest.approx(wanted, abs=1e-3)


def test_no_interval_is_a_point() -> None:
    # What the audit found: no image answered differently, "+0.0 [+0.0, +0.0]".
    z2 = 1.959964**2
    for n in (12, 28):
        draws, parts = _parts(np.zeros(n), [str(number) for number in range(n)], paired=True)
        interval = lead_interval(draws, parts)
        assert interval is not None and [-interval.low, interval.high] == pytest.approx([z2 / (n + z2)] * 2, rel=1e-5)
        # Two questions about each image, verdicts averaged over seeds: the same images, the same interval.
        draws, parts = _parts(np.zeros(2 * n), [str(number // 2) for number in range(2 * n)], paired=True)
        interval = lead_interval(draws, parts)
        assert interval is not None and [-interval.low, interval.high] == pytest.approx([z2 / (n + z2)] * 2, rel=1e-5)
    draws, parts = _parts(np.ones(24), [str(number // 2) for number in range(24)])
    interval = share_interval(draws, parts)
    assert interval is not None and interval.high == 1 and interval.low == pytest.approx(wilson(12, 12).low)
    assert clustered(np.ones(24), [str(number // 2) for number in range(24)]).low == pytest.approx(wilson(12, 12).low)
    # All won.
    interval = lead_interval(*_parts(np.ones(24), [str(number // 2) for number in range(24)], paired=True))
    assert (
        interval is not None
        and interval.low == pytest.approx(paired_score_interval(12, 0, 12).low)
        and interval.high == 1
    )
    # Won and lost: Tango's interval for those whom one model answers and the other does not.
    lead = np.repeat([1.0, -1.0, 0.0], [8, 3, 29])
    assert lead_interval(*_parts(lead, [str(number) for number in range(40)], paired=True)) == (
        paired_score_interval(8, 3, 40)
    )
    # One image of thirty answered by halves in another way: a bootstrap alone would end at 0.
    lead = np.zeros(60)
    lead[7] = 0.2
    draws, parts = _parts(lead, [str(number // 2) for number in range(60)], paired=True)
    interval = lead_interval(draws, parts)
    assert interval is not None and interval.low < -0.1 and interval.high > 0.1 and "widened" in interval.method
    single = _parts(np.ones(3), ["a", "a", "a"])
    assert share_interval(*single) is None and lead_interval(*_parts(np.ones(3), ["a"] * 3, paired=True)) is None
    assert share_interval(*_parts(np.ones(1), ["a"])) is over_questions(*single) is None


@pytest.mark.parametrize("few", [0.0, 1.0], ids=["wrong", "right"])
def test_few_images_of_the_rarer_kind_widen_the_interval_however_many_there_are(few: float) -> None:
    values = np.full(200, 1 - few)
    values[[0, 50, 51]] = few
    draws, parts = _parts(values, [str(number // 2) for number in range(200)])
    assert (parts.images, parts.uneven) == (100, 2)
    interval = share_interval(draws, parts)
    score = wilson(round(100 * values.mean()), 100)
    assert interval is not None and "widened" in interval.method
    assert interval.low <= np.percentile(draws, 2.5) and interval.high >= np.percentile(draws, 97.5)
    assert interval.high - interval.low > 0.9 * (score.high - score.low)


@pytest.mark.parametrize(
    ("values", "weights", "clusters", "simple"),
    [
        ([1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 2, 3], True),
        ([1, 0, 0.5, 1], [1, 1, 1, 1], [0, 1, 2, 3], False),
        ([1, 0, 1, 1], [1, 1, 2, 2], [0, 1, 2, 3], False),
        ([1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 2, 2], False),
    ],
    ids=["a simple sample", "a tie is worth a half", "means of groups", "two questions about an image"],
)
def test_only_simple_samples_have_an_exact_interval(
    values: list[float], weights: list[float], clusters: list[int], simple: bool
) -> None:
    worth, shares = np.array(values), np.array(weights) / sum(weights)
    for paired in (False, True):
        parts = contributions(worth, shares, np.array(clusters), paired=paired)
        assert parts.simple_sample is simple and parts.totals.sum() == pytest.approx(worth @ shares)
        interval = (lead_interval if paired else share_interval)(np.linspace(0, 1, 41), parts)
        assert interval is not None and ("bootstrap" not in interval.method) is simple


def test_a_widened_interval_has_the_sample_size_that_the_bootstrap_and_the_images_imply() -> None:
    """Ten images weigh twice as much as each of twenty others, of which five are wrong."""
    from scipy.stats import t

    weights = np.repeat([2 / 40, 1 / 40], [10, 20])
    parts = Contributions(
        np.where(np.arange(30) < 25, weights, 0.0), weights, uneven=5, effective_uneven=5.0, simple_sample=False
    )
    interval = share_interval(np.array([0.845, 0.905] * 20), parts)
    assert interval is not None and "widened" in interval.method
    independent, few = 1600 / 60, (t.ppf(0.975, 29) / 1.959964) ** 2 * 30 / 29
    effect = few * 0.03**2 * independent / (0.875 * 0.125)
    size = independent * (5 + 7.5) / (5 * effect + 7.5)
    for end in (interval.low, interval.high):  # Wilson's ends are where the score test gives 1.96.
        assert abs(0.875 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / size), rel=1e-5)


def test_a_tie_that_is_worth_a_half_is_answered_differently() -> None:
    for rare in (0.5, 1.0):
        for values in (np.repeat([rare, 0.0], [3, 97]), np.repeat([1 - rare, 1.0], [3, 97])):
            parts = contributions(values, np.full(100, 0.01), np.arange(100))
            assert (parts.uneven, parts.effective_uneven) == (3, pytest.approx(3))


def test_a_bootstrap_with_enough_images_is_left_alone() -> None:
    generator = np.random.default_rng(5)
    lead = generator.choice([-1.0, 0.0, 0.5, 1.0], 400)
    names = [str(number // 2) for number in range(400)]
    draws, parts = _parts(lead, names, paired=True)
    interval = lead_interval(draws, parts)
    assert interval is not None and interval.method == "paired bootstrap over images"
    assert (interval.low, interval.high) == tuple(np.percentile(draws, [2.5, 97.5]))
    questions = over_questions(draws, parts, paired=True)
    assert questions is not None and questions.error == pytest.approx(np.std(draws, ddof=1))
    # A draw without any of these items has no value.
    assert lead_interval(np.append(draws, np.nan), parts) == interval
    assert lead_interval(np.full(9, np.nan), parts) is None


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    values = np.random.default_rng(0).random(60)
    numbers = np.arange(60) // 2
    one, again, other = (drawn_means(values, numbers, seed=seed, draws=50) for seed in (3, 3, 4))
    assert (one == again).all() and (one != other).any()
    assert len({float(value) for value in one}) > 40


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    for truth in (0.5, 0.9):
        inside = [
            (interval := proportion_interval(int(hits), 60)).low <= truth <= interval.high
            for hits in generator.binomial(60, truth, 600)
        ]
        assert np.mean(inside) >= 0.93
    for up, down, n in ((0.1, 0.1, 30), (0.05, 0.0, 30), (0.3, 0.1, 50)):
        inside = [
            (interval := paired_score_interval(int(row[0]), int(row[1]), n)).low <= up - down <= interval.high
            for row in generator.multinomial(n, [up, down, 1 - up - down], 400)
        ]
        assert np.mean(inside) >= 0.93, (up, down, n)


def test_clustered_leads_hold_the_truth_in_small_samples() -> None:
    generator = np.random.default_rng(2)
    wide, narrow = [], []
    names = [str(number // 2) for number in range(50)]
    for _ in range(150):
        # 25 images with two questions that are answered alike; one image in fourteen differs, either way.
        lead = np.repeat(generator.choice([-1.0, 0.0, 1.0], 25, p=[0.035, 0.93, 0.035]), 2)
        draws, parts = _parts(lead, names, paired=True)
        interval = lead_interval(draws, parts)
        assert interval is not None
        wide.append(interval.low <= 0 <= interval.high)
        low, high = np.percentile(draws, [2.5, 97.5])
        narrow.append(low < 0 < high)
    assert np.mean(wide) >= 0.95 and np.mean(narrow) < 0.5


def test_a_mean_of_parts_is_as_uncertain_as_its_smallest_makes_it() -> None:
    """Many images of the large parts differ, so that the bootstrap looked safe; it draws the small part's alike."""
    generator = np.random.default_rng(7)
    owner, numbers = np.repeat([0, 1], [500, 9]), np.arange(509)
    truths, weights = np.array([0.6, 0.95]), np.array([1 / 1000, 1 / 18])[owner]
    inside, narrow = [], []
    for seed in range(150):
        values = (generator.random(509) < truths[owner]).astype(float)
        means = DrawnMeans(values, numbers, owner)
        draws = np.concatenate([means(counts) for counts in cluster_draws(509, seed=seed, draws=200)])
        parts = contributions(values, weights, numbers)
        interval = share_interval(draws, parts)
        assert interval is not None and parts.uneven >= 20
        inside.append(interval.low <= truths.mean() <= interval.high)
        low, high = np.percentile(draws, [2.5, 97.5])
        narrow.append(low <= truths.mean() <= high)
    assert np.mean(inside) >= 0.93 and np.mean(narrow) < 0.75


@pytest.mark.parametrize("paired", [False, True])
def test_no_number_of_images_makes_an_interval_jump(paired: bool) -> None:
    """Of 120 images with five questions, k have one that is answered differently."""
    names = [str(number // 5) for number in range(600)]
    widths = []
    for k in range(8, 32):
        values = np.full(600, 0.0 if paired else 1.0)
        values[: 5 * k : 5] = np.resize([1.0, -1.0], k) if paired else 0.0
        draws, parts = _parts(values, names, paired=paired)
        interval = (lead_interval if paired else share_interval)(draws, parts)
        assert interval is not None and parts.effective_uneven == pytest.approx(k)
        widths.append(interval.high - interval.low)
    steps = np.array(widths[1:]) / widths[:-1]
    assert steps.min() > 0.8 and steps.max() < 1.15, "the interval was halved where k reached 20"


def test_questions_about_one_image_are_as_uncertain_as_they_are_alike() -> None:
    generator = np.random.default_rng(3)
    names = [str(number // 5) for number in range(150)]
    for alike, widest in ((0.0, 0.17), (1.0, 0.25)):
        inside, widths = [], []
        for _ in range(150):
            same = np.repeat(generator.random(30) < 0.9, 5)
            values = np.where(generator.random(150) < alike, same, generator.random(150) < 0.9).astype(float)
            interval = share_interval(*_parts(values, names))
            assert interval is not None
            inside.append(interval.low <= 0.9 <= interval.high)
            widths.append(interval.high - interval.low)
        # As many independent questions have 0.11, as many as images 0.22.
        assert np.mean(inside) >= 0.94 and np.mean(widths) < widest


def test_clusters_widen_the_interval_and_restore_coverage() -> None:
    generator = np.random.default_rng(2)
    inside_clustered, inside_naive = [], []
    names = [str(number // 6) for number in range(240)]
    for _ in range(150):
        # 40 images of 6 questions that stand or fall together.
        levels = generator.beta(1, 1, 40)
        values = (generator.random((40, 6)) < levels[:, None]).astype(float).ravel()
        interval = share_interval(*_parts(values, names))
        naive = proportion_interval(int(values.sum()), 240)
        assert interval is not None
        inside_clustered.append(interval.low <= 0.5 <= interval.high)
        inside_naive.append(naive.low <= 0.5 <= naive.high)
    assert np.mean(inside_clustered) >= 0.90
    assert np.mean(inside_naive) < np.mean(inside_clustered) - 0.05


def test_t_interval_known_values_and_coverage() -> None:
    spread = seed_spread([0.70, 0.72, 0.74])
    assert spread.mean == pytest.approx(0.72)
    assert spread.deviation == pytest.approx(0.02)
    assert spread.half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-5)
    assert spread.interval is not None and spread.half_width is not None
    assert [0.72 - spread.interval.low, spread.interval.high - 0.72] == pytest.approx([spread.half_width] * 2)
    single = seed_spread([0.7])
    assert (single.deviation, single.half_width, single.interval) == (None, None, None)
    draws = np.random.default_rng(1).normal(0, 1, (2000, 3))
    inside = [abs((one := seed_spread(list(row))).mean) <= (one.half_width or 0) for row in draws]
    assert 0.93 <= np.mean(inside) <= 0.97


def test_seeds_and_questions_are_covered_together() -> None:
    # Welch's two samples are two such parts: scipy's interval is the known value.
    from scipy.stats import ttest_ind

    one, other = [0.1, 0.2, 0.25], [0.5, 0.52, 0.7, 0.6]
    wide = half_width([Variance(np.var(one, ddof=1) / 3, 2), Variance(np.var(other, ddof=1) / 4, 3)])
    interval = ttest_ind(one, other, equal_var=False).confidence_interval()
    assert wide == pytest.approx((interval.high - interval.low) / 2)
    assert half_width([Variance(0.0, 4), Variance(0.25, 10**9)]) == pytest.approx(1.959964 * 0.5, rel=1e-6)

    # Scores with 2 points over seeds and 3 over questions: the truth is held although three seeds share one draw.
    generator = np.random.default_rng(4)
    inside = []
    for _ in range(2000):
        values = 0.6 + 0.03 * generator.normal() + 0.02 * generator.normal(size=3)
        spread = seed_spread(list(values), QuestionVariance(0.03, 400, 100, None))
        inside.append(abs(spread.mean - 0.6) <= (spread.half_width or 0))
    assert 0.94 <= np.mean(inside) <= 0.995
    # Two seeds that vary far more than questions do: they alone say how much.
    inside = []
    for _ in range(2000):
        values = 0.6 + 0.004 * generator.normal() + 0.02 * generator.normal(size=2)
        spread = seed_spread(list(values), QuestionVariance(0.004, 400, 100, None))
        inside.append(abs(spread.mean - 0.6) <= (spread.half_width or 0))
    assert 0.935 <= np.mean(inside) <= 0.97
    single = seed_spread([0.6], QuestionVariance(0.03, 400, 100, None))
    assert single.half_width == pytest.approx(1.966 * 0.03, rel=1e-3) and single.covers == "questions"


def test_pairing_by_seed_takes_the_shared_part_of_chance_out() -> None:
    first, second = {0: 0.70, 1: 0.80, 2: 0.90}, {2: 0.85, 1: 0.75, 0: 0.66}
    paired = seed_difference(first, second)
    assert paired.value == pytest.approx(0.14 / 3)
    assert paired.significant
    assert paired.interval is not None
    assert paired.interval.method.startswith("paired")
    assert not seed_difference(first, second, doubt="fewer than 25 images").significant
    wider = seed_difference(first, second, QuestionVariance(0.05, 100, 60, None))
    assert wider.interval is not None and "questions" in wider.interval.method and not wider.significant
    # Two seeds in common are a pair, whatever others either has: 12.706 is t for one degree of freedom.
    two = seed_difference({0: 0.70, 1: 0.80}, {1: 0.75, 0: 0.66, 5: 0.10})
    assert two.interval is not None and two.interval.method == "paired t over 2 seeds"
    assert (two.value, two.interval.high) == (pytest.approx(0.045), pytest.approx(0.045 + 12.706 * 0.005, abs=1e-5))
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


def test_pairing_by_item_sees_what_unpaired_intervals_hide() -> None:
    generator = np.random.default_rng(3)
    hard = generator.random(400)
    second = (hard < 0.60).astype(float)
    first = (hard < 0.65).astype(float)
    questions = over_questions(*_parts(first - second, [str(i) for i in range(400)], paired=True), paired=True)
    assert questions is not None and questions.interval is not None and questions.interval.low > 0
    assert questions.uneven == int((first != second).sum()) and questions.images == 400
    same = over_questions(*_parts(np.zeros(80), [str(i // 2) for i in range(80)], paired=True), paired=True)
    # Where no image is answered differently, the bootstrap's error is 0 and the interval's is not.
    assert same is not None and same.interval is not None and same.variance.freedom == 39
    assert -same.interval.low == pytest.approx(same.interval.high)
    assert 0 < same.error == pytest.approx((same.interval.high - same.interval.low) / (2 * 1.959964))
    a, b = (proportion_interval(int(values.sum()), 400) for values in (first, second))
    assert a.low < b.high


@pytest.mark.parametrize("clusters", [1, 12, 300])
def test_means_of_groups_in_all_draws_are_those_of_each_draw(clusters: int) -> None:
    """Also where a draw leaves groups, or everything, out; each draw is one of the same generator, one by one."""
    random = np.random.default_rng(clusters)
    numbers = np.unique(random.integers(0, clusters, 40), return_inverse=True)[1]
    groups = np.unique(random.integers(0, 9, 40), return_inverse=True)[1]
    values, count = random.random(40), int(numbers.max()) + 3  # Two clusters have no value.
    means = DrawnMeans(values, numbers, groups, count=count)
    block_means = np.concatenate([means(block) for block in cluster_draws(count, seed=5, draws=700)])
    random = np.random.default_rng(5)
    for mean in block_means:
        indices = random.integers(0, count, count)
        weights = np.array([np.count_nonzero(indices == number) for number in numbers])
        of_groups = [
            np.average(values[groups == group], weights=weights[groups == group])
            for group in np.unique(groups)
            if weights[groups == group].any()
        ]
        assert mean == pytest.approx(np.mean(of_groups), abs=1e-12) if of_groups else math.isnan(mean)
