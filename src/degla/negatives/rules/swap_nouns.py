"""Swap two nouns of different phrases, each in the other's number: "two cats on a mat" -> "two mats on a cat".

Adjectives and articles stay in place. Nouns of one list or on both sides of "next to" are not swapped if the meaning
would stay the same, nor is a noun that cannot move ("playing baseball").
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, find_chunks
from degla.negatives.grammar.edits import exchange, inflect
from degla.negatives.grammar.exclusion import additions, noun_relation
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.orders import keeps_meaning, objection
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import relations
from degla.negatives.grammar.suitability import misfit
from degla.negatives.rule import ExchangingRule, Swap

_GENERAL: Final = frozenset({"people", "person", "human", "adult", "individual", "someone"})
"""Nouns that are true of every man, woman and worker."""


class SwapNouns(ExchangingRule):
    """Swap two nouns.

    Source: arXiv 2504.16801, rule (b). Differs: only whole words move, never equal nouns (CE-9).

    Use when: the model should learn which thing is where, and captions have two phrases with nouns.
    """

    kind = "object"
    """What the negatives break."""
    instruction = "Exchange two nouns that name different things. Numbers, articles and adjectives stay where they are."
    """Instruction to a language model."""

    def exchanges(self, caption: Caption) -> Iterator[Swap]:
        """Yield every swap of two nouns, with the reason to refuse it ("" if there is none)."""
        tokens = caption.tokens
        places = [(chunk, span) for chunk, span in caption.nouns() if span[1] == chunk.end]
        if _is_bare_list(caption):
            return
        for (first_chunk, first), (second_chunk, second) in combinations(places, 2):
            one, other = tokens[first[1] - 1], tokens[second[1] - 1]
            result = list(tokens)
            result[first[1] - 1] = inflect(one, like=other)
            result[second[1] - 1] = inflect(other, like=one)
            result = exchange(result, first, second)
            relation = noun_relation(one.lemma, other.lemma)
            if relation == "synonym" or (relation == "hypernym" and {one.lemma, other.lemma} & _GENERAL):
                yield result, relation
            elif reason := _objection(caption, first_chunk, second_chunk):
                yield result, reason
            elif not (_fits(one, first_chunk, second_chunk, other) and _fits(other, second_chunk, first_chunk, one)):
                yield result, "agreement"
            else:
                chunks = find_chunks(result)
                same = keeps_meaning(caption, result, chunks)
                yield result, "same_meaning" if same else misfit(caption, result, chunks)


def _is_bare_list(caption: Caption) -> bool:
    """Whether two phrases are adjacent with nothing between them, and are not a verb's two objects."""
    return any(one.end == other.start and not one.before.is_verb for one, other in pairwise(caption.chunks))


def _objection(caption: Caption, first: Chunk, second: Chunk) -> str:
    """Return the reason against a swap; adjectives and "his" distinguish what would mean the same without them."""
    if any(_is_fixed(one) for one in (first, second)):
        return "word_order"
    if not (first.is_living and second.is_living) and any(_completes(caption, one) for one in (first, second)):
        return "word_order"
    reason = objection(caption, first, second)
    if reason != "same_meaning" or relations().is_same_ground(first.noun.lemma, second.noun.lemma):
        return reason
    if any(token.tag == "PRP$" for one in (first, second) for token in one.modifiers):
        return reason
    counts = [next((token.lower for token in one.modifiers if token.tag == "CD"), "") for one in (first, second)]
    counted = (counts[0] and second.determiner) or (counts[1] and first.determiner)
    distinct = _tell_apart(first, second) or (counted and counts[0] != counts[1])
    return "" if distinct else reason


def _is_fixed(chunk: Chunk) -> bool:
    """Whether the noun is tied to its context: "statue of", "on her hands", "a pair of scissors"."""
    owned = any(token.tag == "PRP$" for token in chunk.modifiers)
    body = owned and lexicon().is_in_group(chunk.noun.lemma, "body_upper")
    paired = chunk.holder != chunk.head and chunk.holder_noun.lemma == "pair"
    possessed = any(token.tag == "POS" for token in chunk.modifiers)
    return body or paired or possessed or chunk.after.lower == "of"


def _completes(caption: Caption, chunk: Chunk) -> bool:
    """Whether "of" ties the noun to a thing before it: "the face of a girl", "the wheel of a boat"."""
    before = next((one for one in caption.chunks if one.end == chunk.start - 1), None)
    return chunk.before.lower == "of" and before is not None and before.role == "thing"


def _tell_apart(first: Chunk, second: Chunk) -> bool:
    """Whether the adjectives make the swap false: a small boat by a plane may well be a boat by a small plane."""
    own, others = ([one.source[at].lower for at in one.adjectives()] for one in (first, second))
    if any(not additions().is_vague(word) for word in (*own, *others)):
        return True
    return any(not lexicon().adjective_relation(word, other) for word in own for other in others)


def _fits(noun: Token, own: Chunk, chunk: Chunk, slot: Token) -> bool:
    """Whether a noun can take another one's place: no "a water", no bare "dog" for "water"."""
    mass, many = lexicon().is_mass(noun.lemma), slot.is_plural
    article, own_article = chunk.determiner, own.determiner
    if mass and (many or (article is not None and article.lower in words.COUNTING)):
        return False
    if noun.lemma in lexicon().words["plural_only"] and noun.lemma != "people" and not many:
        return False
    if many or (mass and article is not None):
        return True
    return (article is None) == (own_article is None)
