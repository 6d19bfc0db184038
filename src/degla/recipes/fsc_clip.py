"""FSC-CLIP (arXiv 2410.05210): plain contrast, and calibrated losses of own negatives with image and patches."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, DenseGrounded, ImageGrounded, losses_by_name
from degla.recipes.clip import clip


def fsc_clip() -> TrainConfig:
    """The paper's settings on COCO: three negatives, weights 0.5 and 0.2, smoothing 0.02, focus 2, lr 5e-6.

    Use when: captions should also be compared with image patches. In the embedded world it gained about as much
    composition as `negclip` and kept no more recognition; on photographs it changed little.
    """
    base = clip()
    return replace(
        base,
        recipe="fsc_clip",
        data=replace(base.data, negatives_per_caption=3),
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="none"),
            image_grounded=ImageGrounded(weight=0.5, smoothing=0.02, focus=2.0),
            dense_grounded=DenseGrounded(weight=0.2, smoothing=0.02, focus=2.0),
        ),
        optim=replace(base.optim, lr=5e-6, weight_decay=0.1),
    )
