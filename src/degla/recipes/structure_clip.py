"""Structure-CLIP (arXiv 2305.06152) without its knowledge encoder: hinge losses on the hardest and on own negatives."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import HardestHinge, OwnHinge, losses_by_name
from degla.recipes.clip import clip


def structure_clip() -> TrainConfig:
    """The released script's settings: batch size 64, 10 epochs, constant lr 5e-6, one negative, weights 1 and 5.

    The knowledge encoder, a second text encoder over scene-graph triples, is left out: it needs triples of every text
    at test time too, so the result would not be an open_clip model. Differs from the script in the weight decay of
    vectors and biases, which is 0 here (0.1 there). The script computes in float32: --train.precision fp32.

    Use when: composition matters most. In the embedded world it had the highest composition of all recipes at one
    learning rate (not on other words than those of its captions), and lost about as much recognition as `negclip`; on
    photographs it and `tsvlc` gained most, but little where the text does not give the answer away.
    """
    base = clip()
    return replace(
        base,
        recipe="structure_clip",
        data=replace(base.data, negatives_per_caption=1),
        objective=losses_by_name(
            hardest_hinge=HardestHinge(weight=1.0, margin=0.2), own_hinge=OwnHinge(weight=5.0, margin=0.1)
        ),
        optim=replace(
            base.optim, lr=5e-6, weight_decay=0.1, beta2=0.999, eps=1e-8, warmup_steps=0, schedule="constant"
        ),
        train=replace(base.train, batch_size=64, epochs=10),
    )
