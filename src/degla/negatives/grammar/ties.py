"""What ties a phrase to the words around it: which phrases must stay, and which exchanges of two would say the same.

"A taxi" stays in "traffic like a taxi", "baseball" behind "playing"; "two roses in a vase with water" says as much as
"water in a vase with two roses". Found once for a caption, so that an exchange is judged without being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Final

from degla.negatives.grammar.chunks import Chunk, determiner
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import JOINERS, POSTURES, SYMMETRIC, connect
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.tokens import Token

_LIKENESS: Final = frozenset({"like", "as", "than", "such", "including"})
_FIXED_BY: Final = frozenset({*_LIKENESS, "out", "per", "during", "via", "until", "since"})
_CROWDS: Final = frozenset({"couple", "crowd", "team", "herd", "flock", "trio", "family"})
"""Measures that are something to see by themselves."""
_SPLIT: Final = frozenset(
    {("see", "through"), ("see", "thru"), ("drive", "through"), ("drive", "thru"), ("pull", "out"), ("pop", "up"),
     ("fold", "up"), ("walk", "in"), ("on", "screen"), ("off", "road"), ("stand", "up"), ("close", "up")}
)  # fmt: skip
"""Compounds written apart that the tagger takes for a phrase and a preposition."""
_HOLDING: Final = frozenset(
    {"hold", "tie", "attach", "connect", "touch", "fasten", "chain", "press", "join", "leash", "strap", "hook", "glue"}
)
_WITHIN: Final = frozenset({"in", "at", "inside", "within"})
_HAVING: Final = frozenset({"has", "have", "had", "having"})


@dataclass(frozen=True)
class Tie:
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
def ties(caption: Caption) -> dict[int, Tie]:
    """Every phrase's tie, by the index where the phrase starts."""
    tokens, chunks = caption.tokens, caption.chunks
    found: dict[int, Tie] = {}
    last, where, acts, likened = 0, "", False, False
    for place, chunk in enumerate(chunks):
        gap = tokens[last : chunk.start]
        connector, said = connect(gap)
        last, acts = chunk.end, (acts and bool(where)) or not set(said) <= POSTURES
        link = f"{where} {connector}".strip()
        where = f"{link} {tokens[chunk.head].lower}".strip() if chunk.role == "where" else ""
        following = chunks[place + 1] if place + 1 < len(chunks) else None
        likened = bool(_LIKENESS & {token.lower for token in gap}) or (likened and connector in JOINERS)
        stays = (
            likened
            or bool(_FIXED_BY & set(connector.split()))
            or _completes_adjective(gap)
            or shares_article(tokens, chunk, following)
            or (place > 0 and shares_article(tokens, chunks[place - 1], chunk))
            or _stands_alone(tokens, chunk)
            or (following is not None and _is_likened(tokens[chunk.end : following.start]))
        )
        bare = is_bare(tokens, chunk)
        plain = not bare and determiner(tokens, chunk) is None
        found[chunk.start] = Tie(link, acts, stays, bare, plain)
    return found


def is_bare(tokens: Sequence[Token], chunk: Chunk) -> bool:
    """Whether a countable noun stands in the singular without an article."""
    head = tokens[chunk.head]
    return (
        head.tag == "NN"
        and chunk.core == chunk.start
        and tokens[chunk.start].tag not in ("DT", "CD", "PRP$", "PDT", "WP$")
        and not lexicon().is_mass(head.lemma)
        and head.lemma not in lexicon().words["plural_only"]
        and not any(token.tag == "POS" for token in tokens[chunk.start : chunk.end])
    )


def shares_article(tokens: Sequence[Token], chunk: Chunk, following: Chunk | None) -> bool:
    """Whether the next phrase lives on this one's article or adjective: "a fork and knife", "old cups and plates"."""
    gap = tokens[chunk.end : following.start] if following is not None else ()
    if (
        following is None
        or not gap
        or gap[0].lower not in ("and", "or", ",")
        or any(one.tag != "VBG" for one in gap[1:])
    ):
        return False
    if following.head != following.start and not (
        tokens[following.start].is_noun or tokens[following.start].tag == "VBG"
    ):
        return False
    described = any(token.is_adjective or token.tag in ("VBN", "VBG") for token in tokens[chunk.start : chunk.head])
    counted = determiner(tokens, chunk) is not None
    return (counted and is_bare(tokens, following)) or (described and determiner(tokens, following) is None)


def _completes_adjective(gap: Sequence[Token]) -> bool:
    """Whether the phrase completes an adjective, as in "busy with traffic" and "full of people"."""
    return len(gap) > 1 and gap[-1].tag == "IN" and gap[-2].is_adjective and gap[-2].lower not in ("next", "close")


def _is_likened(gap: Sequence[Token]) -> bool:
    return bool(gap) and gap[0].lower in ("like", "such", "including")


def _stands_alone(tokens: Sequence[Token], chunk: Chunk) -> bool:
    """Whether the noun is a game, a measure or nothing that is seen, or half of a compound that is written apart."""
    known, head = lexicon(), tokens[chunk.head]
    after = tokens[chunk.end].lower if chunk.end < len(tokens) else ""
    before = tokens[chunk.start - 1].lower if chunk.start else ""
    opened = chunk.start > 1 and tokens[chunk.start - 1].tag == "IN" and tokens[chunk.start - 2].tag == "DT"
    return (
        (known.is_in_group(head.lemma, "game") and determiner(tokens, chunk) is None)
        or (head.lemma in known.words["measure"] - _CROWDS and after != "of" and chunk.core == chunk.start)
        or head.lemma in known.nouns["game"].above
        or any(token.lower in ("other", "another") for token in tokens[chunk.start : chunk.head])
        or (not known.is_concrete(head.lemma) and head.lemma not in _CROWDS)
        or (head.lower, after) in _SPLIT
        or (before, tokens[chunk.start].lower) in _SPLIT
        or (chunk.start > 1 and (tokens[chunk.start - 2].lower, before) in _SPLIT)
        or opened
        or (chunk.end < len(tokens) and tokens[chunk.end].tag == "POS")
    )


def objection(caption: Caption, first: Chunk, second: Chunk) -> str:
    """What speaks against putting two phrases in each other's place: "word_order", "same_meaning" or nothing ("")."""
    tied, tokens = ties(caption), caption.tokens
    one, other = tied[first.start], tied[second.start]
    if one.stays or other.stays or one.bare != other.bare:
        return "word_order"
    if any(
        now.plain and not tokens[chunk.head].tag.startswith("NNP") and _comes_before_participle(tokens, target)
        and lexicon().is_mass(tokens[chunk.head].lemma)
        for now, chunk, target in ((one, first, second), (other, second, first))
    ):  # fmt: skip
        return "word_order"
    return "same_meaning" if _says_the_same(caption, first, second) else ""


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
        if other.link.endswith("in front of") and _is_alive(tokens, first) and not _is_alive(tokens, second):
            return True  # who stands in front of a mirror has it in front of him
        holding = {token.lemma for token in tokens[: first.start]} & _HOLDING
        if holding and other.link == "to" and not other.acts:
            return True
        if _HAVING & {token.lower for token in tokens[first.end : second.start]} and _points_back(caption, second):
            return True
    return one.link == "with" and listed[:1] == [True] and not any(tie.acts for tie in (*between, other))


def _looks_the_same(
    tokens: Sequence[Token], exchanged: tuple[Chunk, Chunk], own: tuple[Tie, Tie], between: Sequence[Tie]
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
