"""Says what a thing is not, where that is true: "a man in a red shirt" -> "a man in a shirt that is not blue".

The adjective goes, and one that it excludes is denied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from degla.negatives.grammar.chunks import Token, adjectives, number, token_at
from degla.negatives.grammar.exclusion import adjective_choices
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.usage import WordUsage
from degla.negatives.true_frames import TrueRule

_SORTS: Final = frozenset(
    {"colour", "coat", "material", "size", "length", "height", "opening", "wetness", "age_living"}
)
_SEEN: Final = 3


@dataclass(frozen=True)
class DenyOther(TrueRule):
    """Deny a property that the thing cannot have.

    Source: none; the mirror of the rule negation.

    Use when: negatives say "not", so that the word alone does not mean false.
    """

    def rewrites(self, caption: Caption, usage: WordUsage | None) -> Iterator[Sequence[Token]]:
        """Every denial of one excluded property."""
        tokens, known = caption.tokens, lexicon()
        if {"not", "no", "n't", "without"} & caption.vocabulary:
            return
        for chunk in caption.chunks:
            places = adjectives(tokens, chunk)
            if len(places) != 1 or chunk.core != chunk.start or number(tokens, chunk) == "any":
                continue
            place, after = places[0], token_at(tokens, chunk.end)
            alone = place == chunk.start + 1 and not tokens[place + 1].is_adjective and tokens[place + 1].tag != "CC"
            closed = after.text in ("", ".", ",") or after.tag in ("IN", "VBZ", "VBP", "VBG")
            if not alone or not closed or after.lower == "of" or tokens[chunk.head].tag.startswith("NNP"):
                continue
            word, living = tokens[place].lower, known.is_living(tokens[chunk.head].lemma)
            if not {group.name for group in known.adjective_groups(word)} & _SORTS:
                continue
            verb = "are" if number(tokens, chunk) == "many" else "is"
            for other in adjective_choices(known, word, living=living):
                said = usage is None or usage.words[other] >= _SEEN
                if said and other not in caption.vocabulary:
                    added = [
                        replace(tokens[place], text=text, lower=text, glued=False)
                        for text in ("that", verb, "not", other)
                    ]
                    yield [*tokens[:place], *tokens[place + 1 : chunk.end], *added, *tokens[chunk.end :]]


RULE = DenyOther()
