"""Replaces one noun by another everyday noun of its sort that cannot be the same thing: an animal by an animal.

Never by a synonym, something more general or special, a part or whole, or a word that the caption has already. The
noun keeps its number; a noun without plural ("water") is replaced by one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from degla.negatives import words
from degla.negatives.chunks import Chunk, determiner, determiner_fits, nouns
from degla.negatives.edits import substitute, write
from degla.negatives.lexicon import lexicon
from degla.negatives.llm import Chat
from degla.negatives.phrases import Caption
from degla.negatives.replacement import pick_spread, replaced_word
from degla.negatives.replies import proposals
from degla.negatives.rules import Example
from degla.negatives.verdicts import ACCEPTED, Verdict, refused

_MALE: Final = frozenset({"his", "he", "him", "himself"})
_FEMALE: Final = frozenset({"her", "she", "hers", "herself"})


@dataclass(frozen=True)
class ReplaceNouns:
    """Replace one noun.

    Source: arXiv 2504.16801, rule (e). Differs: the new word is refused where it may be true (CE-9).
    """

    kind: str = "object"
    """What the negatives break."""

    def ask(self, caption: Caption, examples: Sequence[Example]) -> Chat | None:
        """None: the word tables give the replacements."""
        return None

    def read(self, caption: Caption, reply: str | None, rng: Random) -> list[str]:
        """Captions with one noun replaced, or the one in a model's reply."""
        if reply is not None:
            return proposals(reply, list, rng)
        choices = [(place, _choices(caption, place, mass)) for place, mass in _places(caption)]
        return [
            write(caption, substitute(caption.tokens, place, _form(caption, place, word), lemma=word))
            for place, word in pick_spread(choices, rng, accept=lambda place, word: not _is_taken(caption, place, word))
        ]

    def check(self, caption: Caption, negative: str) -> Verdict:
        """Exactly one noun is another one of the same number, unrelated to it and to the caption's others."""
        place, word = replaced_word(caption, negative)
        places = dict(_places(caption))
        if place < 0 or place not in places:
            return refused("same_text" if word == "" else "not_rule")
        lemma = words.singular(word)
        if not lexicon().is_noun(lemma):
            return refused("unknown_word")
        if _form(caption, place, lemma) != word or (lexicon().is_mass(lemma) and _counts(caption, place)):
            return refused("agreement")
        relation = lexicon().noun_relation(caption.tokens[place].lemma, lemma)
        if relation:
            return refused(relation)
        return refused("already_in_caption") if _is_taken(caption, place, lemma) else ACCEPTED


def _places(caption: Caption) -> Iterator[tuple[int, bool]]:
    """Indices of the nouns that can be replaced, and whether their place takes a noun without plural and "a"."""
    tokens = caption.tokens
    for chunk in caption.chunks:
        if not determiner_fits(tokens, chunk):
            continue  # "a dogs": what is wrong already gives no sound negative
        for start, end in nouns(tokens, chunk):
            head = end - 1
            before = tokens[head - 1] if head > chunk.start else None
            named = before is not None and (lexicon().is_name(before.lower, tokens[head].lemma))
            if not named and tokens[head].lemma not in lexicon().words["frame"] and start <= head:
                yield head, _is_mass_place(caption, chunk, head)


def _is_mass_place(caption: Caption, chunk: Chunk, head: int) -> bool:
    token = caption.tokens[head]
    return token.tag not in ("NNS", "NNPS") and lexicon().is_mass(token.lemma) and not _counts(caption, head, chunk)


def _counts(caption: Caption, place: int, chunk: Chunk | None = None) -> bool:
    """Whether the noun here is plural or has "a", "one", "two", ... before it."""
    chunk = chunk or next(one for one in caption.chunks if one.start <= place < one.end)
    first = determiner(caption.tokens, chunk) if place == chunk.head else caption.tokens[chunk.start]
    counting = words.DETERMINERS_OF_ONE | words.DETERMINERS_OF_MANY
    return caption.tokens[place].tag in ("NNS", "NNPS") or (first is not None and first.lower in counting)


def _form(caption: Caption, place: int, lemma: str) -> str:
    """The noun in the number that its place asks for."""
    if caption.tokens[place].tag in ("NNS", "NNPS") or caption.tokens[place].lower == "people":
        return words.plural("person" if lemma == "people" else lemma)
    return lemma


def _choices(caption: Caption, place: int, mass: bool) -> tuple[str, ...]:
    token = caption.tokens[place]
    found = lexicon().noun_choices(token.lemma, mass=mass)
    if token.tag in ("NNS", "NNPS"):
        return found
    return tuple(word for word in found if word not in lexicon().words["plural_only"])


def _is_taken(caption: Caption, place: int, lemma: str) -> bool:
    """Whether the caption has the word, a word for as much, or a pronoun that contradicts it."""
    if lemma in caption.vocabulary or words.plural(lemma) in caption.vocabulary:
        return True
    if (lemma in ("man", "boy") and caption.vocabulary & _FEMALE) or (
        lemma in ("woman", "girl") and caption.vocabulary & _MALE
    ):
        return True
    return any(
        lexicon().noun_relation(token.lemma, lemma) in ("synonym", "hypernym", "compatible")
        for other, token in enumerate(caption.tokens)
        if other != place and token.is_noun
    )


RULE = ReplaceNouns()
