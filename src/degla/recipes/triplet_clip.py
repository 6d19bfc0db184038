"""TripletCLIP (arXiv 2411.02545): contrast of images and captions, and of the negatives with images drawn from them."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, DistractorContrastive, losses_by_name
from degla.recipes.clip import clip


def triplet_clip() -> TrainConfig:
    """The published loss, the sum of two contrasts with exchanged roles, under the optimiser of `clip`.

    Reads the columns distractor_image (drawn from the negative) and distractor_text (the negative). The released
    settings (lr 5e-4, batch 1024, weight decay 0.5, 1000 steps of warm-up) train from scratch; none were released for
    fine-tuning.

    Use when: there is an image drawn from each negative. In the embedded world its joint score was about that of
    `negclip`.
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
