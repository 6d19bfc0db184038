"""Numbers as a study prints them: scores in percent, differences in points, each with its 95 % interval."""

from __future__ import annotations

import re

from degla.statistics.seeds import Difference, Spread
from degla.statistics.sources import Overall, Source


def mean_of(value: Spread) -> str:
    """A score in percent, "61.3"."""
    return f"{100 * value.mean:.1f}"


def width(value: Spread) -> str:
    """Half the interval's width, " ± 0.8"; empty where there is none."""
    return "" if value.half_width is None else f" ± {100 * value.half_width:.1f}"


def spread(value: Spread) -> str:
    """Mean and interval of a score, "61.3 ± 0.8"."""
    return mean_of(value) + width(value)


def as_values(value: Spread) -> dict[str, float | int | None]:
    """A score with its spread as JSON values, 0 to 1."""
    return {"mean": value.mean, "deviation": value.deviation, "half_width": value.half_width, "n": value.n}


def points(value: Spread) -> str:
    """Mean and interval of a difference, "+3.1 ± 0.8"."""
    return signed(value.mean) + width(value)


def signed(value: float) -> str:
    """A difference in points, "+3.1" or "−3.1"."""
    return f"{100 * value:+.1f}".replace("-", "−")


def interval(value: Difference) -> str:
    """The interval of a difference in points, "[+1.0, +2.0]", or a dash."""
    if value.interval is None:
        return "–"
    return f"[{signed(value.interval.low)}, {signed(value.interval.high)}]"


def p_value(value: float | None) -> str:
    """ "0.013", "< 0.001", or a dash."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def deviation(value: Source | None) -> str:
    """A standard deviation in points with its interval and n, "0.8 [0.5, 2.3] (5)", or a dash."""
    if value is None:
        return "–"
    return f"{100 * value.deviation:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}] ({value.n})"


def overall(value: Overall) -> str:
    """A value over all sources in points, "+3.1 ± 1.2"."""
    return f"{signed(value.value)} ± {100 * value.half_width:.1f}"


def unbroken(label: str) -> str:
    """A label whose numbers, such as 1e-4, do not break at the end of a line."""
    return re.sub(r"(?<=\w)-(?=\d)", "\N{NON-BREAKING HYPHEN}", label)


def seconds(value: float) -> str:
    """ "42 s" or "12.3 min"."""
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"
