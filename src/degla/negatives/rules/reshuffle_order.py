"""Puts the caption's own words in another order that says something else: phrases, prepositions or verbs change places.

The result reads as a sentence, however absurd: "a man on a horse" becomes "a horse on a man". An order that says the
same ("a cat and a dog", "a red round ball", a place named first) is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from random import Random
from typing import Final

from degla.negatives import words
from degla.negatives.chunks import Chunk, determiner_fits, find_chunks
from degla.negatives.edits import exchange, rotate, write
from degla.negatives.meaning import meaning, subject_numbers, tagged
from degla.negatives.phrases import Caption
from degla.negatives.replies import MOST_CANDIDATES, proposals
from degla.negatives.rules import Chat, Example
from degla.negatives.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

_PLACING: Final = frozenset(
    {
        "on",
        "in",
        "under",
        "above",
        "over",
        "below",
        "behind",
        "inside",
        "outside",
        "around",
        "beneath",
        "through",
        "across",
        "into",
    }
)


@dataclass(frozen=True)
class ReshuffleOrder:
    """Permute a caption: same words, another meaning.

    Source: arXiv 2504.16801, rule (a), "reshuffle the whole sentence" (methods.md 2.3). Differs: phrases stay whole.
    """

    kind: str = "order"
    """What the negatives break."""
    rotations: bool = True
    """Whether three phrases may change places in a circle, besides two."""

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """None: the grammar enumerates the orders."""
        return None

    def read(self, caption: Caption, reply: str | None, rng: Random) -> list[str]:
        """Orders of the caption's phrases, or the one order in a model's reply."""
        if reply is not None:
            return proposals(reply, list, rng)
        orders = list(self._permutations(caption))
        rng.shuffle(orders)
        texts = dict.fromkeys(write(caption, tokens) for tokens in orders)
        return list(islice((text for text in texts if self.check(caption, text).accepted), MOST_CANDIDATES))

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Same words, other order, other meaning; articles, numbers and verbs still suit their nouns."""
        content = words.content(negative)
        if content == caption.content:
            return refused("same_text")
        tokens = tagged(caption.tokens, negative)
        if tokens is None or Counter(content) != Counter(caption.content):
            return refused("not_rule")
        return _judge(caption, tokens)

    def _permutations(self, caption: Caption) -> Iterator[list[Token]]:
        starts = {place for chunk in caption.chunks for place in (chunk.start, chunk.core)}
        if _loose_articles(caption.tokens, starts):
            return  # the tagger did not understand the caption
        spans = [(chunk.start, chunk.end) for chunk in caption.chunks if _is_movable(caption.tokens, chunk)]
        for first, second in combinations(spans, 2):
            yield exchange(caption.tokens, first, second)
        if self.rotations:
            for three in combinations(spans[:5], 3):
                yield rotate(caption.tokens, three)
        for one, other in combinations(_exchangeable(caption), 2):
            if _same_sort(caption.tokens, one, other):
                yield exchange(caption.tokens, (one, one + 1), (other, other + 1))


def _is_movable(tokens: Sequence[Token], chunk: Chunk) -> bool:
    """Things only, and no "his dog": a pronoun must not come before what it stands for."""
    return chunk.role == "thing" and all(token.tag not in ("PRP$", "PRP") for token in tokens[chunk.start : chunk.end])


def _exchangeable(caption: Caption) -> list[int]:
    inside = {place for chunk in caption.chunks for place in range(chunk.start, chunk.end)}
    return [
        place
        for place, token in enumerate(caption.tokens)
        if place not in inside and (token.lower in _PLACING or token.tag in ("VBG", "VBN", "VBZ", "VBP"))
    ]


def _same_sort(tokens: Sequence[Token], first: int, second: int) -> bool:
    """Whether two words between phrases can stand for each other: placing prepositions, or verbs used alike."""
    one, other = tokens[first], tokens[second]
    if one.lemma == other.lemma or "have" in (one.lemma, other.lemma) or "be" in (one.lemma, other.lemma):
        return False
    if one.lower in _PLACING and other.lower in _PLACING:
        return one.tag == other.tag == "IN" and _takes_phrase(tokens, first) and _takes_phrase(tokens, second)
    alike = one.is_verb and one.tag == other.tag
    return alike and _takes_phrase(tokens, first) == _takes_phrase(tokens, second)


def _takes_phrase(tokens: Sequence[Token], place: int) -> bool:
    following = tokens[place + 1].tag if place + 1 < len(tokens) else ""
    return following in ("DT", "PRP$", "CD", "JJ", "NN", "NNS", "NNP", "PRP")


def _judge(caption: Caption, tokens: Sequence[Token]) -> Verdict:
    chunks = find_chunks(tokens)
    starts = {place for chunk in chunks for place in (chunk.start, chunk.core)}
    original = {place for chunk in caption.chunks for place in (chunk.start, chunk.core)}
    if _loose_articles(tokens, starts) > _loose_articles(caption.tokens, original):
        return refused("agreement")
    misfits = sum(not determiner_fits(tokens, chunk) for chunk in chunks)
    if misfits > sum(not determiner_fits(caption.tokens, chunk) for chunk in caption.chunks):
        return refused("agreement")
    if meaning(tokens, chunks) == meaning(caption.tokens, caption.chunks):
        return refused("same_meaning")
    before, after = subject_numbers(caption.tokens, caption.chunks), subject_numbers(tokens, chunks)
    if len(before) != len(after) or any(a != b and "any" not in (a, b) for a, b in zip(before, after, strict=True)):
        return refused("agreement")
    return ACCEPTED


def _loose_articles(tokens: Sequence[Token], starts: set[int]) -> int:
    """Articles that begin no phrase."""
    return sum(token.lower in ("a", "an", "the") and place not in starts for place, token in enumerate(tokens))


RULE = ReshuffleOrder()
