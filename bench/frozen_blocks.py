"""Compare steps in which frozen image blocks run once to steps in which each pass of student and teacher runs them.

The recipe is `degla_plus`, which trains the last image block. Reports processor time, so other load on the machine
matters little. Loss and gradients must be equal to the bit.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from degla.cli import exit_status_of
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.recipes.degla_plus import degla_plus
from degla.speed.machine import device_name
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.verbs._arguments import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--batch-size", type=at_least(1), default=16)
    parser.add_argument("--negatives", type=at_least(0), default=4)
    parser.add_argument("--chunk-size", type=at_least(1), help="as --train.chunk-size; default: none")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    given = parser.parse_args()
    fields = ("model", "batch_size", "negatives", "chunk_size")
    workload, recipe = Workload(**{name: getattr(given, name) for name in fields}), degla_plus()
    config = workload.config(given.precision)
    freeze = recipe.train.freeze_image_blocks
    config = replace(config, objective=recipe.objective, train=replace(config.train, freeze_image_blocks=freeze))
    accelerator = open_accelerator(config)
    encoder = load_encoder(config.model, device=accelerator.device)
    batch = make_batch(workload, encoder, precision=given.precision).to(accelerator.device)
    trainer = build_trainer(config, accelerator, encoder, Processes(), rules=1, steps=1000)
    sides = {"shared": trainer.main, "each": replace(trainer.main, shared_blocks=0)}
    first = {}
    for name, stream in sides.items():
        loss, _ = trainer.backward(batch, stream)
        first[name] = [loss, *(value.grad for value in encoder.parameters() if value.grad is not None)]
        trainer.optimizer.zero_grad(set_to_none=True)
    if not all(map(torch.equal, first["shared"], first["each"])):
        raise SystemExit("loss or gradients differ")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(given.rounds):
        for name, stream in sides.items():
            trainer.main = stream
            started = time.process_time()
            trainer.step(batch, step=number)
            seconds[name].append(time.process_time() - started)
    ratios = [slow / fast for slow, fast in zip(seconds["each"], seconds["shared"], strict=True)]
    size = f"B={given.batch_size}, chunks of {given.chunk_size or given.batch_size}, K={given.negatives}"
    blocks = sides["shared"].shared_blocks
    print(f"{device_name(encoder.device)}, {given.model}, {size}, {given.precision}; {blocks} blocks; CPU seconds")
    for name, values in seconds.items():
        print(f"{name:<7} {statistics.median(values):7.3f} per step, {min(values):.3f} at best")
    print(f"each / shared: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
          "loss and gradients are equal")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
