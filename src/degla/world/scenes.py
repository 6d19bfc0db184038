"""Scenes with exact ground truth: two things and one relation, sampled from a seed.

A scene's split is a function of its content (which things, in which relation), so a composition in the test split is
never seen in training, whatever the seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal
from zlib import crc32

from degla.world.vocabulary import (
    FULL,
    IN_DOMAIN,
    INVERSE,
    PALETTE,
    ROOMY_SHAPES,
    TEXTURES,
    CanonicalRelation,
    Colour,
    RelationName,
    Vocabulary,
)

Split = Literal["train", "validation", "test"]

SIDE: Final = 64
"""Width and height of every image, in pixels."""

WORLD_VERSION: Final = 1
"""Part of every seed stream. Raise it when a drawing changes, so that old and new figures are not compared."""

_PLAIN_SHARE: Final = 0.55
_COLOUR_JITTER: Final = 14.0
_TURN_DEGREES: Final = 7.0


def stream(*names: object) -> Random:
    """Return a separate generator for each sequence of names, the same on every machine and Python version."""
    return Random("/".join(["degla-world", str(WORLD_VERSION), *map(str, names)]))


@dataclass(frozen=True)
class Thing:
    """One object. Lengths are in pixels of the 64 x 64 image, the angle in degrees clockwise."""

    shape: str
    colour: str
    texture: str | None
    x: float
    y: float
    radius: float
    angle: float
    tint: Colour
    """The colour as painted: the palette's value with jitter."""

    @property
    def content(self) -> str:
        """What can be said about the thing, except its place and size."""
        return f"{self.texture or 'plain'} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Two things that differ in shape and in colour; `first` is `relation` of `second`."""

    first: Thing
    second: Thing
    relation: CanonicalRelation
    background: Colour
    noise: float
    """Standard deviation of the pixel noise, in grey levels; 0 for about half of the scenes."""
    grain: int
    """Seed of the pixel noise."""

    @property
    def content(self) -> str:
        """Everything a caption can say about the scene, in one canonical form."""
        return f"{self.first.content} | {self.relation} | {self.second.content}"

    @property
    def split(self) -> Split:
        """One sixth of the contents belongs to validation, one sixth to test, the rest to training."""
        place = crc32(self.content.encode()) % 6
        return "validation" if place == 0 else "test" if place == 1 else "train"

    def holds(self, relation: RelationName, *, subject: Thing) -> bool:
        """Whether `subject` is `relation` of the other thing."""
        own: RelationName = self.relation if subject is self.first else INVERSE[self.relation]
        return own == relation


def _near(one: Colour, other: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def jitter(colour: tuple[float, float, float], rng: Random, deviation: float = 12) -> Colour:
    """Return a colour with normal noise in each channel; the deviation is in grey levels."""
    red, green, blue = (min(255, max(0, round(rng.gauss(c, deviation)))) for c in colour)
    return red, green, blue


def tint_of(colour: str, rng: Random) -> Colour:
    """Return the colour's palette value with jitter (standard deviation 14 grey levels per channel)."""
    return jitter(PALETTE[colour], rng, _COLOUR_JITTER)


def background_for(rng: Random, *tints: Colour) -> Colour:
    """Draw a random muted background colour that contrasts with every tint."""
    while True:
        grey = rng.uniform(20, 235)
        background = jitter((grey, grey, grey), rng, 26)
        if all(_near(background, tint) > 150 for tint in tints):
            return background


def sample_thing(rng: Random, *, shape: str, colour: str, x: float, y: float, radius: float) -> Thing:
    """Sample a thing at a place, with random texture, angle and tint."""
    texture = None if rng.random() < _PLAIN_SHARE else rng.choice(TEXTURES)
    return Thing(shape, colour, texture, x, y, radius, rng.gauss(0, _TURN_DEGREES), tint_of(colour, rng))


def sample_scene(rng: Random, *, vocabulary: Vocabulary = FULL) -> Scene:
    """Sample any scene of a vocabulary, from any split.

    Sizes are deliberately equal on both sides of "left" and "above": only the words tell the things apart.
    """
    relation: CanonicalRelation = rng.choice(("left", "above", "inside"))
    shapes = [s for s in vocabulary.shapes if relation != "inside" or s in ROOMY_SHAPES]
    shape_1, shape_2 = rng.sample(shapes, 2)
    colour_1, colour_2 = rng.sample(vocabulary.colours, 2)

    def off(centre: float) -> float:
        return centre + rng.uniform(-3, 3)

    if relation == "inside":
        place_1, place_2 = (off(32), off(32)), (off(32), off(32))
        radius_1, radius_2 = rng.uniform(7.5, 9), rng.uniform(22, 25)
        place_1 = (place_2[0] + rng.uniform(-1.5, 1.5), place_2[1] + rng.uniform(-1.5, 1.5))
    else:
        low, high = off(17), off(47)
        side_1, side_2 = off(32), off(32)
        place_1, place_2 = ((low, side_1), (high, side_2)) if relation == "left" else ((side_1, low), (side_2, high))
        radius_1, radius_2 = rng.uniform(9.5, 13), rng.uniform(9.5, 13)
    first = sample_thing(rng, shape=shape_1, colour=colour_1, x=place_1[0], y=place_1[1], radius=radius_1)
    second = sample_thing(rng, shape=shape_2, colour=colour_2, x=place_2[0], y=place_2[1], radius=radius_2)
    background = background_for(rng, first.tint, second.tint)
    noise = rng.uniform(3, 12) if rng.random() < 0.5 else 0.0
    return Scene(first, second, relation, background, noise, rng.getrandbits(31))


def sample_scene_of(
    split: Split, rng: Random, *, vocabulary: Vocabulary = IN_DOMAIN, accept: Callable[[Scene], bool] | None = None
) -> Scene:
    """Sample a scene of a split that `accept` accepts."""
    while True:
        scene = sample_scene(rng, vocabulary=vocabulary)
        if scene.split == split and (accept is None or accept(scene)):
            return scene


def is_out_of_domain(scene: Scene) -> bool:
    """Whether the scene needs at least one word that fine-tuning never sees."""
    words = (scene.first.shape, scene.first.colour, scene.second.shape, scene.second.colour)
    return not all(map(IN_DOMAIN.knows, words))
