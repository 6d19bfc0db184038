"""Words of a text, treated alike in captions and negatives: splitting, joining, "a" and "an", number, frequency.

Everything depends only on the text, so checking a negative needs no tagger.

Words from a hand-written list give a negative away if captions rarely use them ("a globe", "bandaged"). `WordUsage`
therefore draws a word in proportion to its likelihood between the previous and the next word in captions, so it is
inserted about as often as it is removed. Words that captions never use keep a small share, which leaves them to the
lists.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Final

from degla.negatives.grammar.lexicon import lexicon
from degla.tagger import inflections

_WORD: Final = r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*"
"""Letters and digits with their accents, which are characters of their own in Unicode's form NFD."""
_PIECE: Final = re.compile(
    rf"\bcan(?=not\b)|[^\W_]+?(?=n['’]t\b)|n['’]t\b|{_WORD}(?:[-&/.]{_WORD})*|['’](?:s|re|ve|ll|d|m)\b|\S",
    re.IGNORECASE,
)
_AN: Final = re.compile(r"(?:[aeiou]|hour|honest|honou?r|heir|x-ray\b|[fhlmnrsx]\b|8|11\b|18\b)", re.IGNORECASE)
_NOT_AN: Final = re.compile(
    r"(?:one\b|ones\b|once|one-|ubi|uf[ao]|uk[ue]|ur[ai]|us[aeiu]|ut[ei]|uni(?!n|m)|eu|ewe|usa\b|uk\b|u\b|u-)",
    re.IGNORECASE,
)

_SPELT: Final = re.compile(r"[fhlmnrsx][^aeiouy\W_]*", re.IGNORECASE)
"""Words spelt out letter by letter that start with a vowel sound: "LCD", "mp3"."""
_SHORT: Final = frozenset({"mr", "mrs", "ms", "st", "ft", "rd", "hrs", "sq"})

_INDEFINITE: Final = frozenset({"a", "an", "A", "An", "AN"})
_PLURALS: Final = {"person": "people", "ox": "oxen"}
"""Plurals that lemminflect gets wrong ("persons", "oxes")."""
_SINGULARS: Final = {"leaves": "leaf", "oxen": "ox"}
"""Singulars that lemminflect gets wrong ("leave", "oxen")."""

ARTICLES: Final = frozenset({"a", "an", "the"})
DETERMINERS_OF_ONE: Final = frozenset({"a", "an", "one", "this", "that", "each", "every", "another", "1"})
DETERMINERS_OF_MANY: Final = frozenset(
    {"two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "these", "those", "several", "many",
     "few", "both", "various", "numerous", "multiple", "2", "3", "4", "5", "6", "7", "8", "9", "10"}
)  # fmt: skip
COUNTING: Final = DETERMINERS_OF_ONE | DETERMINERS_OF_MANY

_MOST: Final = 400_000
"""Maximum different pairs in memory; beyond that, the rarest are dropped until half remain."""
_KEPT: Final = 50_000
"""Number of most frequent pairs kept in the end; they are sent to other processes with batches."""
_UNSEEN: Final = 1.0
"""Pseudo-count added to every word of a list."""
_TRUST: Final = 5.0
"""Weight of a word's overall frequency, in observations next to a neighbour."""
_SEEN: Final = 3
"""Minimum occurrences in captions of a word that must be in common use."""


@lru_cache(maxsize=4_096)
def split(text: str) -> tuple[tuple[str, bool], ...]:
    """Split a text into (word or punctuation mark, whether a space or the start comes before it)."""
    places = spans(text)
    before = ((-1, -1), *places)
    return tuple((text[start:end], start != last) for (start, end), (_, last) in zip(places, before, strict=False))


@lru_cache(maxsize=4_096)
def spans(text: str) -> tuple[tuple[int, int], ...]:
    """Return where the pieces of `split` start and end in the text."""
    return tuple(match.span() for match in _PIECE.finditer(text))


def lower_case(piece: str) -> str:
    """Return a piece in lower case with a straight apostrophe, so that "n’t" and "n't" are one word."""
    return piece.lower().replace("’", "'")


def is_word(piece: str) -> bool:
    """Whether a piece has a letter or digit in it."""
    return piece[0].isalnum() or len(piece) > 1


@lru_cache(maxsize=4_096)
def content(text: str) -> tuple[str, ...]:
    """Return lower-case words without punctuation, "an" as "a": texts with equal content count as the same."""
    lower = [lower_case(piece) for piece, _ in split(text) if is_word(piece)]
    return tuple(["a" if word == "an" else word for word in lower])


def shared_ends(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """Return how many words two texts share at the start, and of the rest at the end."""
    shorter = min(len(one), len(other))
    start = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    rest = shorter - start
    return start, next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)


def article(word: str) -> str:
    """Return "a" or "an" by the first sound of the next word."""
    if _SPELT.fullmatch(word) and word.lower() not in _SHORT:
        return "an"
    return "an" if _AN.match(word) and not _NOT_AN.match(word) else "a"


def fit_articles(words: Sequence[str]) -> list[str]:
    """Correct every "a" and "an" for the next word, keeping letter case."""
    result = list(words)
    for place, word in enumerate(words[:-1]):
        if word in _INDEFINITE and words[place + 1] not in _INDEFINITE:  # "a a dog" is beyond repair
            right = article(words[place + 1])
            if word.lower() != right:
                shouted = words[place + 1].isupper() and len(words[place + 1]) > 1
                result[place] = right if word[0] == "a" else right.upper() if shouted else right.capitalize()
    return result


def articles_fit(text: str) -> bool:
    """Whether every "a" and "an" of a text matches the next word."""
    words = [piece for piece, _ in split(text)]
    return fit_articles(words) == words


def repair_articles(text: str) -> str:
    """Return the text with every "a" and "an" corrected for the next word, otherwise unchanged."""
    pieces = fit_articles([piece for piece, _ in split(text)])
    for (start, end), word in reversed([*zip(spans(text), pieces, strict=True)]):
        text = text[:start] + word + text[end:]
    return text


@lru_cache(maxsize=65_536)
def plural(noun: str) -> str:
    """Return the plural of a noun given in its dictionary form."""
    words = lexicon().words
    if noun in words["plural_only"] or noun in words["invariant"]:
        return noun
    if noun in _PLURALS:
        return _PLURALS[noun]
    if "-" in noun:
        first, _, last = noun.rpartition("-")
        return f"{first}-{plural(last)}"
    return _first(inflections().getInflection(noun, "NNS"), noun + "s")


@lru_cache(maxsize=65_536)
def singular(noun: str) -> str:
    """Return the dictionary form of a noun in either number, in lower case."""
    tables, noun = lexicon(), noun.lower()
    if noun in tables.words["plural_only"] or noun in tables.words["invariant"]:
        return noun
    if noun in _SINGULARS:
        return _SINGULARS[noun]
    if noun.endswith("ies") and tables.is_noun(noun[:-1]):
        return noun[:-1]  # "veggies", "cookies", "brownies": lemminflect makes "veggy"
    lemma = _first(inflections().getLemma(noun, "NOUN"), noun)
    return noun if tables.is_noun(noun) and not tables.is_noun(lemma) else lemma


def is_plural(noun: str) -> bool:
    """Whether a noun form is a plural; forms that are both ("sheep") are not."""
    noun = noun.lower()
    return noun in lexicon().words["plural_only"] or singular(noun) != noun


@lru_cache(maxsize=65_536)
def is_known(word: str) -> bool:
    """Whether an English dictionary has the word in any form."""
    tables, word = lexicon(), word.lower()
    return bool(inflections().getAllLemmas(word)) or tables.is_noun(word) or tables.is_adjective(word)


@lru_cache(maxsize=65_536)
def verb(form: str) -> str:
    """Return the dictionary form of a verb in any form, in lower case."""
    return _first(inflections().getLemma(form, "VERB"), form)


@lru_cache(maxsize=65_536)
def conjugate(verb: str, tag: str) -> str:
    """Return a verb in the form of a Penn Treebank tag: "VBG" of "sit" is "sitting"."""
    if verb == "lie":
        return {"VBG": "lying", "VBD": "lay", "VBN": "lain", "VBZ": "lies"}.get(tag, "lie")
    return _first(inflections().getInflection(verb, tag), verb)


def _first(forms: Sequence[object], otherwise: str) -> str:
    """Return the first form in the dictionary, which is the usual one."""
    return str(forms[0]) if forms else otherwise


class UsageCounter:
    """Counts words and pairs of neighbouring words in captions, ignoring articles.

    `usage` returns the result.
    """

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()

    def add(self, content: Sequence[str]) -> None:
        """Count the words of one caption, as returned by `words.content`."""
        words = [word for word in content if word not in ARTICLES]
        self._words.update(words)
        self._pairs.update(pairwise(words))
        if len(self._pairs) > _MOST:
            least = 1
            while len(self._pairs) > _MOST // 2:  # else every further caption would drop pairs again
                least += 1
                self._pairs = Counter({pair: times for pair, times in self._pairs.items() if times >= least})

    def usage(self) -> WordUsage:
        """Return the counts; of equally frequent pairs, the alphabetically first are kept."""
        often = sorted((-times, pair) for pair, times in self._pairs.items() if times > 1)[:_KEPT]
        words = Counter({word: times for word, times in self._words.items() if times > 1})
        return WordUsage(words, {pair: -times for times, pair in often}, self._words.total())


@dataclass(frozen=True, eq=False)
class WordUsage:
    """Counts of words and of pairs of neighbours; those seen once are omitted.

    Attributes:
        words: occurrences of each lower-case word.
        pairs: occurrences of two adjacent words.
        total: number of words in all captions.
    """

    words: Counter[str]
    pairs: dict[tuple[str, str], int]
    total: int

    def shuffle(self, words: Sequence[str], forms: Sequence[str], between: tuple[str, str], rng: Random) -> list[str]:
        """Return words in weighted random order, likely ones tending to come first (Efraimidis and Spirakis 2006).

        Args:
            words: the words to shuffle.
            forms: form of each word in its place.
            between: the words before and after the place, ignoring articles; "" if there is none.
            rng: random generator.
        """
        # Use logarithms: the keys themselves would be 0 for half of the draws of the least likely words.
        keys = [math.log(rng.random() or sys.float_info.min) / weight for weight in self.weights(tuple(forms), between)]
        return [word for _, word in sorted(zip(keys, words, strict=True), reverse=True)]

    @lru_cache(maxsize=16_384)  # noqa: B019 - lives as long as the run
    def weights(self, forms: tuple[str, ...], between: tuple[str, str]) -> list[float]:
        """Return how likely each form is between two words, relative to the likeliest."""
        before, after = between
        values = [self._likely(form, before, after) for form in forms]
        most = max(values, default=1.0)
        return [max(value / most, 1e-3) for value in values]

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


def is_frequent(usage: WordUsage | None, text: str) -> bool:
    """Whether every word of a text is frequent in captions; True if the usage is unknown."""
    return usage is None or min(usage.words[word] for word in text.split()) >= _SEEN
