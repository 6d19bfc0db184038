"""CE-CLIP (arXiv 2306.08832): NegCLIP's contrast, intra-modal contrast and ranking with an adaptive threshold."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, CrossModalRank, IntraModal, losses_by_name
from degla.recipes.negclip import negclip


def ce_clip() -> TrainConfig:
    """CE-CLIP with the weights of DeGLA's reproduction, 0.2 and 0.4 (CE-CLIP's script: 0.3 and 0.2, lr 5e-6).

    Use when: you compare with CE-CLIP. In the embedded world it gained more than `negclip` on the words of its training
    captions, lost composition on other words, and lost more recognition than any other recipe.
    """
    base = negclip()
    return replace(
        base,
        recipe="ce_clip",
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"),
            intra_modal=IntraModal(weight=0.2),
            cross_modal_rank=CrossModalRank(weight=0.4),
        ),
        optim=replace(base.optim, weight_decay=0.1),
    )
