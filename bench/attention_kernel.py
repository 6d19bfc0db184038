"""Compare PyTorch's plain and flash CPU attention kernels: forward, and forward with backward, alternating.

Captions are causal, as in CLIP's text tower, images are not. Reports processor time, so other load on the machine
matters little; the ratio is plain over flash.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from degla.cli import exit_status_of
from degla.speed.machine import device_name
from degla.verbs._arguments import at_least

SHAPES = {
    "captions of 20 tokens": (128, 8, 20, 64),
    "ViT-B/32, 50 patches": (32, 12, 50, 64),
    "captions of 77 tokens": (32, 8, 77, 64),
    "ViT-B/16, 197 patches": (8, 12, 197, 64),
    "ViT-L/14 at 336, 577 patches": (2, 16, 577, 64),
}
KERNELS = (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=9)
    parser.add_argument("--threads", type=at_least(1), default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{device_name(torch.device('cpu'))}; best of {given.rounds}, in milliseconds")
    print(f"{'':<30}{'plain':>8}{'flash':>8}  ratio   {'with backward':>14}{'flash':>8}  ratio")
    for name, shape in SHAPES.items():
        rows, causal = [torch.randn(shape, requires_grad=True) for _ in range(3)], name.startswith("captions")
        forward = compare(partial(attend, rows=rows, causal=causal, backward=False), given.rounds)
        both = compare(partial(attend, rows=rows, causal=causal, backward=True), given.rounds)
        print(f"{name:<30}{forward[0]:8.1f}{forward[1]:8.1f}  {forward[0] / forward[1]:5.2f}   "
              f"{both[0]:14.1f}{both[1]:8.1f}  {both[0] / both[1]:5.2f}")  # fmt: skip


def attend(kernel: SDPBackend, rows: list[torch.Tensor], *, causal: bool, backward: bool) -> None:
    with sdpa_kernel(kernel), torch.set_grad_enabled(backward):
        attended = scaled_dot_product_attention(*rows, is_causal=causal)
    if backward:
        torch.autograd.grad(attended, rows, attended.detach())


def compare(work: Callable[[SDPBackend], None], rounds: int) -> list[float]:
    """Return milliseconds per kernel, the minimum over alternating rounds."""
    times: dict[SDPBackend, list[float]] = {kernel: [] for kernel in KERNELS}
    for _ in range(rounds):
        for kernel, found in times.items():
            started = time.process_time()
            work(kernel)
            found.append(1000 * (time.process_time() - started))
    return [min(found) for found in times.values()]


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
