"""Compare memory of the objective at a large batch: blockwise here, full matrices and dense masks as released."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time

import torch
from torch.nn import functional

from degla.cli import exit_status_of
from degla.losses.core import Embeddings, Processes, Target
from degla.losses.core.objective import Objective
from degla.recipes.degla import degla
from degla.speed.machine import peak_memory
from degla.speed.stages import BaselineStep
from degla.verbs._arguments import at_least


class _Released(BaselineStep):
    """The released loss on given embeddings, without a model."""

    def __init__(self, rows: int, count: int, scale: torch.Tensor) -> None:
        self.rows, self.count, self.config = rows, count, degla()
        self.student = torch.nn.Module()
        self.student.logit_scale = torch.nn.Parameter(scale)


def measure(side: str, pairs: int, negatives: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def rows(count: int) -> torch.Tensor:
        return functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)

    image, text, taught_image, taught_text = (
        rows(pairs),
        rows(pairs * (1 + negatives)),
        rows(pairs),
        rows(pairs * (1 + negatives)),
    )
    image.requires_grad_()
    text.requires_grad_()
    scale = torch.tensor(4.0)
    before = peak_memory(image.device)
    started = time.process_time()
    if side == "released":
        loss = _Released(pairs, negatives, scale).loss(image, text, taught_image, taught_text)
    else:
        shape = (pairs, negatives)
        student = Embeddings(
            image=image, caption=text[:pairs], negative=text[pairs:].unflatten(0, shape),
            valid=torch.ones(shape, dtype=torch.bool), scale=scale.clone().requires_grad_().exp(),
            group=torch.arange(pairs), rule=torch.zeros(shape, dtype=torch.long),
        )  # fmt: skip
        target = Target(
            image=taught_image, caption=taught_text[:pairs], negative=taught_text[pairs:].unflatten(0, shape)
        )
        loss, _ = Objective(degla().objective, rules=1).value(student, target, Processes())
    loss.backward()
    seconds, grown = time.process_time() - started, peak_memory(image.device) - before
    print(loss.item(), image.grad.norm().item(), text.grad.norm().item(), grown, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=at_least(1), default=4096, help="B (4096)")
    parser.add_argument("--negatives", type=at_least(0), default=4, help="K (4)")
    parser.add_argument("--dim", type=at_least(1), default=512, help="D (512)")
    parser.add_argument("--side", choices=["released", "degla"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        measure(given.side, given.pairs, given.negatives, given.dim)
        return
    words = ["--pairs", str(given.pairs), "--negatives", str(given.negatives), "--dim", str(given.dim)]
    found = {}
    for side in ("released", "degla"):
        done = subprocess.run(
            [sys.executable, __file__, *words, "--side", side], check=True, capture_output=True, text=True
        )
        found[side] = [float(word) for word in done.stdout.split()]
        loss, image, text, grown, seconds = found[side]
        print(
            f"{side:<9} {grown / 2**20:8.0f} MiB  {seconds:6.2f} processor seconds  loss {loss:.6f}  "
            f"gradients {image:.6g}, {text:.6g}"
        )
    print(f"{platform.machine()}, B={given.pairs}, K={given.negatives}, D={given.dim}, fp32, "
          f"forward and backward of the whole objective; "
          f"released / degla: {found['released'][3] / found['degla'][3]:.1f} x the memory, "
          f"{found['released'][4] / found['degla'][4]:.1f} x the time")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
