"""A training run takes the steps that its flags promise, compared with AdamW, schedule, clipping and EMA by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from degla.config.sections import OptimConfig
from degla.model.load import load_encoder
from degla.model.teacher import TeacherConfig
from degla.training.loop import train
from degla.training.step import Trainer
from tests.training.configs import tiny_config

Pairs = dict[str, Path]
Weights = dict[str, Tensor]
STEPS, WARMUP, LR, DECAY = 7, 3, 0.01, 0.5
BETA1, BETA2, EPS = 0.7, 0.8, 2e-4
LARGEST_SCALE = 13.5
TEACHER = 0.6


def expected_rate(step: int) -> float:
    """Linear warm-up to the full rate in step WARMUP - 1, then half a cosine towards 0 after the last step."""
    if step < WARMUP:
        return LR * (step + 1) / WARMUP
    return LR * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def expected_keep(step: int) -> float:
    """Share of the old teacher: TEACHER in the first step, 1 in the last, along half a cosine."""
    return 1 - (1 - TEACHER) * 0.5 * (1 + math.cos(math.pi * step / (STEPS - 1)))


def steps_by_hand(start: Weights, gradients: list[Weights], *, clip: float | None) -> tuple[Weights, Weights]:
    """Student and teacher in float64, from the weights before training and each step's unclipped gradients."""
    student = {name: value.double() for name, value in start.items()}
    teacher = dict(student)
    first = {name: torch.zeros_like(value) for name, value in student.items()}
    second = dict(first)
    for step, raw in enumerate(gradients):
        norm = math.sqrt(sum(float((value.double() ** 2).sum()) for value in raw.values()))
        shrink = 1.0 if clip is None else min(1.0, clip / norm)
        for name, value in student.items():
            gradient = raw[name].double() * shrink
            first[name] = BETA1 * first[name] + (1 - BETA1) * gradient
            second[name] = BETA2 * second[name] + (1 - BETA2) * gradient**2
            mean, square = first[name] / (1 - BETA1 ** (step + 1)), second[name] / (1 - BETA2 ** (step + 1))
            matrix = value.ndim >= 2 and not any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
            weight = value * (1 - expected_rate(step) * DECAY) if matrix else value
            student[name] = weight - expected_rate(step) * mean / (square.sqrt() + EPS)
        student["logit_scale"] = student["logit_scale"].clamp(0.0, math.log(LARGEST_SCALE))
        keep = expected_keep(step)
        teacher = {name: keep * teacher[name] + (1 - keep) * student[name] for name in teacher}
    return student, teacher


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_run_is_adamw_by_hand(
    clip: float | None, tiny_model: Path, tiny_pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[Weights] = []
    whole = Trainer.gradients

    def recorded(self: Trainer, *arguments: object, **options: object) -> object:
        own = list(self.encoder.clip.named_parameters())
        assert all(value.grad is None for _, value in own), "a gradient of the step before is left"
        result = whole(self, *arguments, **options)  # type: ignore[arg-type]
        gradients.append({name: value.grad.clone() for name, value in own if value.grad is not None})
        return result

    monkeypatch.setattr(Trainer, "gradients", recorded)
    config = tiny_config("degla", model=tiny_model, pairs=tiny_pairs, out=tmp_path / "run", steps=STEPS)
    config = replace(
        config,
        optim=OptimConfig(
            lr=LR, weight_decay=DECAY, beta1=BETA1, beta2=BETA2, eps=EPS, warmup_steps=WARMUP,
            clip_norm=clip, max_scale=LARGEST_SCALE,
        ),
        teacher=TeacherConfig(decay=TEACHER, schedule="cosine"),
    )  # fmt: skip
    folder = train(config).folder
    assert len(gradients) == STEPS
    start = {name: value.detach() for name, value in load_encoder(str(tiny_model)).clip.named_parameters()}
    assert gradients[0].keys() == start.keys()
    norms = [math.sqrt(sum(float((value**2).sum()) for value in step.values())) for step in gradients]
    assert min(norms) > 1, "no step would be clipped; the test shows nothing"
    student, teacher = steps_by_hand(start, gradients, clip=clip)
    assert start["logit_scale"] > math.log(LARGEST_SCALE) + LR, "the scale never meets its limit"
    for file, expected in (("open_clip_model.safetensors", student), ("teacher.safetensors", teacher)):
        weights = load_file(folder / file)
        moved = max(float((expected[name] - start[name]).abs().max()) for name in expected)
        worst = max(float((weights[name].double() - expected[name]).abs().max()) for name in expected)
        assert worst < 1e-4 * moved, f"{file}: off by {worst} where training moved weights by {moved}"
