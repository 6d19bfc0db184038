"""Embeddings of drawn shapes by any CLIP, some combinations of shape and colour kept from training."""

from __future__ import annotations

from typing import Final

import torch
from PIL import Image

from degla.systems.free.data import ZeroShotData

TEMPLATES: Final = ("{}", "a photo of {}", "a picture of {}", "a drawing of {}", "this is {}")
SHAPES_SHOWN: Final = ("circle", "square", "triangle", "star", "heart", "diamond")
COLOURS_SHOWN: Final = ("red", "green", "blue", "yellow", "purple", "orange")
TESTED_SHARE: Final = 3
"""One picture in three of a class that is trained on is tested."""


def is_unseen(shape: int, colour: int) -> bool:
    """Two colours of each shape are kept from training, other ones for the next shape: no shape or colour is new."""
    return (colour - shape) % len(COLOURS_SHOWN) in (0, 3)


def embed_shapes(model: str, *, seed: int, pictures: int = 45) -> ZeroShotData:
    """Image embeddings as features, embeddings of "a red circle" as semantics: 36 classes, 12 of them unseen.

    Args:
        model: any that `degla evaluate` takes.
        seed: of the pictures.
        pictures: of each class.
    """
    from degla.api import encode_captions, encode_images, load_model
    from degla.world.domains import with_article
    from degla.world.painting import blank, paint_thing, random_finish
    from degla.world.scenes import background_for, sample_thing, stream

    opened = load_model(model)
    drawn, label, hidden = [], [], []
    for number, (shape, colour) in enumerate((s, c) for s in SHAPES_SHOWN for c in COLOURS_SHOWN):
        hidden.append(is_unseen(SHAPES_SHOWN.index(shape), COLOURS_SHOWN.index(colour)))
        for picture in range(pictures):
            chance = stream("free", seed, shape, colour, picture)
            radius = chance.uniform(11, 24)
            x, y = (chance.uniform(radius + 2, 62 - radius) for _ in range(2))
            thing = sample_thing(chance, shape=shape, colour=colour, x=x, y=y, radius=radius)
            canvas = blank(background_for(chance, thing.tint))
            paint_thing(canvas, thing)
            drawn.append(Image.fromarray(random_finish(canvas, chance)))
            label.append(number)
    names = [with_article(f"{colour} {shape}") for shape in SHAPES_SHOWN for colour in COLOURS_SHOWN]
    texts = [template.format(name) for name in names for template in TEMPLATES]
    told = encode_captions(opened, texts).view(len(names), len(TEMPLATES), -1).mean(dim=1)
    place, classes = torch.arange(len(label)), torch.tensor(label)
    unseen, tested = torch.tensor(hidden)[classes], place % pictures % TESTED_SHARE == 0
    return ZeroShotData(
        name=f"drawn shapes by {model}",
        features=encode_images(opened, drawn),
        label=classes,
        semantics=torch.nn.functional.normalize(told, dim=1),
        train=place[~unseen & ~tested],
        test_seen=place[~unseen & tested],
        test_unseen=place[unseen],
        validation=place[:0],
    )
