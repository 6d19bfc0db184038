"""Texts that say the same in other words, as far as words alone tell: articles, auxiliaries, "beside", the passive.

A text is boiled down to its gist: dictionary forms in order, without articles and auxiliary verbs, with one word for
prepositions that mean the same. Equal gists are one statement; so are "man ride horse" and "horse ride by man".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.lexicon import lexicon

_EMPTY: Final = frozenset(
    {"a", "the", "some", "this", "that", "these", "those", "is", "are", "was", "were", "be", "been", "being", "am",
     "'s", "which", "who", "there", "has", "have", "had", "do", "does", "did"}
)  # fmt: skip
_BESIDE: Final = "beside"
_ALIKE: Final = {
    ("next", "to"): _BESIDE,
    ("close", "to"): _BESIDE,
    ("near",): _BESIDE,
    ("alongside",): _BESIDE,
    ("on", "top", "of"): "on",
    ("atop",): "on",
    ("upon",): "on",
    ("underneath",): "under",
    ("beneath",): "under",
    ("below",): "under",
    ("inside", "of"): "in",
    ("inside",): "in",
    ("within",): "in",
}
_LONGEST: Final = 4
"""Words of a phrase that changes its place in the passive."""

Gist = tuple[str, ...]


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    noun = words.singular(word)
    return noun if noun != word or lexicon().noun_groups(noun) else words.verb(word)


@lru_cache(maxsize=8_192)
def gist(content: tuple[str, ...]) -> Gist:
    """What a text says, from its words as `words.content` gives them."""
    found, place = [], 0
    while place < len(content):
        size = next((size for size in (3, 2, 1) if content[place : place + size] in _ALIKE), 0)
        if size:
            found.append(_ALIKE[content[place : place + size]])
        elif content[place] not in _EMPTY:
            found.append(_stem(content[place]))
        place += size or 1
    return tuple(found)


def says_the_same(content: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two texts are one statement; symmetric. Both as `words.content` gives them."""
    mine, theirs = gist(content), gist(other)
    return mine == theirs or _is_passive(mine, of=theirs) or _is_passive(theirs, of=mine)


def _is_passive(passive: Sequence[str], *, of: Sequence[str]) -> bool:
    """Whether "object verb by subject" in one text is "subject verb object" in the other."""
    if len(passive) != len(of) + 1:
        return False
    for by, word in enumerate(passive):
        if word != "by" or by < 2:
            continue
        for before in range(1, min(_LONGEST, by - 1) + 1):
            start = by - 1 - before
            for after in range(1, min(_LONGEST, len(passive) - by - 1) + 1):
                subject, thing = passive[by + 1 : by + 1 + after], passive[start : by - 1]
                active = (*passive[:start], *subject, passive[by - 1], *thing, *passive[by + 1 + after :])
                if active == tuple(of):
                    return True
    return False
