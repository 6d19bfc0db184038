"""Whether words that come to stand together suit each other: prepositions and nouns, verbs and those who do them.

A phrase that moves to another place gets another preposition, becomes the one that rides, or what is ridden. Only what
is new is judged: what the caption itself says so is English, or its writer's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final

from degla.negatives.grammar.chunks import Chunk, NounRole, Number, Token, find_chunks, governed
from degla.negatives.grammar.edits import SUBJECTS
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import GROUND, all_sorts, fits_before, is_out_of_scale, magnitude, relations

_OF_MANY: Final = frozenset({"their", "they", "them", "themselves"})
_CLIMBED: Final = frozenset({"advcl", "conj", "xcomp", "pcomp", "ccomp", "prep", "aux", "auxpass"})
"""Dependency labels of verbs that have the doer of the word above them."""


@dataclass(frozen=True)
class _Piece:
    """A noun phrase with what "of" ties to it; `gap` is what stands between it and the piece before."""

    start: int
    end: int
    role: NounRole
    gap: tuple[Token, ...]
    own: tuple[Token, ...]
    head: Token
    number: Number


@dataclass(frozen=True)
class _Cut:
    """A text as pieces, and the words behind the last one."""

    pieces: tuple[_Piece, ...]
    rest: tuple[Token, ...]

    def gaps(self) -> tuple[tuple[Token, ...], ...]:
        """The words before each piece, then those behind the last."""
        return (*(piece.gap for piece in self.pieces), self.rest)

    @cached_property
    def prepositions(self) -> tuple[tuple[str, _Piece, bool], ...]:
        """Every preposition right before a thing, the thing, and whether a verb of aiming stands before it."""
        found = []
        for piece in self.pieces:
            if piece.role != "thing" or not piece.gap or piece.gap[-1].is_verb:
                continue
            start, preposition = _preposition(piece.gap)
            aimed = start > 0 and piece.gap[start - 1].lemma in relations().words["aiming"]
            found.append((preposition, piece, aimed))
        return tuple(found)

    @cached_property
    def odd_prepositions(self) -> tuple[tuple[str, str], ...]:
        """Those that are not said before their thing, and it: "knocking down a boxer"."""
        return tuple((each[0], each[1].head.lemma) for each in self.prepositions if not _suits(*each))


def misfit(caption: Caption, tokens: Sequence[Token], chunks: Sequence[Chunk] | None = None) -> str:
    """What no longer suits its place where phrases, nouns, prepositions or verbs of a caption have changed places.

    Args:
        caption: as it was.
        tokens: its own, in another order or form.
        chunks: of these tokens, where they are known.

    Returns:
        "word_order": a preposition or verb before a noun that it is not said of ("on a bedroom", "flying a beach"), or
        a phrase that is torn apart; "actor": a verb with somebody or something that cannot do it; "agreement": a verb
        or pronoun of another number, or "herself" with no living thing to mean; "scale": a thing in or on one that
        is far too small for it, or a ground that does something. "" where everything suits.
    """
    old, new = _own_cut(caption), _cut(tokens, find_chunks(tokens) if chunks is None else chunks)
    said = {(preposition, piece.head.lemma) for preposition, piece, _ in old.prepositions}
    otherwise = {preposition for preposition, _ in old.odd_prepositions}
    odd = any(each not in said and each[0] not in otherwise for each in new.odd_prepositions)
    if odd or _misses_objects(old, new) or (_announces_the_known(new) and not _announces_the_known(old)):
        return "word_order"
    if _outgrows(old, new):
        return "scale"
    if [len(gap) for gap in old.gaps()] != [len(gap) for gap in new.gaps()]:
        return ""  # more than single phrases moved: which place is which cannot be told
    return _misfit_of_doers(old, new, _doers(caption)) or _misfit_of_pronouns(old, new)


def _suits(preposition: str, piece: _Piece, aimed: bool) -> bool:
    parted = preposition.endswith("between") and piece.number == "one"
    return not parted and suits_preposition(preposition, piece.head, aimed=aimed)


def suits_preposition(preposition: str, noun: Token, *, aimed: bool) -> bool:
    """Whether a preposition is said before a noun.

    Args:
        preposition: one or more words, lower case.
        noun: head of the phrase behind it.
        aimed: whether a verb of aiming stands right before it: "looking at a dog", but not "sitting at a dog".
    """
    known, sorts = relations().words, all_sorts(noun)
    if "atmosphere" in sorts and preposition not in known["in_atmosphere"]:
        return False
    if preposition in ("in", "inside", "inside of", "within", "into"):
        return not is_animate(noun) and fits_before("in" if preposition == "into" else preposition, noun.lemma)
    if preposition in ("on", "upon", "onto"):
        return "room" not in sorts and noun.lemma not in lexicon().words["not_on"]
    if preposition == "at":
        return aimed or bool(sorts & known["stations"]) or lexicon().is_event(noun.lemma)
    return preposition not in known["ways_along"] or bool(sorts & known["ways"])


def can_do(verb: str, noun: Token, *, with_object: bool) -> bool:
    """Whether what a noun names does what a verb says, to a thing or not; True where nothing is known of the verb."""
    actors = relations().actors(verb, with_object=with_object)
    return not actors or bool(actors & all_sorts(noun)) or ("living" in actors and is_animate(noun))


def is_animate(noun: Token) -> bool:
    """Whether a noun or pronoun means a person, an animal or several of them."""
    if noun.tag in ("PRP", "WP"):
        return noun.lower != "it"
    return lexicon().is_living(noun.lemma) or "living" in all_sorts(noun)


def _misfit_of_doers(old: _Cut, new: _Cut, doers: Mapping[int, int]) -> str:
    """Whether a verb has got somebody or something of another number, or that cannot do it."""
    known = relations().words
    for place, (was, now) in enumerate(zip(old.gaps(), new.gaps(), strict=True)):
        for at, (own, verb) in enumerate(zip(was, now, strict=True)):
            meant = doers.get(id(own))
            if meant is None or not verb.is_verb:
                continue
            one, other = old.pieces[meant], new.pieces[meant]
            if not _agrees(verb, other) and _agrees(own, one):
                return "agreement"
            if verb is own and one.head.lemma == other.head.lemma:
                continue
            if verb.lemma in known["comprising"]:
                return "word_order"
            with_object = at == len(now) - 1 and place < len(new.pieces)
            if verb.tag != "VBN" and not can_do(verb.lemma, other.head, with_object=with_object):
                return "actor"
            if verb.lemma in known["postures"] and magnitude(other.head) == GROUND != magnitude(one.head):
                return "scale"
    return ""


def _outgrows(old: _Cut, new: _Cut) -> bool:
    """Whether a thing has come to stand in or on a far smaller one, where the caption has nothing of the kind."""
    said = {(one.head.lemma, preposition, other.head.lemma) for one, preposition, other in _supports(old)}
    odd = sum(is_out_of_scale(one.head, preposition, other.head) for one, preposition, other in _supports(old))
    found = [
        (one.head.lemma, preposition, other.head.lemma) in said
        for one, preposition, other in _supports(new)
        if is_out_of_scale(one.head, preposition, other.head)
    ]
    return len(found) > odd and not all(found)


def _supports(cut: _Cut) -> Iterator[tuple[_Piece, str, _Piece]]:
    """Every two phrases of things with a preposition before the second, and that one; "has" counts as "with"."""
    for one, other in pairwise(cut.pieces):
        if one.role != "thing" or other.role != "thing" or not other.gap:
            continue
        yield one, "with" if other.gap[-1].lemma == "have" else _preposition(other.gap)[1], other


def _misses_objects(old: _Cut, new: _Cut) -> bool:
    """Whether a verb is not said of what comes behind it now: nobody flies a beach, no island features a kitchen."""
    known, said = relations().words, {(verb, noun.lemma) for verb, noun in _objects(old)}
    grounds = {verb for verb, noun in _objects(old) if all_sorts(noun) & known["grounds"]}
    return any(
        (verb, noun.lemma) not in said
        and (
            verb in known["comprising"]
            or (all_sorts(noun) & known["grounds"] and verb not in known["of_places"] | grounds)
        )
        for verb, noun in _objects(new)
    )


def _objects(cut: _Cut) -> Iterator[tuple[str, Token]]:
    """Every verb, no past participle, with the noun right behind it."""
    for piece in cut.pieces:
        if piece.gap and piece.gap[-1].is_verb and piece.gap[-1].tag != "VBN":
            yield piece.gap[-1].lemma, piece.head


def _agrees(verb: Token, piece: _Piece) -> bool:
    return not verb.is_finite or piece.number in ("any", verb.number)


def _misfit_of_pronouns(old: _Cut, new: _Cut) -> str:
    """Whether "her", "himself" or "their" has lost the living thing that it stood for, or its number."""
    personal = relations().words["personal"]
    for place, piece in enumerate(old.pieces):
        said = personal & {token.lower for token in (*piece.gap, *piece.own)}
        meant = next((at for at, one in enumerate(old.pieces[:place]) if is_animate(one.head)), None)
        if not said or meant is None:
            continue
        before, after = old.pieces[meant], new.pieces[meant]
        wrong = "one" if said <= _OF_MANY else "many"
        if not is_animate(after.head) or (after.number == wrong and before.number != wrong):
            return "agreement"
    return ""


def _announces_the_known(cut: _Cut) -> bool:
    """Whether "the" comes after "there is", which only says what is new."""
    return any(
        one.head.tag == "EX" and other.own[0].lower == "the" and any(token.lemma == "be" for token in other.gap)
        for one, other in pairwise(cut.pieces)
    )


def _preposition(gap: Sequence[Token]) -> tuple[int, str]:
    """Where the longest preposition at the end of a gap begins, and its words; else the last word."""
    return _last_preposition(tuple(token.lower for token in gap))


@lru_cache(maxsize=65_536)
def _last_preposition(lower: tuple[str, ...]) -> tuple[int, str]:
    start = next((at for at in range(len(lower)) if relations().match(lower, at) == len(lower)), len(lower) - 1)
    return start, " ".join(lower[start:])


def _cut(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> _Cut:
    pieces: list[_Piece] = []
    last = 0
    for chunk in chunks:
        gap, own = tuple(tokens[last : chunk.start]), tuple(chunk.tokens)
        last = chunk.end
        if pieces and pieces[-1].role == "thing" and [token.lower for token in gap] == ["of"]:
            pieces[-1] = replace(pieces[-1], end=chunk.end, own=(*pieces[-1].own, *gap, *own))
        else:
            pieces.append(_Piece(chunk.start, chunk.end, chunk.role, gap, own, chunk.noun, chunk.number))
    return _Cut(tuple(pieces), tuple(tokens[last:]))


@lru_cache(maxsize=64)
def _own_cut(caption: Caption) -> _Cut:
    return _cut(caption.tokens, caption.chunks)


def whole_things(caption: Caption) -> list[tuple[int, int]]:
    """Spans of the things that a caption names, each with what "of" ties to it."""
    return [(piece.start, piece.end) for piece in _own_cut(caption).pieces if piece.role == "thing"]


@lru_cache(maxsize=64)
def _doers(caption: Caption) -> dict[int, int]:
    """By identity of a verb between phrases: which piece does what it says, as far as the parse tells."""
    pieces = _own_cut(caption).pieces
    found: dict[int, int] = {}
    for place, token in enumerate(caption.tokens):
        if token.is_verb:
            noun = _doer(caption.tokens, place)
            piece = next((at for at, one in enumerate(pieces) if one.start <= noun < one.end), None)
            if piece is not None:
                # the parser likes the nearest noun: "a person on skateboard skating"
                able = (at for at in range(piece, -1, -1) if can_do(token.lemma, pieces[at].head, with_object=False))
                found[id(token)] = next(able, piece)
    return found


def doer(caption: Caption, place: int) -> int | None:
    """Which noun phrase does what the verb at `place` says, phrases with what "of" ties to them counted in order."""
    return _doers(caption).get(id(caption.tokens[place]))


def _doer(tokens: Sequence[Token], place: int) -> int:
    """Index of the noun that does what a verb says; -1 where the parse has none."""
    seen: set[int] = set()
    while place not in seen and place >= 0:
        seen.add(place)
        own = governed(tokens, place, *SUBJECTS)
        if own and tokens[own[0]].tag not in ("WDT", "WP", "EX"):
            return own[0]
        token = tokens[place]
        if token.is_noun:
            return place
        if own and tokens[own[0]].tag == "EX":
            return next(iter(governed(tokens, place, "attr")), -1)
        if token.role not in _CLIMBED | {"acl", "relcl"}:
            break
        place = token.governor
    return -1
