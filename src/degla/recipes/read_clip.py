"""READ-CLIP (arXiv 2510.16540), its decoder optional: NegCLIP's contrast, and paraphrases that find their captions."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, TextContrast, losses_by_name
from degla.recipes.negclip import negclip


def read_clip() -> TrainConfig:
    """The released settings (JiH00nKw0n/READ-CLIP b2f096c): three negatives, sentence alignment 0.5 with another
    caption of the image, learning rate 1e-5; the defaults of transformers' `Trainer`, AdamW (0.9, 0.999, 1e-8) and
    gradients clipped at norm 1.

    Its 5 epochs draw one of the five captions of each COCO image; an epoch here covers all captions, so 1 has as many
    steps. To add token reconstruction, which predicts another caption with a frozen T5 decoder, set
    --objective.token-reconstruction.weight 0.1 --data.decoder FOLDER. With an LLM's paraphrases in the column
    `positives`, set --data.positives both, which draws from them and the image's other captions as the released code
    does. Differs in the weight decay of vectors and the scale, which is 0 here, and in the maximum scale, 100 here and
    unbounded in the released code.

    Use when: images have several captions, or paraphrases are available. In the embedded world it did about as well as
    `negclip` in composition and recognition; on photographs its gain was not certain.
    """
    base = negclip()
    return replace(
        base,
        recipe="read_clip",
        data=replace(base.data, negatives_per_caption=3, positives_per_caption=1, positives="same_image"),
        objective=losses_by_name(
            contrastive=Contrastive(negative_scope="batch"), text_contrast=TextContrast(weight=0.5, anchor="positive")
        ),
        optim=replace(base.optim, lr=1e-5, weight_decay=0.1, beta2=0.999, eps=1e-8, clip_norm=1.0),
        train=replace(base.train, epochs=1),
    )
