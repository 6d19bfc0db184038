"""Puts the caption's own words in another order that says something else: phrases, prepositions or verbs change places.

The result reads as a sentence, however absurd: "a man on a horse" becomes "a horse on a man". An order that says the
same ("a cat and a dog", "a red round ball", a place named first) is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from random import Random
from typing import Final

from degla.negatives import words
from degla.negatives.chunks import Chunk, determiner_fits, find_chunks
from degla.negatives.edits import exchange, rotate, write
from degla.negatives.llm import Chat
from degla.negatives.meaning import disagreements, meaning, tagged
from degla.negatives.phrases import Caption
from degla.negatives.replies import MOST_CANDIDATES, proposals
from degla.negatives.rules import Example
from degla.negatives.tokens import Token
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

_PLACING: Final = {
    word: sort
    for sort, alike in enumerate(
        (
            ("on", "over", "above"),
            ("under", "below", "beneath"),
            ("in", "inside", "within"),
            ("behind",),
            ("outside",),
            ("around",),
        )
    )
    for word in alike
}
"""Prepositions that may change places with one of another number."""


@dataclass(frozen=True)
class ReshuffleOrder:
    """Permute a caption: same words, another meaning.

    Source: arXiv 2504.16801, rule (a), "reshuffle the whole sentence". Differs: phrases stay whole.
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
        if _loose_ends(caption.tokens, caption.chunks):
            return  # the tagger did not understand the caption
        spans = _movable(caption)
        for first, second in combinations(spans, 2):
            yield exchange(caption.tokens, first, second)
        if self.rotations:
            for three in combinations(spans[:5], 3):
                yield rotate(caption.tokens, three)
        for one, other in combinations(_exchangeable(caption), 2):
            if _same_sort(caption, one, other):
                yield exchange(caption.tokens, (one, one + 1), (other, other + 1))


def _movable(caption: Caption) -> list[tuple[int, int]]:
    """Spans of phrases that can change places: things, with what "of" ties to them.

    None with "his" or "it" inside: a pronoun must not come before what it stands for.
    """
    spans: list[tuple[int, int]] = []
    for chunk in caption.chunks:
        tied = chunk.start > 0 and caption.tokens[chunk.start - 1].lower == "of"
        if tied and spans and spans[-1][1] == chunk.start - 1:
            spans[-1] = (spans[-1][0], chunk.end)
        elif chunk.role == "thing":
            spans.append((chunk.start, chunk.end))
    return [
        (start, end)
        for start, end in spans
        if all(token.tag not in ("PRP$", "PRP") for token in caption.tokens[start:end])
    ]


def _exchangeable(caption: Caption) -> list[int]:
    inside = {place for chunk in caption.chunks for place in range(chunk.start, chunk.end)}
    return [
        place
        for place, token in enumerate(caption.tokens)
        if place not in inside and (token.lower in _PLACING or token.tag in ("VBG", "VBN", "VBZ", "VBP"))
    ]


def _same_sort(caption: Caption, first: int, second: int) -> bool:
    """Whether two words between phrases can stand for each other: placing prepositions, or verbs used alike."""
    tokens = caption.tokens
    one, other = tokens[first], tokens[second]
    if one.lemma == other.lemma or "have" in (one.lemma, other.lemma) or "be" in (one.lemma, other.lemma):
        return False
    if one.lower in _PLACING and other.lower in _PLACING:
        things = {chunk.start for chunk in caption.chunks if chunk.role == "thing"}
        return (
            _PLACING[one.lower] != _PLACING[other.lower]
            and one.tag == other.tag == "IN"
            and {first + 1, second + 1} <= things
        )
    alike = one.is_verb and one.tag == other.tag
    return alike and _takes_phrase(tokens, first) == _takes_phrase(tokens, second)


def _takes_phrase(tokens: Sequence[Token], place: int) -> bool:
    following = tokens[place + 1].tag if place + 1 < len(tokens) else ""
    return following in ("DT", "PRP$", "CD", "JJ", "NN", "NNS", "NNP", "PRP")


def _judge(caption: Caption, tokens: Sequence[Token]) -> Verdict:
    chunks = find_chunks(tokens)
    if meaning(tokens, chunks) == meaning(caption.tokens, caption.chunks):
        return refused("same_meaning")
    if _loose_ends(tokens, chunks) > _loose_ends(caption.tokens, caption.chunks):
        return refused("agreement")
    misfits = sum(not determiner_fits(tokens, chunk) for chunk in chunks)
    if misfits > sum(not determiner_fits(caption.tokens, chunk) for chunk in caption.chunks):
        return refused("agreement")
    if disagreements(tokens, chunks) > disagreements(caption.tokens, caption.chunks):
        return refused("agreement")
    return ACCEPTED


def _loose_ends(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> int:
    """Articles that begin no phrase, phrases with nothing between them, prepositions with nothing after them."""
    starts = {place for chunk in chunks for place in (chunk.start, chunk.core)}
    articles = sum(token.lower in ("a", "an", "the") and place not in starts for place, token in enumerate(tokens))
    touching = sum(one.end == other.start for one, other in pairwise(chunks))
    prepositions = sum(
        token.tag == "IN" and (place + 1 == len(tokens) or tokens[place + 1].tag in (".", ",", "CC"))
        for place, token in enumerate(tokens)
    )
    return articles + touching + prepositions


RULE = ReshuffleOrder()
