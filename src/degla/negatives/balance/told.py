"""How far pairs are told from their texts alone: classifiers learn on half of the images, the others are asked about.

Three look at one thing each, a fourth at all: words (report/blind.py: words, pairs of words, runs of letters), length
in letters, likelihood. Each half is learned from once, and the two shares are averaged. Chance is one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degla.negatives.balance.signs import CandidatePair
from degla.negatives.report.blind import FEWEST, CaptionNegative, blind_across, words_and_pairs

Halves = tuple[Sequence[CandidatePair], Sequence[CandidatePair]]
"""Pairs of two halves of the images, which share none."""

_CHANCE: Final = 0.5


@dataclass(frozen=True)
class Told:
    """Shares of pairs of images not learned from that each classifier tells.

    Attributes:
        n: pairs asked about.
        words: by words, pairs of words, runs of letters.
        length: by which text is shorter, or longer.
        likelihood: by which text is likelier, or less likely.
        all: by all of it together.
    """

    n: int
    words: float
    length: float
    likelihood: float
    all: float

    @property
    def most(self) -> float:
        """What the best classifier tells."""
        return max(self.words, self.length, self.likelihood, self.all)

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


def measure_told(halves: Halves) -> Told | None:
    """Ask all classifiers; None where a half has fewer than 40 pairs."""
    if min(map(len, halves)) < FEWEST:
        return None
    first, second = halves
    both = ((first, second), (second, first))
    return Told(
        sum(map(len, halves)),
        _mean(told_by_words(one, other) for one, other in both),
        _mean(_direction([pair.longer for pair in one], [pair.longer for pair in other]) for one, other in both),
        _mean(_direction([pair.likelier for pair in one], [pair.likelier for pair in other]) for one, other in both),
        _mean(told_by_all(one, other) for one, other in both),
    )


def told_by_words(learned: Sequence[CandidatePair], asked: Sequence[CandidatePair]) -> float:
    """The share of pairs that a classifier of words tells: where length and likelihood are balanced, the sharpest."""
    return blind_across(_texts(learned), _texts(asked))


def told_quickly(learned: Sequence[CandidatePair], asked: Sequence[CandidatePair]) -> float:
    """As `told_by_words`, by words and pairs of words alone: less sharp, and a fraction of the time."""
    return blind_across(_texts(learned), _texts(asked), features=words_and_pairs)


def told_by_all(learned: Sequence[CandidatePair], asked: Sequence[CandidatePair]) -> float:
    """The share of pairs that a classifier of words, length and likelihood tells."""
    cues = np.array([(pair.longer / 10, pair.likelier) for pair in (*learned, *asked)])
    cues = np.hstack([np.clip(cues, -1, 1), np.sign(cues)])
    return blind_across(_texts(learned), _texts(asked), extra=cues.tolist())


def _direction(learned: Sequence[float], asked: Sequence[float]) -> float:
    """The share told by one number, whose better direction is learned; ties one half."""
    way = 1 if _lead(learned).mean() >= _CHANCE else -1
    return float(_lead([way * value for value in asked]).mean())


def _lead(values: Sequence[float]) -> NDArray[np.float64]:
    leads: NDArray[np.float64] = (np.sign(np.array(values, dtype=np.float64)) + 1) / 2
    return leads


def _texts(pairs: Sequence[CandidatePair]) -> list[CaptionNegative]:
    return [CaptionNegative(pair.caption, pair.negative, "") for pair in pairs]


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]
