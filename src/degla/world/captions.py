"""Captions of scenes: full ones for fine-tuning and the benchmark, loose ones for pre-training.

Loose captions leave out colours, textures and most relations, as captions on the web do. A model pre-trained on them
learns which words go with a picture and hardly how they belong together: a bag of words, like a real CLIP.
"""

from __future__ import annotations

from random import Random
from typing import Final

from degla.world.claims import Claim, Phrase, full_claim
from degla.world.scenes import Scene, Thing
from degla.world.vocabulary import INVERSE, WORDINGS, RelationName

FULL_TEMPLATES: Final = (
    "{subject} {relation} {object}",
    "there is {subject} {relation} {object}",
    "a picture of {subject} {relation} {object}",
    "{subject} is {relation} {object}",
    "the image shows {subject} {relation} {object}",
    "a drawing with {subject} {relation} {object}",
    "we can see {subject} {relation} {object}",
)
"""The seven sentences that full captions are made of."""

PREFIXES: Final = (
    "", "", "a photo of ", "a picture of ", "an image of ", "a drawing of ", "there is ", "this is ", "here is ",
    "we see ",
)  # fmt: skip
"""Beginnings of loose captions."""

JOINERS: Final = ("and", "with", "next to", "beside")
"""Loose captions that do not say the relation join the things with one of these."""

NESTED_JOINERS: Final = ("and", "with")
NESTINGS: Final = ("one inside the other", "one within the other", "one around the other", "one in the other")
"""Loose captions tell nesting without telling which thing is the outer one. Sizes give that away: said outright, it
is learnt from a few thousand pairs, and the model would be no bag of words for this relation."""

COLOUR_SHARE: Final = 0.65
TEXTURE_SHARE: Final = 0.6
RELATION_SHARE: Final = 0.25
ONE_THING_SHARE: Final = 0.25


def say(claim: Claim, *, template: str, wording: int = 0) -> str:
    """The claim as a full caption; `wording` picks the relation's first or second way of saying."""
    return template.format(subject=claim.subject, relation=WORDINGS[claim.relation][wording], object=claim.object)


def full_caption(scene: Scene, rng: Random) -> str:
    """A caption that says everything: textures, colours, shapes and the relation, from a random side."""
    claim = full_claim(scene)
    if rng.random() < 0.5:
        claim = claim.turned
    return say(claim, template=rng.choice(FULL_TEMPLATES), wording=rng.randrange(2))


def loose_phrase(thing: Thing, rng: Random) -> str:
    """A noun phrase that mentions the colour in 65 % and an existing texture in 60 % of the cases."""
    colour = thing.colour if rng.random() < COLOUR_SHARE else None
    texture = thing.texture if rng.random() < TEXTURE_SHARE else None
    return str(Phrase(thing.shape, colour, texture))


def loose_caption(scene: Scene, rng: Random) -> str:
    """A caption as on the web: true, and incomplete."""
    things = (scene.first, scene.second)
    relation: RelationName = scene.relation
    if rng.random() < 0.5:
        things, relation = things[::-1], INVERSE[relation]
    prefix = rng.choice(PREFIXES)
    subject = loose_phrase(things[0], rng)
    draw = rng.random()
    if draw < ONE_THING_SHARE:
        return prefix + subject
    told = draw < ONE_THING_SHARE + RELATION_SHARE
    other = loose_phrase(things[1], rng)
    if scene.relation == "inside":
        text = f"{prefix}{subject} {rng.choice(NESTED_JOINERS)} {other}"
        return f"{text}, {rng.choice(NESTINGS)}" if told else text
    return f"{prefix}{subject} {rng.choice(WORDINGS[relation] if told else JOINERS)} {other}"
