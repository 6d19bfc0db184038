"""The pre-training mixture: scenes with loose captions, and the recognition domains."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from degla.world.captions import loose_caption
from degla.world.domains import DOMAINS
from degla.world.painting import Picture, render
from degla.world.scenes import Split, sample_scene_of
from degla.world.vocabulary import FULL

SHARES: Final[dict[str, float]] = {
    "scene": 0.22,
    "shape": 0.20,
    "letter": 0.22,
    "digit": 0.11,
    "animal": 0.03,
    "food": 0.03,
    "thing": 0.03,
    "pattern": 0.08,
    "count": 0.06,
    "place": 0.02,
}
"""Share of each source in pre-training. Fine distinctions (letters, shapes) need more than emoji, which look alike."""


@dataclass(frozen=True)
class WorldPair:
    """A picture with a caption. Two examples with one `key` fit each other's captions."""

    picture: Picture
    caption: str
    key: str


def sample_example(rng: Random, *, split: Split = "train") -> WorldPair:
    """One pair of the mixture."""
    source = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    if source == "scene":
        scene = sample_scene_of(split, rng, vocabulary=FULL)
        caption = loose_caption(scene, rng)
        return WorldPair(render(scene), caption, caption)
    domain = DOMAINS[source]
    name = rng.choice(domain.classes)
    drawing = domain.paint(name, rng)
    key = drawing.caption if source == "shape" else f"{source}/{name}"
    return WorldPair(drawing.picture, drawing.caption, key)
