"""NegCLIP (ICLR 2023): contrast with the hard negatives of the whole batch as further texts for every image."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.losses import Contrastive, losses_by_name
from degla.recipes.clip import clip


def negclip() -> TrainConfig:
    """NegCLIP's text side with DeGLA's data form, K = 4 (arXiv 2504.16801, comparison runs).

    NegCLIP's README trains with weight decay 0.2 (its parser's default) and one negative a caption; its hard *images*
    are not part of this recipe.

    Use when: composition counts more than what is forgotten. In the embedded world its average with the base, or only
    its last image block trained, kept far more recognition.
    """
    base = clip()
    return replace(
        base,
        recipe="negclip",
        data=DataConfig(negatives_per_caption=4),
        objective=losses_by_name(contrastive=Contrastive(negative_scope="batch")),
        optim=replace(base.optim, weight_decay=0.2),
    )
