"""CoN-CLIP (arXiv 2403.20312): negated captions as negatives of their images, and as texts of distractor images."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Distractor, losses_by_name
from degla.recipes.clip import clip


def con_clip() -> TrainConfig:
    """The released settings: batch size 200, lr 1e-6, weight decay 0.2, AdamW (0.9, 0.999, 1e-8), frozen image tower.

    Reads the columns `distractor_image` and `distractor_text` (negated caption). Differs from the released code in the
    weight decay of vectors, biases and the scale, which is 0 here (0.2 there), and in random crops (none there).

    Use when: recognition must be kept and second images are available (`degla distractors`). In the embedded world it
    had the best joint score of all recipes at one learning rate, also with other words; on photographs it gained
    nothing.
    """
    base = clip()
    return replace(
        base,
        recipe="con_clip",
        objective=losses_by_name(distractor=Distractor(image=1 / 3, caption=1 / 3, distractor=1 / 3)),
        optim=replace(base.optim, lr=1e-6, weight_decay=0.2, beta2=0.999, eps=1e-8, warmup_steps=50),
        train=replace(base.train, batch_size=200, train_image_tower=False),
    )
