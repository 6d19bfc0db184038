"""Captions of scenes: claims, which are independent of wording; full captions; and loose captions for pre-training.

A claim can be checked against a scene. Full captions, for fine-tuning and the benchmark, state everything. Loose ones
omit colours, textures and most relations, as web captions do. A model pre-trained on them learns which words match an
image but little about how they relate: a bag of words, like a real CLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

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
"""The seven templates of full captions."""

LONG_TEMPLATE: Final = "{subject} is {relation} {object}"
"""The template of a long caption's sentences."""

PREFIXES: Final = (
    "", "", "a photo of ", "a picture of ", "an image of ", "a drawing of ", "there is ", "this is ", "here is ",
    "we see ",
)  # fmt: skip
"""Prefixes of loose captions."""

JOINERS: Final = ("and", "with", "next to", "beside")
"""Loose captions without a relation join the things with one of these."""

NESTED_JOINERS: Final = ("and", "with")
NESTINGS: Final = ("one inside the other", "one within the other", "one around the other", "one in the other")
"""Loose captions mention nesting without saying which thing is the outer one. Sizes reveal that: if it were stated, a
few thousand pairs would teach it, and the model would not be a bag of words for this relation."""

COLOUR_SHARE: Final = 0.65
TEXTURE_SHARE: Final = 0.6
RELATION_SHARE: Final = 0.25
ONE_THING_SHARE: Final = 0.25


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: a shape with the mentioned attributes."""

    shape: str
    colour: str | None = None
    texture: str | None = None

    def true_of(self, thing: Thing) -> bool:
        """Whether everything mentioned is true of the thing."""
        return (
            self.shape == thing.shape and self.colour in (None, thing.colour) and self.texture in (None, thing.texture)
        )

    def __str__(self) -> str:
        """The phrase with its article, such as "a striped red circle"."""
        words = " ".join(word for word in (self.texture, self.colour, self.shape) if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Claim:
    """`subject` is `relation` of `object`."""

    subject: Phrase
    relation: RelationName
    object: Phrase

    def true_of(self, scene: Scene) -> bool:
        """Whether two things of the scene make the claim true."""
        return any(
            self.subject.true_of(one) and self.object.true_of(other)
            for one, other in ((scene.first, scene.second), (scene.second, scene.first))
            if scene.holds(self.relation, subject=one)
        )

    @property
    def turned(self) -> Claim:
        """The same claim stated from the other side: "A above B" becomes "B below A"."""
        return Claim(self.object, INVERSE[self.relation], self.subject)


def full_phrase(thing: Thing) -> Phrase:
    """Return a phrase with everything that can be said about a thing."""
    return Phrase(thing.shape, thing.colour, thing.texture)


def full_claim(scene: Scene) -> Claim:
    """Return a claim with everything that can be said about a scene, from the first thing's side."""
    return Claim(full_phrase(scene.first), scene.relation, full_phrase(scene.second))


def say(claim: Claim, *, template: str, wording: int = 0) -> str:
    """Return the claim as a full caption; `wording` selects the relation's first or second wording."""
    return template.format(subject=claim.subject, relation=WORDINGS[claim.relation][wording], object=claim.object)


def full_caption(scene: Scene, rng: Random) -> str:
    """Return a caption that states everything: textures, colours, shapes and the relation, from a random side."""
    claim = full_claim(scene)
    if rng.random() < 0.5:
        claim = claim.turned
    return say(claim, template=rng.choice(FULL_TEMPLATES), wording=rng.randrange(2))


def long_caption(scene: Scene, rng: Random) -> str:
    """Return two sentences that state everything from both sides, which no full caption does; from a random one first.

    The wordings are drawn anew. For the world's model no such text is cut.
    """
    claim = full_claim(scene)
    sides = [claim, claim.turned]
    rng.shuffle(sides)
    return " ".join(f"{say(side, template=LONG_TEMPLATE, wording=rng.randrange(2))}." for side in sides)


def loose_phrase(thing: Thing, rng: Random) -> str:
    """Return a noun phrase that mentions the colour in 65 % and an existing texture in 60 % of the cases."""
    colour = thing.colour if rng.random() < COLOUR_SHARE else None
    texture = thing.texture if rng.random() < TEXTURE_SHARE else None
    return str(Phrase(thing.shape, colour, texture))


def loose_caption(scene: Scene, rng: Random) -> str:
    """Return a caption like those on the web: true but incomplete."""
    things = (scene.first, scene.second)
    relation: RelationName = scene.relation
    if rng.random() < 0.5:
        things, relation = things[::-1], INVERSE[relation]
    prefix = rng.choice(PREFIXES)
    subject = loose_phrase(things[0], rng)
    draw = rng.random()
    if draw < ONE_THING_SHARE:
        return prefix + subject
    has_relation = draw < ONE_THING_SHARE + RELATION_SHARE
    other = loose_phrase(things[1], rng)
    if scene.relation == "inside":
        text = f"{prefix}{subject} {rng.choice(NESTED_JOINERS)} {other}"
        return f"{text}, {rng.choice(NESTINGS)}" if has_relation else text
    return f"{prefix}{subject} {rng.choice(WORDINGS[relation] if has_relation else JOINERS)} {other}"
