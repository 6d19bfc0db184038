"""Plain contrastive fine-tuning on image-caption pairs, without negatives: the baseline of all other recipes."""

from __future__ import annotations

from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, LoopConfig, OptimConfig
from degla.losses import Contrastive, losses_by_name


def clip() -> TrainConfig:
    """CLIP fine-tuned as in the compared papers: OpenAI ViT-B/32, lr 1e-6, batch size 256, 5 epochs (NegCLIP's README).

    Use when: you need a baseline, which shows how much a model forgets from narrow data alone.
    """
    return TrainConfig(
        recipe="clip",
        model="ViT-B-32-quickgelu:openai",
        data=DataConfig(negatives_per_caption=0),
        objective=losses_by_name(contrastive=Contrastive(negative_scope="none")),
        optim=OptimConfig(lr=1e-6, weight_decay=0.1, warmup_steps=50),
        train=LoopConfig(batch_size=256, epochs=5),
    )
