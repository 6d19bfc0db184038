"""Swap two adjectives of different noun phrases: "a red ball in a blue box" -> "a blue ball in a red box".

The two must exclude each other, or one of them must rarely be true of its new noun: a black bear and large birds may
well be a large bear and black birds, too. Adjectives of one phrase are never swapped, nor are synonyms ("big",
"large"), nor is an adjective placed next to one that it contradicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from degla.negatives.grammar.chunks import Chunk, Token
from degla.negatives.grammar.edits import exchange
from degla.negatives.grammar.exclusion import additions
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.orders import keeps_meaning
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import ExchangingRule, Swap

_DESCRIBING: Final = frozenset({"JJ", "JJR", "JJS", "VBN", "VBG"})
"""Tags that an adjective may be given."""


class SwapAdjectives(ExchangingRule):
    """Swap two adjectives.

    Source: arXiv 2504.16801, rule (c). Differs: only between phrases, and only if the meaning changes.

    Use when: the model should learn which property belongs to which thing, and captions have two phrases with
    adjectives.
    """

    kind = "attribute"
    """What the negatives break."""
    instruction = "Exchange two adjectives that describe different things. The nouns stay where they are."
    """Instruction to a language model."""

    def applies(self, caption: Caption) -> bool:
        """Whether two words may be adjectives."""
        return (
            super().applies(caption)
            and sum(token.tag in _DESCRIBING or lexicon().is_attribute(token.lower) for token in caption.tokens) > 1
        )

    def exchanges(self, caption: Caption) -> Iterator[Swap]:
        """Yield every swap of two adjectives of different phrases, with the reason to refuse it ("" if none)."""
        tokens = caption.tokens
        places = [
            (chunk, place) for chunk in caption.chunks for place in chunk.adjectives() if place not in caption.named
        ]
        for (first_chunk, first), (second_chunk, second) in combinations(places, 2):
            if first_chunk is second_chunk or tokens[first].lower == tokens[second].lower:
                continue
            result = exchange(tokens, (first, first + 1), (second, second + 1))
            relation = lexicon().adjective_relation(tokens[first].lower, tokens[second].lower)
            moves = ((first_chunk, first, second), (second_chunk, second, first))
            seldom = any(additions().is_seldom(tokens[new].lower, chunk.noun.lemma) for chunk, _, new in moves)
            if relation == "synonym" or (relation and not seldom):
                yield result, relation
            elif any(_clashes(chunk, old, tokens[new]) for chunk, old, new in moves):
                yield result, "already_in_caption"
            elif any(_colours_person(chunk, tokens[new]) for chunk, _, new in moves):
                yield result, "person_colour"
            else:
                yield result, "same_meaning" if keeps_meaning(caption, result) else ""
        yield from _exchanges_of_lists(caption)


def _exchanges_of_lists(caption: Caption) -> Iterator[Swap]:
    """Yield swaps of an adjective list with another phrase's adjectives: "a black and white dog with a red collar"."""
    tokens = caption.tokens
    runs = [(chunk, run) for chunk in caption.chunks if (run := _run(chunk))]
    for (first_chunk, first), (second_chunk, second) in combinations(runs, 2):
        if first[1] - first[0] == second[1] - second[0] == 1:
            continue
        pairs = [(one, other) for one in _members(tokens, first) for other in _members(tokens, second)]
        relation = next((reason for pair in pairs if (reason := lexicon().adjective_relation(*pair))), "")
        moves = ((first_chunk, second), (second_chunk, first))
        coloured = any(_colours_person(chunk, tokens[place]) for chunk, run in moves for place in range(*run))
        result = exchange(tokens, first, second)
        same = "" if relation or coloured else "same_meaning" if keeps_meaning(caption, result) else ""
        yield result, relation or ("person_colour" if coloured else same)


def _run(chunk: Chunk) -> tuple[int, int] | None:
    """Return the span of a phrase's adjectives if there is one, or a list with "and" or commas; else None."""
    places = chunk.adjectives()
    if not places:
        return None
    start, end = places[0], places[-1] + 1
    between = [chunk.source[at] for at in range(start, end) if at not in places]
    joined = all(token.tag == "CC" or token.text == "," for token in between) and len(between) == len(places) - 1
    return (start, end) if joined else None


def _members(tokens: Sequence[Token], run: tuple[int, int]) -> list[str]:
    return [token.lower for token in tokens[run[0] : run[1]] if token.tag != "CC" and token.text != ","]


def _clashes(chunk: Chunk, place: int, adjective: Token) -> bool:
    """Whether another adjective of the phrase equals the new one or is of the same sort.

    In a list all may be of one sort: "a green and white dog".
    """
    run = _run(chunk)
    others = [chunk.source[other].lower for other in chunk.adjectives() if other != place]
    listed = run is not None and run[1] - run[0] > 1
    return any(
        other == adjective.lower or (not listed and lexicon().share_sort(other, adjective.lower)) for other in others
    )


def _colours_person(chunk: Chunk, adjective: Token) -> bool:
    return lexicon().is_in_group(adjective.lower, "colour") and lexicon().is_person(chunk.noun.lemma)
