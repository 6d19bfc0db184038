"""Replace one noun with a more general one: "a man rides a horse" -> "a person rides a horse", "a poodle" -> "a dog".

The general word must be above the noun's first sense in WordNet (above every sense if no hand-written group lists the
noun) and among those that people use for such things. If the captions' word frequencies are known, it must be frequent
enough. No other noun of the caption may be of the same sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Token, token_at
from degla.negatives.grammar.edits import substitute
from degla.negatives.grammar.exclusion import is_absent
from degla.negatives.grammar.lexicon import PEOPLE, lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import TrueRule

_PERSONS: Final = frozenset(PEOPLE)
_ANIMALS: Final = frozenset({"mammal", "bird", "bird_kind", "other_animal", "animal_kind"})
_CRAFTS: Final = frozenset({"land_vehicle", "watercraft", "aircraft"})
_GENERAL: Final = {
    "person": _PERSONS, "animal": _ANIMALS, "dog": _ANIMALS, "cat": _ANIMALS, "horse": _ANIMALS, "bird": _ANIMALS,
    "vehicle": _CRAFTS, "boat": _CRAFTS, "aircraft": _CRAFTS, "bag": {"bag"}, "fruit": {"fruit"},
    "vegetable": {"vegetable"}, "dessert": {"dessert"}, "drink": {"drink"}, "plant": {"plant"}, "tree": {"plant"},
    "flower": {"plant"}, "building": {"building"}, "hat": {"headwear"}, "shoe": {"footwear"}, "bicycle": _CRAFTS,
    "car": _CRAFTS, "truck": _CRAFTS, "athlete": _PERSONS, "shirt": {"upper_clothing"},
}  # fmt: skip
"""General words, and the groups of `lexicon_data/groups.toml` whose nouns they can replace: no animal group has a
baseball bat. Words that are too general ("instrument", "tool") or would need an article ("polo": "game") are omitted.
"""
_NEVER: Final = frozenset({"female", "male", "bleacher", "mannequin", "derby"})
"""Words whose first sense in WordNet is not the one that captions use."""
_UNSAID: Final = frozenset({("skateboard", "vehicle"), ("sled", "vehicle")})
"""Hypernyms in WordNet that people do not use."""


class ReplaceByHypernym(TrueRule):
    """Replace a word with a more general one.

    Source: none. By word tables that must agree.

    Use when: negatives replace words, so that the model does not learn that another word means false.
    """

    against = ("replace_nouns",)
    """Rules for negatives that could recognise a contradiction here."""

    def rewrites(self, caption: Caption, usage: words.WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield every replacement of one noun."""
        tokens = caption.tokens
        for chunk, (start, end) in caption.nouns():
            token, after = tokens[end - 1], token_at(tokens, end)
            if is_absent(chunk):
                continue  # a picture without a dog may have another animal
            if end - start > 1 or token.tag.startswith("NNP") or after.is_noun or after.tag == "POS":
                continue
            small = token_at(tokens, start - 1).lower == "little"
            for lemma in _general(token.lemma):
                if lemma == "person" and small:
                    continue  # a little person is not the same as a little girl
                word = words.plural(lemma) if token.is_plural else lemma
                if words.is_frequent(usage, word) and not _is_present(caption, end - 1, lemma):
                    yield substitute(tokens, (start, end), word, lemma=lemma)


@cache
def _general(lemma: str) -> tuple[str, ...]:
    tables = lexicon()
    if tables.is_mass(lemma) or lemma in tables.words["plural_only"] | tables.words["generic"] | _NEVER:
        return ()
    return tuple(
        general
        for general, groups in _GENERAL.items()
        if general != lemma
        and (lemma, general) not in _UNSAID
        and tables.group_names(lemma) <= groups
        and set(tables.senses_in_order(general)[:1]) & tables.first_over(lemma)
        and (tables.is_listed(lemma) or tables.always_over(lemma, general))
    )


def _is_present(caption: Caption, place: int, lemma: str) -> bool:
    """Whether the caption names another thing of this sort that the general word could also mean."""
    tables = lexicon()
    sense = set(tables.senses_in_order(lemma)[:1])
    return any(
        token.lemma == lemma or sense & tables.first_over(token.lemma)
        for at, token in enumerate(caption.tokens)
        if at != place and token.is_noun
    )
