"""Means and differences over training seeds and other sources of chance, with intervals that also cover the questions.

The variance of a mean over seeds, s² / n, and that of the same score over questions (verdicts averaged over the seeds,
images drawn) are added, with the degrees of freedom of Welch and Satterthwaite. The interaction of seed and question
is in both, so the sum counts it twice and the interval is conservative. It is never narrower than over seeds only.

Sources of variance (`over_sources`): one source at a time is varied around the runs of the plan
itself. The deviation over a source is that of the means, over the common training seeds, at each of its levels;
the plan's own level is one of them. Effects are assumed to be additive: the value over all sources is the plan's mean
plus, for each source, the mean of its levels minus the plan's own level. Its variance is the sum of s² / n over
sources and of the variance over questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from degla.results import Interval
from degla.statistics.proportions import FEW, TAIL, Contributions, FloatArray, Z, lead_interval, share_interval


class Variance(NamedTuple):
    """A variance and its degrees of freedom."""

    value: float
    freedom: int


@dataclass(frozen=True)
class QuestionVariance:
    """Uncertainty of a score or a difference over questions.

    Attributes:
        error: standard error.
        images: number of independent images.
        uneven: number of images answered differently from the rest; of a difference, differently by the two models
            (discordant).
        interval: 95 % over questions only; None for a single image.
    """

    error: float
    images: int
    uneven: int
    interval: Interval | None

    @property
    def variance(self) -> Variance:
        """Square of the error."""
        return Variance(self.error**2, max(1, self.images - 1))


def over_questions(draws: FloatArray, by_image: Contributions, *, paired: bool = False) -> QuestionVariance | None:
    """Return standard error and interval over questions; None for a single image.

    Args:
        draws: a score, or with `paired` a difference of two, in each bootstrap draw.
        by_image: what each image contributes to it.
        paired: whether it is a difference.
    """
    interval = (lead_interval if paired else share_interval)(draws, by_image)
    if interval is None:
        return None
    error = float(np.nanstd(draws, ddof=1))
    if by_image.effective_uneven < FEW:
        error = max(error, (interval.high - interval.low) / (2 * Z))
    return QuestionVariance(error, by_image.images, by_image.uneven, interval)


@dataclass(frozen=True)
class Spread:
    """A mean over training seeds.

    Attributes:
        mean: of the values.
        deviation: sample standard deviation (n - 1) over seeds; None for one value.
        half_width: of the 95 % interval of the mean, over seeds and questions as far as known; else None.
        n: number of values.
        covers: sources covered by the interval: "seeds and questions", "seeds", "questions", or "".
    """

    mean: float
    deviation: float | None
    half_width: float | None
    n: int
    covers: str = ""

    @property
    def interval(self) -> Interval | None:
        """Interval of the mean."""
        if self.half_width is None:
            return None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return Interval(low=low, high=high, method=f"t over {self.covers.replace('seeds', f'{self.n} seeds')}")


@dataclass(frozen=True)
class Difference:
    """The first minus the second.

    Attributes:
        value: the difference.
        interval: 95 %; None if it cannot be computed.
        doubt: why it may not be called significant, whatever its interval (`doubt_of`); "" if it may.
    """

    value: float
    interval: Interval | None
    doubt: str = ""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and there is no caveat."""
        return not self.doubt and self.interval is not None and not self.interval.low <= 0 <= self.interval.high


def half_width(variances: Iterable[Variance]) -> float:
    """Return half of the 95 % t-interval of a sum of independent parts (Welch, Satterthwaite).

    Args:
        variances: of each part.
    """
    from scipy.special import stdtrit

    positive = [variance for variance in variances if variance.value > 0]
    total = math.fsum(variance.value for variance in positive)
    if not positive:
        return 0.0
    freedom = total**2 / math.fsum(variance.value**2 / variance.freedom for variance in positive)
    return float(stdtrit(freedom, 1 - TAIL)) * math.sqrt(total)


def covering_half_width(*sources: Sequence[Variance]) -> float:
    """Return half of the interval over several sources of chance, at least as wide as over any one of them.

    Two or three seeds often underestimate the deviation; the many degrees of freedom of the questions would then
    hide this (coverage of 87 to 91 % instead of 95 %, simulated).

    Args:
        sources: the variances of each.
    """
    return max(half_width([part for parts in sources for part in parts]), *map(half_width, sources))


def seed_spread(values: Sequence[float], questions: QuestionVariance | None = None) -> Spread:
    """Return mean, standard deviation over training seeds, and the interval of the mean.

    Args:
        values: one per seed.
        questions: uncertainty of the mean over questions; None: the interval covers only seeds.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to average")
    n, mean = len(values), math.fsum(values) / len(values)
    over = [] if questions is None else [questions.variance]
    if n == 1:
        return Spread(mean, None, half_width(over) if over else None, 1, "questions" if over else "")
    wide = covering_half_width([_of_mean(values)], over)
    return Spread(mean, deviation_of(values), wide, n, "seeds and questions" if over else "seeds")


def deviation_of(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1) of two or more values."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def seed_difference(
    first: Mapping[int | None, float],
    second: Mapping[int | None, float],
    questions: QuestionVariance | None = None,
    *,
    doubt: str = "",
) -> Difference:
    """Compute the difference of two methods over training seeds, paired by seed where both have it.

    Args:
        first: seed to value. A single value counts as one fixed model, whatever its seed.
        second: likewise, for example the untrained model.
        questions: uncertainty of the difference over the same questions; None: the interval covers only seeds.
        doubt: see `Difference`.

    Returns:
        The mean difference. With two or more common seeds: paired by seed, so that shared randomness (order of
        the data) cancels. With one fixed model: over the seeds of the other. Without common seeds: Welch's
        interval. With one value on each side: only over questions.
    """
    also = "" if questions is None else " and questions"
    over = [] if questions is None else [questions.variance]
    common = sorted(set(first) & set(second), key=str)
    one, other = list(first.values()), list(second.values())
    if len(common) >= 2:
        gaps = [first[seed] - second[seed] for seed in common]
        value, seeds = math.fsum(gaps) / len(gaps), [_of_mean(gaps)]
        method = f"paired t over {len(gaps)} seeds{also}"
    else:
        value = math.fsum(one) / len(one) - math.fsum(other) / len(other)
        seeds = [_of_mean(values) for values in (one, other) if len(values) > 1]
        method = f"Welch over seeds{also}" if len(seeds) == 2 else f"t over {max(len(one), len(other))} seeds{also}"
    if not seeds:
        return Difference(value, questions.interval if questions else None, doubt)
    wide = covering_half_width(seeds, over)
    return Difference(value, Interval(low=value - wide, high=value + wide, method=method), doubt)


def _of_mean(values: Sequence[float]) -> Variance:
    """Variance of the mean of two or more values."""
    return Variance(deviation_of(values) ** 2 / len(values), len(values) - 1)


LEVEL = 0.05
LEAST_IMAGES = 25
"""Smallest number of independent images for a significant difference."""
LEAST_UNEVEN = 6
"""Smallest number that the two models answer differently: with five, all for one side, an exact test gives p = 0.06."""


def doubt_of(questions: QuestionVariance | None, *, leaked: bool = False, missing: bool = False) -> str:
    """Return why a difference may not be called significant, whatever its interval; "" if it may.

    Args:
        questions: uncertainty over questions; None if the two do not have the same items.
        leaked: images of these questions were trained on.
        missing: images of these questions are missing.
    """
    if leaked:
        return "benchmark images were trained on"
    if missing:
        return "benchmark images are missing"
    if questions is None:
        return "not the same items, or no verdicts beside the results"
    if questions.images < LEAST_IMAGES:
        return f"fewer than {LEAST_IMAGES} images"
    if questions.uneven < LEAST_UNEVEN:
        return f"fewer than {LEAST_UNEVEN} images are answered differently"
    return ""


def p_over_seeds(gaps: Sequence[float]) -> float | None:
    """Return the two-sided p-value of a paired t-test over seeds; None for one seed."""
    if len(gaps) < 2:
        return None
    from scipy.special import stdtr

    mean, deviation = sum(gaps) / len(gaps), deviation_of(gaps)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return min(1.0, 2 * float(stdtr(len(gaps) - 1, -abs(mean) / deviation * len(gaps) ** 0.5)))


def p_over_questions(value: float, questions: QuestionVariance | None) -> float | None:
    """Return the two-sided p-value of a z-test with the standard error over questions."""
    if questions is None:
        return None
    if questions.error == 0:
        return 1.0 if value == 0 else 0.0
    from scipy.special import ndtr

    return min(1.0, 2 * float(ndtr(-abs(value) / questions.error)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Apply Holm's correction to p-values; None stays None and does not count as a test."""
    tests = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(tests):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        corrected[place] = highest
    return corrected


RunValues = Mapping[tuple[int | None, str], float]
"""(Training seed, replicate) to a value; the plan's own runs have the replicate ""."""


@dataclass(frozen=True)
class Source:
    """Effect of one source of variance on a value.

    Attributes:
        name: "training seed", or what replicates change.
        n: number of levels, including the plan's own.
        deviation: sample standard deviation over the levels.
        low, high: 95 % interval of the deviation (chi-square, assuming normal values).
        shift: mean over the levels minus the plan's own; 0 for training seeds.
    """

    name: str
    n: int
    deviation: float
    low: float
    high: float
    shift: float = 0.0


@dataclass(frozen=True)
class Overall:
    """A value over all sources.

    Attributes:
        value: for an average seed, average negatives and an average world.
        half_width: of its 95 % interval.
        sources: the sources that were varied.
    """

    value: float
    half_width: float
    sources: tuple[Source, ...]


def over_sources(
    values: RunValues, replicates: Mapping[str, Sequence[str]], questions: QuestionVariance | None
) -> Overall | None:
    """Compute deviations by source, and the value with an interval over all of them.

    Args:
        values: of one model, or of one minus another.
        replicates: name of a source to the replicates that vary only this source.
        questions: uncertainty of the plan's own mean over questions.

    Returns:
        None if only the training seed was varied.
    """
    own = {seed: value for (seed, replicate), value in values.items() if not replicate}
    sources = [_source("training seed", list(own.values()))] if len(own) > 1 else []
    varied = 0
    for name, titles in replicates.items():
        there = [title for title in titles if any(replicate == title for _, replicate in values)]
        common = [seed for seed in own if all((seed, title) in values for title in there)]
        if there and common:
            levels = [math.fsum(values[seed, title] for seed in common) / len(common) for title in ("", *there)]
            sources.append(_source(name, levels, shifted=True))
            varied += 1
    if not varied:
        return None
    value = math.fsum(own.values()) / len(own) + math.fsum(source.shift for source in sources)
    variances = [Variance(source.deviation**2 / source.n, source.n - 1) for source in sources]
    parts = [[variance] for variance in (*variances, *([questions.variance] if questions else []))]
    return Overall(value, covering_half_width(*parts), tuple(sources))


def _source(name: str, levels: Sequence[float], *, shifted: bool = False) -> Source:
    low, high = deviation_factors(len(levels))
    deviation = deviation_of(levels)
    shift = math.fsum(levels) / len(levels) - levels[0] if shifted else 0.0
    return Source(name, len(levels), deviation, low * deviation, high * deviation, shift)


def deviation_factors(n: int) -> tuple[float, float]:
    """Return the ends of the 95 % chi-square interval of a standard deviation of n values, as factors of it."""
    from scipy.special import chdtri

    return math.sqrt((n - 1) / float(chdtri(n - 1, TAIL))), math.sqrt((n - 1) / float(chdtri(n - 1, 1 - TAIL)))
