"""State truly what a thing is not: "a man in a red shirt" -> "a man in a shirt that is not blue".

The adjective is removed, and one that it excludes is negated, but only if what follows cannot be read as part of the
negation ("a girl that is not big with blond hair"). Sizes of living things are skipped: "a little girl" is a young one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from degla.negatives.grammar.chunks import Token, token_at
from degla.negatives.grammar.edits import insert
from degla.negatives.grammar.exclusion import adjective_choices
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.words import WordUsage, is_frequent
from degla.negatives.rule import TrueRule

_SORTS: Final = frozenset({"colour", "coat", "material", "size", "length", "height", "elevation", "opening", "wetness"})
_LIVING_SORTS: Final = frozenset({"colour", "coat", "wetness", "age_living"})
_PLACED: Final = frozenset({"on", "at", "near", "behind", "beside", "under", "outside"})
"""Prepositions that open a new phrase after the negation."""


class DenyOther(TrueRule):
    """Negate a property that the thing cannot have.

    Source: none; the counterpart of the rule negation.

    Use when: negatives contain "not", so that the model does not learn that "not" means false.
    """

    def rewrites(self, caption: Caption, usage: WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield every negation of one excluded property."""
        tokens, tables = caption.tokens, lexicon()
        if {"not", "no", "n't", "without"} & caption.vocabulary:
            return
        for chunk in caption.chunks:
            places = chunk.adjectives()
            if len(places) != 1 or chunk.core != chunk.start or chunk.number == "any":
                continue
            if not chunk.determiner_fits:
                continue  # "a white dog bites": a verb that the tagger took for a noun
            place, after = places[0], chunk.after
            alone = place == chunk.start + 1 and not tokens[place + 1].is_adjective and tokens[place + 1].tag != "CC"
            closed = after.text in ("", ".", ",") or after.tag in ("VBZ", "VBP") or after.lower in _PLACED
            shared = chunk.before.tag == "CC" and token_at(tokens, chunk.start - 2).is_adjective
            if not alone or not closed or shared or chunk.noun.tag.startswith("NNP"):
                continue  # shared: "a black and a brown dog"
            if chunk.first.tag == "PRP$" or tokens[place].lower in tables.adjectives["colour"].cluster("colorful"):
                continue  # "its nose that is not orange"; what has many colours may have any
            word, lemma = tokens[place].lower, chunk.noun.lemma
            living = tables.is_living(lemma)
            sorts = _LIVING_SORTS if living else _SORTS
            if not {group.name for group in tables.adjective_groups(word)} & sorts or (living and word == "little"):
                continue
            verb = "are" if chunk.number == "many" else "is"
            pronoun = "who" if tables.is_person(lemma) else "that"
            for other in adjective_choices(word, living=living):
                if is_frequent(usage, other) and other not in caption.vocabulary:
                    rest = [*tokens[:place], *tokens[place + 1 :]]
                    yield insert(caption, rest, chunk.head, [pronoun, verb, "not", other], tag="JJ")
