"""A few steps of DeGLA on the embedded model, to check machine, data and installation."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.config.sections import LoopConfig
from degla.recipes.degla import degla


def smoke() -> TrainConfig:
    """Four steps of batch size 8 with 2 negatives.

    Use when: you want to check machine, data and installation; the trained model is useless.
    """
    base = degla()
    return replace(
        base,
        recipe="smoke",
        model="world",
        data=replace(base.data, negatives_per_caption=2),
        optim=replace(base.optim, lr=1e-4, warmup_steps=1),
        train=LoopConfig(batch_size=8, steps=4),
    )
