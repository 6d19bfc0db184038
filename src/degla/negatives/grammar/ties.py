"""What ties a phrase to the words around it, and which phrases must stay where they are.

"A taxi" stays in "traffic like a taxi", "baseball" behind "playing". Found once for a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from degla.negatives.grammar.chunks import Chunk, Token, token_at
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import JOINERS, POSTURES, connect
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import relations

_LIKENESS: Final = frozenset({"like", "as", "than", "such", "including"})
_FIXED_BY: Final = frozenset({*_LIKENESS, "out", "per", "during", "via", "until", "since"})
_CROWDS: Final = frozenset({"couple", "crowd", "team", "herd", "flock", "trio", "family"})
"""Measures that are something to see by themselves."""
_SPLIT: Final = frozenset(
    {("see", "through"), ("see", "thru"), ("drive", "through"), ("drive", "thru"), ("pull", "out"), ("pop", "up"),
     ("fold", "up"), ("walk", "in"), ("on", "screen"), ("off", "road"), ("stand", "up"), ("close", "up")}
)  # fmt: skip
"""Compounds written apart that the tagger takes for a phrase and a preposition."""


@dataclass(frozen=True)
class PhraseTie:
    """How a phrase hangs together with what comes before it.

    Attributes:
        link: the joining words before it, place words included ("to the left of").
        acts: whether a verb before it says more than a posture.
        stays: whether it cannot stand anywhere else, nor another phrase in its place.
        bare: a countable noun without article or plural ("man on horse").
        plain: a noun without article that needs none ("water", "dogs").
    """

    link: str
    acts: bool
    stays: bool
    bare: bool
    plain: bool


@lru_cache(maxsize=64)
def ties(caption: Caption) -> dict[int, PhraseTie]:
    """Every phrase's tie, by the index where the phrase starts."""
    tokens, chunks = caption.tokens, caption.chunks
    tied: dict[int, PhraseTie] = {}
    last, where, acts, likened = 0, "", False, False
    for place, chunk in enumerate(chunks):
        gap = tokens[last : chunk.start]
        connector, said = connect(gap)
        last, acts = chunk.end, (acts and bool(where)) or not set(said) <= POSTURES | relations().words["together"]
        link = f"{where} {connector}".strip()
        where = f"{link} {chunk.noun.lower}".strip() if chunk.role == "where" else ""
        following = chunks[place + 1] if place + 1 < len(chunks) else None
        behind = tokens[chunk.end : following.start] if following is not None else ()
        pairs = ((chunk, following), (chunks[place - 1] if place else None, chunk))
        likened = bool(_LIKENESS & {token.lower for token in gap}) or (likened and connector in JOINERS)
        stays = (
            likened
            or bool(_FIXED_BY & set(connector.split()))
            or _completes_adjective(gap)
            or any(shares_article(*pair) or makes_compound(*pair) for pair in pairs)
            or _stands_alone(chunk)
            or any(token.lower in ("like", "such", "including") for token in behind[:1])
        )
        bare = is_bare(chunk)
        plain = not bare and chunk.determiner is None
        tied[chunk.start] = PhraseTie(link, acts, stays, bare, plain)
    return tied


def is_bare(chunk: Chunk) -> bool:
    """Whether a countable noun stands in the singular without an article."""
    head = chunk.holder_noun  # "piece of concrete"
    return (
        head.tag == "NN"
        and chunk.first.tag not in ("DT", "CD", "PRP$", "PDT", "WP$")
        and not lexicon().is_mass(head.lemma)
        and head.lemma not in lexicon().words["plural_only"]
        and not any(token.tag == "POS" for token in chunk.tokens)
    )


def shares_article(chunk: Chunk | None, following: Chunk | None) -> bool:
    """Whether the next phrase lives on this one's article or adjective: "a fork and knife", "old cups and plates"."""
    if chunk is None or following is None:
        return False
    gap, first = chunk.source[chunk.end : following.start], following.first
    if not gap or gap[0].lower not in ("and", "or", ",") or any(one.tag != "VBG" for one in gap[1:]):
        return False
    if following.head != following.start and not (first.is_noun or first.tag == "VBG"):
        return False
    described = any(token.is_adjective or token.tag in ("VBN", "VBG") for token in chunk.modifiers)
    counted = chunk.determiner is not None
    return (counted and is_bare(following)) or (described and following.determiner is None)


def makes_compound(chunk: Chunk | None, following: Chunk | None) -> bool:
    """Whether a noun, a participle and a noun without article are one phrase: "a building lined street"."""
    return (
        chunk is not None
        and following is not None
        and following.start == chunk.end + 1
        and chunk.after.tag in ("VBN", "VBD")
        and is_bare(following)
        and chunk.noun.tag == "NN"
    )


def _completes_adjective(gap: Sequence[Token]) -> bool:
    """Whether the phrase completes an adjective, as in "busy with traffic" and "full of people"."""
    return len(gap) > 1 and gap[-1].tag == "IN" and gap[-2].is_adjective and gap[-2].lower not in ("next", "close")


def _stands_alone(chunk: Chunk) -> bool:
    """Whether the noun is a game, a measure or nothing that is seen, or half of a compound that is written apart."""
    known, head, first, before, after = lexicon(), chunk.noun, chunk.first, chunk.before, chunk.after
    earlier = token_at(chunk.source, chunk.start - 2)
    layered = first.tag == "DT" and token_at(chunk.source, chunk.start + 1).tag == "CD"  # "a two layer cake"
    purpose = before.lower == "to" and first.tag == "NN"  # "kneeling to pet a dog"
    opened = before.tag == "IN" and earlier.tag == "DT"
    split = {(head.lower, after.lower), (before.lower, first.lower), (earlier.lower, before.lower)}
    return (
        (known.is_in_group(head.lemma, "game") and chunk.determiner is None)
        or (head.lemma in known.words["measure"] - _CROWDS and after.lower != "of" and chunk.core == chunk.start)
        or head.lemma in known.nouns["game"].above
        or any(token.lower in ("other", "another") for token in chunk.modifiers)
        or (not known.is_concrete(head.lemma) and head.lemma not in _CROWDS)
        or not _SPLIT.isdisjoint(split)
        or opened
        or layered
        or purpose
        or after.tag == "POS"
        or after.is_noun
        or (head.lemma in ("mirror", "reflection") and any(token.lower.endswith("self") for token in chunk.source))
    )
