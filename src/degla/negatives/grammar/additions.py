"""What a picture may hold besides what its caption says: objects beside a noun, attributes of a noun, parts of a room.

`lexicon_data/additions.toml` lists what may be added. An addition may be true without anyone's knowing it, and so may a
thing that comes in for another. What is drawn is what a caption would mention; what may be there unsaid, or is typical
of its noun, is refused as "still_true".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from degla.negatives.grammar.chunks import Chunk, Token, token_at
from degla.negatives.grammar.lexicon import ADDITIONS_NAME, lexicon, read_tables
from degla.negatives.grammar.phrases import Caption

TokenSpan = tuple[int, int]
"""Indices of the first token of a noun or compound and of the one after its last."""

_LISTING: Final = frozenset({"with", "and", ",", "has", "have", "having", "including", "contains", "containing", "or"})
_ABSENT: Final = frozenset({"no", "without", "missing", "lacking"})
_HAVING: Final = frozenset({"wear", "have", "in", "under"})
"""Verbs and prepositions that say what somebody has on or about him."""


@dataclass(frozen=True)
class _List:
    sorts: frozenset[str]
    words: frozenset[str]
    draws: tuple[str, ...]


class Additions:
    """The lists in memory; `additions()` gives the ones that are shared. Words are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self._objects = _lists(tables["objects"])
        self._attributes = _lists(tables["attributes"])
        self._typical = {noun: frozenset(words) for noun, words in tables["typical"].items()}
        self._words = {name: frozenset(words) for name, words in tables["words"].items()}

    def objects(self, noun: str) -> tuple[str, ...]:
        """Nouns of things that may be added beside a noun's."""
        return _draws(self._objects, noun)

    def attributes(self, noun: str) -> tuple[str, ...]:
        """Adjectives that may be added to a noun."""
        return _draws(self._attributes, noun)

    def may_be_present(self, noun: str) -> bool:
        """Whether a picture may well hold such a thing without its caption's saying so."""
        return noun in self._words["present_nouns"] or bool(lexicon().group_names(noun) & self._words["present"])

    def is_vague(self, adjective: str) -> bool:
        """Whether an adjective says a size, an age, a judgement or the like."""
        return any(group.name in self._words["vague"] for group in lexicon().adjective_groups(adjective))

    def is_said_by(self, adjective: str, vocabulary: frozenset[str]) -> bool:
        """Whether a caption's words say as much as an adjective: who is dressed as a clown is costumed."""
        return adjective in self._words["disguised"] and not vocabulary.isdisjoint(self._words["disguises"])

    def is_seldom(self, adjective: str, noun: str) -> bool:
        """Whether an adjective may be added to a noun, and most things of the name are not so anyway."""
        return adjective in self.attributes(noun) and adjective not in self._typical.get(noun, ())


def _lists(tables: dict[str, Any]) -> tuple[_List, ...]:
    return tuple(
        _List(frozenset(table.get("for", ())), frozenset(table.get("words", ())), tuple(table["draw"]))
        for table in tables.values()
    )


def _draws(lists: tuple[_List, ...], noun: str) -> tuple[str, ...]:
    named = next((one.draws for one in lists if noun in one.words), None)
    if named is not None:
        return named
    sorts = {group.name for group in lexicon().noun_groups(noun)[:1]}
    return next((one.draws for one in lists if sorts & one.sorts), ())


@cache
def additions() -> Additions:
    """The package's lists of additions, read once.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    return Additions(read_tables(ADDITIONS_NAME))


def chunk_at(caption: Caption, span: TokenSpan) -> Chunk:
    """The phrase that a noun is in."""
    return next(one for one in caption.chunks if one.start <= span[0] < one.end)


def may_be_there(caption: Caption, span: TokenSpan, lemma: str) -> bool:
    """Whether a noun that comes in for the one at `span` may name something in the picture as well.

    What nearly every picture has; what holds or covers the old thing; a part of another thing that is named ("a wheel"
    beside a car); what a thing may be made of; what a room may hold besides: a kitchen with a sink may well have a
    microwave.
    """
    known, old, before = lexicon(), caption.tokens[span[1] - 1].lemma, _before(caption, span)
    sorts, own = known.noun_sorts(lemma), known.noun_sorts(old)
    had = before.lower in _LISTING or before.lemma in _HAVING
    if had and (sorts & known.words["unsaid"] - own or "body_upper" in sorts):
        return True  # "a black nose" may come with black paws
    inner, outer = known.words["inner"], known.words["outer"]
    if (own & inner and sorts & outer) or (own & outer and sorts & inner):
        return True
    if known.is_material(lemma) and not known.is_material(old):
        return True
    if any(known.is_usual_part(lemma, other) for other in _others(caption, span)):
        return True
    seldom = lemma in additions().objects(old)
    usual = bool(sorts & known.words["room_contents"]) or additions().may_be_present(lemma)
    return usual and not seldom and is_inventory(caption, span)


def is_absent(caption: Caption, chunk: Chunk) -> bool:
    """Whether a phrase names what is not there ("where a door should be", "without a door"), so that none shows it."""
    tokens = caption.tokens
    denied = token_at(tokens, chunk.start - 1).lower in _ABSENT or any(
        token.lower == "no" for token in tokens[chunk.start : chunk.end]
    )
    after = " ".join(token.lower for token in tokens[chunk.end : chunk.end + 2])
    return denied or after in ("should be", "would be", "used to", "is missing")


def is_inventory(caption: Caption, span: TokenSpan) -> bool:
    """Whether the noun is one of the things that a room is said to have, or is listed with two of its fixtures."""
    known, tokens, before = lexicon(), caption.tokens, _before(caption, span)
    after = token_at(tokens, chunk_at(caption, span).end).lower
    if not before.text or not (before.lower in _LISTING or after in (",", "and") or before.is_noun):
        return False  # the last is "a bath tub a toilet and a sink"
    others = _others(caption, span)
    room = any(one in known.words["room_words"] or known.is_in_group(one, "room") for one in others)
    fixtures = sum(known.is_in_group(one, "appliance") or known.is_in_group(one, "bathroom_fixture") for one in others)
    listed = known.group_names(tokens[span[1] - 1].lemma) & known.words["room_contents"]
    return bool(listed) and (room or fixtures > 1)


def _before(caption: Caption, span: TokenSpan) -> Token:
    return token_at(caption.tokens, chunk_at(caption, span).start - 1)


def _others(caption: Caption, span: TokenSpan) -> frozenset[str]:
    """The caption's other nouns."""
    return frozenset(
        token.lemma for at, token in enumerate(caption.tokens) if token.is_noun and not span[0] <= at < span[1]
    )
