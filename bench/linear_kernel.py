"""Compare stages of an fp32 training step with PyTorch's and oneDNN's linear layers, alternating in one process."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from degla.cli import exit_status_of
from degla.losses.core import Processes
from degla.model.linear_kernel import has_kernel, settle
from degla.model.load import load_encoder
from degla.speed.machine import device_name
from degla.speed.stages import STAGES, PresentStep, take_step
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.verbs._arguments import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--negatives", type=at_least(0), default=4)
    parser.add_argument("--captions", type=Path, help="real captions (default: some of the embedded world)")
    parser.add_argument("--negatives-file", type=Path, help="their negatives, made by degla negatives")
    parser.add_argument("--rounds", type=at_least(1), default=2)
    given = parser.parse_args()
    if not has_kernel():
        parser.error("this build of PyTorch has no oneDNN kernel for linear layers")
    workload = Workload(
        model=given.model, batch_size=given.batch_size, negatives=given.negatives, captions=given.captions,
        negatives_file=given.negatives_file,
    )  # fmt: skip
    config, encoder = workload.config("fp32"), load_encoder(given.model)
    batch = make_batch(workload, encoder, precision="fp32")
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=1000)
    step = PresentStep(trainer, batch)
    found: dict[str, list[dict[str, float]]] = {"own": [], "oneDNN": []}
    for _ in range(given.rounds + 1):
        for name, rows in found.items():
            settle(name == "oneDNN")
            rows.append(take_step(step, device=torch.device("cpu"), clock=time.process_time)[1])
    print(f"{device_name(torch.device('cpu'))}, {given.model}, B={given.batch_size}, K={given.negatives}; processor "
          f"seconds, best of {given.rounds}")  # fmt: skip
    print(f"{'':<15} {'own':>7} {'oneDNN':>7}  own / oneDNN")
    total = {name: min(sum(row.values()) for row in rows[1:]) for name, rows in found.items()}
    for stage in STAGES:
        own, other = (min(row[stage] for row in rows[1:]) for rows in found.values())
        print(f"{stage:<15} {own:7.2f} {other:7.2f}  {own / max(other, 1e-9):.2f}")
    print(f"{'whole step':<15} {total['own']:7.2f} {total['oneDNN']:7.2f}  {total['own'] / total['oneDNN']:.2f}")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
