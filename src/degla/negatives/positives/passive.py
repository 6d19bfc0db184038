"""Put a clause into the passive: "a man rides a horse on a beach" -> "a horse is ridden by a man on a beach".

For captions that start with a subject, one verb and its object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, is_bare, token_at
from degla.negatives.grammar.edits import insert
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import is_place
from degla.negatives.rule import TrueRule

_VERBS: Final = frozenset(
    {"ride", "hold", "carry", "throw", "catch", "chase", "push", "pull", "kick", "hit", "feed", "pet", "wash", "lead",
     "hug", "kiss", "drive", "paddle", "row", "bite", "lick", "eat", "follow", "watch", "play", "toss", "pour",
     "paint", "cut", "lift", "examine", "photograph", "climb", "herd", "walk"}
)  # fmt: skip
"""Transitive verbs that have a natural passive."""


class Passive(TrueRule):
    """Put the clause into the passive.

    Source: none.

    Use when: negatives swap two things, so that the model does not learn that swapped positions mean false.
    """

    def rewrites(self, caption: Caption, usage: words.WordUsage | None) -> Iterator[Sequence[Token]]:
        """Yield the passive if the caption starts with a subject, a verb and an object."""
        tokens, chunks = caption.tokens, caption.chunks
        if len(chunks) < 2 or chunks[0].start != 0 or chunks[0].role != "thing" or chunks[1].role != "thing":
            return
        subject, thing = chunks[0], chunks[1]
        gap = tokens[subject.end : thing.start]
        verb = token_at(gap, len(gap) - 1)
        going = len(gap) == 2 and gap[0].lower in ("is", "are") and verb.tag == "VBG"
        simple = len(gap) == 1 and verb.tag in ("VBZ", "VBP")
        if not (going or simple) or verb.lemma not in _VERBS or thing.noun.role not in ("dobj", "obj"):
            return
        rest = tokens[thing.end :]
        owned = any(token.tag in ("PRP$", "PRP") for token in tokens)
        other, last = thing.after, caption.chunk_from(thing.end + 1)
        placed = other.tag == "IN" and last is not None and is_place(last.noun.lemma)
        # "pushes a man in a wheelchair", "hugs a girl with a helmet" are ambiguous.
        after = other.text in ("", ".") or (placed and other.governor == subject.end + len(gap) - 1)
        tied = any(token.tag in ("CC", "WDT", "WP", "VBG", "VBN", "TO", "RP") or token.text == "," for token in rest)
        bad = thing.noun.lemma == "lot" or thing.number == "any" or not _acts(subject)
        bad = bad or is_bare(thing) or not thing.determiner_fits
        if owned or tied or bad or not after:
            return
        many = thing.number == "many"
        predicate = ["are" if many else "is", *(["being"] if going else []), words.conjugate(verb.lemma, "VBN"), "by"]
        passive = [*thing.tokens, *tokens[: subject.end], *rest]
        yield insert(caption, passive, thing.end - thing.start, predicate, tag="IN")


def _acts(subject: Chunk) -> bool:
    """Whether a subject is alive, and has an article or is plural: no "by batter", no "bunch of beer"."""
    measured = subject.holder != subject.head  # "group of men"
    named = (subject.noun.is_many and not measured) or subject.first.tag in ("DT", "CD")
    return subject.is_living and named and subject.determiner_fits
