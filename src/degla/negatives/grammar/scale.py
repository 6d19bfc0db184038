"""Whether a scene could hold what an exchange says: no bedroom in a sink, no beach on a boy.

Nouns have one of four magnitudes (`scale` in `lexicon_data/relations.toml`): grounds and buildings, what people sit at
or ride in, people and large animals, small things. Only what is new in the text is judged.
"""

from __future__ import annotations

from typing import Final

from degla.negatives.grammar.relations import landmark, noun_sorts, relations
from degla.negatives.grammar.tokens import Token

_BEARING: Final = frozenset({"on", "upon", "onto", "on top of", "atop", "in", "inside", "inside of", "within", "into"})
_HOLDING: Final = frozenset({"in", "inside", "inside of", "within"})
_VEHICLE: Final = 3
GROUND: Final = 4
"""Magnitude of what has its place: grounds, rooms, buildings."""


def magnitude(noun: Token) -> int:
    """4 for grounds and buildings, 3 for furniture and vehicles, 2 for people, 1 for small things, 0 where unknown."""
    scale = relations().scale
    sorts = {*noun_sorts(noun), *landmark(noun)}
    named = next((size for size, table in scale.items() if noun.lemma in table.words), 0)
    return named or next((size for size, table in scale.items() if sorts & table.sorts), 0)


def is_out_of_scale(figure: Token, preposition: str, support: Token) -> bool:
    """Whether a thing stands in or on one that could not bear or hold it, or has its own surroundings "with" it.

    Args:
        figure: head of the phrase before.
        preposition: one or more words, lower case.
        support: head of the phrase behind.
    """
    one, other = magnitude(figure), magnitude(support)
    if not one or not other:
        return False
    if preposition == "with":
        return other == GROUND and one < GROUND
    if preposition in _HOLDING and one == other == _VEHICLE:
        return True
    return preposition in _BEARING and (one - other > 1 or (one == GROUND and other < GROUND))
