"""CLIC (arXiv 2505.24424): two pictures as one with texts of both, and every other step on single pictures."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import ReplayConfig, TrainConfig
from degla.losses import Contrastive, ImageGrounded, PositiveContrast, PositiveGrounded, TextPull, losses_by_name
from degla.recipes.clip import clip


def clic() -> TrainConfig:
    """The released losses (AmitPeleg/CLIC dc845c7): half a contrast of four texts, half their contrast with the one
    negative, and the distance of the first two, which are one text turned round; every other step is CLIP's loss on
    single pictures. The image tower is frozen.

    `degla prepare composites` makes pictures, texts and negatives from captions: --data.captions FOLDER/captions.jsonl,
    --data.images FOLDER/images, --data.negatives FOLDER/negatives.jsonl; --replay.data.captions and
    --replay.data.images are the captions and pictures themselves.

    AdamW (0.9, 0.98, 1e-8), weight decay 0.1, learning rate 1e-6, batch 800, 1 epoch. Warm-up is 50 steps, from 0; the
    release warms up for a fifth of its epoch from 1e-7, ends its cosine at 1e-8, and normalises composites by the
    statistics of ImageNet and single pictures by CLIP's (CL-1): here both by the model's own.

    Use when: no hard negatives are at hand that read like captions, and the image tower shall stay. In the
    embedded world it forgot little and gained less composition than `negclip`; on photographs it gained nothing.
    """
    base = clip()
    return replace(
        base,
        recipe="clic",
        data=replace(base.data, negatives_per_caption=1, positives_per_caption=3, smallest_crop=1.0),
        objective=losses_by_name(
            contrastive=Contrastive(weight=0.125, negative_scope="none"),
            positive_contrast=PositiveContrast(weight=0.375),
            image_grounded=ImageGrounded(weight=0.125),
            positive_grounded=PositiveGrounded(weight=0.375),
            text_pull=TextPull(weight=1.0, positives="first"),
        ),
        replay=ReplayConfig(
            objective=losses_by_name(contrastive=Contrastive(weight=1.0, negative_scope="none")), alternate=True
        ),
        optim=replace(base.optim, eps=1e-8),
        train=replace(base.train, batch_size=800, epochs=1, train_image_tower=False),
    )
