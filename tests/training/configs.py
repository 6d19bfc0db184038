"""Recipes at the size of the tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.config.run import TrainConfig
from degla.config.sections import CheckpointConfig, TrackingConfig
from degla.shelf import RECIPES
from degla.training.loop import train
from degla.training.sharding import NEEDS_TORCH

needs_slices = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < NEEDS_TORCH,
    reason="--train.strategy fsdp refuses this PyTorch, as a test of its own holds",
)


def tiny_config(recipe: str, *, model: Path, pairs: dict[str, Path], out: Path, **loop: Any) -> TrainConfig:
    """A recipe on the tiny model and pairs: batches of 4 with 2 negatives, one checkpoint a pass."""
    config: TrainConfig = getattr(RECIPES.load(recipe), recipe)()
    wanted = min(config.data.negatives_per_caption, 2)
    if config.replay.active:
        again = replace(config.replay.data, captions=pairs["captions"], images=pairs["images"])
        if again.negatives_per_caption:
            again = replace(again, negatives=pairs["negatives"])
        config = replace(config, replay=replace(config.replay, batch_size=4, data=again))
    return replace(
        config,
        model=str(model),
        out=out,
        data=replace(config.data, **pairs, negatives_per_caption=wanted),
        optim=replace(config.optim, lr=1e-3, warmup_steps=2),
        train=replace(config.train, **{"batch_size": 4, "steps": 4, "precision": "fp32", "seed": 3} | loop),
        checkpoint=CheckpointConfig(every_minutes=0, keep=0),
        tracking=TrackingConfig(every_steps=1),
    )


def interrupted(whole: TrainConfig, out: Path) -> TrainConfig:
    """The same run in another folder, cut off behind step 2: ready to be resumed."""
    half = replace(whole, out=out, checkpoint=replace(whole.checkpoint, every_steps=2))
    train(half)
    for name in ("step-3", "step-4"):
        if (out / name).is_dir():
            (out / name / "state.json").unlink()
    return half
