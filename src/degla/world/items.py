"""Items of the compositional benchmark: a scene, a true caption and a false one.

Negatives are made from the ground truth and checked against it, so no item depends on a language model or a tagger.
Swapped and shuffled negatives have exactly the words of their positives, including articles: a model that ignores word
order ties on all of them.

Second images of training scenes are made the same way: a scene that makes a caption's negative true, drawn from the
ground truth instead of by a generative model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from degla.errors import DeglaError
from degla.world.captions import FULL_TEMPLATES, Claim, Phrase, full_claim, say
from degla.world.scenes import Scene, Thing, background_for, tint_of
from degla.world.vocabulary import IN_DOMAIN, INVERSE, ROOMY_SHAPES, TEXTURES, Vocabulary


@dataclass(frozen=True)
class Contrast:
    """Two texts about one scene: `positive` is true of it, `negative` is not."""

    positive: str
    negative: str


def _side(claim: Claim, rng: Random) -> tuple[Phrase, Callable[[Phrase], Claim]]:
    """One of the claim's two phrases, and a function that replaces it."""
    if rng.random() < 0.5:
        return claim.subject, lambda phrase: replace(claim, subject=phrase)
    return claim.object, lambda phrase: replace(claim, object=phrase)


def _other(words: tuple[str, ...], rng: Random, *, than: tuple[str | None, ...]) -> str:
    return rng.choice([word for word in words if word not in than])


def _replace_noun(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    phrase, put = _side(claim, rng)
    shapes = (claim.subject.shape, claim.object.shape)
    return claim, put(replace(phrase, shape=_other(vocabulary.shapes, rng, than=shapes)))


def _replace_adjective(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    phrase, put = _side(claim, rng)
    if phrase.texture is not None and rng.random() < 0.5:
        return claim, put(replace(phrase, texture=_other(TEXTURES, rng, than=(phrase.texture,))))
    colours = (claim.subject.colour, claim.object.colour)
    return claim, put(replace(phrase, colour=_other(vocabulary.colours, rng, than=colours)))


def _replace_relation(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    """The inverse relation: any other could be ruled out from the arrangement, without knowing which thing is which."""
    return claim, replace(claim, relation=INVERSE[claim.relation])


def _swap_noun(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    one, other = claim.subject, claim.object
    return claim, replace(claim, subject=replace(one, shape=other.shape), object=replace(other, shape=one.shape))


def _swap_adjective(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    """Swap colours, or textures if both things have one, or all adjectives if "a" would become "an"."""
    one, other = claim.subject, claim.object
    swapped = replace(claim, subject=replace(one, colour=other.colour), object=replace(other, colour=one.colour))
    if one.texture and other.texture and one.texture != other.texture and rng.random() < 0.3:
        swapped = replace(
            claim, subject=replace(one, texture=other.texture), object=replace(other, texture=one.texture)
        )
    if _words(swapped) != _words(claim):
        swapped = replace(claim, subject=replace(other, shape=one.shape), object=replace(one, shape=other.shape))
    return claim, swapped


def _swap_phrase(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    return claim, replace(claim, subject=claim.object, object=claim.subject)


def _add_attribute(claim: Claim, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    """The positive omits one attribute, the negative adds a wrong one."""
    phrase, put = _side(claim, rng)
    if rng.random() < 0.5:
        wrong = _other(TEXTURES, rng, than=(phrase.texture,))
        return put(replace(phrase, texture=None)), put(replace(phrase, texture=wrong))
    colours = (claim.subject.colour, claim.object.colour)
    wrong = _other(vocabulary.colours, rng, than=colours)
    return put(replace(phrase, colour=None)), put(replace(phrase, colour=wrong))


_FALSIFY: Final[dict[str, Callable[[Claim, Vocabulary, Random], tuple[Claim, Claim]]]] = {
    "replace_noun": _replace_noun,
    "replace_adjective": _replace_adjective,
    "replace_relation": _replace_relation,
    "swap_noun": _swap_noun,
    "swap_adjective": _swap_adjective,
    "swap_phrase": _swap_phrase,
    "add_attribute": _add_attribute,
}

FAMILIES: Final = (*_FALSIFY, "order")
"""What a negative changes; `order` shuffles the words of the whole caption."""

PARTNER_FAMILIES: Final = ("replace_noun", "replace_adjective", "swap_noun", "swap_adjective", "swap_phrase")
"""How a partner differs from its scene; inverting the relation is the same as swapping the phrases."""


def _words(claim: Claim) -> list[str]:
    return sorted(f"{claim.subject} {claim.object}".split())


def _shuffled(text: str, rng: Random) -> str:
    words = text.split()
    while True:
        shuffled = " ".join(rng.sample(words, len(words)))
        if shuffled != text:
            return shuffled


def falsify(claim: Claim, family: str, *, vocabulary: Vocabulary, rng: Random) -> tuple[Claim, Claim]:
    """Return a true and a false claim, from the full claim about a scene.

    Args:
        claim: full claim about the scene, from either side.
        family: one of `FAMILIES` except `order`, whose negative is not a claim.
        vocabulary: source of replacement words.
        rng: chooses side and replacement.
    """
    return _FALSIFY[family](claim, vocabulary, rng)


def make_contrast(scene: Scene, family: str, *, vocabulary: Vocabulary, rng: Random) -> Contrast:
    """Return a positive and a negative of one family for a scene, in the same template and wording.

    Args:
        scene: the ground truth.
        family: one of `FAMILIES`.
        vocabulary: source of replacement words.
        rng: chooses template, side, wording and replacement.

    Raises:
        DeglaError: the positive is not true or the negative is not false, which is a bug in this package.
    """
    claim = full_claim(scene)
    if rng.random() < 0.5:
        claim = claim.turned
    template, wording = rng.choice(FULL_TEMPLATES), rng.randrange(2)
    if family == "order":
        text = say(claim, template=template, wording=wording)
        return Contrast(text, _shuffled(text, rng))
    positive, negative = falsify(claim, family, vocabulary=vocabulary, rng=rng)
    if not positive.true_of(scene) or negative.true_of(scene):
        raise DeglaError(f"{family}: {positive} must be true and {negative} false of {scene.content!r}.")
    return Contrast(*(say(each, template=template, wording=wording) for each in (positive, negative)))


def draw_partner(scene: Scene, rng: Random) -> Scene:
    """Draw a scene of the same split and arrangement that differs by one family of negatives of `IN_DOMAIN`.

    In the same wording, its full caption is a negative of the scene's full caption, and vice versa.
    """
    claim = full_claim(scene)
    while True:
        family = rng.choice(PARTNER_FAMILIES)
        partner = _painted(scene, falsify(claim, family, vocabulary=IN_DOMAIN, rng=rng)[1], rng)
        fits = partner.relation != "inside" or {partner.first.shape, partner.second.shape} <= ROOMY_SHAPES
        other = full_claim(partner)
        if fits and partner.split == scene.split and not claim.true_of(partner) and not other.true_of(scene):
            return partner


def _painted(scene: Scene, claim: Claim, rng: Random) -> Scene:
    """The scene with its things replaced by those of the claim."""
    tints = {thing.colour: thing.tint for thing in (scene.first, scene.second)}

    def put(place: Thing, phrase: Phrase) -> Thing:
        colour = phrase.colour or place.colour
        tint = tints.get(colour) or tint_of(colour, rng)
        return replace(place, shape=phrase.shape, colour=colour, texture=phrase.texture, tint=tint)

    first, second = put(scene.first, claim.subject), put(scene.second, claim.object)
    background = background_for(rng, first.tint, second.tint)
    return replace(scene, first=first, second=second, background=background, grain=rng.getrandbits(31))
