"""CLIC (arXiv 2505.24424): two images joined into one with texts of both, and every other step on single images."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import ReplayConfig, TrainConfig
from degla.losses import Contrastive, ImageGrounded, PositiveContrast, PositiveGrounded, TextPull, losses_by_name
from degla.recipes.clip import clip


def clic() -> TrainConfig:
    """The released losses (AmitPeleg/CLIC dc845c7): half a contrast of four texts, half their contrast with the one
    negative, and the distance of the first two, which are one text in both orders; every other step is CLIP's loss on
    single images. The image tower is frozen.

    `degla prepare composites` makes images, texts and negatives from captions: --data.captions FOLDER/captions.jsonl,
    --data.images FOLDER/images, --data.negatives FOLDER/negatives.jsonl; --replay.data.captions and
    --replay.data.images are the original captions and images.

    AdamW (0.9, 0.98, 1e-8), weight decay 0.1, learning rate 1e-6, batch size 800, 1 epoch. Warm-up is 50 steps, from 0;
    the released code warms up for a fifth of its epoch from 1e-7, ends its cosine at 1e-8, and normalises composites
    with ImageNet's statistics and single images with CLIP's (CL-1); here both use the model's own.

    Use when: no hard negatives that read like captions are available, and the image tower must not change. In the
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
