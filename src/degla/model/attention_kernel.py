"""Attention on processors by the faster of PyTorch's two kernels, which depends on machine, length and training.

PyTorch takes its flash attention, which is the faster one forward. With the backward pass the two are much alike where
sequences are short, and which one is faster depends on the machine; for long ones it is flash attention by far
(`bench/attention_kernel.py` has figures).
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

_LONG = 128
"""Keys from which a sequence counts as long: a picture of ViT-B/16 has 197, of ViT-B/32 50, a caption at most 77."""
_CLEARLY_FASTER = 1.4
"""Far enough from what is found (0.8 to 1.2 for short sequences, 1.8 to 2.8 for long ones) that noise does not change
what a resumed run computes by."""


def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Scaled dot-product attention by the kernel that is fastest here."""
    if not plain_is_faster(query, key):
        return scaled_dot_product_attention(query, key, value, **options)
    # The choice is made here, inside of what gradient checkpointing runs again, so that both passes take the same.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, **options)


def plain_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether queries and keys [..., length, width] are better attended by products and a softmax in turn."""
    if query.device.type != "cpu":
        return False
    if torch.compiler.is_compiling():  # Nothing is measured while a graph is made.
        return True
    # A training's passes without gradients (teacher, first pass of a gradient cache) must round as the others do.
    return not torch.is_inference_mode_enabled() and not flash_is_faster(key.shape[-2] >= _LONG)


@cache
def flash_is_faster(long: bool) -> bool:
    """Whether flash attention, forward and backward, is clearly faster here; measured once, in about 50 ms."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 8, 256, 64) if long else (16, 8, 48, 64)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        query, key, value = (torch.randn(shape, generator=generator).requires_grad_() for _ in range(3))

        def seconds(kernel: SDPBackend) -> float:
            started = time.perf_counter()
            with sdpa_kernel(kernel):
                attended = scaled_dot_product_attention(query, key, value)
            torch.autograd.grad(attended, (query, key, value), attended.detach())
            return time.perf_counter() - started

        try:
            # In turns, and the best of several, because other work may run on the machine.
            turns = [(seconds(SDPBackend.MATH), seconds(SDPBackend.FLASH_ATTENTION)) for _ in range(6)]
        except RuntimeError:  # This build of PyTorch has no such kernel.
            return False
    plain, flash = (min(times) for times in zip(*turns, strict=True))
    return bool(plain > _CLEARLY_FASTER * flash)
