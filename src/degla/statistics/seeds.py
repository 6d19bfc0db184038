"""Means and differences over training seeds and other sources of chance, with intervals that cover the questions too.

The variance of a mean over seeds, s² / n, and that of the same score over questions (verdicts averaged over the seeds,
images drawn) are added, with the degrees of freedom of Welch and Satterthwaite. What seed and question do together is
in both, so the sum counts it twice: such an interval is rather too wide. It is never narrower than over seeds alone.

Where the variance of a result comes from (`over_sources`): one source is varied at a time around the runs of the plan
as it is. The deviation over a source is that of the means, over the training seeds in common, with each of its levels;
the plan's own level is one of them. Effects are taken to add up, so the value over all sources is the plan's mean plus,
for each source, what its levels are on average above the plan's own level; its variance is the sum of s² / n over
sources and of the variance over questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from degla.results import Interval
from degla.statistics.proportions import FEW, TAIL, Contributions, FloatArray, Z, lead_interval, share_interval


@dataclass(frozen=True)
class QuestionVariance:
    """What other questions would do to a score or a difference.

    Attributes:
        error: standard error.
        images: independent images behind it.
        uneven: images that are answered otherwise than the rest; of a difference, that two models answer differently.
        interval: 95 % over questions alone; None for a single image.
    """

    error: float
    images: int
    uneven: int
    interval: Interval | None

    @property
    def variance(self) -> tuple[float, int]:
        """Variance, and its degrees of freedom."""
        return self.error**2, max(1, self.images - 1)


def over_questions(draws: FloatArray, parts: Contributions, *, paired: bool = False) -> QuestionVariance | None:
    """Standard error and interval over questions; None where one image is all there is.

    Args:
        draws: a score, or with `paired` a difference of two, in each bootstrap draw.
        parts: what each image adds to it.
        paired: whether it is a difference.
    """
    interval = (lead_interval if paired else share_interval)(draws, parts)
    if interval is None:
        return None
    error = float(np.nanstd(draws, ddof=1))
    if parts.telling < FEW:
        error = max(error, (interval.high - interval.low) / (2 * Z))
    return QuestionVariance(error, parts.images, parts.uneven, interval)


@dataclass(frozen=True)
class Spread:
    """A mean over training seeds.

    Attributes:
        mean: of the values.
        deviation: sample standard deviation (n - 1) over seeds; None for one value.
        half_width: of the 95 % interval of the mean over seeds and questions, as far as each is known; else None.
        n: number of values.
        covers: what varies in the interval: "seeds and questions", "seeds", "questions", or "".
    """

    mean: float
    deviation: float | None
    half_width: float | None
    n: int
    covers: str = ""

    @property
    def interval(self) -> Interval | None:
        """Of the mean."""
        if self.half_width is None:
            return None
        low, high = self.mean - self.half_width, self.mean + self.half_width
        return Interval(low=low, high=high, method=f"t over {self.covers.replace('seeds', f'{self.n} seeds')}")


@dataclass(frozen=True)
class Difference:
    """The first minus the second.

    Attributes:
        value: the difference.
        interval: 95 %; None where there is nothing to make one from.
        doubt: why it may not be called significant, whatever its interval (`doubt_of`); "" where it may.
    """

    value: float
    interval: Interval | None
    doubt: str = ""

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0, and nothing speaks against saying so."""
        return not self.doubt and self.interval is not None and not self.interval.low <= 0 <= self.interval.high


def half_width(variances: Iterable[tuple[float, int]]) -> float:
    """Half of the 95 % t-interval of a sum of independent parts (Welch, Satterthwaite).

    Args:
        variances: each part's variance with its degrees of freedom.
    """
    from scipy.special import stdtrit

    known = [(variance, freedom) for variance, freedom in variances if variance > 0]
    total = math.fsum(variance for variance, _ in known)
    if not known:
        return 0.0
    freedom = total**2 / math.fsum(variance**2 / freedom for variance, freedom in known)
    return float(stdtrit(freedom, 1 - TAIL)) * math.sqrt(total)


def covering_half_width(*sources: Sequence[tuple[float, int]]) -> float:
    """Half of the interval over several sources of chance, at least as wide as that over any one of them.

    Two or three seeds often show too small a deviation; the many degrees of freedom that questions bring would then
    hide how little is known (87 to 91 % held in place of 95 %, simulated).

    Args:
        sources: the variances of each, with their degrees of freedom.
    """
    return max(half_width([part for parts in sources for part in parts]), *map(half_width, sources))


def seed_spread(values: Sequence[float], questions: QuestionVariance | None = None) -> Spread:
    """Mean, standard deviation over training seeds, and the interval of the mean.

    Args:
        values: one a seed.
        questions: of the mean of the values over questions; None: the interval is over seeds alone.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value to take a mean of")
    n, mean = len(values), math.fsum(values) / len(values)
    over = [] if questions is None else [questions.variance]
    if n == 1:
        return Spread(mean, None, half_width(over) if over else None, 1, "questions" if over else "")
    wide = covering_half_width([_of_mean(values)], over)
    return Spread(mean, deviation_of(values), wide, n, "seeds and questions" if over else "seeds")


def deviation_of(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1) of two values or more."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def seed_difference(
    first: Mapping[int | None, float],
    second: Mapping[int | None, float],
    questions: QuestionVariance | None = None,
    *,
    doubt: str = "",
) -> Difference:
    """Difference of two methods over training seeds, seed by seed where both have it.

    Args:
        first: seed to value. A single value counts as one fixed model, whatever its seed is called.
        second: likewise, for example the untrained model.
        questions: of the difference, over the same questions; None: the interval is over seeds alone.
        doubt: see `Difference`.

    Returns:
        The mean difference. With two or more seeds in common: over the pairs, whose shared part of chance (order of
        the data) cancels. With one fixed model: over the seeds of the other. Without a seed in common: Welch's
        interval. One value on both sides: over questions alone.
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


def _of_mean(values: Sequence[float]) -> tuple[float, int]:
    """Variance of the mean of two values or more, and its degrees of freedom."""
    return deviation_of(values) ** 2 / len(values), len(values) - 1


LEVEL = 0.05
LEAST_IMAGES = 25
"""Independent images behind a difference that may be called significant."""
LEAST_UNEVEN = 6
"""Of them, those that the two models answer differently: with five, all for one side, an exact test gives p = 0.06."""


def doubt_of(questions: QuestionVariance | None, *, leaked: bool = False, missing: bool = False) -> str:
    """Why a difference may not be called significant, whatever its interval; "" where it may.

    Args:
        questions: of the difference; None where the two do not have the same items.
        leaked: images of these questions were trained on.
        missing: images of these questions were not there.
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
    """Two-sided p-value of a paired t-test of differences seed by seed; None for one seed."""
    if len(gaps) < 2:
        return None
    from scipy.special import stdtr

    mean, deviation = sum(gaps) / len(gaps), deviation_of(gaps)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return min(1.0, 2 * float(stdtr(len(gaps) - 1, -abs(mean) / deviation * len(gaps) ** 0.5)))


def p_over_questions(value: float, questions: QuestionVariance | None) -> float | None:
    """Two-sided p-value of a normal test by the standard error over questions."""
    if questions is None:
        return None
    if questions.error == 0:
        return 1.0 if value == 0 else 0.0
    from scipy.special import ndtr

    return min(1.0, 2 * float(ndtr(-abs(value) / questions.error)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of p-values; None stays None and does not count."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[place] = highest
    return corrected


RunValues = Mapping[tuple[int | None, str], float]
"""(Training seed, replicate) to a value; the plan as it is has the replicate ""."""


@dataclass(frozen=True)
class Source:
    """What one source does to a value.

    Attributes:
        name: "training seed", or what replicates change.
        n: levels, the plan's own among them.
        deviation: sample standard deviation over the levels.
        low, high: 95 % interval of the deviation (chi-square, values taken as normal).
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
        value: of a mean seed, mean negatives and a mean world.
        half_width: of its 95 % interval.
        sources: what was varied.
    """

    value: float
    half_width: float
    sources: tuple[Source, ...]


def over_sources(
    values: RunValues, replicates: Mapping[str, Sequence[str]], questions: QuestionVariance | None
) -> Overall | None:
    """Deviations by source, and the value with an interval over all of them.

    Args:
        values: of one model, or of one minus another.
        replicates: name of a source to the replicates that vary it alone.
        questions: of the plan's own mean.

    Returns:
        None where nothing but the training seed was varied.
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
    variances = [(source.deviation**2 / source.n, source.n - 1) for source in sources]
    parts = [[variance] for variance in (*variances, *([questions.variance] if questions else []))]
    return Overall(value, covering_half_width(*parts), tuple(sources))


def _source(name: str, levels: Sequence[float], *, shifted: bool = False) -> Source:
    low, high = deviation_factors(len(levels))
    deviation = deviation_of(levels)
    shift = math.fsum(levels) / len(levels) - levels[0] if shifted else 0.0
    return Source(name, len(levels), deviation, low * deviation, high * deviation, shift)


def deviation_factors(n: int) -> tuple[float, float]:
    """Ends of the 95 % chi-square interval of a standard deviation of n values, in parts of it."""
    from scipy.special import chdtri

    return math.sqrt((n - 1) / float(chdtri(n - 1, TAIL))), math.sqrt((n - 1) / float(chdtri(n - 1, 1 - TAIL)))
