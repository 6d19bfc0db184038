"""CS-CLIP-SG (2026): images find their captions, and a hinge between each caption and one plausible negative."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, OwnHinge, losses_by_name
from degla.recipes.clip import clip


def cs_clip_sg() -> TrainConfig:
    """The paper's settings: contrast from images to captions alone, without negatives, and a hinge of margin 0.1 on
    cosines with one negative; learning rate 1e-5, batch size 128. Not the CS-CLIP of arXiv 2602.23906; no code.

    The paper trains 2 epochs on about 2 million triples of COCO, about five for each caption; 10 epochs over the
    captions, with one negative drawn in each, have as many steps. Weight decay, decay rates, warm-up and crops are not
    published and those of `clip`.

    Use when: negatives are plausible and certainly false, which the paper finds to matter more than its losses. In the
    embedded world, with negatives by rules, it gains no more composition than `clip`.
    """
    base = clip()
    return replace(
        base,
        recipe="cs_clip_sg",
        data=replace(base.data, negatives_per_caption=1),
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="none", queries="images"), own_hinge=OwnHinge(weight=1.0, margin=0.1)
        ),
        optim=replace(base.optim, lr=1e-5),
        train=replace(base.train, batch_size=128, epochs=10),
    )
