"""Recipes at the size of the tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.config.sections import CheckpointConfig, TrackingConfig
from degla.shelf import RECIPES
from degla.training.loop import TrainResult, train
from degla.training.sharding import NEEDS_TORCH
from tests.launch import run_together

needs_slices = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < NEEDS_TORCH,
    reason="--train.strategy fsdp refuses this PyTorch, as a test of its own holds",
)


def tiny_config(recipe: str, *, model: Path, pairs: dict[str, Path], out: Path, **loop: Any) -> TrainConfig:
    """A recipe on the tiny model and pairs: batches of 4 with 2 negatives, one checkpoint per epoch."""
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


def whole_and_resumed(config: TrainConfig, *, at: int = 2) -> tuple[TrainResult, TrainResult]:
    """A run with a checkpoint after step `at`, and a copy of it, truncated there and resumed to the end."""
    assert config.out is not None
    config = replace(config, checkpoint=replace(config.checkpoint, every_steps=at))
    whole, half = train(config), replace(config, out=config.out.with_name("half"))
    shutil.copytree(config.out, half.out)
    cut_off(half, at=at)
    return whole, train(half, resume=True)


def interrupted(whole: TrainConfig, out: Path) -> TrainConfig:
    """The same run in another folder, truncated after step 2 and ready to be resumed."""
    half = replace(whole, out=out, checkpoint=replace(whole.checkpoint, every_steps=2))
    train(half)
    cut_off(half, at=2)
    return half


def cut_off(config: TrainConfig, *, at: int) -> None:
    """Leave a run's folder as if its process had ended while writing the first checkpoint after step `at`."""
    assert config.out is not None
    for later in config.out.glob("step-*/state.json"):
        if int(later.parent.name.removeprefix("step-")) > at:
            later.unlink()


TRAIN = """
import json, sys
from degla.config.fields import from_plain
from degla.training.loop import train
train(from_plain(json.loads(sys.argv[1]), where="test"), resume=len(sys.argv) > 2)
"""


def train_in(processes: int, config: TrainConfig, *, resume: bool = False) -> str:
    """Run `train` in new processes, which have no flags to read; return what they wrote to stderr."""
    words = ["-c", TRAIN, json.dumps(to_plain(config)), *(["resume"] if resume else [])]
    return run_together(words, count=processes)
