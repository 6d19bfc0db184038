"""READ-CLIP (arXiv 2510.16540) without its decoder: NegCLIP's contrast, and captions that find their paraphrases."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.objectives._sum import terms
from degla.objectives.contrastive import Contrastive
from degla.objectives.text_contrast import TextContrast
from degla.recipes.negclip import negclip


def read_clip() -> TrainConfig:
    """The released settings: three negatives, sentence alignment 0.5 with another caption of the image, lr 1e-5.

    Token reconstruction (weight 0.1), which predicts another caption with a frozen T5 decoder, is left out. With an
    LLM's paraphrases in the column positives: --data.positives column.
    """
    base = negclip()
    return replace(
        base,
        recipe="read_clip",
        data=replace(base.data, negatives_per_caption=3, positives_per_caption=1, positives="same_image"),
        objective=terms(contrastive=Contrastive(negative_scope="batch"), text_contrast=TextContrast(weight=0.5)),
        optim=replace(base.optim, lr=1e-5, weight_decay=0.1),
    )
