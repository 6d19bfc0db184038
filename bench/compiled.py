"""Compare a training step with both towers compiled by torch.compile to the eager one: time, loss, gradients."""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch._dynamo.utils import counters

from degla.cli import exit_status_of
from degla.data.batches import Batch
from degla.losses.core import Processes
from degla.model.load import load_encoder
from degla.speed.machine import device_name
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.training.step import Trainer
from degla.verbs._arguments import at_least


def spent() -> float:
    """Return processor seconds of this process and of the finished compilers that it started."""
    return sum(os.times()[:4])


def open_step(workload: Workload, precision: str) -> tuple[Trainer, Batch]:
    """Return the recipe's trainer and one batch."""
    config = workload.config(precision)
    accelerator = open_accelerator(config)
    encoder = load_encoder(config.model, device=accelerator.device)
    # The batch determines the layout of the texts; it comes before the trainer, as in training.
    batch = make_batch(workload, encoder, precision=precision).to(accelerator.device)
    return build_trainer(config, accelerator, encoder, Processes(), rules=1, steps=1000), batch


def open_both(workload: Workload, precision: str) -> list[tuple[Trainer, Batch]]:
    """Return the eager and the compiled step."""
    sides = [workload.model_copy(update={"compile": compile}) for compile in (False, True)]
    return [open_step(side, precision) for side in sides]


def first(trainer: Trainer, batch: Batch) -> tuple[float, dict[str, torch.Tensor], float]:
    """Return loss and gradients of the batch, and their processor seconds."""
    started = spent()
    loss, _ = trainer.backward(batch)
    taken = spent() - started
    named = trainer.encoder.named_parameters()
    return loss.item(), {name: value.grad.clone() for name, value in named if value.grad is not None}, taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--batch-size", type=at_least(1), default=16)
    parser.add_argument("--negatives", type=at_least(0), default=4)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    given = parser.parse_args()
    workload = Workload(model=given.model, batch_size=given.batch_size, negatives=given.negatives)
    eager, compiled = open_both(workload, given.precision)
    loss, gradients, _ = first(*eager)
    counters.clear()
    other_loss, others, to_compile = first(*compiled)
    graphs = counters["stats"]["unique_graphs"]
    gap = max(float((others[name] - value).norm() / value.norm()) for name, value in gradients.items())
    seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
    for number in range(given.rounds + 1):
        for name, (trainer, batch) in (("eager", eager), ("compiled", compiled)):
            started = time.process_time()
            trainer.step(batch, step=number)
            if number:
                seconds[name].append(time.process_time() - started)
    ratios = [slow / fast for slow, fast in zip(seconds["eager"], seconds["compiled"], strict=True)]
    print(f"{device_name(eager[0].encoder.device)}, {given.model}, B={given.batch_size}, K={given.negatives}, "
          f"{given.precision}; processor seconds")  # fmt: skip
    for name, values in seconds.items():
        print(f"{name:<9} {statistics.median(values):7.3f} per step, {min(values):.3f} at best")
    print(f"eager / compiled: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"first step, including compiling: {to_compile:.0f} s, {graphs} graphs; loss within "
          f"{abs(loss - other_loss) / abs(loss):.1e}, gradients within {gap:.1e}, relative")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
