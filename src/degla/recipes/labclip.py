"""LABCLIP (arXiv 2502.03566): a linear map of the text embeddings, trained with NegCLIP's contrast on frozen towers."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import Contrastive, losses_by_name
from degla.model.adapters import AdapterConfig
from degla.recipes.clip import clip


def labclip() -> TrainConfig:
    """The released settings (kdariina/CLIP-not-BoW-unimodally, read in a fork at 03087dd): one matrix on the text
    embeddings, initially the identity; an unbounded scale that starts at 1; one negative per caption among the texts of
    the batch; Adam with constant learning rate 1e-3, without decay; batch size 1024, 10 epochs; each image embedded
    once, with the model's own transform.

    The released code shuffles nouns and adjectives among themselves (--data.rules reshuffle_order), leaves out captions
    of more than 40 words, and never reads COCO's restval images, although its loop is meant to. It also embeds texts
    once; here each step embeds those of its batch, without gradients. The scale stays at 1 or above; that of a
    sigmoid-loss model starts at its own value.

    Use when: the towers must not change, for example because images are already indexed. A checkpoint is a plain
    open_clip model with the base's image embeddings. It gained no composition here, neither in the embedded world nor
    on photographs.
    """
    base = clip()
    return replace(
        base,
        recipe="labclip",
        data=replace(base.data, negatives_per_caption=1),
        objective=losses_by_name(contrastive=Contrastive(negative_scope="batch")),
        adapter=AdapterConfig(text_map=True),
        optim=replace(
            base.optim,
            lr=1e-3,
            weight_decay=0.0,
            beta2=0.999,
            eps=1e-8,
            warmup_steps=0,
            schedule="constant",
            start_scale=1.0,
            max_scale=1e9,
        ),
        train=replace(
            base.train,
            batch_size=1024,
            epochs=10,
            train_image_tower=False,
            train_text_tower=False,
            embed_images_once=True,
        ),
    )
