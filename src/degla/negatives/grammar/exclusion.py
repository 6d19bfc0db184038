"""Which everyday words exclude each other: what may replace a noun or adjective, and why others must not."""

from __future__ import annotations

from functools import cache, lru_cache

from degla.negatives.grammar.lexicon import Relation, lexicon

_KINDS = ("mammal", "bird", "other_animal", "fruit", "vegetable", "instrument")
"""Groups whose members exclude each other, also those that are not listed: WordNet has one place for each."""
_CLOSE = 3
"""Steps between two senses of WordNet that are too few to tell one thing from the other."""


@lru_cache(maxsize=200_000)
def noun_relation(word: str, other: str) -> Relation:
    """Why one noun must not replace the other; symmetric."""
    if word > other:
        return noun_relation(other, word)
    if word == other:
        return "synonym"
    words = lexicon()
    mine, theirs = words.noun_groups(word), words.noun_groups(other)
    if any(other in group.cluster(word) for group in mine):
        return "compatible"
    if any(other in group.above for group in mine) or any(word in group.above for group in theirs):
        return "hypernym"
    if any(group.cluster(word) and group.cluster(other) for group in mine if group in theirs):
        return ""  # WordNet's rarer senses would make a boy a man and a bus a car
    if words.senses(word) & words.senses(other):
        return "synonym"
    if words.senses(word) & words.over(other) or words.senses(other) & words.over(word):
        return "hypernym"
    if words.is_part(word, other) or words.is_part(other, word):
        return "part"
    if words.is_person(word) and words.is_person(other):
        return "compatible"  # a worker may be a person, a woman or a tourist
    if any(group in theirs and group.name in _KINDS for group in mine):
        return ""
    return "compatible" if _are_close(word, other) else ""


def _are_close(word: str, other: str) -> bool:
    """Whether the first senses are at most three steps apart, by way of what is above both: "sky" and "air"."""
    up = [_steps_above(word), _steps_above(other)]
    return any(mine + up[1][sense] <= _CLOSE for sense, mine in up[0].items() if sense in up[1])


@cache
def _steps_above(word: str) -> dict[int, int]:
    layer, found = set(lexicon().senses_in_order(word)[:1]), dict[int, int]()
    for steps in range(_CLOSE):
        found |= dict.fromkeys(layer - found.keys(), steps)
        layer = {above for sense in layer for above in lexicon().above(sense)}
    return found


@cache
def adjective_choices(word: str, *, living: bool) -> tuple[str, ...]:
    """Everyday adjectives that exclude an adjective: another cluster of its group, else its antonyms.

    Args:
        word: the adjective to replace.
        living: whether it describes a person or an animal: the opposite of an old man is no new man.
    """
    words, sort = lexicon(), "living" if living else "thing"
    found = [
        draw
        for group in words.adjective_groups(word)
        if group.of in ("", sort)
        for draw in group.draws
        if draw not in group.cluster(word) and not words.adjective_relation(word, draw)
    ]
    if not found and not words.adjective_groups(word):
        pointing = words.words["pointing"]
        found = [other for other in words.opposites(word) if words.is_everyday(other) and other not in pointing]
    return tuple(dict.fromkeys(found))


@cache
def noun_choices(word: str, *, mass: bool) -> tuple[str, ...]:
    """Everyday nouns that may replace a noun: of its group, of another cluster, unrelated in WordNet.

    Args:
        word: the noun to replace.
        mass: whether the place takes a noun without plural and "a" ("covered with _").
    """
    words = lexicon()
    for group in words.noun_groups(word):
        cluster = group.cluster(word)
        found = tuple(
            draw
            for draw in group.draws
            if draw not in cluster and words.is_mass(draw) == mass and not noun_relation(word, draw)
        )
        if found:
            return found
    return ()
