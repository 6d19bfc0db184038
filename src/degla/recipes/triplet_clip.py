"""TripletCLIP (arXiv 2411.02545): contrast of images and captions, and of negatives and images generated from them."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, DistractorContrastive, losses_by_name
from degla.recipes.clip import clip


def triplet_clip() -> TrainConfig:
    """The published loss, the sum of two contrasts with exchanged roles, with the optimiser of `clip`.

    Reads the columns `distractor_image` (generated from the negative) and `distractor_text` (the negative). The
    released settings (lr 5e-4, batch size 1024, weight decay 0.5, 1000 warm-up steps) train from scratch; none were
    released for fine-tuning.

    Use when: you have an image generated from each negative. In the embedded world its joint score was about that of
    `negclip`, and it gained most composition on other words than those of its captions.
    """
    base = clip()
    return replace(
        base,
        recipe="triplet_clip",
        data=replace(base.data, negatives_per_caption=1, distractor_negative=True),
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"), distractor_contrastive=DistractorContrastive()
        ),
    )
