"""Negate a part of the caption: "a man not riding a horse", "a sofa without a dog", "there is no dog on the sofa".

Exactly one thing, property or action is negated; captions that already have a negation are skipped. Nothing else
changes, not even a comma, so that only the negation distinguishes the texts (the published CC-Neg lost commas only in
its negated texts). Image, caption and this negative form CoN-CLIP's data, except for its distractor: an image of which
the negative is true, which cannot be made from text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Final

from degla.negatives.grammar.chunks import Token, governed
from degla.negatives.grammar.edits import agreeing_verbs, disagrees, insert, write
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.phrases import Caption
from degla.negatives.rule import NegativeRule, take_turns

_NEGATIVE: Final = frozenset({"no", "not", "n't", "never", "without", "nobody", "nothing", "none", "neither", "nor"})
_ARTICLES: Final = frozenset({"a", "an", "the", "some"})
_AUXILIARIES: Final = frozenset({"is", "are", "was", "were"})
_PLACING: Final = frozenset(
    {"on", "in", "under", "inside", "at", "above", "behind", "beside", "near", "below", "beneath"}
)
_COUNTS: Final = frozenset(
    {"number", "lot", "lots", "couple", "variety", "kind", "type", "sort", "bit", "dozen", "dozens", "tons"}
)
"""Words that quantify what follows "of": there is never "no number of cars"."""

_CLOTHES: Final = frozenset({"upper_clothing", "lower_clothing", "headwear", "footwear", "linen", "accessory"})

Denial = tuple[str, list[Token]]
"""A form of negation, and the tokens of the negative."""


class Negation(NegativeRule):
    """Negate one thing, property or action.

    Source: CoN-CLIP (arXiv 2403.20312) and its data CC-Neg, whose texts a language model wrote. Differs: by grammar;
    punctuation stays.

    Use when: the model should understand negation. With second images (`degla distractors`), its negatives are the data
    of the recipe `con_clip`.
    """

    kind = "negation"
    """What the negatives break."""
    instruction = (
        'Deny one part of the caption with "no", "not" or "without": that a thing is there, or that somebody does '
        "something. Deny only one thing, and only what the caption says."
    )
    """Instruction to a language model."""

    def applies(self, caption: Caption) -> bool:
        """Whether there is something to negate and no negation yet."""
        return not _is_negative(caption.content) and any(chunk.role == "thing" for chunk in caption.chunks)

    def propose(self, caption: Caption, rng: Random, most: int) -> list[str]:
        """Return negations in random order: every form once before any form twice."""
        forms: dict[str, list[str]] = {}
        for form, tokens in _denials(caption, free=False):
            forms.setdefault(form, []).append(write(caption, tokens))
        queues = list(forms.values())
        for queue in queues:
            rng.shuffle(queue)
        rng.shuffle(queues)
        return list(dict.fromkeys(take_turns(queues)))[:most]

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one negation of what the caption says; articles before nouns may change with it."""
        if _is_negative(caption.content) or sum(word in _NEGATIVE for word in content) != 1:
            return "not_rule"
        bare = _without_articles(content)
        same = any(_without_articles(content_of(tokens)) == bare for _, tokens in _denials(caption, free=True))
        return "" if same else "not_rule"


def _is_negative(content: Sequence[str]) -> bool:
    return any(word in _NEGATIVE for word in content)


def _without_articles(content: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in content if word not in _ARTICLES)


def _denials(caption: Caption, *, free: bool) -> Iterator[Denial]:
    """Yield every negation that the grammar finds.

    Args:
        caption: the caption.
        free: whether to include those that read less well, for judging a language model's text.
    """
    if _is_negative(caption.content) or disagrees(caption):
        return  # do not negate ungrammatical captions ("a person foot are")
    yield from _denied_deeds(caption, free=free)
    yield from _denied_companions(caption)
    yield from _denied_existence(caption)
    yield from _denied_things(caption, free=free)


def _denied_deeds(caption: Caption, *, free: bool) -> Iterator[Denial]:
    """ "is not sitting", "does not ride", "a man not riding", "a dog not on a sofa"."""
    tokens = caption.tokens
    for place, token in enumerate(tokens):
        if place in caption.inside or not place or _is_one_of_several(tokens, place):
            continue
        if token.lower in _AUXILIARIES and place + 1 < len(tokens):
            existential = any(one.lower == "there" for one in tokens[place - 1 : place + 2])
            for denial in () if existential else ("not", "n't") if free else ("not",):
                yield "deed", insert(caption, tokens, place + 1, [denial], tag="RB")
        elif token.tag in ("VBG", "VBN") and _is_participle(caption, place):
            yield "deed", insert(caption, tokens, place, ["not"], tag="RB")
        elif (
            token.tag in ("VBZ", "VBP")
            and token.lemma not in ("be", "have")
            and agreeing_verbs(caption, next(iter(governed(tokens, place, "nsubj", "nsubjpass")), -1))
        ):
            do = "does" if token.tag == "VBZ" else "do"
            plain = _in_case(replace(token, text=token.lemma, lower=token.lemma, tag="VB"), token)
            base = [*tokens[:place], plain, *tokens[place + 1 :]]
            yield "deed", insert(caption, base, place, [do, "not"], tag="RB")
        elif free and token.lower in _PLACING and tokens[place - 1].is_noun:
            be = "are" if tokens[place - 1].is_many else "is"
            for words in (("not",), ("that", be, "not")):
                yield "deed", insert(caption, tokens, place, words, tag="RB")


def _is_one_of_several(tokens: Sequence[Token], place: int) -> bool:
    """Whether a word says what one of several does ("one of which is riding"): negating it may still be true."""
    before = [token.lower for token in tokens[max(0, place - 5) : place]]
    partitive = any(one == "of" and other in ("which", "whom", "them") for one, other in pairwise(before))
    return partitive or before[-1:] == ["one"]


def _in_case(token: Token, like: Token) -> Token:
    return replace(token, text=token.text.upper()) if like.is_shouted else token


def _is_participle(caption: Caption, place: int) -> bool:
    """Whether a participle describes the noun right before it: "a man riding", not "is riding" or "go skiing"."""
    tokens = caption.tokens
    before = tokens[place - 1]
    ends = {chunk.end for chunk in caption.chunks if chunk.role == "thing"}
    return (
        place in ends
        and before.is_noun
        and tokens[place].role in ("acl", "ROOT", "advcl", "conj", "ccomp", "amod", "pcomp")
    )


def _denied_companions(caption: Caption) -> Iterator[Denial]:
    """ "with a hat" -> "without a hat", "a dog and a cat" -> "a dog but no cat"."""
    tokens = caption.tokens
    chunks = {chunk.start: chunk for chunk in caption.chunks if chunk.role == "thing"}
    ends = {chunk.end for chunk in caption.chunks if chunk.role == "thing"}
    for place, token in enumerate(tokens):
        chunk = chunks.get(place + 1)
        if chunk is None or not place:
            continue
        if token.lower == "with" and place in ends:
            new = _in_case(replace(token, text="without", lower="without"), token)
            yield "companion", [*tokens[:place], new, *tokens[place + 1 :]]
        listed = any(one.text == "," for one in tokens[:place])
        subject = any(token.is_finite for token in tokens[chunk.end :])  # "a dog but no cat are" is not English
        joined = token.lower == "and" and place in ends and not listed and not subject
        if joined and chunk.first.lower in ("a", "an", "some"):
            but = _in_case(replace(token, text="but", lower="but"), token)
            base = _with_no(caption, chunk.start)
            yield "companion", [*base[:place], but, *base[chunk.start :]]


def _with_no(caption: Caption, place: int) -> list[Token]:
    """Return the tokens with "no" instead of the article at a place."""
    return insert(caption, [*caption.tokens[:place], *caption.tokens[place + 1 :]], place, ["no"], tag="DT")


def _denied_existence(caption: Caption) -> Iterator[Denial]:
    """ "a dog on a sofa" -> "there is no dog on a sofa"; "there is a dog" -> "there is no dog"."""
    tokens, chunks = caption.tokens, caption.chunks
    lower = [token.lower for token in tokens]
    if not chunks:
        return
    if lower[:1] == ["there"] and len(lower) > 2 and lower[1] in _AUXILIARIES:
        if caption.chunk_from(2) is not None and lower[2] in ("a", "an", "some"):
            yield "existence", _with_no(caption, 2)
        return
    first = chunks[0]
    finite = any(token.tag in ("VBZ", "VBP", "VBD", "MD") for token in tokens)
    joined = any(token.tag == "CC" or token.text in (",", ";", ":") for token in tokens)
    if first.start != 0 or first.role != "thing" or finite or joined or tokens[0].tag.startswith("NNP"):
        return
    skip = 1 if lower[0] in ("a", "an", "some", "several", "many") else 0
    if not skip and (tokens[0].tag in ("DT", "CD", "PRP$")):
        return
    if first.holder != first.head and first.holder_noun.lemma in _COUNTS:
        return
    if not first.determiner_fits:
        return  # "a girl balances": a verb that the tagger took for a noun
    noun = tokens[next((at for at in range(first.end - 1) if tokens[at + 1].lower == "of"), first.head)]
    yield "existence", insert(caption, tokens[skip:], 0, ["there", "are" if noun.is_many else "is", "no"], tag="DT")


def _denied_things(caption: Caption, *, free: bool) -> Iterator[Denial]:
    """ "a dog on a sofa" -> "a sofa without a dog"; "wearing a hat" -> "wearing no hat"."""
    tokens, chunks, tables = caption.tokens, caption.chunks, lexicon()
    for chunk in (one for one in chunks if one.role == "thing"):
        before = chunk.before
        if before.tag not in ("VBG", "VBZ", "VBP") or before.lemma == "be":
            continue
        joined = chunk.after.lower in ("and", ",")
        held = before.lemma in ("wear", "have", "hold", "carry")
        reads_well = held and not joined
        if free and held and _is_participle(caption, chunk.start - 1):
            without = replace(before, text="without", lower="without", tag="IN", lemma="without")
            yield "thing", [*tokens[: chunk.start - 1], without, *tokens[chunk.start :]]
        if chunk.first.lower in ("a", "an", "some") and (free or reads_well):
            yield "thing", _with_no(caption, chunk.start)
    if len(chunks) < 2 or chunks[0].role != "thing" or chunks[0].start != 0 or chunks[1].role != "thing":
        return
    one, other = chunks[0], chunks[1]
    between = tokens[one.end : other.start]
    simple = len(between) == 1 and between[0].lower in _PLACING
    pronoun = any(token.tag in ("PRP$", "PRP") for token in tokens[: other.end])
    if not simple or pronoun or tokens[0].tag.startswith("NNP"):
        return
    if any(token.text not in (".", "!") for token in tokens[other.end :]):
        return  # what follows describes the first thing: "a hat without a man sits"
    if between[0].lower == "in" and tables.is_person(one.noun.lemma) and _is_worn(other.noun):
        return
    if tables.is_person(other.noun.lemma) or one.number == "any" or not one.determiner_fits:
        return
    base = [*other.tokens, *tokens[: one.end], *tokens[other.end :]]
    yield "thing", insert(caption, base, other.end - other.start, ["without"], tag="IN")


def _is_worn(noun: Token) -> bool:
    """Whether people can be "in" it as in clothes: "a woman in a coat", "in red"."""
    return bool(lexicon().group_names(noun.lemma) & _CLOTHES) or lexicon().is_in_group(noun.lower, "colour")
