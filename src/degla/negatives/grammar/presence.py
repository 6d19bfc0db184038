"""What a picture may hold besides, said or not: a thing that comes in for another may be there all the same."""

from __future__ import annotations

from typing import Final

from degla.negatives.grammar.additions import additions
from degla.negatives.grammar.chunks import Chunk
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token

TokenSpan = tuple[int, int]
"""Indices of the first token of a noun or compound and of the one after its last."""

_LISTING: Final = frozenset({"with", "and", ",", "has", "have", "having", "including", "contains", "containing", "or"})
_ABSENT: Final = frozenset({"no", "without", "missing", "lacking"})
_HAVING: Final = frozenset({"wear", "have", "in", "under"})
"""Verbs and prepositions that say what somebody has on or about him."""


def chunk_at(caption: Caption, span: TokenSpan) -> Chunk:
    """The phrase that a noun is in."""
    return next(one for one in caption.chunks if one.start <= span[0] < one.end)


def may_be_there(caption: Caption, span: TokenSpan, lemma: str) -> bool:
    """Whether a noun that comes in for the one at `span` may name something in the picture as well.

    What nearly every picture has; what holds or covers the old thing; a part of another thing that is named ("a wheel"
    beside a car); what a thing may be made of; what a room may hold besides: a kitchen with a sink may well have a
    microwave.
    """
    known, old = lexicon(), caption.tokens[span[1] - 1].lemma
    sorts, own = known.noun_sorts(lemma), known.noun_sorts(old)
    if _is_had(_before(caption, span)) and (sorts & known.words["unsaid"] - own or "body_upper" in sorts):
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
    before = tokens[chunk.start - 1].lower if chunk.start else ""
    after = [token.lower for token in tokens[chunk.end : chunk.end + 2]]
    denied = any(token.lower == "no" for token in tokens[chunk.start : chunk.end])
    return (
        denied or before in _ABSENT or after in (["should", "be"], ["would", "be"], ["used", "to"], ["is", "missing"])
    )


def is_inventory(caption: Caption, span: TokenSpan) -> bool:
    """Whether the noun is one of the things that a room is said to have, or is listed with two of its fixtures."""
    known, tokens = lexicon(), caption.tokens
    end = chunk_at(caption, span).end
    before, after = _before(caption, span), tokens[end].lower if end < len(tokens) else ""
    if before is None or (before.lower not in _LISTING and after not in (",", "and") and not before.is_noun):
        return False  # the last is "a bath tub a toilet and a sink"
    sorts = {group.name for group in known.noun_groups(tokens[span[1] - 1].lemma)}
    others = _others(caption, span)
    room = any(one in known.words["room_words"] or known.is_in_group(one, "room") for one in others)
    fixtures = sum(known.is_in_group(one, "appliance") or known.is_in_group(one, "bathroom_fixture") for one in others)
    return bool(sorts & known.words["room_contents"]) and (room or fixtures > 1)


def _before(caption: Caption, span: TokenSpan) -> Token | None:
    start = chunk_at(caption, span).start
    return caption.tokens[start - 1] if start else None


def _is_had(before: Token | None) -> bool:
    return before is not None and (before.lower in _LISTING or before.lemma in _HAVING)


def _others(caption: Caption, span: TokenSpan) -> frozenset[str]:
    """The caption's other nouns."""
    return frozenset(
        token.lemma for at, token in enumerate(caption.tokens) if token.is_noun and not span[0] <= at < span[1]
    )
