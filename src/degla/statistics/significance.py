"""p-values, their correction, and what a difference needs before it may be called one."""

from __future__ import annotations

from collections.abc import Sequence

from degla.statistics.seeds import QuestionVariance, deviation_of

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
