"""Swap the two sides of "and": "a cat and a dog on a sofa" -> "a dog and a cat on a sofa".

Whole noun phrases in a list of two, or two adjectives of one phrase. Phrases with something tied only to the second
("and a woman in a hat") are skipped, because it would end up after the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from degla.negatives.grammar.chunks import Chunk, Token, is_bare, shares_article, token_at
from degla.negatives.grammar.edits import exchange
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.words import WordUsage
from degla.negatives.rule import TrueRule


class ExchangeConjuncts(TrueRule):
    """Swap what "and" joins.

    Source: the swaps of "The Hard Positive Truth" (arXiv 2409.17958). Differs: by grammar, and only if nothing else
    depends on either side.

    Use when: negatives change word order, so that the model does not learn that another order means false.
    """

    against = ("reshuffle_order", "swap_nouns", "swap_phrases")
    """Rules for negatives that could recognise a contradiction here."""

    def rewrites(self, caption: Caption, usage: WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield every swap."""
        tokens = caption.tokens
        for first, second in pairwise(caption.chunks):
            if _are_joined(caption, first, second):
                yield exchange(tokens, (first.start, first.end), (second.start, second.end))
        for chunk in caption.chunks:
            if chunk.role != "thing":
                continue
            for place in range(chunk.core, chunk.head - 2):
                one, joint, other = tokens[place : place + 3]
                alone = not token_at(tokens, place - 1).is_adjective and not tokens[place + 3].is_adjective
                if _describes(one) and _describes(other) and joint.lower == "and" and alone:
                    yield exchange(tokens, (place, place + 1), (place + 2, place + 3))


def _describes(word: Token) -> bool:
    """Whether a word is an adjective, and no noun that the tagger took for one: "a tiara and floral dress"."""
    tables = lexicon()
    return word.is_adjective and (tables.is_adjective(word.lower) or not tables.is_noun(word.lower))


def _are_joined(caption: Caption, first: Chunk, second: Chunk) -> bool:
    tokens = caption.tokens
    gap = tokens[first.end : second.start]
    if len(gap) != 1 or gap[0].lower != "and" or first.role != "thing" or second.role != "thing":
        return False
    joined = second.noun.role == "conj" and second.noun.governor == first.head
    if not joined or first.is_living != second.is_living or shares_article(first, second):
        return False
    both = tokens[first.start : second.end]
    if any(token.tag in ("PRP$", "PRP", "WP") or token.lower in ("other", "another") for token in both):
        return False
    if first.core > first.start and second.determiner is None:
        return False  # "a group of boys and girls": of both
    if is_bare(first) or is_bare(second) or first.before.text in (",", "and", "."):
        return False
    single = not first.noun.is_plural or lexicon().is_mass(first.noun.lemma)
    if (first.determiner or second.determiner) is None and single and tokens[second.head - 1].is_noun:
        return False  # "corn and egg soup" may be of corn
    if 1 in (len(first.noun.text), len(second.noun.text)):
        return False  # "Mr. and Mrs. Smith", "Tom B. Smith"
    after, before = second.after, first.before
    closed = after.text in ("", ".") or (after.is_finite and before.text == "")
    return closed and before.lower != "of"
