"""Replace one noun with another everyday noun of its sort that cannot be the same thing: an animal with an animal.

Never with a synonym, something more general or specific, a part or whole, or a word already in the caption. The noun
keeps its number; a noun without plural ("water") is replaced with one without. A compound counts as one noun: "a
tennis racket" may become "an umbrella".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk
from degla.negatives.grammar.exclusion import (
    additions,
    is_absent,
    is_inventory,
    may_be_there,
    noun_choices,
    noun_relation,
)
from degla.negatives.grammar.lexicon import Relation, lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import fits_before
from degla.negatives.rule import Place, ReplacingRule

_MALE: Final = frozenset({"his", "he", "him", "himself"})
_FEMALE: Final = frozenset({"her", "she", "hers", "herself"})
_BESIDE: Final = frozenset({"near", "by", "beside", "along", "around"})
_SHORES: Final = frozenset({"water", "sand", "grass"})
"""What is often beside each other: who is near water may be near sand too."""
_LONGEST: Final = 3
"""Maximum words of a new compound."""


class ReplaceNouns(ReplacingRule):
    """Replace one noun.

    Source: arXiv 2504.16801, rule (e). Differs: the new word is refused if it may be true (CE-9).

    Use when: the model should learn to distinguish things of the same sort.
    """

    kind = "object"
    """What the negatives break."""
    instruction = (
        "Replace one noun by the name of a different thing of the same sort that would fit into the scene as well. "
        "Never by a synonym, a more general or more special word, a part or the whole of the thing."
    )
    """Instruction to a language model."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Return the replaceable nouns and compounds, each with the words that may replace it."""
        return {span: _choices(caption, span) for span in _places(caption)}

    def widen(self, choices: tuple[str, ...]) -> tuple[str, ...]:
        """Return the words with everyday synonyms added: "guy" next to "man"."""
        return _with_mates(choices)

    def surface(self, caption: Caption, place: Place, word: str) -> str:
        """Return the noun in the number of its place."""
        return words.plural(word) if caption.tokens[place[1] - 1].is_plural else word

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Whether the word is not yet in the caption and cannot be true of what it replaces."""
        return (
            not _is_present(caption, place, word)
            and not _relation(caption, place, (word,))
            and _suits(caption, place, word)
            and not may_be_there(caption, place, word)
        )

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """Return the noun in the number of its place; None if it cannot have that number."""
        lemma = words.singular(word)
        return _form(caption, place, lemma) if _fits_number(caption, place, lemma) else None

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one changed noun, of the same number and unrelated to the old one and the others."""
        change = self.single_change(caption, content)
        if change is None:
            return "not_rule"
        place, old, new = change
        if not 0 < len(new) <= _LONGEST or new[-1] == old[-1]:
            return "not_rule"
        lemma = words.singular(new[-1])
        if not all(_is_nominal(new, at) for at in range(len(new))):
            return "unknown_word" if len(new) == 1 or not lexicon().is_noun(lemma) else "not_rule"
        if not _suits(caption, place, lemma):
            return "word_order"
        if not _fits_number(caption, place, lemma) or _form(caption, place, lemma) != new[-1]:
            return "agreement"
        if relation := _relation(caption, place, new):
            return relation
        if not lexicon().is_concrete(lemma) or any(lemma in lexicon().words[sort] for sort in ("where", "generic")):
            return "abstract"
        if may_be_there(caption, place, lemma):
            return "still_true"
        return "already_in_caption" if _is_present(caption, place, lemma) else ""


@lru_cache(maxsize=4_096)
def _with_mates(nouns: tuple[str, ...]) -> tuple[str, ...]:
    tables = lexicon()
    mates = (
        mate
        for word in nouns
        for group in tables.noun_groups(word)[:1]
        for mate in sorted(group.cluster(word))
        if tables.is_mass(mate) == tables.is_mass(word)
    )
    return tuple(dict.fromkeys((*nouns, *mates)))


def _places(caption: Caption) -> Iterator[Place]:
    """Yield the spans of the replaceable nouns."""
    tokens = caption.tokens
    for chunk, (start, end) in caption.nouns():
        if is_absent(chunk):
            continue  # "without a helmet" does not exclude "without a scooter"
        if tokens[end - 1].lemma not in lexicon().words["frame"] and not lexicon().is_event(tokens[end - 1].lemma):
            named = any(
                token.tag.startswith("NNP") and token.text[1:].islower() and token.text[0].isupper()
                for token in tokens[start : end - 1]
            )
            yield (end - 1 if named else start), end  # "a Dell laptop" -> "a Dell printer"


def _is_nominal(new: Sequence[str], at: int) -> bool:
    """Whether a word of a new compound is a noun, or forms a name with the next one ("hot dog")."""
    tables = lexicon()
    return tables.is_noun(words.singular(new[at])) or (
        at + 1 < len(new) and tables.is_name(new[at], words.singular(new[at + 1]))
    )


def _counts(caption: Caption, place: Place) -> bool:
    """Whether the noun here is plural or has "a", "one", "two", ... before it."""
    chunk, head = caption.chunk_at(place[0]), place[1] - 1
    first = chunk.determiner if head == chunk.head else chunk.first
    return caption.tokens[head].is_plural or (first is not None and first.lower in words.COUNTING)


def _fits_number(caption: Caption, place: Place, lemma: str) -> bool:
    """Whether a noun can have the number of its place: no "a pants", no "two waters"."""
    if lemma in lexicon().words["plural_only"]:
        return caption.tokens[place[1] - 1].is_many
    return not (lexicon().is_mass(lemma) and _counts(caption, place))


def _form(caption: Caption, place: Place, lemma: str) -> str:
    if caption.tokens[place[1] - 1].is_many:
        return words.plural("person" if lemma == "people" else lemma)
    return lemma


def _choices(caption: Caption, place: Place) -> tuple[str, ...]:
    """Return the candidates: of the sort of the whole name ("hotdog"), else of its head."""
    token, tables = caption.tokens[place[1] - 1], lexicon()
    mass = not token.is_many and tables.is_mass(token.lemma) and not _counts(caption, place)
    name = "".join(one.lower for one in caption.tokens[place[0] : place[1] - 1]) + token.lemma
    sort = name if place[1] - place[0] > 1 and tables.noun_groups(name) else token.lemma
    if is_inventory(caption, place):
        choices = additions().objects(token.lemma)
    else:
        chunk = caption.chunk_at(place[0])
        choices = noun_choices(sort, mass=mass, but="drink" if _is_ground(chunk) else "")
        if chunk.before.lower in _BESIDE:
            choices = tuple(word for word in choices if word not in _SHORES)
    return choices if token.is_many else _single(choices, mass=mass)


def _is_ground(chunk: Chunk) -> bool:
    """Whether "water" is what someone is in: not what is drunk, or in a glass."""
    return chunk.core == chunk.start and chunk.before.tag in ("IN", "TO") and chunk.before.lower != "with"


@lru_cache(maxsize=4_096)
def _single(nouns: tuple[str, ...], *, mass: bool) -> tuple[str, ...]:
    """Return the nouns that have a singular, or that are masses."""
    tables = lexicon()
    return tuple(word for word in nouns if word not in tables.words["plural_only"] and tables.is_mass(word) == mass)


def _suits(caption: Caption, place: Place, lemma: str) -> bool:
    """Whether a noun suits the preposition before its phrase ("in a park"), and "it" behind it."""
    tables, chunk = lexicon(), caption.chunk_at(place[0])
    if not fits_before(chunk.before.lower, lemma):
        return False
    if tables.is_person(lemma) and not tables.is_living(caption.tokens[place[1] - 1].lemma):
        return not any(token.lower in ("it", "its") for token in caption.tokens[chunk.end :])
    return True


def _relation(caption: Caption, place: Place, new: Sequence[str]) -> Relation:
    """Return why a compound must not replace the present one; "" if it may."""
    *modifiers, head = caption.tokens[place[0] : place[1]]
    lemma = words.singular(new[-1])
    if head.lemma in map(words.singular, new) or any(lemma == one.lemma for one in modifiers):
        return "compatible"  # "a cake" and "a cake slice", "a pizza slice" and "a pizza"
    names = [head.lemma, "".join(one.lower for one in modifiers) + head.lemma, *(one.lemma for one in modifiers)]
    return next((relation for name in names if (relation := noun_relation(name, lemma))), "")


def _is_present(caption: Caption, place: Place, lemma: str) -> bool:
    """Whether the caption has the word, a synonym, or a pronoun that contradicts it."""
    contrary = {"man": _FEMALE, "boy": _FEMALE, "woman": _MALE, "girl": _MALE}.get(lemma, frozenset())
    if not caption.vocabulary.isdisjoint({lemma, words.plural(lemma), *contrary}):
        return True
    return any(
        noun_relation(other, lemma) in ("synonym", "hypernym", "compatible") for other in caption.other_nouns(place)
    )
