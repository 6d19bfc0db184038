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

from degla.negatives.grammar.chunks import Chunk, NounRole, Number, Token, find_chunks, governed, token_at
from degla.negatives.grammar.edits import SUBJECTS
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import JOINERS
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import (
    GROUND,
    MACHINE,
    THING,
    UNKNOWN,
    agency,
    all_sorts,
    fits_before,
    is_animate,
    is_clothing,
    is_limb,
    is_out_of_scale,
    magnitude,
    relations,
)

_SMALL: Final = 1
"""`magnitude` of what a hand holds."""
_OF_MANY: Final = frozenset({"their", "they", "them", "themselves"})
_LISTING: Final = JOINERS - {","}
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
        return tuple(
            (preposition, piece.head.lemma)
            for preposition, piece, aimed in self.prepositions
            if (preposition.endswith("between") and piece.number == "one")
            or not suits_preposition(preposition, piece.head, aimed=aimed)
        )


def misfit(caption: Caption, tokens: Sequence[Token], chunks: Sequence[Chunk]) -> str:
    """Return what no longer fits after phrases, nouns, prepositions or verbs of a caption have changed places.

    Args:
        caption: the original caption.
        tokens: its tokens in another order or form.
        chunks: noun phrases of these tokens.

    Returns:
        "word_order": a preposition or verb before a noun that it does not fit ("on a bedroom", "flying a beach"), or a
        split phrase; "actor": a verb whose subject cannot do it; "agreement": a verb or pronoun with the wrong number,
        or "herself" without a living referent; "scale": a thing in or on one that is far too small for it, or a ground
        that does something; "" if everything fits.
    """
    old, new = _own_cut(caption), _cut(tokens, chunks)
    pairs = {(preposition, piece.head.lemma) for preposition, piece, _ in old.prepositions}
    otherwise = {preposition for preposition, noun in old.odd_prepositions if _is_telling(noun)}
    odd = any(each not in pairs and each[0] not in otherwise for each in new.odd_prepositions)
    if odd or _misses_objects(old, new) or (_announces_the_known(new) and not _announces_the_known(old)):
        return "word_order"
    if _outgrows(old, new):
        return "scale"
    if not _only_phrases_moved(old, new):
        return ""
    return _misfit_of_pronouns(old, new) or _misfit_of_doers(old, new, _doers(caption))


def is_strange(caption: Caption, tokens: Sequence[Token]) -> bool:
    """Whether an exchange makes a scene that hardly any image shows: a rail grinds down a man, who wears a bicycle.

    Such a text is false and well-formed, but can be told from its caption without the image.

    Args:
        caption: the original caption.
        tokens: its tokens in another order or form.
    """
    old, new = _own_cut(caption), _cut(tokens, find_chunks(tokens))
    counts = (_dressed_things, _mixed_lists, _odd_descriptions, _odd_objects, _swallowed)
    # Most candidates have none: those of the caption are counted for the others only.
    if any((odd := count(new)) and odd > count(old) for count in counts):
        return True
    return _only_phrases_moved(old, new) and any(
        _loses_agency(verb, one.head, other.head, following)
        for _, verb, one, other, following in _deeds(old, new, _doers(caption))
    )


def _only_phrases_moved(old: _Cut, new: _Cut) -> bool:
    """Whether single phrases or words changed places, so that the places of both texts can be matched."""
    return [len(gap) for gap in old.gaps()] == [len(gap) for gap in new.gaps()]


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
        return (
            not is_animate(noun)
            and noun.lemma not in words["not_stayed_in"]
            and fits_before("in" if preposition == "into" else preposition, noun.lemma)
        )
    if preposition in ("on", "upon", "onto"):
        unsuited = noun.lemma in lexicon().words["not_on"] or noun.lemma in words["not_stood_on"]
        return "room" not in sorts and not unsuited
    if preposition == "at":
        return aimed or bool(sorts & words["stations"]) or lexicon().is_event(noun.lemma)
    return preposition not in words["ways_along"] or bool(sorts & words["ways"])


def can_do(verb: str, noun: Token, *, with_object: bool) -> bool:
    """Whether a noun can be the subject of a verb, with or without object; True if the verb is unknown."""
    actors = relations().actors(verb, with_object=with_object)
    return not actors or bool(actors & all_sorts(noun)) or ("living" in actors and is_animate(noun))


def _loses_agency(verb: Token, was: Token, now: Token, following: str | None) -> bool:
    """Whether a deed of someone alive or of a vehicle becomes that of a thing: "a rail is grinding down a skater".

    So does "sitting around" something, but not "sitting on" it.
    """
    words = relations().words
    if verb.tag == "VBN" and verb.lemma not in words["of_the_dressed"]:
        return False
    if verb.lemma in words["of_anything"] and following not in ("around", "at"):
        return False
    return agency(was) > agency(now) > UNKNOWN


def _deeds(old: _Cut, new: _Cut, doers: Mapping[int, int]) -> Iterator[tuple[Token, Token, _Piece, _Piece, str | None]]:
    """Yield the word in each verb's place in the caption, the verb, its old and its new subject, and the next word.

    The next word is None before a phrase, and "" at the end of the text.
    """
    ends = (*(None for _ in new.pieces), "")
    for was, now, end in zip(old.gaps(), new.gaps(), ends, strict=True):
        following = (*(token.lower for token in now[1:]), end)
        for own, verb, word in zip(was, now, following, strict=False):  # an empty gap has only the end
            subject = doers.get(id(own))
            if subject is not None and verb.is_verb:
                yield own, verb, old.pieces[subject], new.pieces[subject], word


def _misfit_of_doers(old: _Cut, new: _Cut, doers: Mapping[int, int]) -> str:
    """Return the reason against a verb's new subject: wrong number, or unable to do it; "" if there is none."""
    words = relations().words
    for own, verb, one, other, following in _deeds(old, new, doers):
        if not _agrees(verb, other) and _agrees(own, one):
            return "agreement"
        if verb is own and one.head.lemma == other.head.lemma:
            continue
        if verb.lemma in words["comprising"]:
            return "word_order"
        if verb.tag != "VBN" and not can_do(verb.lemma, other.head, with_object=following is None):
            return "actor"
        if verb.lemma in words["postures"] and magnitude(other.head) == GROUND != magnitude(one.head):
            return "scale"
    return ""


def _dressed_things(cut: _Cut) -> int:
    """Count the things that are in clothes or have limbs: "a shirt in a red jacket"."""
    return sum(
        agency(one.head) <= MACHINE
        and ((preposition == "in" and _is_worn(other.head)) or (preposition == "with" and is_limb(other.head)))
        for one, preposition, other in _supports(cut)
    )


def _is_worn(noun: Token) -> bool:
    return is_clothing(noun.lemma) or lexicon().is_in_group(noun.lower, "colour")


def _odd_descriptions(cut: _Cut) -> int:
    """Count the adjectives that do not suit their noun: "a sad bench", "a yellow woman"."""
    return sum(_is_odd(token, piece.head) for piece in cut.pieces for token in piece.own if token is not piece.head)


def _is_odd(adjective: Token, noun: Token) -> bool:
    living = lexicon().is_living(noun.lemma)
    uses = {group.of for group in lexicon().adjective_groups(adjective.lower)}
    if adjective.lower in lexicon().words["of_living"]:  # "blonde"
        uses = {"living"}
    elif lexicon().is_person(noun.lemma) and lexicon().is_in_group(adjective.lower, "colour"):
        return True
    return bool(uses) and not uses & {"", "living" if living else "thing"}


def _odd_objects(cut: _Cut) -> int:
    """Count the objects that their verb does not take: "wearing a bicycle", "holding a beach"."""
    handled = relations().words["handled"]
    return sum(
        not _takes(verb, noun) or (verb in handled and magnitude(noun) == GROUND) for verb, noun in _objects(cut)
    )


def _swallowed(cut: _Cut) -> int:
    """Count the people in small things that are no clothes: "a boy in a cup"."""
    return sum(
        preposition in ("in", "inside", "inside of", "within")
        and magnitude(one.head) > magnitude(other.head) == _SMALL
        and is_animate(one.head)
        and not is_clothing(other.head.lemma)
        for one, preposition, other in _supports(cut)
    )


def _mixed_lists(cut: _Cut) -> int:
    """Count the lists of clothes, of limbs, or of those who act with another thing in them: "a rock and a dog run"."""
    mixed, gaps = 0, cut.gaps()
    for place, (one, other) in enumerate(pairwise(cut.pieces), start=1):
        if not (one.role == other.role == "thing" and _is_listing(other.gap)):
            continue
        sorts = {_list_sort(one.head), _list_sort(other.head)}
        following = next((gap for gap in gaps[place + 1 :] if not _is_listing(gap)), ())
        mixed += len(sorts) > 1 and (sorts != {"living", "thing"} or other.gap[0].text == "," or _is_deed(following))
    return mixed


def _is_listing(gap: Sequence[Token]) -> bool:
    return " ".join(token.lower for token in gap) in _LISTING


def _is_deed(gap: Sequence[Token]) -> bool:
    """Whether the words after a list say what its members do that not every thing does as well."""
    return any(token.is_verb and token.lemma not in relations().words["of_anything"] for token in gap)


def _list_sort(noun: Token) -> str:
    if is_clothing(noun.lemma):
        return "clothing"
    return "limb" if is_limb(noun) else "living" if is_animate(noun) else "thing"


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
    """Yield things with the preposition before the next one, or before its list; "has" counts as "with"."""
    figure, preposition = None, ""
    for one, other in pairwise(cut.pieces):
        if one.role != "thing" or other.role != "thing" or not other.gap:
            figure = None
            continue
        if not _is_listing(other.gap):
            figure, preposition = one, "with" if other.gap[-1].lemma == "have" else _preposition(other.gap)[1]
        if figure:
            yield figure, preposition, other


def _misses_objects(old: _Cut, new: _Cut) -> bool:
    """Whether a verb does not fit its new object: nobody flies a beach, no island features a kitchen."""
    words, pairs = relations().words, {(verb, noun.lemma) for verb, noun in _objects(old)}
    grounds = {verb for verb, noun in _objects(old) if all_sorts(noun) & words["grounds"]}
    return any(
        (verb, noun.lemma) not in pairs
        and (
            verb in words["comprising"]
            or (" " not in verb and all_sorts(noun) & words["grounds"] and verb not in words["of_places"] | grounds)
        )
        for verb, noun in _objects(new)
    )


def _takes(verb: str, noun: Token) -> bool:
    """Whether a noun can be the object of a verb: clothes of "wear", food of "eat"; True if the verb takes anything."""
    taken = relations().objects.get(verb)
    return taken is None or noun.lemma in taken or not taken.isdisjoint(all_sorts(noun))


def _is_telling(lemma: str) -> bool:
    """Whether a noun is known well enough to say that a word before it is used in another sense than usual."""
    return bool(all_sorts(Token(lemma, lemma, "NN", lemma))) and lemma not in relations().words["crowds"]


def _objects(cut: _Cut) -> Iterator[tuple[str, Token]]:
    """Yield verbs with the noun after them or after their preposition ("dress in"), and with those joined to it.

    Past participles have no object of their own.
    """
    verb = ""
    for piece in cut.pieces:
        gap = piece.gap
        if gap and gap[-1].is_verb:
            verb = gap[-1].lemma if gap[-1].tag != "VBN" else ""
        elif len(gap) > 1 and gap[-2].is_verb:
            verb = f"{gap[-2].lemma} {gap[-1].lower}"
        elif " ".join(token.lower for token in gap) not in JOINERS:
            verb = ""
        if verb:
            yield verb, piece.head


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
            pieces.append(_Piece(chunk.start, chunk.end, chunk.role, gap, own, _head(chunk), chunk.number))
    return _Cut(tuple(pieces), tuple(tokens[last:]))


def _head(chunk: Chunk) -> Token:
    """Return the head noun, with the dictionary form of the whole name if it is a word of its own: "hotdog"."""
    before, noun = token_at(chunk.source, chunk.head - 1).lower, chunk.noun
    named = f"{before} {noun.lemma}" in lexicon().words["names"] and bool(lexicon().noun_groups(before + noun.lemma))
    return replace(noun, lemma=before + noun.lemma) if named else noun


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
            if piece is None and token.tag in ("VBG", "VBZ", "VBP", "VB"):
                piece = next((at for at in range(len(pieces) - 1, -1, -1) if pieces[at].end <= place), None)
            if piece is not None:
                # the parser prefers the nearest noun: "a person on skateboard skating"
                doers[id(token)] = next((at for at in range(piece, -1, -1) if _may_do(token, pieces[at].head)), piece)
    return doers


def doer(caption: Caption, place: int) -> int | None:
    """Return the number of the noun phrase (with what "of" ties to it) that is the subject of the verb at `place`."""
    return _doers(caption).get(id(caption.tokens[place]))


def _may_do(verb: Token, noun: Token) -> bool:
    """Whether a noun is likely the subject of a verb: who is alive or moves, unless a thing does so as well."""
    passive = verb.tag == "VBN" or verb.lemma in relations().words["of_anything"]
    return can_do(verb.lemma, noun, with_object=False) and (passive or agency(noun) != THING)


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
