"""Attention on processors by the faster of PyTorch's two kernels, which depends on length and training.

PyTorch takes its flash attention, which is the faster one forward. With the backward pass the two are much alike where
sequences are short, and for long ones it is flash attention by far (`bench/attention_kernel.py` has figures). Nothing
is measured here: the two round otherwise, and a resumed run must compute by the kernel that it began with, on another
machine or a busy one too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

_LONG = 128
"""Keys from which a sequence counts as long: a picture of ViT-B/16 has 197, of ViT-B/32 50, a caption at most 77."""


def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Scaled dot-product attention by the kernel that is fastest at this length."""
    if not plain_is_faster(query, key):
        return scaled_dot_product_attention(query, key, value, **options)
    # The choice is made here, inside of what gradient checkpointing runs again, so that both passes take the same.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, **options)


def plain_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether queries and keys [..., length, width] are better attended by products and a softmax in turn."""
    if query.device.type != "cpu":
        return False
    if torch.compiler.is_compiling():  # Lengths are symbols while a graph is made.
        return True
    # A training's passes without gradients (teacher, first pass of a gradient cache) must round as the others do.
    return key.shape[-2] < _LONG and not torch.is_inference_mode_enabled()
