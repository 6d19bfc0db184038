"""How captions use words: how often each occurs, and which stands next to which, articles left out.

What comes into a caption from a list made by hand betrays itself where captions seldom say it ("a globe", "bandaged").
Drawn in proportion to how likely captions have it in such a place, between the word before and the word after, a word
comes in about as often as it goes out. What captions never say keeps a small share: then the lists decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Final

_ARTICLES: Final = frozenset({"a", "an", "the"})
_MOST: Final = 400_000
"""Different pairs in memory; when there are more, those that came once are forgotten."""
_KEPT: Final = 50_000
"""Pairs that are kept in the end, the most frequent: batches carry them to other processes."""
_UNSEEN: Final = 1.0
"""Times that every word of a list counts more than it was seen."""
_TRUST: Final = 5.0
"""Observations beside a neighbour that a word's frequency as a whole counts for."""


class UsageCounter:
    """Counts over captions; `usage` gives the result."""

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, content: Sequence[str]) -> None:
        """Count the words of one caption, as `words.content` gives them."""
        said = [word for word in content if word not in _ARTICLES]
        self._words.update(said)
        self._pairs.update(pairwise(said))
        if len(self._pairs) > _MOST:
            self._pairs = Counter({pair: times for pair, times in self._pairs.items() if times > 1})

    def usage(self) -> WordUsage:
        """What was counted; equally frequent pairs are kept in the order of the alphabet."""
        often = sorted((-times, pair) for pair, times in self._pairs.items() if times > 1)[:_KEPT]
        words = Counter({word: times for word, times in self._words.items() if times > 1})
        return WordUsage(words, {pair: -times for times, pair in often}, self._words.total())


@dataclass(frozen=True, eq=False)
class WordUsage:
    """Counts of words and of pairs of neighbours; what came once is left out.

    Attributes:
        words: occurrences of each word, lower case.
        pairs: occurrences of two words next to each other.
        total: words of all captions.
    """

    words: Counter[str]
    pairs: dict[tuple[str, str], int]
    total: int

    def shuffle(self, words: Sequence[str], forms: Sequence[str], between: tuple[str, str], rng: Random) -> list[str]:
        """Words in random order, the likely ones first more often (Efraimidis and Spirakis 2006).

        Args:
            words: to be put in order.
            forms: how each would be written in its place.
            between: the words before and after the place, articles left out; "" where there is none.
            rng: draws.
        """
        weights = self.weights(tuple(forms), between)
        keys = [rng.random() ** (1 / weight) for weight in weights]
        return [word for _, word in sorted(zip(keys, words, strict=True), reverse=True)]

    @lru_cache(maxsize=16_384)  # noqa: B019 - lives as long as the run
    def weights(self, forms: tuple[str, ...], between: tuple[str, str]) -> list[float]:
        """How likely each form is between two words, relative to the likeliest."""
        before, after = between
        found = [self._likely(form, before, after) for form in forms]
        most = max(found, default=1.0)
        return [max(value / most, 1e-3) for value in found]

    def _likely(self, form: str, before: str, after: str) -> float:
        pieces = form.split()
        first, last = pieces[0], pieces[-1]
        times = min(self.words[piece] for piece in pieces) + _UNSEEN
        likely = times / self.total
        if before:
            likely = (self.pairs.get((before, first), 0) + _TRUST * likely) / (self.words[before] + _TRUST)
        if after:
            share = (self.words[after] + _UNSEEN) / self.total
            likely *= (self.pairs.get((last, after), 0) + _TRUST * share) / (times + _TRUST)
        return likely


def nearest(content: Iterable[str]) -> str:
    """The first word that is no article; "" where there is none."""
    return next((word for word in content if word not in _ARTICLES), "")
