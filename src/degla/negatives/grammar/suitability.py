"""Whether words fit their new neighbours after a move: prepositions and nouns, verbs and their subjects.

A phrase that moves gets another preposition, or becomes the rider or what is ridden. Only new combinations are judged:
those of the caption itself are taken as correct English.
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
"""Dependency labels of verbs that share the subject of the word above them."""


@dataclass(frozen=True)
class _Piece:
    """A noun phrase with what "of" ties to it; `gap` has the words between it and the piece before."""

    start: int
    end: int
    role: NounRole
    gap: tuple[Token, ...]
    own: tuple[Token, ...]
    head: Token
    number: Number


@dataclass(frozen=True)
class _Cut:
    """A text as pieces, and the words after the last one."""

    pieces: tuple[_Piece, ...]
    rest: tuple[Token, ...]

    def gaps(self) -> tuple[tuple[Token, ...], ...]:
        """Return the words before each piece, then those after the last."""
        return (*(piece.gap for piece in self.pieces), self.rest)

    @cached_property
    def prepositions(self) -> tuple[tuple[str, _Piece, bool], ...]:
        """Every preposition right before a thing, the thing, and whether a verb of aiming precedes it."""
        triples = []
        for piece in self.pieces:
            if piece.role != "thing" or not piece.gap or piece.gap[-1].is_verb:
                continue
            start, preposition = _preposition(piece.gap)
            aimed = start > 0 and piece.gap[start - 1].lemma in relations().words["aiming"]
            triples.append((preposition, piece, aimed))
        return tuple(triples)

    @cached_property
    def odd_prepositions(self) -> tuple[tuple[str, str], ...]:
        """Prepositions that are not idiomatic before their thing, and the thing: "knocking down a boxer"."""
        return tuple((each[0], each[1].head.lemma) for each in self.prepositions if not _suits(*each))


def misfit(caption: Caption, tokens: Sequence[Token], chunks: Sequence[Chunk] | None = None) -> str:
    """Return what no longer fits after phrases, nouns, prepositions or verbs of a caption have changed places.

    Args:
        caption: the original caption.
        tokens: its tokens in another order or form.
        chunks: noun phrases of these tokens, if already known.

    Returns:
        "word_order": a preposition or verb before a noun that it does not fit ("on a bedroom", "flying a beach"), or a
        split phrase; "actor": a verb whose subject cannot do it; "agreement": a verb or pronoun with the wrong number,
        or "herself" without a living referent; "scale": a thing in or on one that is far too small for it, or a ground
        that does something; "" if everything fits.
    """
    old, new = _own_cut(caption), _cut(tokens, find_chunks(tokens) if chunks is None else chunks)
    pairs = {(preposition, piece.head.lemma) for preposition, piece, _ in old.prepositions}
    otherwise = {preposition for preposition, _ in old.odd_prepositions}
    odd = any(each not in pairs and each[0] not in otherwise for each in new.odd_prepositions)
    if odd or _misses_objects(old, new) or (_announces_the_known(new) and not _announces_the_known(old)):
        return "word_order"
    if _outgrows(old, new):
        return "scale"
    if [len(gap) for gap in old.gaps()] != [len(gap) for gap in new.gaps()]:
        return ""  # more than single phrases moved, so places cannot be matched
    return _misfit_of_doers(old, new, _doers(caption)) or _misfit_of_pronouns(old, new)


def _suits(preposition: str, piece: _Piece, aimed: bool) -> bool:
    parted = preposition.endswith("between") and piece.number == "one"
    return not parted and suits_preposition(preposition, piece.head, aimed=aimed)


def suits_preposition(preposition: str, noun: Token, *, aimed: bool) -> bool:
    """Whether a preposition is idiomatic before a noun.

    Args:
        preposition: one or more words in lower case.
        noun: head noun of the phrase after it.
        aimed: whether a verb of aiming comes right before it: "looking at a dog", but not "sitting at a dog".
    """
    words, sorts = relations().words, all_sorts(noun)
    if "atmosphere" in sorts and preposition not in words["in_atmosphere"]:
        return False
    if preposition in ("in", "inside", "inside of", "within", "into"):
        return not is_animate(noun) and fits_before("in" if preposition == "into" else preposition, noun.lemma)
    if preposition in ("on", "upon", "onto"):
        return "room" not in sorts and noun.lemma not in lexicon().words["not_on"]
    if preposition == "at":
        return aimed or bool(sorts & words["stations"]) or lexicon().is_event(noun.lemma)
    return preposition not in words["ways_along"] or bool(sorts & words["ways"])


def can_do(verb: str, noun: Token, *, with_object: bool) -> bool:
    """Whether a noun can be the subject of a verb, with or without object; True if the verb is unknown."""
    actors = relations().actors(verb, with_object=with_object)
    return not actors or bool(actors & all_sorts(noun)) or ("living" in actors and is_animate(noun))


def is_animate(noun: Token) -> bool:
    """Whether a noun or pronoun refers to people or animals."""
    if noun.tag in ("PRP", "WP"):
        return noun.lower != "it"
    return lexicon().is_living(noun.lemma) or "living" in all_sorts(noun)


def _misfit_of_doers(old: _Cut, new: _Cut, doers: Mapping[int, int]) -> str:
    """Return the reason against a verb's new subject: wrong number, or unable to do it; "" if there is none."""
    words = relations().words
    for place, (was, now) in enumerate(zip(old.gaps(), new.gaps(), strict=True)):
        for at, (own, verb) in enumerate(zip(was, now, strict=True)):
            subject = doers.get(id(own))
            if subject is None or not verb.is_verb:
                continue
            one, other = old.pieces[subject], new.pieces[subject]
            if not _agrees(verb, other) and _agrees(own, one):
                return "agreement"
            if verb is own and one.head.lemma == other.head.lemma:
                continue
            if verb.lemma in words["comprising"]:
                return "word_order"
            with_object = at == len(now) - 1 and place < len(new.pieces)
            if verb.tag != "VBN" and not can_do(verb.lemma, other.head, with_object=with_object):
                return "actor"
            if verb.lemma in words["postures"] and magnitude(other.head) == GROUND != magnitude(one.head):
                return "scale"
    return ""


def _outgrows(old: _Cut, new: _Cut) -> bool:
    """Whether a thing is now in or on a far smaller one, unlike in the caption."""
    triples = {(one.head.lemma, preposition, other.head.lemma) for one, preposition, other in _supports(old)}
    odd = sum(is_out_of_scale(one.head, preposition, other.head) for one, preposition, other in _supports(old))
    repeats = [
        (one.head.lemma, preposition, other.head.lemma) in triples
        for one, preposition, other in _supports(new)
        if is_out_of_scale(one.head, preposition, other.head)
    ]
    return len(repeats) > odd and not all(repeats)


def _supports(cut: _Cut) -> Iterator[tuple[_Piece, str, _Piece]]:
    """Yield consecutive things with the preposition between them; "has" counts as "with"."""
    for one, other in pairwise(cut.pieces):
        if one.role != "thing" or other.role != "thing" or not other.gap:
            continue
        yield one, "with" if other.gap[-1].lemma == "have" else _preposition(other.gap)[1], other


def _misses_objects(old: _Cut, new: _Cut) -> bool:
    """Whether a verb does not fit its new object: nobody flies a beach, no island features a kitchen."""
    words, pairs = relations().words, {(verb, noun.lemma) for verb, noun in _objects(old)}
    grounds = {verb for verb, noun in _objects(old) if all_sorts(noun) & words["grounds"]}
    return any(
        (verb, noun.lemma) not in pairs
        and (
            verb in words["comprising"]
            or (all_sorts(noun) & words["grounds"] and verb not in words["of_places"] | grounds)
        )
        for verb, noun in _objects(new)
    )


def _objects(cut: _Cut) -> Iterator[tuple[str, Token]]:
    """Yield every verb except past participles with the noun right after it."""
    for piece in cut.pieces:
        if piece.gap and piece.gap[-1].is_verb and piece.gap[-1].tag != "VBN":
            yield piece.gap[-1].lemma, piece.head


def _agrees(verb: Token, piece: _Piece) -> bool:
    return not verb.is_finite or piece.number in ("any", verb.number)


def _misfit_of_pronouns(old: _Cut, new: _Cut) -> str:
    """Return "agreement" if "her", "himself" or "their" lost its living referent or its number; else ""."""
    personal = relations().words["personal"]
    for place, piece in enumerate(old.pieces):
        pronouns = personal & {token.lower for token in (*piece.gap, *piece.own)}
        referent = next((at for at, one in enumerate(old.pieces[:place]) if is_animate(one.head)), None)
        if not pronouns or referent is None:
            continue
        before, after = old.pieces[referent], new.pieces[referent]
        wrong = "one" if pronouns <= _OF_MANY else "many"
        if not is_animate(after.head) or (after.number == wrong and before.number != wrong):
            return "agreement"
    return ""


def _announces_the_known(cut: _Cut) -> bool:
    """Whether "the" follows "there is", which only introduces new things."""
    return any(
        one.head.tag == "EX" and other.own[0].lower == "the" and any(token.lemma == "be" for token in other.gap)
        for one, other in pairwise(cut.pieces)
    )


def _preposition(gap: Sequence[Token]) -> tuple[int, str]:
    """Return the start and the words of the longest preposition at the end of a gap; else the last word."""
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
    """Return the spans of the things that a caption names, each with what "of" ties to it."""
    return [(piece.start, piece.end) for piece in _own_cut(caption).pieces if piece.role == "thing"]


@lru_cache(maxsize=64)
def _doers(caption: Caption) -> dict[int, int]:
    """Map the id of each verb between phrases to the piece that is its subject, as far as the parse shows."""
    pieces = _own_cut(caption).pieces
    doers: dict[int, int] = {}
    for place, token in enumerate(caption.tokens):
        if token.is_verb:
            noun = _doer(caption.tokens, place)
            piece = next((at for at, one in enumerate(pieces) if one.start <= noun < one.end), None)
            if piece is not None:
                # the parser prefers the nearest noun: "a person on skateboard skating"
                able = (at for at in range(piece, -1, -1) if can_do(token.lemma, pieces[at].head, with_object=False))
                doers[id(token)] = next(able, piece)
    return doers


def doer(caption: Caption, place: int) -> int | None:
    """Return the number of the noun phrase (with what "of" ties to it) that is the subject of the verb at `place`."""
    return _doers(caption).get(id(caption.tokens[place]))


def _doer(tokens: Sequence[Token], place: int) -> int:
    """Return the index of a verb's subject noun; -1 if the parse has none."""
    visited: set[int] = set()
    while place not in visited and place >= 0:
        visited.add(place)
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
