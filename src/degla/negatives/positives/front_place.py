"""Move the place to the front or the end: "a man sits on a bench in a park" -> "in a park, a man sits on a bench".

Only places, rooms and the like that the parse ties to the verb, at the end of the caption or before its first comma.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, token_at
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import is_place
from degla.negatives.rule import TrueRule

_AT: Final = frozenset({"in", "on", "at", "near", "outside", "inside", "along", "under", "beside", "behind", "by"})
_AIMED: Final = frozenset(
    {"aim", "gaze", "glance", "look", "peer", "point", "shoot", "shout", "smile", "stare", "throw", "wave"}
)
"""Verbs after which "at" gives a target, not a place."""
_COMMA: Final = Token(",", ",", ",", ",", glued=True)


class FrontPlace(TrueRule):
    """Move the place to the other end.

    Source: none; an English adjunct may be at either end of a sentence.

    Use when: negatives change word order, so that the model does not learn that another order means false.
    """

    def rewrites(self, caption: Caption, usage: words.WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield the caption with its place at the other end, if it has one at an end."""
        tokens = list(caption.tokens)
        if not caption.chunks or sum(token.text == "," for token in tokens) > 1:
            return
        end = len(tokens) - (tokens[-1].text == ".")
        stop = tokens[end:]
        last, first = caption.chunks[-1], caption.chunks[0]
        before = last.start - 1
        closed = any(token.text in (",", ";", ":") for token in tokens)
        if last.end == end and not closed and _is_place(last) and _does(caption, before, first):
            yield [*tokens[before:end], _COMMA, *tokens[:before], *stop]
        comma = first.end
        following = caption.chunk_from(comma + 1)
        opens = first.start == 1 and token_at(tokens, comma).text == "," and _is_place(first)
        if opens and following is not None and following.role == "thing":
            yield [*tokens[comma + 1 : end], *tokens[:comma], *stop]


def _is_place(chunk: Chunk) -> bool:
    """Whether a phrase is a place after a preposition of place, without a pronoun."""
    owned = any(token.tag in ("PRP$", "PRP") for token in chunk.tokens)
    return not owned and is_place(chunk.noun.lemma) and chunk.before.lower in _AT and chunk.before.tag == "IN"


def _does(caption: Caption, preposition: int, subject: Chunk) -> bool:
    """Whether the preposition belongs to the verb of the caption's only clause, which starts with its subject."""
    tokens = caption.tokens
    verb = tokens[preposition].governor
    if subject.start != 0 or subject.role != "thing" or not 0 <= verb < preposition or not tokens[verb].is_verb:
        return False
    if tokens[preposition].lower == "at" and tokens[verb].lemma in _AIMED:
        return False
    own = tokens[verb].role == "ROOT" or tokens[verb].governor == subject.head
    if not own or tokens[verb].tag == "VB":
        return False  # "leans over a wall to feed ducks in the water", "a picture of a man jumping in the grass"
    if any(token.tag in ("CC", "WDT", "WP", "WRB") or token.lower in ("while", "as") for token in tokens[:preposition]):
        return False
    before = tokens[preposition - 1]
    if before.role == "pobj" and lexicon().is_living(words.singular(before.lower)):
        return False  # "beside two geese in water": who is in the water?
    joined = before.tag in ("IN", "TO", "RP", "RB") or before.lower == "of"
    verbs = [place for place, token in enumerate(tokens[:preposition]) if token.is_verb and token.tag != "VBN"]
    return not joined and verbs[-1:] == [verb] and preposition - verb > 1
