"""Gradients of the first batch with several processes, and how many weights were gathered at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from degla.config.fields import from_plain
from degla.config.run import TrainConfig
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.training.build import build_trainer, open_accelerator
from degla.training.pairs import open_pairs
from tests.attention_forms import models_of


def first_gradients(config: TrainConfig) -> dict[str, Any]:
    """Loss, gradients by name, and the largest number of blocks and tables gathered at a time."""
    accelerator = open_accelerator(config)
    processes = Processes.current()
    encoder = load_encoder(config.model, device=accelerator.device, seed=config.train.seed)
    pairs = open_pairs(config, encoder=encoder, processes=processes)
    trainer = build_trainer(config, accelerator, encoder, processes, rules=len(pairs.dataset.rules), steps=10)
    assert trainer.teacher is not None
    with torch.no_grad():
        # A teacher equal to its student would hide the gradient of distillation; whole copies share frozen parameters.
        for value, own in zip(trainer.teacher.encoder.parameters(), trainer.encoder.parameters(), strict=True):
            value.mul_(1.1 if own.requires_grad else 1.0)
    student, teacher = (_watch(model) for model in (trainer.encoder, trainer.teacher.encoder))
    batch = next(iter(pairs.batches(0, start=0, device=accelerator.device)))
    loss, _ = trainer.backward(batch)
    gradients, clipped = _gradients(trainer.encoder), {}
    if trainer.sharding is not None:
        trainer.sharding.clip_gradients(float(torch.stack([grad.norm() for grad in gradients.values()]).norm()) / 4)
        clipped = _gradients(trainer.encoder)
    return {
        "loss": processes.total(loss) / processes.count,
        "gradients": gradients,
        "clipped": clipped,
        "student": student,
        "teacher": teacher,
    }


def _gradients(model: Encoder) -> dict[str, torch.Tensor]:
    named = [(name, value.grad) for name, value in model.named_parameters() if value.grad is not None]
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad.clone() for name, grad in named}


def _watch(model: Encoder) -> dict[str, list[int]]:
    """Count what is gathered while each block runs, forward and backward."""
    counts: dict[str, list[int]] = {"blocks": [], "tables": []}
    blocks = [*model.clip.visual.transformer.resblocks, *model.clip.transformer.resblocks]

    def count(*_: Any) -> None:
        weights = [block.mlp.c_fc.weight for block in blocks]
        counts["blocks"].append(sum(not isinstance(weight, DTensor) for weight in weights))
        counts["tables"].append(int(not isinstance(model.clip.token_embedding.weight, DTensor)))

    def both_ways(module: Any, inputs: Any, output: torch.Tensor) -> None:
        count()
        if output.requires_grad:
            output.register_hook(count)

    for block in blocks:
        block.ln_2.register_forward_hook(both_ways)
    return counts


def main() -> None:
    out, *plain = sys.argv[1:]
    gradients = []
    for text in plain:
        form, config = json.loads(text)
        with models_of(form):
            gradients.append(first_gradients(from_plain(config, where="test")))
    if Processes.current().rank == 0:
        torch.save(gradients, Path(out))


if __name__ == "__main__":
    main()
