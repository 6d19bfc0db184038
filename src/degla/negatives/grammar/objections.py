"""What speaks against putting two phrases in each other's place: one must stay, or the picture would be the same.

"Two roses in a vase with water" says as much as "water in a vase with two roses". Found from the caption's ties, so
that an exchange is judged without being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Final

from degla.negatives.grammar.chunks import Chunk, adjectives
from degla.negatives.grammar.exclusion import noun_relation
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import JOINERS, SYMMETRIC, connect
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import landmark, noun_sorts, relations
from degla.negatives.grammar.ties import PhraseTie, ties
from degla.negatives.grammar.tokens import Token

_HOLDING: Final = frozenset(
    {"hold", "tie", "attach", "connect", "touch", "fasten", "chain", "press", "join", "leash", "strap", "hook", "glue"}
)
_WITHIN: Final = frozenset({"in", "at", "inside", "within"})
_HAVING: Final = frozenset({"has", "have", "had", "having"})


def objection(caption: Caption, first: Chunk, second: Chunk) -> str:
    """What speaks against putting two phrases in each other's place: "word_order", "same_meaning" or nothing ("")."""
    tied, tokens = ties(caption), caption.tokens
    one, other = tied[first.start], tied[second.start]
    if one.stays or other.stays or one.bare != other.bare:
        return "word_order"
    if "for" in (one.link, other.link) and _is_alive(tokens, first) != _is_alive(tokens, second):
        return "word_order"  # "books for children"
    if any(
        now.plain and not tokens[chunk.head].tag.startswith("NNP") and _comes_before_participle(tokens, target)
        and lexicon().is_mass(tokens[chunk.head].lemma)
        for now, chunk, target in ((one, first, second), (other, second, first))
    ):  # fmt: skip
        return "word_order"
    return "same_meaning" if _are_close(tokens, first, second) or _says_the_same(caption, first, second) else ""


def _are_close(tokens: Sequence[Token], first: Chunk, second: Chunk) -> bool:
    """Whether the two nouns mean nearly the same thing or ground, and no adjective tells them apart."""
    one, other = tokens[first.head], tokens[second.head]
    if relations().is_same_ground(one.lemma, other.lemma):
        return True
    if adjectives(tokens, first) or adjectives(tokens, second) or lexicon().is_person(one.lemma):
        return False
    return noun_relation(lexicon(), one.lemma, other.lemma) in ("synonym", "compatible")


def _comes_before_participle(tokens: Sequence[Token], chunk: Chunk) -> bool:
    return chunk.end < len(tokens) and tokens[chunk.end].tag in ("VBG", "VBN")


def _says_the_same(caption: Caption, first: Chunk, second: Chunk) -> bool:
    """Whether an exchange changes nothing, or next to nothing, of what is seen."""
    tied, tokens, chunks = ties(caption), caption.tokens, [one for one in caption.chunks if one.role != "where"]
    start, end = chunks.index(first), chunks.index(second)
    one, other = tied[first.start], tied[second.start]
    between = [tied[chunk.start] for chunk in chunks[start + 1 : end]]
    if all(tie.link in JOINERS or tie.link == "of" for tie in (*between, other)) and not other.acts:
        return True  # one list
    company = other.link.removeprefix("right ") in SYMMETRIC and not other.acts
    listed = [tie.link in JOINERS for tie in between]
    if company and between and not any(tie.acts for tie in between) and (one.link == "" or all(listed)):
        return True  # "a toilet in a bathroom next to a window", "meat and broccoli with a fork"
    if other.link == "with" and one.link and one.link in JOINERS and not other.acts:
        return True  # "noodles, meat and beans in a sauce with a fork"
    if _looks_the_same(tokens, (first, second), (one, other), between):
        return True
    if not between:
        framed = start > 0 and chunks[start - 1].role == "frame" and one.link == "of"
        member = one.link in JOINERS and one.link != ""
        owned = any(token.tag == "PRP$" for token in tokens[second.start : second.head])
        if company and (
            framed or owned or one.link == "" or (other.link == "with" and (member or one.link in _WITHIN))
        ):
            return True
        if other.link.endswith("in front of") and not _is_alive(tokens, second) and _faces(tokens, first, second):
            return True  # who stands in front of a mirror has it in front of him
        near = one.link.removeprefix("on ").removeprefix("in ") in relations().words["nearness"] | {"front of"}
        if other.link in SYMMETRIC and not other.acts and (near or one.link == "with"):
            return True  # "in front of an oven with pans"
        if one.link == other.link and one.link in ("on", "in") and not other.acts and start > 0:
            return _is_alive(tokens, chunks[start - 1])  # "people on horses on a beach"
        if (
            other.link == "on"
            and _is_alive(tokens, first)
            and tokens[second.head].lemma in relations().words["lap_devices"]
        ):
            return True
        if other.link == "on" and relations().words["fastened"] & {tokens[first.head].lower, tokens[second.head].lower}:
            return True
        holding = {token.lemma for token in tokens[: first.start]} & _HOLDING
        if holding and other.link == "to" and not other.acts:
            return True
        if _HAVING & {token.lower for token in tokens[first.end : second.start]} and _points_back(caption, second):
            return True
    return one.link == "with" and listed[:1] == [True] and not any(tie.acts for tie in (*between, other))


def _looks_the_same(
    tokens: Sequence[Token],
    exchanged: tuple[Chunk, Chunk],
    own: tuple[PhraseTie, PhraseTie],
    between: Sequence[PhraseTie],
) -> bool:
    """Whether two phrases are fastened, filled or held, so that their exchange shows what was there."""
    (first, second), (one, other) = exchanged, own
    gap = tokens[first.end : second.start]
    if not between:
        verbs = {token.lemma for token in gap if token.is_verb} - {"be"}
        return other.link == "to" and bool(verbs) and verbs <= _HOLDING  # "a dog tied to a post"
    if other.link == "with" and one.link == "" and tokens[second.start - 2].lemma == "fill":
        return True  # "a rose in a vase filled with water"
    if _is_alive(tokens, first):  # "a man in front of a mirror and a sink"
        in_front = between[0].link.endswith("in front of")
        listed = all(tie.link in JOINERS for tie in (*between[1:], other))
        return in_front and listed and not _is_alive(tokens, second)
    had = bool(_HAVING & {token.lower for token in gap})
    return had and other.link in ("on", "in")  # "a plate that has beans on a counter"


def _is_alive(tokens: Sequence[Token], chunk: Chunk) -> bool:
    return lexicon().is_living(tokens[chunk.head].lemma)


def _faces(tokens: Sequence[Token], first: Chunk, second: Chunk) -> bool:
    """Whether the first has the second before it: it is alive, or both have a side that looks into the room."""
    facing = relations().words["facing"]
    sides = [facing & {*landmark(tokens[one.head]), *noun_sorts(tokens[one.head])} for one in (first, second)]
    return _is_alive(tokens, first) or all(sides)


def _points_back(caption: Caption, chunk: Chunk) -> bool:
    """Whether "next to it" or the like follows: "a laptop has a phone next to it"."""
    following = next((one for one in caption.chunks if one.start >= chunk.end), None)
    if following is None or caption.tokens[following.head].tag != "PRP":
        return False
    link = connect(caption.tokens[chunk.end : following.start])[0]
    return link in SYMMETRIC


def judge_moves(caption: Caption, tokens: Sequence[Token]) -> str:
    """What speaks against another order of a caption's own tokens, where phrases have changed places and nothing else.

    Returns the first objection to any two phrases that moved; "" where none speaks against it, or the order is no
    exchange of whole phrases.
    """
    pieces = _pieces(caption)
    old = [pieces[id(token)] for token in caption.tokens if id(token) in pieces]
    new = [pieces[id(token)] for token in tokens if id(token) in pieces]
    if len(old) != len(new) or any(
        isinstance(was, Chunk) != isinstance(now, Chunk) or (not isinstance(was, Chunk) and was != now)
        for was, now in zip(old, new, strict=True)
    ):
        return ""
    moved = [was for was, now in zip(old, new, strict=True) if was != now and isinstance(was, Chunk)]
    reasons = [reason for pair in combinations(moved, 2) if (reason := objection(caption, *pair))]
    if len(moved) > 2:  # a pair that alone would say the same does not, once a third phrase moves
        reasons = [reason for reason in reasons if reason == "word_order"]
    return reasons[0] if reasons else ""


@lru_cache(maxsize=64)
def _pieces(caption: Caption) -> dict[int, Chunk | str]:
    """By identity of its token: every phrase that stands for itself at its head, every word between phrases.

    What "of" ties to a phrase goes with it and has no entry.
    """
    tokens = caption.tokens
    found: dict[int, Chunk | str] = {id(token): token.lower for token in tokens if token.is_verb or token.tag != "DT"}
    for chunk in caption.chunks:
        for token in tokens[chunk.start : chunk.end]:
            found.pop(id(token), None)
        found[id(tokens[chunk.head])] = chunk
    for before, chunk in pairwise(caption.chunks):
        if chunk.start == before.end + 1 and tokens[before.end].lower == "of" and chunk.role != "where":
            found.pop(id(tokens[before.end]), None)
            if before.role == "thing":
                found.pop(id(tokens[chunk.head]), None)
    return found
