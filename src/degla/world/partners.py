"""Second pictures: a scene that makes a caption's negative true, drawn from ground truth and not by a generator."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Final

from degla.world.claims import Claim, Phrase, full_claim
from degla.world.items import falsify
from degla.world.scenes import Scene, Thing, background_for, tint_of
from degla.world.vocabulary import IN_DOMAIN, ROOMY_SHAPES, Vocabulary

PARTNER_FAMILIES: Final = ("replace_noun", "replace_adjective", "swap_noun", "swap_adjective", "swap_phrase")
"""How a partner differs from its scene; an exchanged relation is an exchange of the phrases."""


def draw_partner(scene: Scene, rng: Random, *, vocabulary: Vocabulary = IN_DOMAIN) -> Scene:
    """A scene of the same split, in the same arrangement, that differs by one family of negatives.

    Its full caption, worded alike, is a negative of the scene's full caption, and the other way round.
    """
    claim = full_claim(scene)
    while True:
        family = rng.choice(PARTNER_FAMILIES)
        partner = _painted(scene, falsify(claim, family, vocabulary=vocabulary, rng=rng)[1], rng)
        fits = partner.relation != "inside" or {partner.first.shape, partner.second.shape} <= ROOMY_SHAPES
        other = full_claim(partner)
        if fits and partner.split == scene.split and not claim.true_of(partner) and not other.true_of(scene):
            return partner


def _painted(scene: Scene, claim: Claim, rng: Random) -> Scene:
    """The scene with the claim's things in the places of its own."""
    tints = {thing.colour: thing.tint for thing in (scene.first, scene.second)}

    def put(place: Thing, phrase: Phrase) -> Thing:
        colour = phrase.colour or place.colour
        tint = tints.get(colour) or tint_of(colour, rng)
        return replace(place, shape=phrase.shape, colour=colour, texture=phrase.texture, tint=tint)

    first, second = put(scene.first, claim.subject), put(scene.second, claim.object)
    background = background_for(rng, first.tint, second.tint)
    return replace(scene, first=first, second=second, background=background, grain=rng.getrandbits(31))
