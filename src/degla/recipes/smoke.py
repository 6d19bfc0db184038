"""A few steps of DeGLA on the embedded model: does this machine, this data, this installation work?"""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.config.sections import LoopConfig
from degla.recipes.degla import degla


def smoke() -> TrainConfig:
    """Four steps of batch 8 with 2 negatives.

    Use when: machine, data and installation are to be checked; what it trains is of no use.
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
