"""Where the variance of a result comes from: training seed, negatives, worlds; and an interval that covers them all.

One source is varied at a time around the runs of the plan as it is. The deviation over a source is that of the means,
over the training seeds in common, with each of its levels; the plan's own level is one of them. Effects are taken to
add up, so the value over all sources is the plan's mean plus, for each source, what its levels are on average above
the plan's own level; its variance is the sum of s² / n over sources and of the variance over questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from degla.statistics.seeds import QuestionVariance, covering_half_width, deviation_of

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


def deviation_factors(n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Ends of the chi-square interval of a standard deviation of n values, in parts of it."""
    from scipy.special import chdtri

    tail = (1 - level) / 2
    return math.sqrt((n - 1) / float(chdtri(n - 1, tail))), math.sqrt((n - 1) / float(chdtri(n - 1, 1 - tail)))
