"""Format numbers for pages and terminals: scores in percent, differences in points, intervals, durations, counts."""

from __future__ import annotations

import re
from collections.abc import Callable

UNKNOWN = "–"
"""Placeholder for a missing number."""
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""All control characters except the newline."""


def percent(value: float | None) -> str:
    """Format 0.6134 as "61.3"; a dash for None."""
    return UNKNOWN if value is None else minus(f"{100 * value:z.1f}")


def points(value: float) -> str:
    """Format a difference of scores in points: 0.031 as "+3.1", -0.031 as "−3.1"."""
    # "z": what rounds to zero is no loss, such as means of equal scores that differ in their last bits. Rounded twice:
    # such bits, which depend on the order of a sum, would decide whether a page has 1.25 as 1.2 or as 1.3.
    return minus(f"{round(100 * value, 9):+z.1f}")


def signed_cosine(value: float) -> str:
    """Format a difference of cosines: 0.0612 as "+0.061"."""
    return minus(f"{value:+z.3f}")


def interval(low: float, high: float, number: Callable[[float], str] = percent) -> str:
    """Format as "[59.9, 62.8]", each end with `number`."""
    return f"[{number(low)}, {number(high)}]"


def p_value(value: float | None) -> str:
    """Format as "0.013", "< 0.001", or a dash for None."""
    if value is None:
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Format as "42 s", "12.3 min" or "3.4 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rate(value: float) -> str:
    """Format a speed: 0.0234 as "0.023", 32.34 as "32.3", 3456.7 as "3,457"; no speed above 0 is shown as 0."""
    return f"{value:.2g}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def counted(number: int, noun: str, several: str = "") -> str:
    """Format a count: "1 seed", "8,000 captions"; with an explicit plural, "1 class is", "2 classes are"."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def capitalized(sentence: str) -> str:
    """Capitalise the first letter only; leave the others unchanged."""
    return sentence[:1].upper() + sentence[1:]


def minus(text: str) -> str:
    """Replace hyphens by minus signs, which are as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def printable(text: str) -> str:
    """Escape control characters and marks that change the text direction, so that a terminal does not obey them."""
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def cell_of(text: str) -> str:
    """Return a text on one line that a spreadsheet takes as text: texts are not trusted, and "=..." is a formula. A
    terminal may show the file, too."""
    line = printable(" ".join(text.split()))
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
