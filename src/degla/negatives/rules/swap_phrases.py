"""Exchanges two whole noun phrases: "a red cup on a blue plate" -> "a blue plate on a red cup".

Articles, numbers, adjectives and what "of" ties to a noun go with it. At least one of the two phrases has something
besides article and noun: with bare nouns the exchange would be that of swap_nouns. reshuffle_order moves phrases too,
besides verbs and prepositions, two or three at a time; here nothing but two phrases moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from degla.negatives.edits import exchange
from degla.negatives.exchanges import Exchange, ExchangingRule
from degla.negatives.orders import judge_order, loose_ends, movable
from degla.negatives.phrases import Caption


@dataclass(frozen=True)
class SwapPhrases(ExchangingRule):
    """Exchange two noun phrases.

    Source: the object swaps of SugarCrepe (arXiv 2306.14610). Differs: by grammar, and only where the meaning changes.
    """

    kind: str = "relation"
    """What the negatives break: which of the two things stands where, or does what, with all its attributes."""
    instruction: str = (
        "Exchange two whole noun phrases of the caption: each goes to the other's place together with its article, "
        "number and adjectives."
    )
    """What a language model is told to change."""

    def exchanges(self, caption: Caption) -> Iterator[Exchange]:
        """Every exchange of two phrases of which one is more than article and noun, and why it is none."""
        if loose_ends(caption.tokens, caption.chunks):
            return  # the tagger did not understand the caption
        for first, second in combinations(movable(caption), 2):
            if not (_is_rich(caption, first) or _is_rich(caption, second)):
                continue
            changed = exchange(caption.tokens, first, second)
            yield changed, judge_order(caption, changed).reason


def _is_rich(caption: Caption, span: tuple[int, int]) -> bool:
    """Whether a phrase has more than an article and a noun or compound."""
    return any(not token.is_noun and token.tag != "DT" for token in caption.tokens[span[0] : span[1]])


RULE = SwapPhrases()
