"""DeGLA (arXiv 2504.16801): decoupled global and local alignment with self-distillation and correct pairing."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, ImageGrounded, SelfDistillation, TextGrounded, losses_by_name
from degla.model.teacher import TeacherConfig
from degla.recipes.negclip import negclip


def degla() -> TrainConfig:
    """The paper's settings: weights 0.1, 0.1 and 0.005 (as a sum over batch 256 with 4 negatives), decay 0.9996.

    As in the released code, every image is compared with the negatives of the whole batch; the paper's Eq. 4 has only
    its own: --objective.contrastive.negative-scope own.

    Use when: a teacher should preserve what the model knew. In the embedded world, at one learning rate, it kept more
    recognition than `clip`, `negclip` and `ce_clip`, and gained less composition than the last two; on photographs it
    forgot almost nothing, and a small gain is shown only with the image tower trained.
    """
    base = negclip()
    return replace(
        base,
        recipe="degla",
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"),
            image_grounded=ImageGrounded(weight=0.1),
            text_grounded=TextGrounded(weight=0.1, fixed_scale=10.0, pairing="own"),
            self_distillation=SelfDistillation.published_sum(0.005, batch_size=256, negatives=4),
        ),
        teacher=TeacherConfig(kind="average", decay=0.9996),
        optim=replace(base.optim, weight_decay=0.1),
    )
