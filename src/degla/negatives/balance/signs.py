"""What a caption and its negative show to somebody who sees no image, as numbers that ought to be 0 on average.

Every sign is a difference, the caption's less the negative's: counts of words and of pairs of words, length in words
and letters, log-likelihood. Where the mean of every sign over the pairs is 0, no linear classifier of pairs (report/
blind.py) has anything to learn.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from zlib import crc32

from degla.negatives.grammar import words

SIGNS: Final = 2**18
"""Places for signs; names are hashed into them."""
_CUE: Final = 3.0
"""How much more one sign of length or likelihood counts than one word: every pair has them."""


class CandidatePair(NamedTuple):
    """A caption and one candidate for its negative, with the log-likelihoods of both."""

    caption: str
    negative: str
    caption_likely: float
    negative_likely: float

    @property
    def longer(self) -> int:
        """By how many letters the caption is longer."""
        return len(self.caption) - len(self.negative)

    @property
    def likelier(self) -> float:
        """By how much the caption is likelier, nats a word."""
        return self.caption_likely - self.negative_likely


def signs(pair: CandidatePair) -> dict[int, float]:
    """The signs of one pair that are not 0, by their places."""
    counts = Counter(_counts(pair.caption))
    counts.subtract(_counts(pair.negative))
    found: dict[int, float] = {}
    for name, times in counts.items():
        if times:
            found[name] = found.get(name, 0.0) + times
    size, other = len(words.content(pair.caption)), len(words.content(pair.negative))
    whole = pair.caption_likely * (size + 1) - pair.negative_likely * (other + 1)
    measured = ((float(size - other), 3.0), (float(pair.longer), 10.0), (pair.likelier, 1.0), (whole, 5.0))
    for number, (value, scale) in enumerate(measured):
        # The direction alone tells a pair; the size tells it in a sum with other signs.
        for kind, cue in (
            ("direction", float((value > 0) - (value < 0))),
            ("size", max(-1.0, min(1.0, value / scale))),
        ):
            if cue:
                found[_place(f"#{number} {kind}")] = _CUE * cue
    return found


@lru_cache(maxsize=4_096)
def _counts(text: str) -> Counter[int]:
    pieces = ["<", *(piece for piece, _ in words.split(text.lower())), ">"]
    return Counter([*map(_place, pieces), *(_place(f"{one} {other}") for one, other in pairwise(pieces))])


@lru_cache(maxsize=65_536)
def _place(name: str) -> int:
    return crc32(name.encode()) % SIGNS
