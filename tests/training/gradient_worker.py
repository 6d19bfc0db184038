"""The first step's loss and gradients under any number of processes; run by torch.distributed.run or imported."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from degla.config.fields import from_plain
from degla.config.run import TrainConfig
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.training.build import build_trainer, open_accelerator
from degla.training.pairs import open_pairs
from degla.training.step import Trainer

Gradients = dict[str, torch.Tensor]


def first_step(config: TrainConfig, *, double: bool = False) -> tuple[torch.Tensor, Gradients, Trainer]:
    """Loss of the first batch over all processes, and the gradient of every parameter, also jointly trained ones."""
    accelerator = open_accelerator(config)
    processes = Processes.current()
    encoder = load_encoder(config.model, device=accelerator.device, seed=config.train.seed)
    pairs = open_pairs(config, encoder=encoder, processes=processes)
    trainer = build_trainer(config, accelerator, encoder, processes, rules=len(pairs.dataset.rules), steps=10)
    if trainer.teacher is not None:
        # A teacher equal to its student would hide the gradient of distillation.
        generator = torch.Generator().manual_seed(1)
        for value in trainer.teacher.encoder.parameters():
            value.data.mul_(1 + 0.1 * torch.randn(value.shape, generator=generator).to(value.device))
    batch = next(iter(pairs.batches(0, start=0, device=accelerator.device)))
    if double:
        encoder.double()
        batch = replace(batch, image=batch.image.double())
    loss, _ = trainer.backward(batch)
    along = (module.named_parameters(prefix=name) for name, module in trainer.along.items())
    named = chain(trainer.encoder.named_parameters(), *along)
    gradients = {name: value.grad.clone() for name, value in named if value.grad is not None}
    return processes.total(loss) / processes.count, gradients, trainer


def main() -> None:
    out, *plain = sys.argv[1:]
    results: dict[str, Any] = {}
    for text in plain:
        config = from_plain(json.loads(text), where="test")
        loss, gradients, _ = first_step(config)
        results[f"{config.train.chunk_size}"] = {"loss": loss, "gradients": gradients}
    if Processes.current().rank == 0:
        torch.save(results, Path(out))


if __name__ == "__main__":
    main()
