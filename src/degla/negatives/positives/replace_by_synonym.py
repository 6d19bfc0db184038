"""Replace one noun, adjective or preposition with a synonym: "a couch" -> "a sofa", "big" -> "large".

Nouns must share a cluster of `lexicon_data/groups.toml` and a sense of WordNet; a few adjectives and prepositions are
paired by hand, none with a stronger one (big things need not be huge). If the captions' word frequencies are known, the
new word must be frequent enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Token, token_at
from degla.negatives.grammar.edits import substitute
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import Place, TrueRule

_PREPOSITIONS: Final = {
    "next to": "beside", "beside": "next to", "under": "underneath", "underneath": "under", "beneath": "under",
    "near": "close to", "close to": "near", "atop": "on top of", "on top of": "atop", "alongside": "beside",
}  # fmt: skip
_NOT_FOR: Final = frozenset(
    {("doorway", "door"), ("pool", "pond"), ("pond", "pool"), ("bike", "motorcycle"), ("bike", "motorbike")}
)
"""A noun, and one that may not replace it: a person in a doorway is not in a door."""
_ADJECTIVES: Final = {"big": "large", "large": "big", "small": "little", "little": "small", "huge": "enormous",
                     "enormous": "huge", "gray": "grey", "grey": "gray"}  # fmt: skip
_OF_PERSONS: Final = {"gray": "grey", "grey": "gray", "old": "elderly", "elderly": "old"}
_CHILDREN: Final = frozenset({"boy", "girl", "child", "kid"})
"""Persons for whom "little" means young."""


class ReplaceBySynonym(TrueRule):
    """Replace a word with its synonym.

    Source: the replacements of "The Hard Positive Truth" (arXiv 2409.17958). Differs: by word tables that must agree.

    Use when: negatives replace words, so that the model does not learn that another word means false.
    """

    against = ("replace_nouns", "replace_adjectives", "replace_relation")
    """Rules for negatives that could recognise a contradiction here."""

    def rewrites(self, caption: Caption, usage: words.WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield every replacement of one word."""
        for place, word, lemma in _choices(caption):
            if words.is_frequent(usage, word):
                yield substitute(caption.tokens, place, word, lemma=lemma)


def _choices(caption: Caption) -> Iterator[tuple[Place, str, str]]:
    tokens = caption.tokens
    for chunk in caption.chunks:
        for start, end in chunk.nouns() if chunk.determiner_fits else ():
            token = tokens[end - 1]
            if end - start == 1 and not token.tag.startswith("NNP") and not token_at(tokens, end).is_noun:
                for lemma in _nouns(token.lemma):
                    yield (start, end), words.plural(lemma) if token.is_plural else lemma, lemma
        for place in chunk.adjectives():
            word = _adjective(tokens[place].lower, chunk.noun.lemma)
            if word and word not in caption.vocabulary:
                yield (place, place + 1), word, word
    lower = [token.lower for token in tokens]
    starts = {chunk.start for chunk in caption.chunks if chunk.role == "thing"}
    for old, new in _PREPOSITIONS.items():
        size = len(old.split())
        for place in range(1, len(tokens) - size):
            if (
                lower[place : place + size] == old.split()
                and place + size in starts
                and tokens[place - 1].lower != "as"
            ):
                yield (place, place + size), new, new


@cache
def _nouns(lemma: str) -> tuple[str, ...]:
    """Return everyday synonyms that the hand-written groups and WordNet agree on."""
    tables = lexicon()
    return tuple(
        mate
        for group in tables.noun_groups(lemma)[:1]
        for mate in sorted(group.cluster(lemma))
        if mate != lemma
        and (lemma, mate) not in _NOT_FOR
        and tables.is_mass(mate) == tables.is_mass(lemma)
        and (mate in tables.words["plural_only"]) == (lemma in tables.words["plural_only"])
        and set(tables.senses_in_order(lemma)[:2]) & set(tables.senses_in_order(mate)[:2])
    )


def _adjective(word: str, noun: str) -> str:
    """Return a synonymous adjective that can describe such a thing; "" if there is none."""
    if not lexicon().is_person(noun):
        return _ADJECTIVES.get(word, "")
    return "young" if word == "little" and noun in _CHILDREN else _OF_PERSONS.get(word, "")
