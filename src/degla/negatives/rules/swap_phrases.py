"""Swap two whole noun phrases: "a red cup on a blue plate" -> "a blue plate on a red cup".

Articles, numbers, adjectives and what "of" ties to a noun move with it. At least one of the two phrases must have more
than article and noun; otherwise the result would be that of swap_nouns. reshuffle_order also moves phrases, two or
three at a time, as well as verbs and prepositions; here only two phrases move.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from degla.negatives.grammar.edits import exchange
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.orders import loose_ends, movable, objection, refuse_order
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import ExchangingRule, Swap


class SwapPhrases(ExchangingRule):
    """Swap two noun phrases.

    Source: the object swaps of SugarCrepe (arXiv 2306.14610). Differs: by grammar, and only if the meaning changes.

    Use when: the model should learn relations between things with their attributes. On captions of two things,
    reshuffle_order swaps the same phrases, and this rule adds nothing new.
    """

    kind = "relation"
    """What the negatives break: which of the two things is where, or does what, with all its attributes."""
    instruction = (
        "Exchange two whole noun phrases of the caption: each goes to the other's place together with its article, "
        "number and adjectives."
    )
    """Instruction to a language model."""

    def exchanges(self, caption: Caption) -> Iterator[Swap]:
        """Yield every swap of two phrases, one with more than article and noun, with the reason to refuse it."""
        if loose_ends(caption.tokens, caption.chunks):
            return  # the tagger did not understand the caption
        finite = any(token.is_finite for token in caption.tokens)
        for first, second in combinations(movable(caption), 2):
            if not (_is_rich(caption, first) or _is_rich(caption, second)):
                continue
            if not (_is_whole(caption, first) and _is_whole(caption, second)):
                continue  # "red laptop on a table": a phrase without article fits only its own place
            chunks = [caption.chunk_at(first[0]), caption.chunk_at(second[0])]
            if finite and len({chunk.number for chunk in chunks}) > 1:
                continue
            result = exchange(caption.tokens, first, second)
            yield result, objection(caption, *chunks) or refuse_order(caption, result)


def _is_rich(caption: Caption, span: tuple[int, int]) -> bool:
    """Whether a phrase has more than an article and a noun or compound."""
    return any(not token.is_noun and token.tag != "DT" for token in caption.tokens[span[0] : span[1]])


def _is_whole(caption: Caption, span: tuple[int, int]) -> bool:
    """Whether a phrase has an article or number if its noun needs one."""
    noun = caption.chunk_at(span[0]).holder_noun
    return caption.tokens[span[0]].tag in ("DT", "CD", "PRP$", "PDT") or noun.is_many or lexicon().is_mass(noun.lemma)
