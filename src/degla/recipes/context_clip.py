"""Contextualization Distillation (arXiv 2402.01729) applied to CLIP: NegCLIP with longer true captions."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, PositiveContrast, losses_by_name
from degla.recipes.negclip import negclip


def context_clip() -> TrainConfig:
    """`negclip` with `positive_contrast`, weight 0.5, between images and longer true captions.

    Reads the column `positives`, which `degla prepare contexts` fills with a text about the objects and relations that
    a caption names. The original method, on knowledge graphs, is `degla system contextualization`; its use for CLIP is
    this package's own. 0.5 is one of the paper's weights of texts (0.1, 0.5, 1), not tuned. Its second task,
    reconstructing the text, needs a decoder: --objective.token-reconstruction.weight 0.1 --data.decoder FOLDER.

    Use when: captions name several objects and relations. In the embedded world it gained less composition than
    `negclip` at a weight of 1.5, chosen on validation scenes.
    """
    base = negclip()
    return replace(
        base,
        recipe="context_clip",
        data=replace(base.data, positives_per_caption=1),
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"),
            positive_contrast=PositiveContrast(weight=0.5, mask_same_image=True),
        ),
    )
