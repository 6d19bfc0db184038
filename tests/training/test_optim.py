"""Parameter groups and the learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.config.sections import OptimConfig
from degla.model.load import load_encoder
from degla.training.optim import build_optimizer, learning_rate


def test_learning_rate_at_the_places_that_matter() -> None:
    config = OptimConfig(lr=2.0, warmup_steps=10)
    rate = {step: learning_rate(step, steps=110, config=config) for step in (0, 4, 9, 10, 60, 109, 110, 500)}
    assert rate[0] == pytest.approx(0.2)
    assert rate[4] == pytest.approx(1.0)
    assert rate[9] == rate[10] == pytest.approx(2.0)
    assert rate[60] == pytest.approx(1.0)
    assert 0 < rate[109] < 0.001
    assert rate[110] == rate[500] == pytest.approx(0.0, abs=1e-12)
    flat = OptimConfig(lr=2.0, warmup_steps=0, schedule="constant")
    assert {learning_rate(step, steps=5, config=flat) for step in range(5)} == {2.0}


def test_only_matrices_decay(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    optimizer = build_optimizer(encoder, OptimConfig(weight_decay=0.1))
    names = {id(value): name for name, value in encoder.named_parameters()}
    decayed, others = ({names[id(value)] for value in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert "clip.visual.conv1.weight" in decayed and "clip.token_embedding.weight" in decayed
    assert {"clip.logit_scale", "clip.ln_final.weight", "clip.visual.ln_pre.bias"} <= others
    assert decayed | others == set(names.values()) and not decayed & others
    without = build_optimizer(encoder, OptimConfig(weight_decay=0.0)).param_groups
    assert [len(group["params"]) for group in without] == [len(decayed), len(others)], "as in checkpoints"


def test_frozen_parameters_are_not_optimised(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    encoder.clip.visual.requires_grad_(False)
    optimizer = build_optimizer(encoder, OptimConfig())
    ids = {id(value) for group in optimizer.param_groups for value in group["params"]}
    assert not ids & {id(value) for value in encoder.clip.visual.parameters()}
